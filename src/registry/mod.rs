//! The use cases, and the one writer behind them.
//!
//! [`Registry`] is a cheap handle. Reads go to the in-memory view; every change goes through one
//! bounded queue to one writer thread, which decides, commits and answers in batches: an answer
//! means that it is on the disk. See `queue`, `writer`, `decide`, `pulse`, `boot` in that order.

mod apps;
mod boot;
mod command;
mod decide;
mod health;
mod pulse;
mod queue;
mod tail;
mod view;
mod watch;
mod writer;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

pub use self::boot::Boot;
pub use self::command::{BatchOutcome, Precondition, Told};
use self::command::{Command, Instant, Item, Look, Reply};
use self::health::Health;
use self::queue::Queue;
use self::tail::Log;
pub use self::tail::Page;
pub use self::view::{App, Entry, Subscribed, View};
use self::writer::Writer;
use crate::clock::Clock;
use crate::domain::liveness::Beaten;
use crate::domain::{
    AppInstanceId, BlindSpot, Event, Heartbeat, LivenessInterval, Moment, Policy, ProducerState,
    Service, ServiceId, ServiceKey, ServiceState, SubscriptionId,
};
use crate::metrics::Metrics;
use crate::store::{self, EventLog, ServiceRecord, Store};

/// What requests are decided by; can change while the registry runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Bounds and grace.
    pub policy: Policy,
    /// Whether an unknown application is accepted with its first service.
    pub auto_accept: bool,
    /// Services per application.
    pub services_max_per_app: usize,
    /// Subscriptions per application.
    pub subscriptions_max_per_app: usize,
}

/// The operator's choices that the registry goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// What requests are decided by.
    pub rules: Rules,
    /// Commands that may wait for the writer.
    pub queue_max: usize,
    /// A small batch waits so long for company, in milliseconds.
    pub linger_ms: u64,
    /// From so many commands on it does not wait.
    pub linger_commands: usize,
    /// A mark joins a commit when the last one is so old, in milliseconds.
    pub mark_interval_ms: u64,
    /// Without commits a mark is written this often, in milliseconds.
    pub idle_mark_interval_ms: u64,
    /// The pulse's period in milliseconds.
    pub tick_ms: u64,
    /// A longer gap between pulses, or a longer commit, is a blind spot; in milliseconds.
    pub stall_ms: u64,
    /// So many events are kept of a service.
    pub events_per_service_max: usize,
    /// Events are kept for so long, in milliseconds.
    pub events_kept_ms: u64,
}

/// Why a use case did not happen. Says what the caller can do, not how HTTP says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such application.
    #[error(
        "application instance {0} is not known here; it becomes known when it registers with POST /mec_app_support/v1/registrations, or, if apps.auto_accept is on, with its first service"
    )]
    UnknownApp(AppInstanceId),
    /// The application is known, but has said nothing of itself.
    #[error("application instance {0} has not registered what it is; PUT or POST its AppInfo")]
    NotRegistered(AppInstanceId),
    /// It has said something else before.
    #[error(
        "application instance {0} is registered already, as something else; PUT the new AppInfo to replace it"
    )]
    AlreadyRegistered(AppInstanceId),
    /// No such subscription of this application.
    #[error("this application has no subscription {0}; if it had one before, subscribe anew")]
    UnknownSubscription(SubscriptionId),
    /// The service is not what the client thinks.
    #[error(
        "service {0} is not what If-Match says: it has changed since; GET it again and decide anew"
    )]
    Changed(ServiceId),
    /// No such service of this application.
    #[error("this application has no service {0}; if it was registered before, register it anew")]
    UnknownService(ServiceId),
    /// The service agreed on no heartbeat.
    #[error(
        "service {0} agreed on no heartbeat (no livenessInterval was offered), so it has no liveness resource"
    )]
    NoLiveness(ServiceId),
    /// A heartbeat cannot switch a service on.
    #[error(
        "service {0} is INACTIVE; a heartbeat confirms a service but never switches it on: PUT it with state ACTIVE first"
    )]
    Inactive(ServiceId),
    /// The promise is longer than the interval.
    #[error("retryInterval must be at most the interval of service {service}, {} s", .interval.as_secs())]
    PromiseTooLong {
        /// Which service.
        service: ServiceId,
        /// Its interval.
        interval: LivenessInterval,
    },
    /// SUSPENDED was asked for.
    #[error("state SUSPENDED is the platform's to declare; a producer sets ACTIVE or INACTIVE")]
    SuspendedByProducer,
    /// The application's share is used up.
    #[error(
        "this application has its maximum of {limit} services; remove one first, or have the operator raise apps.services_max_per_app"
    )]
    TooManyServices {
        /// The share.
        limit: usize,
    },
    /// The application's share is used up.
    #[error(
        "this application has its maximum of {limit} subscriptions; delete one first, or have the operator raise apps.subscriptions_max_per_app"
    )]
    TooManySubscriptions {
        /// The share.
        limit: usize,
    },
    /// The queue is full.
    #[error("too many requests wait for the disk; try again in a moment")]
    Busy,
    /// The server is going down.
    #[error("the server is stopping; try again when it is back")]
    Stopping,
    /// The store failed. Whether the change happened is unknown.
    #[error(
        "the store failed; whether this was stored is unknown. Try again when the server is back"
    )]
    Failed,
}

