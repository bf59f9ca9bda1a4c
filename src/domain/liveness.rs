//! The state machine of a service: beat, expire, replace.
//!
//! Source: GS MEC 011 V2.2.1, 8.2.10 and 8.1.6.6. Every transition is a pure function from the old
//! value and an instant to the new value; the old value is never changed in place.

use super::policy::Policy;
use super::service::LivenessOffer;
use super::time::{LivenessInterval, Moment, RetryPromise, Steady, Wall};

/// `ServiceState` as the API shows it.
///
/// Source: GS MEC 011 V2.2.1, 8.1.6.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// In operation.
    Active,
    /// Switched off by its producer.
    Inactive,
    /// Its producer fell silent.
    Suspended,
}

impl ServiceState {
    /// All states, in the order of reports.
    pub const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Suspended];

    /// The wire name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Suspended => "SUSPENDED",
        }
    }
}

/// The states a producer may put its service in; SUSPENDED is the platform's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProducerState {
    /// In operation.
    Active,
    /// Switched off.
    Inactive,
}

/// State and heartbeat agreement of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// No heartbeat was agreed on: the state is what the producer says, there is no liveness
    /// resource and nothing ever expires.
    Unmonitored(ProducerState),
    /// A heartbeat was agreed on.
    Monitored(Monitored),
}

/// A service with a heartbeat agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitored {
    /// Where it stands.
    pub phase: Phase,
    /// The interval agreed on.
    pub agreement: Agreement,
    /// What the API shows: the last heartbeat, else the registration or re-activation.
    pub time_stamp: Wall,
    /// How many heartbeats were accepted since registration.
    pub beats: u64,
}

impl Monitored {
    /// The promise of the last heartbeat, while its timer runs.
    #[must_use]
    pub fn promise(&self) -> Option<RetryPromise> {
        match self.phase {
            Phase::Running(running) => running.promise,
            Phase::Suspended { .. } | Phase::Inactive => None,
        }
    }
}

/// Where a monitored service stands. Only a running one has a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// ACTIVE: the timer runs.
    Running(Running),
    /// SUSPENDED since then.
    Suspended {
        /// When the verdict was committed.
        since: Steady,
    },
    /// INACTIVE: no timer.
    Inactive,
}

/// The timer of an ACTIVE service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The latest of registration, last heartbeat, PUT to ACTIVE, change of the interval.
    pub base: Steady,
    /// The promise of the last heartbeat.
    pub promise: Option<RetryPromise>,
}

/// The interval, and how far a new one has got.
///
/// A new interval is told by 200 at the next beat; until the first beat after that answer the
/// longer of old and new counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Both sides know it.
    Settled(LivenessInterval),
    /// Decided, not yet told to whoever beats.
    Announced {
        /// The longest that the producer may still go by.
        from: LivenessInterval,
        /// The new one.
        to: LivenessInterval,
    },
    /// Told in an answer that may not have arrived.
    Told {
        /// The longest that the producer may still go by.
        from: LivenessInterval,
        /// The new one.
        to: LivenessInterval,
    },
    /// One beat has come at the new pace since. It may have been the quick repeat of a beat whose
    /// answer was lost, so the next one settles it.
    Followed {
        /// The longest that the producer may still go by.
        from: LivenessInterval,
        /// The new one.
        to: LivenessInterval,
    },
}

impl Agreement {
    /// The interval the API shows.
    #[must_use]
    pub fn shown(&self) -> LivenessInterval {
        match *self {
            Self::Settled(interval) => interval,
            Self::Announced { to, .. } | Self::Told { to, .. } | Self::Followed { to, .. } => to,
        }
    }

    /// The interval that counts for the deadline.
    #[must_use]
    pub fn counting(&self) -> LivenessInterval {
        match *self {
            Self::Settled(interval) => interval,
            Self::Announced { from, to }
            | Self::Told { from, to }
            | Self::Followed { from, to } => from.max(to),
        }
    }

    /// A change to `wanted`, decided but not told.
    fn announce(self, wanted: LivenessInterval) -> Self {
        if self.shown() == wanted {
            self
        } else {
            Self::Announced {
                from: self.counting(),
                to: wanted,
            }
        }
    }

