//! When to beat next, and when to try again: pure, in steady milliseconds.
//!
//! A beat carries a promise ("while I cannot reach you I try again within R seconds"), and the
//! platform judges a silence after an outage by it. So two tries are never further apart than R
//! while the server is not reached, however long a try hangs: the next one does not wait for it.

use crate::domain::Steady;
use crate::domain::backoff::pause_ms;

/// After the first failure.
const FIRST_RETRY_MS: u64 = 250;

/// What a promise leaves for timers that fire late and requests that take their time. The platform's
/// own grace is ten times as much.
const MARGIN_PERCENT: u64 = 10;

/// What the pace depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The shortest interval of those for whom we beat, in milliseconds.
    pub interval_ms: u64,
    /// What each beat promises, in seconds; `None`: the server takes no promises.
    pub promise_s: Option<u32>,
    /// The longest pause between tries without a promise, in milliseconds.
    pub retry_max_ms: u64,
}

impl Terms {
    /// Two tries are no further apart than this while the server is not reached.
    #[must_use]
    pub fn retry_cap_ms(&self) -> u64 {
        // Also without a promise: a third of the interval is when the next beat would be due.
        let most = self.retry_max_ms.min(self.interval_ms / 3);
        match self.promise_s {
            None => most,
            Some(secs) => {
                let promise_ms = u64::from(secs) * 1000;
                most.min(promise_ms - promise_ms * MARGIN_PERCENT / 100)
            }
        }
        .max(1)
    }

    /// From the start of a beat that was heard to the start of the next one: a third of the interval,
    /// up to a tenth of it more or less, so that agents that began together drift apart. `jitter` is
    /// any random number.
    #[must_use]
    pub fn beat_ms(&self, jitter: u64) -> u64 {
        let third_ms = self.interval_ms / 3;
        let tenth_ms = third_ms / 10;
        (third_ms - tenth_ms + jitter % (2 * tenth_ms + 1)).max(1)
    }
}

/// The promise that goes with an interval, both in seconds: a fifth of it, at least 1 and at most 5.
///
/// Shorter ones would bring quicker verdicts after an outage, and more load on a server that comes
/// back.
#[must_use]
pub fn promise_s(interval_s: u32) -> u32 {
    (interval_s / 5).clamp(1, 5)
}

/// How long to wait after so many failures in a row, in milliseconds: from 250 ms up to `cap_ms`, see
/// [`pause_ms`].
#[must_use]
pub fn retry_ms(failures: u32, cap_ms: u64, jitter: u64) -> u64 {
    pause_ms(FIRST_RETRY_MS, failures, cap_ms, jitter)
}

/// When the next beat goes out.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    next: Option<Steady>,
    /// When the newest try began.
    began: Option<Steady>,
    /// It was not heard; whatever an older one hears now is news.
    given_up: bool,
    failures: u32,
    /// The server has asked to be left alone until then.
    asked_until: Option<Steady>,
    /// That is longer than the promise allows.
    asked_too_much: bool,
}

impl Pace {
    /// When a beat is due; `None`: never, there is nobody to beat for.
    #[must_use]
    pub fn next(&self) -> Option<Steady> {
        self.next
    }

    /// Tries in a row that did not reach the server.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Until when the server wants to be left alone, if that is longer than the promise.
    #[must_use]
    pub fn left_alone_until(&self) -> Option<Steady> {
        self.asked_until.filter(|_| self.asked_too_much)
    }

    /// There is nobody to beat for.
    pub fn rest(&mut self) {
        *self = Self::default();
    }

    /// A beat is due now, unless the server wants to be left alone.
    pub fn hurry(&mut self, now: Steady) {
        let at = self.asked_until.map_or(now, |until| until.max(now));
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    /// A shorter interval holds: the next beat is not later than that.
    pub fn shorten(&mut self, terms: &Terms, now: Steady, jitter: u64) {
        if self.failures == 0
            && let Some(next) = self.next
        {
            let base = self.began.unwrap_or(now);
            self.next = Some(next.min(base.plus_ms(terms.beat_ms(jitter))));
        }
    }

    /// A try begins. If it hangs, the next one begins no later than the promise says.
    pub fn begin(&mut self, terms: &Terms, now: Steady) {
        self.began = Some(now);
        self.given_up = false;
        self.asked_until = None;
        self.next = Some(now.plus_ms(terms.retry_cap_ms()));
    }

    /// The try that began then was heard.
    pub fn heard(&mut self, terms: &Terms, began: Steady, jitter: u64) {
        // A newer one may be under way, and hang: then the next one is due as it promised.
        if self.began == Some(began) || self.given_up {
            self.next = Some(began.plus_ms(terms.beat_ms(jitter)));
        }
        self.failures = 0;
    }

    /// The try that began then was not heard. `asked_ms`: how long the server wants to be left alone.
    pub fn missed(
        &mut self,
        terms: &Terms,
        began: Steady,
        now: Steady,
        asked_ms: Option<u64>,
        jitter: u64,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.given_up |= self.began == Some(began);
        let cap_ms = terms.retry_cap_ms();
        let newest = self.began.unwrap_or(began);
        let at = newest
            .plus_ms(retry_ms(self.failures, cap_ms, jitter))
            .max(now);
        // Nothing that is due anyway is put off.
        let at = self.next.map_or(at, |next| next.min(at));
        if let Some(asked_ms) = asked_ms {
            let promised_ms = terms
                .promise_s
                .map_or(cap_ms, |secs| u64::from(secs) * 1000);
            self.asked_too_much = asked_ms > promised_ms;
            // Whoever was refused in the same moment must not come back in the same moment; but a
            // promise that can be kept is.
            let spread_ms = match self.asked_too_much {
                true => jitter % (asked_ms / 10 + 1),
                false => 0,
            };
            self.asked_until = Some(now.plus_ms(asked_ms + spread_ms));
        }
        self.next = Some(self.asked_until.map_or(at, |until| at.max(until)));
    }
}

#[cfg(test)]
mod tests;
