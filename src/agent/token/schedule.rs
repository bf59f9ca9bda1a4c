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

/// The same where requests are signed: two of one second are the same request, and a server takes the
/// second one for a replay.
const SPACING_SIGNED: Duration = Duration::from_secs(1);

/// A token that hardly lives is renewed no sooner.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

/// The last try before a token ends is so much earlier, or a sixth of its life.
const MARGIN: Duration = Duration::from_secs(5);

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
    /// Those of them that were refused; an outage in between does not count as one.
    refusals: u32,
    /// The newest fetch was refused.
    refused: bool,
    is_signed: bool,
    /// See [`MARGIN`].
    margin: Duration,
    /// Tokens that were not taken, in a row.
    unwelcome: u32,
    unwelcome_at: Option<Instant>,
    /// No token is fetched before this only because the last was not taken.
    unwelcome_until: Option<Instant>,
    /// What is due replaces a token that was not taken.
    replaces: bool,
}

impl Schedule {
    /// For requests that are signed, or are not.
    pub(super) fn new(is_signed: bool) -> Self {
        Self {
            is_signed,
            ..Self::default()
        }
    }

    /// Two fetches begin no closer to each other.
    pub(super) fn spacing(&self) -> Duration {
        match self.is_signed {
            true => SPACING_SIGNED,
            false => SPACING,
        }
    }

    /// The newest fetch was refused: another secret may help.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Something has changed that may end a refusal: there is no reason to wait any more.
    pub(super) fn relent(&mut self, now: Instant) {
        if self.failures == 0 {
            return;
        }
        (self.refusals, self.refused) = (0, false);
        // A server that has just answered is still not asked twice in one second for it.
        let at = now + self.spacing();
        self.not_before = self.not_before.map(|until| until.min(at));
        self.due = self.due.map(|due| due.min(at));
    }

    /// When to fetch next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// There is a token that holds for so long after its fetch began: the next one is fetched at two
    /// thirds of that, up to a tenth of it earlier, so that agents drift apart.
    pub(super) fn fetched(&mut self, began: Instant, life: Duration, now: Instant, jitter: u64) {
        (self.failures, self.refusals, self.refused) = (0, 0, false);
        self.margin = MARGIN.min(life / 6);
        if std::mem::take(&mut self.replaces) {
            self.count_unwelcome(now, jitter);
        }
        let tenth_ms = u64::try_from(life.as_millis() / 10).unwrap_or(0);
        let early = Duration::from_millis(jitter % (tenth_ms + 1));
        self.not_before = Some(now + self.spacing());
        self.due = Some((began + life * 2 / 3 - early).max(now + RENEWAL_MIN));
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
        self.refused = kind == FailureKind::Refused;
        self.refusals = self.refusals.saturating_add(self.refused.into());
        let spacing = self.spacing();
        let pause =
            |(first, cap), count| Duration::from_millis(pause_ms(first, count, cap, jitter));
        let mut not_before = now
            + match kind {
                FailureKind::Away => spacing,
                FailureKind::Busy(asked) => asked.clamp(spacing, BUSY_MAX.max(spacing)),
                FailureKind::Refused => pause(REFUSED_MS, self.refusals),
            };
        let mut due = now + pause(RETRY_MS, self.failures);
        if let Some(ends) = ends.filter(|ends| *ends > now) {
            // Half of what is left, so that there are several tries before the end.
            due = due.min(now + (ends - now) / 2);
            // Whoever refused may have been put right: once more before beats have to do without.
            if let Some(last) = ends.checked_sub(self.margin)
                && last >= now + spacing
            {
                not_before = not_before.min(last);
                due = due.min(last);
            }
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
        if let Some(until) = self.unwelcome_until.filter(|until| now < *until) {
            let at = self.not_before.map_or(until, |at| at.max(until));
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
            self.replaces = true;
            return false;
        }
        self.count_unwelcome(now, jitter);
        self.wanted(now)
    }

    fn count_unwelcome(&mut self, now: Instant, jitter: u64) {
        if self.unwelcome_at.is_none_or(|at| now - at > FORGIVEN) {
            self.unwelcome = 0;
        }
        self.unwelcome = self.unwelcome.saturating_add(1);
        let (first, cap) = UNWELCOME_MS;
        let pause = Duration::from_millis(pause_ms(first, self.unwelcome, cap, jitter));
        self.unwelcome_at = Some(now);
        self.unwelcome_until = Some(now + pause);
    }
}

#[cfg(test)]
mod tests;