/// What the truth depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Why the registry is not ready, one sentence each; empty: the store commits, and verdicts are
    /// on time.
    pub not_ready: Vec<String>,
    /// How long the last commit took, in milliseconds.
    pub last_commit_ms: u64,
    /// How long ago the last pulse came through, in milliseconds.
    pub pulse_age_ms: u64,
    /// By how many milliseconds the earliest verdict is late.
    pub verdicts_late_ms: u64,
    /// The last time that nobody watched, as far as it is kept.
    pub last_blind_spot: Option<BlindSpot>,
}

/// So many may read from the store at once, beside the writer or in its queue.
const LOOKUPS_MAX: usize = 2;

/// See the module.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    view: Arc<RwLock<View>>,
    health: Arc<Health>,
    log: Arc<Log>,
    /// What `log` does not reach back to.
    events: Arc<dyn EventLog>,
    /// Bounds how many read from the store at once.
    lookups: Semaphore,
    clock: Clock,
    tick_ms: u64,
    stall_ms: u64,
    metrics: Arc<Metrics>,
}

impl Inner {
    fn pulse_now(&self, done: Option<oneshot::Sender<()>>) -> Item {
        Item::Pulse {
            now: Instant::now(&self.clock),
            done,
        }
    }

    /// Why the queue takes nothing more.
    fn closed(&self) -> Error {
        match self.health.failure() {
            Some(_) => Error::Failed,
            None => Error::Stopping,
        }
    }

    /// The answer to what stood in the queue.
    async fn answered<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        match answer.await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                // A writer that gives up drops the reply a moment before it says so; nobody is to
                // be refused by a registry that still calls itself ready.
                self.health.until_failed().await;
                Err(Error::Failed)
            }
        }
    }
}

/// A started registry: the handle, and the writer's thread to wait for at the end.
pub struct Running {
    registry: Registry,
    writer: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts the writer's thread.
    fn start(registry: Registry, writer: Writer) -> Result<Self, Error> {
        let thread = std::thread::Builder::new().name("writer".to_owned());
        match thread.spawn(move || writer.run_guarded()) {
            Ok(writer) => Ok(Self { registry, writer }),
            Err(error) => {
                log::error!("the writer's thread could not be started: {error}");
                Err(Error::Failed)
            }
        }
    }

    /// The handle.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Takes in nothing more, finishes what was accepted, marks a clean stop and seals the store.
    /// Blocks until that is done.
    ///
    /// # Errors
    /// [`Error::Failed`] when the store failed, now or earlier.
    pub fn stop(self) -> Result<(), Error> {
        self.registry.0.queue.close();
        self.writer.join().unwrap_or_else(|_| {
            log::error!("the writer's thread panicked");
            Err(Error::Failed)
        })
    }
}

impl Registry {
    /// Registers a service under a fresh id. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::TooManyServices`], or the registry is not able now.
    pub async fn register(
        &self,
        app: AppInstanceId,
        service: Service,
        state: ProducerState,
    ) -> Result<Entry, Error> {
        let key = ServiceKey {
            app,
            service: ServiceId::random(),
        };
        let service = ServiceRecord::new(&service);
        self.ask(|reply| Command::Register {
            key,
            service,
            state,
            reply,
        })
        .await
    }

    /// Replaces a registration.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::UnknownService`], [`Error::SuspendedByProducer`],
    /// [`Error::Changed`], or the registry is not able now.
    pub async fn replace(
        &self,
        key: ServiceKey,
        service: Service,
        state: ServiceState,
        condition: Precondition,
    ) -> Result<Entry, Error> {
        let service = ServiceRecord::new(&service);
        self.ask(|reply| Command::Replace {
            key,
            service,
            state,
            condition,
            reply,
        })
        .await
    }

    /// Removes a service with its liveness.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::UnknownService`], or the registry is not able now.
    pub async fn remove(&self, key: ServiceKey) -> Result<(), Error> {
        self.ask(|reply| Command::Remove { key, reply }).await
    }

