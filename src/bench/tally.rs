//! What came of the requests: latencies, and everything that was not as it should be.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchError;

/// The longest latency that is told apart, in microseconds: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Times in microseconds, to three digits.
#[derive(Debug, Clone)]
pub(super) struct Times(Histogram<u64>);

impl Times {
    pub(super) fn new() -> Result<Self, BenchError> {
        Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)
            .map(Self)
            .map_err(|error| BenchError::refused("making a histogram", error.to_string()))
    }

    pub(super) fn record(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(us);
    }

    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same bounds: there is nothing that could not be added.
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok());
    }

    pub(super) fn quantile_us(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// What a report says of them; `None` without any.
    pub(super) fn summary(&self) -> Option<Latency> {
        let at = |quantile| self.quantile_us(quantile);
        (!self.0.is_empty()).then(|| Latency {
            count: self.0.len(),
            mean_us: self.0.mean().round(),
            p50_us: at(0.50),
            p90_us: at(0.90),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: self.0.max(),
        })
    }
}

/// Latencies in microseconds, to three digits.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// Of how many.
    pub count: u64,
    /// The mean.
    pub mean_us: f64,
    /// Half of them are no longer.
    pub p50_us: u64,
    /// Nine in ten are no longer.
    pub p90_us: u64,
    /// 99 in a hundred are no longer.
    pub p99_us: u64,
    /// 999 in a thousand are no longer.
    pub p99_9_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Failures of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Failed {
    /// How many.
    pub count: u64,
    /// The first of them, in words.
    pub example: String,
}

/// What is counted of a run. Those of several threads can be added up.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// From the instant at which a request was due (open loop) or sent (closed loop).
    pub(super) times: Times,
    /// Good answers that came within the measured time: what a rate is made of.
    pub(super) answers_in_time: u64,
    /// Heartbeats, registrations and so on in those.
    pub(super) entries_in_time: u64,
    /// Good answers to what was due or under way in the measured time, whenever they came.
    pub(super) answers: u64,
    /// The same by what was asked.
    pub(super) by_kind: BTreeMap<&'static str, u64>,
    /// Everything else.
    pub(super) failures: BTreeMap<String, Failed>,
}

impl Tally {
    pub(super) fn new() -> Result<Self, BenchError> {
        Ok(Self {
            times: Times::new()?,
            answers_in_time: 0,
            entries_in_time: 0,
            answers: 0,
            by_kind: BTreeMap::new(),
            failures: BTreeMap::new(),
        })
    }

    pub(super) fn fail(&mut self, kind: String, example: impl FnOnce() -> String) {
        let failed = self.failures.entry(kind).or_insert_with(|| Failed {
            count: 0,
            example: example(),
        });
        failed.count += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.times.add(&other.times);
        self.answers_in_time += other.answers_in_time;
        self.entries_in_time += other.entries_in_time;
        self.answers += other.answers;
        for (kind, count) in &other.by_kind {
            *self.by_kind.entry(kind).or_default() += count;
        }
        for (kind, failed) in &other.failures {
            let mine = self.failures.entry(kind.clone()).or_insert_with(|| Failed {
                count: 0,
                example: failed.example.clone(),
            });
            mine.count += failed.count;
        }
    }
}

/// A count as a number that can be divided. Exact up to 2^53, which no count here comes near.
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// How many per second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    match time.is_zero() {
        true => 0.0,
        false => float(count) / time.as_secs_f64(),
    }
}

/// A whole number of what was computed; what is below zero or no number is zero.
pub(super) fn whole(number: f64) -> u64 {
    // Casts of floats stop at the bounds of their type.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and saturating"
    )]
    let whole = number.round() as u64;
    whole
}

/// The one in the middle, or the mean of the two there.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(upper), 0) => f64::midpoint(sorted[middle - 1], *upper),
        (Some(middle), _) => *middle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut one = Tally::new().unwrap();
        let mut two = Tally::new().unwrap();
        one.times.record(Duration::from_micros(100));
        two.times.record(Duration::from_micros(300));
        two.times.record(Duration::MAX);
        one.fail("status 500".into(), || "first".into());
        two.fail("status 500".into(), || "second".into());
        two.fail("connection closed".into(), String::new);
        one.add(&two);
        assert_eq!(one.failures["status 500"].count, 2);
        assert_eq!(one.failures["status 500"].example, "first");
        assert_eq!(one.failures["connection closed"].count, 1);
        let latency = one.times.summary().unwrap();
        assert_eq!((latency.count, latency.p50_us), (3, 300));
        assert!(latency.max_us >= LATENCY_US_MAX);
        assert!(Times::new().unwrap().summary().is_none());
    }

    #[test]
    fn medians_and_rates_are_plain() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert_eq!(per_second(10, Duration::ZERO), 0.0);
        assert_eq!(per_second(10, Duration::from_millis(500)), 20.0);
        assert_eq!((whole(1.6), whole(-1.0), whole(f64::NAN)), (2, 0, 0));
    }
}
