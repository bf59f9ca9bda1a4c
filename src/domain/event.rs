//! What happened to a service, with the evidence of a verdict.

use super::id::ServiceKey;
use super::liveness::{Monitored, ServiceState};
use super::silence::{Credit, Timer, judge};
use super::time::{BlindSpot, LivenessInterval, Moment, Steady, Wall};

/// One transition. Stored with what it did, in the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Counts all events of a store; never used twice.
    pub sequence: u64,
    /// When it was decided.
    pub at: Moment,
    /// To which service.
    pub key: ServiceKey,
    /// What.
    pub what: Happening,
}

/// What can happen to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// It was registered.
    Registered {
        /// In this state.
        state: ServiceState,
        /// With this interval; `None`: no heartbeat agreed on.
        interval: Option<LivenessInterval>,
    },
    /// It was suspended for silence.
    Suspended(Box<Evidence>),
    /// A heartbeat brought it back.
    Revived {
        /// It had been SUSPENDED since.
        since: Steady,
    },
    /// Its producer replaced it.
    Replaced {
        /// The state before.
        from: ServiceState,
        /// The state after.
        to: ServiceState,
        /// The interval after; `None`: no heartbeat agreed on.
        interval: Option<LivenessInterval>,
    },
    /// Its producer removed it.
    Removed {
        /// The state before.
        state: ServiceState,
    },
    /// It did not come back, and was removed.
    Forgotten {
        /// It had been SUSPENDED since.
        since: Steady,
    },
}

/// Why a service was declared silent: everything the rule went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The timer that ran out.
    pub timer: Timer,
    /// Whether the producer promised `timer.retry_ms`.
    pub promised: bool,
    /// The last heartbeat, else the registration or re-activation.
    pub last_heard: Wall,
    /// Heartbeats until then.
    pub beats: u64,
    /// When the timer ran out.
    pub deadline: Steady,
    /// The blind spots that moved the deadline, oldest first; of many the latest
    /// [`Evidence::CREDITS_MAX`].
    pub credits: Vec<Credit>,
    /// How many more there were before those.
    pub earlier_credits: u64,
}

impl Evidence {
    /// So many credits are kept with a verdict.
    pub const CREDITS_MAX: usize = 32;

    /// Collects what the rule goes by.
    #[must_use]
    pub fn collect(timer: Timer, monitored: &Monitored, spots: &[BlindSpot]) -> Self {
        let (deadline, mut credits) = judge(&timer, spots);
        let earlier = credits.len().saturating_sub(Self::CREDITS_MAX);
        credits.drain(..earlier);
        Self {
            timer,
            promised: monitored.promise().is_some(),
            last_heard: monitored.time_stamp,
            beats: monitored.beats,
            deadline,
            credits,
            earlier_credits: earlier as u64,
        }
    }
}