    /// What a beat does to it: the new agreement, and whether the answer tells a new interval.
    ///
    /// `follows` says whether the beat can be one of a producer that heard the last answer.
    fn at_beat(self, wanted: LivenessInterval, follows: bool) -> (Self, bool) {
        let (from, to) = (self.counting(), wanted);
        match self {
            Self::Settled(shown) if shown == wanted => (self, false),
            Self::Told { to: shown, .. } if shown == wanted && follows => {
                (Self::Followed { from, to }, false)
            }
            Self::Followed { to: shown, .. } if shown == wanted && follows => {
                (Self::Settled(wanted), false)
            }
            Self::Settled(from) | Self::Announced { from, .. } => (Self::Told { from, to }, true),
            Self::Told { .. } | Self::Followed { .. } => (Self::Told { from, to }, true),
        }
    }

    /// Whether a beat that comes `gap_ms` after the last one is at the pace that was told.
    fn is_at_pace(self, gap_ms: u64, policy: &Policy) -> bool {
        let shown = self.shown();
        gap_ms <= shown.as_ms() + policy.grace_ms(shown)
    }
}

/// One heartbeat as received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// `retryInterval`, our extension: valid for this beat only.
    pub promise: Option<RetryPromise>,
}

/// Why a heartbeat is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatRefusal {
    /// No agreement, so no liveness resource.
    NotMonitored,
    /// The promise exceeds the interval.
    PromiseTooLong {
        /// The longest allowed.
        interval: LivenessInterval,
    },
    /// INACTIVE: a heartbeat confirms a service, it never switches one on.
    Inactive,
}

/// What an accepted heartbeat leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beaten {
    /// The new value.
    pub liveness: Monitored,
    /// Whether the answer must tell a new interval.
    pub new_interval: bool,
    /// Whether this brought a SUSPENDED service back.
    pub revived: bool,
}

/// A producer asked for SUSPENDED, which only the platform may declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuspendedByProducer;

impl Liveness {
    /// A fresh registration: the timer of an ACTIVE service with an agreement starts at once.
    #[must_use]
    pub fn registered(
        state: ProducerState,
        offer: Option<LivenessOffer>,
        policy: &Policy,
        now: Moment,
    ) -> Self {
        let Some(offer) = offer else {
            return Self::Unmonitored(state);
        };
        Self::Monitored(Monitored {
            phase: Phase::of(state, now.steady),
            agreement: Agreement::Settled(policy.negotiate(offer)),
            time_stamp: now.wall,
            beats: 0,
        })
    }

    /// The state as the API shows it.
    #[must_use]
    pub fn state(&self) -> ServiceState {
        match self {
            Self::Unmonitored(ProducerState::Active)
            | Self::Monitored(Monitored {
                phase: Phase::Running(_),
                ..
            }) => ServiceState::Active,
            Self::Unmonitored(ProducerState::Inactive)
            | Self::Monitored(Monitored {
                phase: Phase::Inactive,
                ..
            }) => ServiceState::Inactive,
            Self::Monitored(Monitored {
                phase: Phase::Suspended { .. },
                ..
            }) => ServiceState::Suspended,
        }
    }

    /// The agreement's part, if there is one.
    #[must_use]
    pub fn monitored(&self) -> Option<&Monitored> {
        match self {
            Self::Unmonitored(_) => None,
            Self::Monitored(monitored) => Some(monitored),
        }
    }

    /// The timer's part, if one runs.
    #[must_use]
    pub fn running(&self) -> Option<(&Running, &Agreement)> {
        match self {
            Self::Monitored(Monitored {
                phase: Phase::Running(running),
                agreement,
                ..
            }) => Some((running, agreement)),
            Self::Unmonitored(_) | Self::Monitored(_) => None,
        }
    }

    /// The interval that the API shows, if one was agreed on.
    #[must_use]
    pub fn interval(&self) -> Option<LivenessInterval> {
        Some(self.monitored()?.agreement.shown())
    }

    /// Since when it is SUSPENDED, if it is.
    #[must_use]
    pub fn suspended_since(&self) -> Option<Steady> {
        match self.monitored()?.phase {
            Phase::Suspended { since } => Some(since),
            Phase::Running(_) | Phase::Inactive => None,
        }
    }

    /// The newest steady value in here: time may not resume before it.
    #[must_use]
    pub fn newest(&self) -> Option<Steady> {
        match self {
            Self::Monitored(Monitored {
                phase: Phase::Running(Running { base, .. }),
                ..
            }) => Some(*base),
            Self::Monitored(Monitored {
                phase: Phase::Suspended { since },
                ..
            }) => Some(*since),
            Self::Monitored(Monitored {
                phase: Phase::Inactive,
                ..
            })
            | Self::Unmonitored(_) => None,
        }
    }