    /// Takes a heartbeat: at once, and it is on the disk when the answer is there.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::UnknownService`], [`Error::NoLiveness`],
    /// [`Error::PromiseTooLong`], [`Error::Changed`], [`Error::Inactive`], or the registry is not able
    /// now.
    pub fn heartbeat(
        &self,
        key: ServiceKey,
        heartbeat: Heartbeat,
        condition: Precondition,
    ) -> impl Future<Output = Result<Beaten, Error>> + Send + use<> {
        self.ask(move |reply| Command::Beat {
            key,
            heartbeat,
            condition,
            reply,
        })
    }

    /// Takes one heartbeat for many services of an application (each named once), in one commit.
    /// `None`: for every service that agreed on heartbeats. One outcome per id, in order.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::PromiseTooLong`] (then none has beaten), or the registry
    /// is not able now.
    pub async fn heartbeat_many(
        &self,
        app: AppInstanceId,
        services: Option<Vec<ServiceId>>,
        heartbeat: Heartbeat,
    ) -> Result<Vec<(ServiceId, BatchOutcome)>, Error> {
        self.ask(|reply| Command::BeatMany {
            app,
            services,
            heartbeat,
            reply,
        })
        .await
    }

    /// Puts a command into the queue, at once; what is waited for is its answer.
    fn ask<T, C: FnOnce(Reply<T>) -> Command>(
        &self,
        command: C,
    ) -> impl Future<Output = Result<T, Error>> + use<T, C> {
        let (reply, answer) = oneshot::channel();
        let put = self.0.queue.push(command(reply)).map_err(|error| {
            if self.0.health.failure().is_some() {
                return Error::Failed;
            }
            self.note_refusal();
            error
        });
        let inner = self.0.clone();
        async move {
            put?;
            inner.answered(answer).await?
        }
    }

    /// A beat was refused, or may have been: a connection was turned away. That time is not charged
    /// to anybody.
    pub fn note_refusal(&self) {
        self.0.metrics.refused.inc();
        self.0.health.refused(self.now().steady);
    }

    /// From here on beats are refused, because the server stops: nobody is judged any more, and the
    /// next start takes it from here.
    pub fn stop_watching(&self) {
        self.0.queue.push_own(|| Item::StopWatching {
            now: Instant::now(&self.0.clock),
        });
    }

    /// What happened to a service, oldest first, as far as it is kept; also of one that is gone.
    ///
    /// # Errors
    /// When the registry is not able now.
    pub async fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error> {
        self.look(move |store| store.history(service)).await
    }

    /// Waits until few enough read from the store.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.0.lookups.acquire().await.map_err(|_| Error::Stopping)
    }

    /// Asks the writer to look something up in the store.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Store) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.turn().await?;
        let (reply, answer) = oneshot::channel();
        let look = Look(Box::new(move |store| {
            drop(reply.send(look(store)?));
            Ok(())
        }));
        if !self.0.queue.push_own(|| Item::Look(look)) {
            return Err(self.0.closed());
        }
        self.0.answered(answer).await
    }

    /// The in-memory view. Hold it briefly: the writer waits for it.
    pub fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Both clocks now.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.0.clock.now()
    }

    /// How many commands wait for the writer.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.0.queue.len()
    }

    /// New rules, after a reload of the configuration.
    pub fn reload(&self, rules: Rules) {
        self.0.queue.push_own(|| Item::Reload(rules));
    }

    /// Waits until everything that is due now has been judged.
    pub async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        self.0.queue.push_own(|| self.0.pulse_now(Some(done)));
        // A stopping registry judges nobody.
        let _ = settled.await;
    }

    /// Has what is due judged, for ever: to be run as a task of its own.
    pub async fn pulse(self) {
        pulse::run(self).await;
    }

    /// Waits until the store fails; then the process should end, and the next start decides.
    pub async fn failed(&self) {
        self.0.health.until_failed().await;
    }

    /// What the truth depends on, now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let Inner {
            health,
            clock,
            stall_ms,
            ..
        } = &*self.0;
        let now = clock.now().steady;
        let pace = health.pace();
        let silent_ms = now.ms_since(pace.last_pulse);
        let late_ms = pace.next_due.map_or(0, |due| now.ms_since(due));
        let mut not_ready: Vec<String> = health.failure().into_iter().collect();
        if silent_ms > *stall_ms {
            not_ready.push(format!(
                "the writer has not come through for {silent_ms} ms"
            ));
        }
        if late_ms > *stall_ms {
            not_ready.push(format!("verdicts are {late_ms} ms late"));
        }
        Condition {
            not_ready,
            last_commit_ms: pace.last_commit_ms,
            pulse_age_ms: silent_ms,
            verdicts_late_ms: late_ms,
            last_blind_spot: self.view().blind_spots.last().copied(),
        }
    }
}
