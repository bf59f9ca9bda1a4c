//! Values within bounds.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

use crate::bench::{CONNECTIONS_MAX, DURATION_S_MAX, SERVICES_MAX};

/// A count that fits into memory, within bounds.
pub(super) fn count(min: u32, max: u32) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(u64::from(min)..=u64::from(max))
}

/// Of connections.
pub(super) fn connections() -> RangedU64ValueParser<usize> {
    count(1, CONNECTIONS_MAX)
}

/// Of services.
pub(super) fn services() -> RangedU64ValueParser<usize> {
    count(1, SERVICES_MAX)
}

/// `500ms`, `3s`, `1.5s`, `2m`, `1h`; without a unit, seconds. An hour at the most.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let unit_s = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is expected, for example 500ms, 10s, 2m or 1h".to_owned()),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "a time is expected, for example 500ms, 10s, 2m or 1h".to_owned())?;
    let length = Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())?;
    match length <= Duration::from_secs(u64::from(DURATION_S_MAX)) {
        true => Ok(length),
        false => Err("it is longer than an hour".to_owned()),
    }
}

/// The same, and not nothing.
pub(super) fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        length if length < Duration::from_millis(10) => {
            Err("it is shorter than 10 ms, in which nothing can be measured".to_owned())
        }
        length => Ok(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, ms) in [
            ("500ms", 500),
            ("3s", 3000),
            ("2", 2000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "2h", "1.2.3s", "99999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive("0s").is_err() && positive("10ms").is_ok());
    }
}
