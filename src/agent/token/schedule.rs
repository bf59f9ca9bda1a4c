//! When a token is fetched. Pure: time comes in as an argument.
//!
//! A token is renewed while it still holds, so that no beat ever waits for one. Where there is none
//! that holds, whoever needs one decides when to try: beats keep their own pace, and it must not
//! become slower here. Only a server that refuses, or asks for it, is left alone for longer.

use std::time::Duration;

use tokio::time::Instant;

use super::grant::FailureKind;
use crate::domain::backoff::pause_ms;

/// Between two fetches, whatever anybody wants.
const SPACING: Duration = Duration::from_millis(200);

/// Renewals that fail while the old token holds, or nobody asks.
const RETRY_MS: (u64, u64) = (1_000, 30_000);

/// Fetches that are refused: somebody has to do something first, and EdgeGallery locks an access key
/// after three.
const REFUSED_MS: (u64, u64) = (2_000, 60_000);

/// Fresh tokens that are not taken.
const UNWELCOME_MS: (u64, u64) = (1_000, 10_000);

/// After so long without a 401 the next one is the first again.
const FORGIVEN: Duration = Duration::from_secs(60);

/// A longer `Retry-After` of the token endpoint is cut.
const BUSY_MAX: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// The next fetch; `None`: not before somebody wants one.
    due: Option<Instant>,
    /// No fetch is earlier.
    not_before: Option<Instant>,
    /// Fetches in a row that failed.
    failures: u32,
    /// Tokens that were not taken, in a row.
    unwelcome: u32,
    unwelcome_at: Option<Instant>,
    /// No token is fetched before this only because the last was not taken.
    unwelcome_until: Option<Instant>,
}

impl Schedule {
    /// When to fetch next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// There is a token that holds for so long after its fetch began: the next one is fetched at two
    /// thirds of that, up to a tenth of it earlier, so that agents drift apart.
    pub(super) fn fetched(&mut self, began: Instant, life: Duration, now: Instant, jitter: u64) {
        self.failures = 0;
        let tenth_ms = u64::try_from(life.as_millis() / 10).unwrap_or(0);
        let early = Duration::from_millis(jitter % (tenth_ms + 1));
        let not_before = now + SPACING;
        self.not_before = Some(not_before);
        self.due = Some((began + life * 2 / 3 - early).max(not_before));
    }

    /// There is none. While an old one holds until `ends`, the next try is early enough before that.
    pub(super) fn failed(
        &mut self,
        kind: FailureKind,
        ends: Option<Instant>,
        now: Instant,
        jitter: u64,
    ) {
        self.failures = self.failures.saturating_add(1);
        let pause =
            |(first, cap)| Duration::from_millis(pause_ms(first, self.failures, cap, jitter));
        let not_before = now
            + match kind {
                FailureKind::Away => SPACING,
                FailureKind::Busy(asked) => asked.clamp(SPACING, BUSY_MAX),
                FailureKind::Refused => pause(REFUSED_MS),
            };
        let mut due = now + pause(RETRY_MS);
        if let Some(ends) = ends.filter(|ends| *ends > now) {
            // Half of what is left, so that there are several tries before the end.
            due = due.min(now + (ends - now) / 2);
        }
        self.not_before = Some(not_before);
        self.due = Some(due.max(not_before));
    }

    /// Somebody needs a token, and there is none that holds. Whether one is fetched at once.
    pub(super) fn wanted(&mut self, now: Instant) -> bool {
        let at = self.not_before.map_or(now, |at| at.max(now));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
        at <= now
    }

    /// A token that should hold was answered 401. Whether another one is fetched at once.
    pub(super) fn unwelcome(&mut self, now: Instant, jitter: u64) -> bool {
        if self.unwelcome_until.is_some_and(|until| now < until) {
            return false;
        }
        if self.unwelcome_at.is_none_or(|at| now - at > FORGIVEN) {
            self.unwelcome = 0;
        }
        self.unwelcome = self.unwelcome.saturating_add(1);
        let (first, cap) = UNWELCOME_MS;
        let pause = Duration::from_millis(pause_ms(first, self.unwelcome, cap, jitter));
        self.unwelcome_at = Some(now);
        self.unwelcome_until = Some(now + pause);
        self.wanted(now)
    }
}

#[cfg(test)]
mod tests;
