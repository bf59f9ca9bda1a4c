//! What a measurement says: one JSON object with stable keys, units last in their names.

use std::collections::BTreeMap;

use serde::Serialize;

pub use super::disk::Disk;
pub use super::expire::ExpireResult;
pub use super::machine::Machine;
pub use super::ratio::{RatioResult, RatioRow};
pub use super::recover::RecoverResult;
pub use super::run::LoadResult;
pub use super::size::{Calibration, Need, SizeResult};
pub use super::tally::{Failed, Latency};
pub use super::usage::Resources;

/// More than this share of failures makes a run worthless.
pub const FAILED_SHARE_MAX: f64 = 0.01;

/// Everything about one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Which one: `beats`, `batch`, `register`, `mixed`, `expire`, `recover`, `ratio`, `size`.
    pub bench: &'static str,
    /// Version of this program.
    pub mepulse_version: &'static str,
    /// `release`, or `debug`: whose numbers say nothing.
    pub build: &'static str,
    /// The machine that the load ran on.
    pub machine: Machine,
    /// Where the store is; for a server elsewhere, the directory that was named or the current one.
    pub disk: Disk,
    /// The server under test.
    pub server: ServerAbout,
    /// What came of it.
    pub result: Findings,
    /// Failures of all kinds.
    pub failures: Failures,
}

/// The server under test, as it told it.
#[derive(Debug, Clone, Serialize)]
pub struct ServerAbout {
    /// Whether it was started for this.
    pub own: bool,
    /// Where it was.
    pub url: String,
    /// Its version.
    pub version: String,
    /// What an acknowledgement survives: `power-loss` or `process-crash`.
    pub durability: String,
    /// What differs from its defaults, as far as we set it.
    pub settings: Vec<String>,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Findings {
    /// Load: beats, batch, register, mixed.
    Load(Box<LoadResult>),
    /// Verdicts.
    Expire(Box<ExpireResult>),
    /// Restarts.
    Recover(Box<RecoverResult>),
    /// Against the baseline.
    Ratio(Box<RatioResult>),
    /// What a machine needs.
    Size(Box<SizeResult>),
}

/// What was not as it should be.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Failures {
    /// How many.
    pub total: u64,
    /// Their share of everything that was asked, from 0 to 1.
    pub share: f64,
    /// By kind: `status 503`, `connection closed`, `not sent`, …
    pub by_kind: BTreeMap<String, Failed>,
}

impl Failures {
    /// Beside so many good ones.
    pub(super) fn new(by_kind: BTreeMap<String, Failed>, good: u64) -> Self {
        let total = by_kind.values().map(|failed| failed.count).sum();
        let all = good + total;
        Self {
            total,
            share: match all {
                // Nothing was answered at all: there is nothing good to say of it.
                0 => 1.0,
                all => super::tally::float(total) / super::tally::float(all),
            },
            by_kind,
        }
    }

    /// Whether the numbers beside them say nothing.
    #[must_use]
    pub fn are_too_many(&self) -> bool {
        self.share > FAILED_SHARE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_forgiven() {
        let failed = |count| {
            let failed = Failed {
                count,
                example: String::new(),
            };
            BTreeMap::from([("status 503".to_owned(), failed)])
        };
        assert!(!Failures::new(BTreeMap::new(), 5).are_too_many());
        assert!(!Failures::new(failed(1), 99).are_too_many());
        assert!(Failures::new(failed(2), 98).are_too_many());
        assert!(Failures::new(BTreeMap::new(), 0).are_too_many());
    }
}
