//! Durable state behind one small seam; the only room that knows bytes.
//!
//! * [`schema`]: every tree and key layout · [`codec`]: the envelope of a value · `records`: the
//!   frozen record types
//! * [`data_dir`]: the lock, the `STORE` file · [`witness`]: the newest commit · [`mod@sled`]: the
//!   embedded engine · [`migrate`]: steps between schema versions
//! * [`memory`]: an engine for tests that fails on request

pub mod codec;
pub mod data_dir;
mod error;
pub mod memory;
pub mod migrate;
mod records;
pub mod schema;
mod service_record;
pub mod sled;
pub mod witness;

use std::sync::Arc;

pub use self::error::{Error, OpenError};
pub use self::service_record::ServiceRecord;
pub use self::sled::{OpenMode, OpenOptions, SledStore};
use crate::domain::{
    AppInfo, AppInstanceId, BlindSpot, Cursor, DeadLetter, Event, Liveness, Mark, Policy,
    ServiceId, ServiceKey, Steady, Subscription, SubscriptionId, Wall,
};

/// What an acknowledgement survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A power cut: flush, then our own `fdatasync`.
    PowerLoss,
    /// The death of the process, `kill -9` included: flush only.
    ProcessCrash,
}

impl Durability {
    /// The name in the configuration and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PowerLoss => "power-loss",
            Self::ProcessCrash => "process-crash",
        }
    }
}

/// The engine under the registry. Used by one thread at a time: the writer.
pub trait Store: Send {
    /// Reads everything, row by row. Rows that cannot be decoded are skipped and counted, never
    /// fatal.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<Loaded, Error>;

    /// Makes a batch durable, all of it or nothing. When it returns, it is on the disk.
    ///
    /// # Errors
    /// After an error it is unknown what reached the disk: the caller must not commit again.
    fn commit(&mut self, batch: &Batch) -> Result<(), Error>;

    /// The earliest entries of the expiry index up to and including `until`, at most `max`.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn due(&self, until: Steady, max: usize) -> Result<Vec<Armed>, Error>;

    /// When the earliest entry of the expiry index is due.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn next_due(&self) -> Result<Option<Steady>, Error>;

    /// What happened to a service, oldest first, as far as it is kept; also of one that is gone.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error>;

    /// The log of events, to be read by others while the writer goes on.
    fn log(&self) -> Arc<dyn EventLog>;

    /// What could not be delivered, by subscription and sequence.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error>;

    /// How many times the disk was synced for a commit.
    fn syncs(&self) -> u64;

    /// Orderly end: everything is on the disk and sealed when it returns.
    ///
    /// # Errors
    /// When the last writes fail; what was committed stays committed.
    fn close(self: Box<Self>) -> Result<(), Error>;

    /// After a failure: leaves everything as it is. Dropping an engine can write, and what is on
    /// the disk now is for the next start to judge.
    fn abandon(self: Box<Self>);
}

/// The log of events, as it is. It may show events of a commit that is not on the disk yet: readers
/// have to know how far it is. After the store is closed there is nothing in it.
pub trait EventLog: Send + Sync {
    /// What happened from a sequence on, as far as it is kept; looks at no more than `max` rows.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn read(&self, from: u64, max: usize) -> Result<LogPage, Error>;

    /// The newest events, at most `max`, oldest first.
    ///
    /// # Errors
    /// When the engine itself fails to read.
    fn newest(&self, max: usize) -> Result<Vec<Event>, Error>;
}

/// A part of the log.
#[derive(Debug, Default)]
pub struct LogPage {
    /// Those that can be decoded; the others are logged.
    pub events: Vec<Event>,
    /// Where to read on; `None`: this was the end of the log.
    pub next: Option<u64>,
}

/// The sequence of a store's first event: so that one can say "before the first".
const FIRST_SEQUENCE: u64 = 1;

/// Events that one commit forgets for their age at the most.
const FORGOTTEN_MAX: usize = 1024;

/// Dead letters that are kept of a subscription; the oldest go. They are there to be looked at, and
/// an application that goes takes those of all its subscriptions along in one commit.
pub const DEAD_LETTERS_MAX: usize = 100;

/// One entry of the expiry index. It may be early, never late; a running timer has exactly one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Armed {
    /// When the scanner must look.
    pub at: Steady,
    /// At whom.
    pub key: ServiceKey,
}

