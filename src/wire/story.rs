//! What `mepulse admin why` and `mepulse admin forecast` tell: deadlines with their evidence.
//!
//! Times are steady milliseconds; each story carries one instant on both clocks, from which a
//! reader gets dates.

use serde::{Deserialize, Serialize};

use super::report::{Known, ServiceReport, rfc3339};
use crate::domain::silence::Credit;
use crate::domain::{
    BlindSpot, Event, Evidence, Happening, LivenessInterval, Moment, Policy, ServiceState,
};

/// A blind spot, and what it did to a deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreditReport {
    /// Why nobody watched.
    pub cause: String,
    /// First blind millisecond.
    pub start_steady_ms: u64,
    /// First watched one.
    pub end_steady_ms: u64,
    /// Whether the length was measured.
    pub length_known: bool,
    /// The deadline after it.
    pub deadline_steady_ms: u64,
}

/// Everything a deadline rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceReport {
    /// Where the timer started.
    pub base_steady_ms: u64,
    /// The last heartbeat, else the registration or re-activation; RFC 3339.
    pub last_heard: String,
    /// Heartbeats until then.
    pub beats: u64,
    /// The interval that counts.
    pub interval_ms: u64,
    /// The grace.
    pub grace_ms: u64,
    /// Within how long the producer tries again when it cannot reach us.
    pub retry_ms: u64,
    /// Whether it promised that.
    pub promised: bool,
    /// When the timer runs out.
    pub deadline_steady_ms: u64,
    /// The blind spots that moved it, oldest first.
    pub credits: Vec<CreditReport>,
    /// How many more there were before those.
    pub earlier_credits: u64,
}

impl From<&Evidence> for EvidenceReport {
    fn from(evidence: &Evidence) -> Self {
        let timer = evidence.timer;
        let credit = |Credit { spot, deadline }: &Credit| CreditReport {
            cause: spot.cause.as_str().to_owned(),
            start_steady_ms: spot.start.as_ms(),
            end_steady_ms: spot.end.as_ms(),
            length_known: spot.length_known,
            deadline_steady_ms: deadline.as_ms(),
        };
        Self {
            base_steady_ms: timer.base.as_ms(),
            last_heard: rfc3339(evidence.last_heard),
            beats: evidence.beats,
            interval_ms: timer.interval_ms,
            grace_ms: timer.grace_ms,
            retry_ms: timer.retry_ms,
            promised: evidence.promised,
            deadline_steady_ms: evidence.deadline.as_ms(),
            credits: evidence.credits.iter().map(credit).collect(),
            earlier_credits: evidence.earlier_credits,
        }
    }
}

/// If nothing beats from now on: when a service expires, and why then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// The owner.
    pub app_instance_id: String,
    /// The service.
    pub ser_instance_id: String,
    /// Its name.
    pub ser_name: String,
    /// The deadline, and what it rests on.
    #[serde(flatten)]
    pub evidence: EvidenceReport,
}

impl Forecast {
    /// `None` when no timer runs.
    #[must_use]
    pub fn new(known: Known<'_>, policy: Option<&Policy>, spots: &[BlindSpot]) -> Option<Self> {
        Some(Self {
            app_instance_id: known.key.app.to_string(),
            ser_instance_id: known.key.service.to_string(),
            ser_name: known.name.to_owned(),
            evidence: standing(known, policy?, spots)?,
        })
    }
}

/// The running timer as things stand.
fn standing(known: Known<'_>, policy: &Policy, spots: &[BlindSpot]) -> Option<EvidenceReport> {
    let timer = policy.timer_of(known.liveness)?;
    let evidence = Evidence::collect(timer, known.liveness.monitored()?, spots);
    Some(EvidenceReport::from(&evidence))
}

/// One thing that happened to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventReport {
    /// Counts all events of the store.
    pub sequence: u64,
    /// When, RFC 3339.
    pub at: String,
    /// When.
    pub steady_ms: u64,
    /// Whose service it was.
    pub app_instance_id: String,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// See [`Happening`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "what",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum What {
    /// It was registered.
    Registered {
        /// In this state.
        state: String,
        /// Seconds; absent without an agreement.
        #[serde(skip_serializing_if = "Option::is_none")]
        liveness_interval: Option<u32>,
    },
    /// It was suspended for silence.
    Suspended {
        /// Why.
        evidence: EvidenceReport,
    },
    /// A heartbeat brought it back.
    Revived {
        /// It had been SUSPENDED since.
        since_steady_ms: u64,
    },
    /// Its producer replaced it.
    Replaced {
        /// The state before.
        from: String,
        /// The state after.
        to: String,
        /// Seconds; absent without an agreement.
        #[serde(skip_serializing_if = "Option::is_none")]
        liveness_interval: Option<u32>,
    },
    /// Its producer removed it.
    Removed {
        /// The state before.
        state: String,
    },
    /// It did not come back, and was removed.
    Forgotten {
        /// It had been SUSPENDED since.
        since_steady_ms: u64,
    },
}

impl From<&Event> for EventReport {
    fn from(event: &Event) -> Self {
        let state = |state: ServiceState| state.as_str().to_owned();
        let secs = |interval: Option<LivenessInterval>| interval.map(LivenessInterval::as_secs);
        let what = match &event.what {
            Happening::Registered {
                state: to,
                interval,
            } => What::Registered {
                state: state(*to),
                liveness_interval: secs(*interval),
            },
            Happening::Suspended(evidence) => What::Suspended {
                evidence: EvidenceReport::from(evidence.as_ref()),
            },
            Happening::Revived { since } => What::Revived {
                since_steady_ms: since.as_ms(),
            },
            Happening::Replaced {
                from, to, interval, ..
            } => What::Replaced {
                from: state(*from),
                to: state(*to),
                liveness_interval: secs(*interval),
            },
            Happening::Removed { state: from } => What::Removed {
                state: state(*from),
            },
            Happening::Forgotten { since } => What::Forgotten {
                since_steady_ms: since.as_ms(),
            },
        };
        Self {
            sequence: event.sequence,
            at: rfc3339(event.at.wall),
            steady_ms: event.at.steady.as_ms(),
            app_instance_id: event.key.app.to_string(),
            what,
        }
    }
}

/// The story of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Story {
    /// Now, RFC 3339.
    pub now: String,
    /// Now; when the server is down: as it would be were it started now.
    pub now_steady_ms: u64,
    /// The service; absent when it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReport>,
    /// Its running timer, as things stand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<EvidenceReport>,
    /// What happened, oldest first, as far as it is kept.
    pub events: Vec<EventReport>,
}

impl Story {
    /// Tells it; `None` for a service of which nothing is known.
    #[must_use]
    pub fn new(
        now: Moment,
        known: Option<Known<'_>>,
        policy: Option<&Policy>,
        spots: &[BlindSpot],
        events: &[Event],
    ) -> Option<Self> {
        if known.is_none() && events.is_empty() {
            return None;
        }
        Some(Self {
            now: rfc3339(now.wall),
            now_steady_ms: now.steady.as_ms(),
            service: known.map(|known| ServiceReport::new(known, policy, spots)),
            standing: known
                .zip(policy)
                .and_then(|(known, policy)| standing(known, policy, spots)),
            events: events.iter().map(EventReport::from).collect(),
        })
    }
}
