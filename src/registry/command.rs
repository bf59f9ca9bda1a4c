//! The closed list of what can happen to the registry, and what each caller hears.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::view::Entry;
use super::{Error, Terms};
use crate::domain::{
    AppInstanceId, Heartbeat, LivenessInterval, Monitored, ProducerState, Service, ServiceId,
    ServiceKey, ServiceState, Steady,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What can happen. All of it stands in one queue, so nothing of it can race.
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
        reply: Reply<BeatAnswer>,
    },
    /// A batch heartbeat.
    BeatMany {
        app: AppInstanceId,
        /// `None`: every service of the application that agreed on heartbeats.
        services: Option<Vec<ServiceId>>,
        heartbeat: Heartbeat,
        reply: Reply<Vec<(ServiceId, BatchOutcome)>>,
    },
    /// Judge what is due at `at`: the instant the pulse was put into the queue, so that every beat
    /// received before it is taken before it.
    Pulse {
        at: Steady,
        done: Option<oneshot::Sender<()>>,
    },
    /// The configuration was reloaded.
    Reload(Box<Terms>),
}

impl Command {
    /// How many rows it may touch: bounds the size of a commit.
    pub(super) fn weight(&self, terms: &Terms) -> usize {
        match self {
            Self::BeatMany {
                services: Some(services),
                ..
            } => services.len(),
            Self::BeatMany { services: None, .. } => terms.services_max_per_app,
            Self::Register { .. }
            | Self::Replace { .. }
            | Self::Remove { .. }
            | Self::Beat { .. }
            | Self::Pulse { .. }
            | Self::Reload(_) => 1,
        }
    }
}

/// The answer to an accepted heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BeatAnswer {
    /// The service's liveness after it.
    pub liveness: Monitored,
    /// Whether the producer must be told a new interval.
    pub new_interval: bool,
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

/// An answer that waits for its commit.
#[derive(Debug)]
pub(super) enum Ack {
    Entry(Reply<Entry>, Result<Entry, Error>),
    Removed(Reply<()>, Result<(), Error>),
    Beat(Reply<BeatAnswer>, Result<BeatAnswer, Error>),
    Batch(
        Reply<Vec<(ServiceId, BatchOutcome)>>,
        Result<Vec<(ServiceId, BatchOutcome)>, Error>,
    ),
    Pulse(oneshot::Sender<()>),
}

impl Ack {
    /// Answers. A caller that has gone away is no concern of ours.
    pub(super) fn send(self) {
        match self {
            Self::Entry(reply, answer) => drop(reply.send(answer)),
            Self::Removed(reply, answer) => drop(reply.send(answer)),
            Self::Beat(reply, answer) => drop(reply.send(answer)),
            Self::Batch(reply, answer) => drop(reply.send(answer)),
            Self::Pulse(done) => drop(done.send(())),
        }
    }

    /// Answers that the store failed: what was decided did not (provably) happen.
    pub(super) fn send_failed(self) {
        match self {
            Self::Entry(reply, _) => drop(reply.send(Err(Error::Failed))),
            Self::Removed(reply, _) => drop(reply.send(Err(Error::Failed))),
            Self::Beat(reply, _) => drop(reply.send(Err(Error::Failed))),
            Self::Batch(reply, _) => drop(reply.send(Err(Error::Failed))),
            Self::Pulse(_) => {}
        }
    }
}