/// One row that could be decoded, as [`Store::load`] hands it out: applications first, then services and
/// their liveness (which comes soon after its service, or after all of them), then expiry index,
/// subscriptions, cursors.
#[derive(Debug)]
pub enum Row {
    /// A known application, without its `info`.
    App(AppInstanceId, AppRecord),
    /// What an application says of itself.
    AppInfo(AppInstanceId, Box<AppInfo>),
    /// A registration.
    Service(ServiceKey, ServiceRecord),
    /// State and agreement.
    Liveness(ServiceKey, Liveness),
    /// An entry of the expiry index.
    Armed(Armed),
    /// A subscription.
    Subscription(Box<Subscription>),
    /// How far a subscription has been told.
    Cursor(SubscriptionId, Cursor),
}

/// What is kept of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRecord {
    /// When it was first seen.
    pub created: Wall,
    /// What it says of itself; `None`: it has only registered services.
    pub info: Option<Arc<AppInfo>>,
}

/// What [`Store::load`] found besides the rows.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The last mark; `None` on a new store.
    pub mark: Option<Mark>,
    /// The policy of the last run; `None` on a new store.
    pub policy: Option<Policy>,
    /// All recorded blind spots, sorted by start.
    pub blind_spots: Vec<BlindSpot>,
    /// Rows that were skipped because they cannot be decoded.
    pub skipped: Vec<SkippedRow>,
    /// The sequence that the next event gets.
    pub next_sequence: u64,
    /// When the last event happened.
    pub last_event: Option<Steady>,
    /// The rows are not those that were committed last: something else has changed or lost some.
    pub altered: bool,
}

/// A row that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedRow {
    /// The tree it stands in.
    pub tree: &'static str,
    /// Its key in hex.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What becomes of a row: `old` is what stands there (`None`: nothing), `new` what will (`None`:
/// nothing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<T> {
    /// Before.
    pub old: Option<T>,
    /// After.
    pub new: Option<T>,
}

impl<T> Change<T> {
    /// Both sides converted.
    pub fn map<U>(&self, convert: impl Fn(&T) -> U) -> Change<U> {
        self.and_then(|side| Some(convert(side)))
    }

    /// Both sides converted, as far as they can be.
    pub fn and_then<U>(&self, convert: impl Fn(&T) -> Option<U>) -> Change<U> {
        Change {
            old: self.old.as_ref().and_then(&convert),
            new: self.new.as_ref().and_then(&convert),
        }
    }
}

/// Everything one commit changes. A transition and all it causes are in one batch; half of it
/// cannot be stored.
#[derive(Debug, Default)]
pub struct Batch {
    /// Applications.
    pub apps: Vec<(AppInstanceId, Change<AppRecord>)>,
    /// Registrations.
    pub services: Vec<(ServiceKey, Change<ServiceRecord>)>,
    /// State and agreement.
    pub liveness: Vec<(ServiceKey, Change<Liveness>)>,
    /// Subscriptions that come or go. With one that goes, its cursor and its dead letters go.
    pub subscriptions: Vec<Change<Arc<Subscription>>>,
    /// How far subscriptions have been told.
    pub cursors: Vec<(SubscriptionId, Cursor)>,
    /// What is given up; of each subscription at most [`DEAD_LETTERS_MAX`] are kept.
    pub dead_letters: Vec<DeadLetter>,
    /// Entries that leave the expiry index.
    pub disarm: Vec<Armed>,
    /// Entries that join the expiry index.
    pub arm: Vec<Armed>,
    /// New blind spots.
    pub blind_spots: Vec<BlindSpot>,
    /// Starts of blind spots that no running timer can see any more.
    pub forget_blind_spots: Vec<Steady>,
    /// The steady mark.
    pub mark: Option<Mark>,
    /// The policy in force.
    pub policy: Option<Policy>,
    /// What happened.
    pub events: Vec<Event>,
    /// Older events of the same services go, so that each keeps at most so many.
    pub events_per_service_max: usize,
    /// Events before this go, in bounded parts; the newest of all stays in any case, because it
    /// holds the sequence.
    pub forget_events_before: Option<Wall>,
    /// Events from this sequence on stay in any case: somebody is to be told of them.
    pub events_needed_from: u64,
}

impl Batch {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            apps,
            services,
            liveness,
            subscriptions,
            cursors,
            dead_letters,
            disarm,
            arm,
            blind_spots,
            forget_blind_spots,
            mark,
            policy,
            events,
            events_per_service_max: _,
            forget_events_before,
            events_needed_from: _,
        } = self;
        apps.is_empty()
            && services.is_empty()
            && liveness.is_empty()
            && subscriptions.is_empty()
            && cursors.is_empty()
            && dead_letters.is_empty()
            && disarm.is_empty()
            && arm.is_empty()
            && blind_spots.is_empty()
            && forget_blind_spots.is_empty()
            && mark.is_none()
            && policy.is_none()
            && events.is_empty()
            && forget_events_before.is_none()
    }
}
