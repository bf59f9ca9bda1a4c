//! The closed list of what can happen to the registry, and what each caller hears.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::view::Entry;
use super::{Error, Rules};
use crate::clock::Clock;
use crate::domain::liveness::Beaten;
use crate::domain::{
    AppInstanceId, Event, Heartbeat, LivenessInterval, ProducerState, Reading, Service, ServiceId,
    ServiceKey, ServiceState, Steady,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What stands in the one queue, so that nothing of it can race.
#[derive(Debug)]
pub(super) enum Item {
    /// What a client wants.
    Client(Command),
    /// Judge what is due at that instant: when the pulse was put into the queue, so that every beat
    /// received before it is taken before it.
    Pulse {
        now: Instant,
        done: Option<oneshot::Sender<()>>,
    },
    /// The configuration was reloaded.
    Reload(Rules),
    /// Bring the index entries of these timers forward where they are later than their deadlines.
    Mend(VecDeque<ServiceId>),
    /// Tell what happened to a service.
    History {
        service: ServiceId,
        reply: Reply<Vec<Event>>,
    },
    /// From here on beats are refused, because the server stops: nobody is judged any more.
    StopWatching { now: Instant },
}

/// What all clocks say when an item is put into the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Instant {
    pub(super) steady: Steady,
    pub(super) reading: Reading,
    /// See [`crate::clock::Machine::asleep_ms`].
    pub(super) asleep_ms: u64,
}

impl Instant {
    pub(super) fn now(clock: &Clock) -> Self {
        let (now, reading) = clock.read();
        Self {
            steady: now.steady,
            reading,
            asleep_ms: clock.asleep_ms(),
        }
    }
}

/// What a client can want.
#[derive(Debug)]
pub(super) enum Command {
    /// POST of a service.
    Register {
        key: ServiceKey,
        service: Arc<Service>,
        state: ProducerState,
        reply: Reply<Entry>,
    },
    /// PUT of a service.
    Replace {
        key: ServiceKey,
        service: Arc<Service>,
        state: ServiceState,
        reply: Reply<Entry>,
    },
    /// DELETE of a service.
    Remove { key: ServiceKey, reply: Reply<()> },
    /// A heartbeat.
    Beat {
        key: ServiceKey,
        heartbeat: Heartbeat,
        reply: Reply<Beaten>,
    },
    /// A batch heartbeat.
    BeatMany {
        app: AppInstanceId,
        /// `None`: every service of the application that agreed on heartbeats.
        services: Option<Vec<ServiceId>>,
        heartbeat: Heartbeat,
        reply: Reply<Vec<(ServiceId, BatchOutcome)>>,
    },
}

impl Command {
    /// How many rows it may touch: bounds the size of a commit.
    pub(super) fn weight(&self, rules: &Rules) -> usize {
        match self {
            Self::BeatMany {
                services: Some(services),
                ..
            } => services.len(),
            Self::BeatMany { services: None, .. } => rules.services_max_per_app,
            Self::Register { .. }
            | Self::Replace { .. }
            | Self::Remove { .. }
            | Self::Beat { .. } => 1,
        }
    }
}

/// What a batch heartbeat did to one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchOutcome {
    /// Accepted.
    Alive,
    /// Accepted, and there is a new interval to tell.
    NewInterval(LivenessInterval),
    /// Not a service of this application, or it agreed on no heartbeat.
    Unknown,
    /// INACTIVE.
    Inactive,
}

/// An answer that waits for its commit. Dropped, it tells its caller that the store failed.
#[derive(Debug)]
pub(super) enum Ack {
    Entry(Reply<Entry>, Result<Entry, Error>),
    Removed(Reply<()>, Result<(), Error>),
    Beat(Reply<Beaten>, Result<Beaten, Error>),
    Batch(
        Reply<Vec<(ServiceId, BatchOutcome)>>,
        Result<Vec<(ServiceId, BatchOutcome)>, Error>,
    ),
}

impl Ack {
    /// Answers. A caller that has gone away is no concern of ours.
    pub(super) fn send(self) {
        match self {
            Self::Entry(reply, answer) => drop(reply.send(answer)),
            Self::Removed(reply, answer) => drop(reply.send(answer)),
            Self::Beat(reply, answer) => drop(reply.send(answer)),
            Self::Batch(reply, answer) => drop(reply.send(answer)),
        }
    }
}
