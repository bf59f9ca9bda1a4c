//! The closed list of what can happen to the registry, and what each caller hears.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::view::Entry;
use super::{Error, Rules};
use crate::clock::Clock;
use crate::domain::liveness::Beaten;
use crate::domain::{
    AppInfo, AppInstanceId, Cursor, DeadLetter, Heartbeat, LivenessInterval, ProducerState,
    Reading, ServiceId, ServiceKey, ServiceState, Steady, Subscription, SubscriptionId,
};
use crate::store::{self, ServiceRecord, Store};

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
    /// Look something up in the store.
    Look(Look),
    /// Subscriptions have been told.
    Advance { told: Vec<Told>, reply: Reply<()> },
    /// From here on beats are refused, because the server stops: nobody is judged any more.
    StopWatching { now: Instant },
}

impl Item {
    /// Whether it must not wait for company: how well we watch depends on it.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Self::Pulse { .. } | Self::Reload(_) | Self::Mend(_) | Self::StopWatching { .. } => {
                true
            }
            Self::Client(_) | Self::Look(_) | Self::Advance { .. } => false,
        }
    }
}

/// Something that only the store knows.
pub(super) struct Look(pub(super) Lookup);

pub(super) type Lookup = Box<dyn FnOnce(&dyn Store) -> Result<(), store::Error> + Send>;

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look")
    }
}

/// How far a subscription has been told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Which one. If it is gone by then, nothing happens.
    pub subscription: SubscriptionId,
    /// From now on.
    pub cursor: Cursor,
    /// What is given up.
    pub dead_letters: Vec<DeadLetter>,
}

/// Whether a service is still what the client thinks: judged in the writer, against what the
/// commands before it have made of the service.
pub struct Precondition(Option<Test>);

type Test = Box<dyn FnOnce(&Entry) -> bool + Send>;

impl Precondition {
    /// Always true.
    pub const NONE: Self = Self(None);

    /// True when the test says so.
    pub fn when(test: impl FnOnce(&Entry) -> bool + Send + 'static) -> Self {
        Self(Some(Box::new(test)))
    }

    pub(super) fn holds(self, entry: &Entry) -> bool {
        self.0.is_none_or(|test| test(entry))
    }
}

impl fmt::Debug for Precondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Some" } else { "None" })
    }
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
        service: ServiceRecord,
        state: ProducerState,
        reply: Reply<Entry>,
    },
    /// PUT of a service.
    Replace {
        key: ServiceKey,
        service: ServiceRecord,
        state: ServiceState,
        condition: Precondition,
        reply: Reply<Entry>,
    },
    /// DELETE of a service.
    Remove { key: ServiceKey, reply: Reply<()> },
    /// A heartbeat.
    Beat {
        key: ServiceKey,
        heartbeat: Heartbeat,
        condition: Precondition,
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
    /// POST of a subscription.
    Subscribe {
        subscription: Box<Subscription>,
        reply: Reply<Arc<Subscription>>,
    },
    /// DELETE of a subscription.
    Unsubscribe {
        app: AppInstanceId,
        subscription: SubscriptionId,
        reply: Reply<()>,
    },
    /// POST or PUT of what an application says of itself.
    RegisterApp {
        app: AppInstanceId,
        info: Arc<AppInfo>,
        /// PUT: the application must be known, and what it said before does not matter.
        replace: bool,
        reply: Reply<()>,
    },
    /// The operator makes an application known.
    Admit {
        app: AppInstanceId,
        reply: Reply<()>,
    },
    /// DELETE of an application.
    RemoveApp {
        app: AppInstanceId,
        reply: Reply<()>,
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
            Self::RemoveApp { .. } => rules.services_max_per_app + rules.subscriptions_max_per_app,
            Self::Register { .. }
            | Self::Replace { .. }
            | Self::Remove { .. }
            | Self::Beat { .. }
            | Self::Subscribe { .. }
            | Self::Unsubscribe { .. }
            | Self::Admit { .. }
            | Self::RegisterApp { .. } => 1,
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

/// An answer that waits for its commit. Dropped, it tells its caller that the store fails.
#[derive(Debug)]
pub(super) enum Ack {
    Entry(Reply<Entry>, Result<Entry, Error>),
    Done(Reply<()>, Result<(), Error>),
    Subscribed(Reply<Arc<Subscription>>, Result<Arc<Subscription>, Error>),
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
            Self::Done(reply, answer) => drop(reply.send(answer)),
            Self::Subscribed(reply, answer) => drop(reply.send(answer)),
            Self::Beat(reply, answer) => drop(reply.send(answer)),
            Self::Batch(reply, answer) => drop(reply.send(answer)),
        }
    }
}
