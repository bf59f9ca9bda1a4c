//! `Retry-After`: how long a peer asks to be left alone.
//!
//! Source: RFC 9110, 10.2.3.

use std::time::{Duration, UNIX_EPOCH};

use crate::domain::Wall;

/// Nobody is left alone for longer.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// Reads seconds or a date; at most [`RETRY_AFTER_MAX`]. `None`: it says nothing that can be read.
#[must_use]
pub fn parse(value: &str, now: Wall) -> Option<Duration> {
    let value = value.trim();
    let asked = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number holds are more than enough, too.
        value.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let date = date.duration_since(UNIX_EPOCH).ok()?;
        date.saturating_sub(Duration::from_nanos(now.as_ns()))
    };
    Some(asked.min(RETRY_AFTER_MAX))
}
