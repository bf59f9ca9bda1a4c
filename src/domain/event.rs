//! What happened to a service, with the evidence of a verdict.

use super::id::ServiceKey;
use super::liveness::{Monitored, ServiceState};
use super::selection::Subject;
use super::silence::{Credit, Timer, judge};
use super::subscription::ChangeType;
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
    /// What the service was called afterwards; unknown of events that were stored by the first
    /// schema, which nobody could subscribe to.
    pub subject: Option<Subject>,
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
        /// What else of it changed.
        attributes: Attributes,
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

/// What a replacement changed besides the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// Nothing that consumers can see.
    Same,
    /// Something, but neither name nor category.
    Changed,
    /// Name or category, too: this is what it was called before.
    Renamed(Box<Subject>),
}

impl Happening {
    /// What consumers see of it: the state afterwards, the kind of change, the former name. `None`:
    /// nothing.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.1.4.2.
    pub(super) fn change(&self) -> Option<(ServiceState, ChangeType, Option<&Subject>)> {
        match self {
            Self::Registered { state, .. } => Some((*state, ChangeType::Added, None)),
            Self::Suspended(_) => Some((ServiceState::Suspended, ChangeType::StateChanged, None)),
            Self::Revived { .. } => Some((ServiceState::Active, ChangeType::StateChanged, None)),
            Self::Replaced {
                from,
                to,
                attributes,
                interval: _,
            } => match attributes {
                Attributes::Same => (from != to).then_some((*to, ChangeType::StateChanged, None)),
                Attributes::Changed => Some((*to, ChangeType::AttributesChanged, None)),
                Attributes::Renamed(former) => {
                    Some((*to, ChangeType::AttributesChanged, Some(former)))
                }
            },
            Self::Removed { state } => Some((*state, ChangeType::Removed, None)),
            // Only suspended services are.
            Self::Forgotten { .. } => Some((ServiceState::Suspended, ChangeType::Removed, None)),
        }
    }
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