    /// A heartbeat arrives. `offer` is what the producer registered with. `undisturbed`: we were not
    /// blind since the last one, so its answer was not lost on our side.
    ///
    /// # Errors
    /// [`BeatRefusal`]; then nothing changes, not even `timeStamp`.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.2.10.3.3.
    pub fn beat(
        &self,
        heartbeat: Heartbeat,
        offer: Option<LivenessOffer>,
        policy: &Policy,
        now: Moment,
        undisturbed: bool,
    ) -> Result<Beaten, BeatRefusal> {
        let Self::Monitored(old) = self else {
            return Err(BeatRefusal::NotMonitored);
        };
        let interval = old.agreement.counting();
        if heartbeat
            .promise
            .is_some_and(|promise| promise.as_ms() > interval.as_ms())
        {
            return Err(BeatRefusal::PromiseTooLong { interval });
        }
        let revived = match old.phase {
            Phase::Running(_) => false,
            Phase::Suspended { .. } => true,
            Phase::Inactive => return Err(BeatRefusal::Inactive),
        };
        // The bounds may have changed since: what would be agreed on today?
        let wanted = offer.map_or(old.agreement.shown(), |offer| policy.negotiate(offer));
        let since = match old.phase {
            Phase::Running(Running { base, .. }) => Some(base),
            Phase::Suspended { .. } | Phase::Inactive => None,
        };
        // A producer that still goes by the longer interval has not heard of the new one.
        let follows = undisturbed
            && since
                .is_some_and(|since| old.agreement.is_at_pace(now.steady.ms_since(since), policy));
        let (agreement, new_interval) = old.agreement.at_beat(wanted, follows);
        let liveness = Monitored {
            phase: Phase::Running(Running {
                base: now.steady,
                promise: heartbeat.promise,
            }),
            agreement,
            time_stamp: now.wall,
            beats: old.beats + 1,
        };
        Ok(Beaten {
            liveness,
            new_interval,
            revived,
        })
    }

    /// The verdict: what was running is SUSPENDED from `now` on. `None` when no timer runs.
    #[must_use]
    pub fn expired(&self, now: Steady) -> Option<Self> {
        self.running()?;
        let old = self.monitored()?;
        Some(Self::Monitored(Monitored {
            phase: Phase::Suspended { since: now },
            ..*old
        }))
    }

    /// A PUT: `offer` is `None` when the producer said nothing about heartbeats, which keeps the
    /// agreement (dropping it would invalidate the link the producer is using).
    ///
    /// # Errors
    /// [`SuspendedByProducer`] when SUSPENDED is asked for and the service is not SUSPENDED.
    pub fn replaced(
        &self,
        state: ServiceState,
        offer: Option<LivenessOffer>,
        policy: &Policy,
        now: Moment,
    ) -> Result<Self, SuspendedByProducer> {
        let wanted = match state {
            ServiceState::Active => Some(ProducerState::Active),
            ServiceState::Inactive => Some(ProducerState::Inactive),
            ServiceState::Suspended if self.state() == ServiceState::Suspended => None,
            ServiceState::Suspended => return Err(SuspendedByProducer),
        };
        match (self, wanted) {
            // Only a monitored service can be SUSPENDED, so here the producer named a state.
            (Self::Unmonitored(old), wanted) => {
                Ok(Self::registered(wanted.unwrap_or(*old), offer, policy, now))
            }
            (Self::Monitored(old), wanted) => {
                let agreement = match offer {
                    Some(offer) => old.agreement.announce(policy.negotiate(offer)),
                    None => old.agreement,
                };
                let changed_interval = agreement != old.agreement;
                let reactivated = Phase::of(ProducerState::Active, now.steady);
                let (phase, time_stamp) = match (old.phase, wanted) {
                    (Phase::Running(running), Some(ProducerState::Active)) => {
                        let base = if changed_interval {
                            now.steady
                        } else {
                            running.base
                        };
                        (Phase::Running(Running { base, ..running }), old.time_stamp)
                    }
                    (_, Some(ProducerState::Active)) => (reactivated, now.wall),
                    (_, Some(ProducerState::Inactive)) => (Phase::Inactive, old.time_stamp),
                    (phase, None) => (phase, old.time_stamp),
                };
                Ok(Self::Monitored(Monitored {
                    phase,
                    agreement,
                    time_stamp,
                    beats: old.beats,
                }))
            }
        }
    }
}

impl Phase {
    /// What a producer's word starts.
    fn of(state: ProducerState, now: Steady) -> Self {
        match state {
            ProducerState::Active => Self::Running(Running {
                base: now,
                promise: None,
            }),
            ProducerState::Inactive => Self::Inactive,
        }
    }
}

#[cfg(test)]
mod tests;
