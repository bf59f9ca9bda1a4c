//! From a store to a running registry: builds the view, carries steady time over the outage,
//! records it as a blind spot, mends the expiry index.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use tokio::sync::Semaphore;

use super::command::Instant;
use super::health::Health;
use super::queue::Queue;
use super::tail::{Log, TAIL_MAX};
use super::view::{Entry, View};
use super::watch::{self, Watch};
use super::writer::{self, Writer};
use super::{Error, Inner, LOOKUPS_MAX, Registry, Running, Terms};
use crate::clock::{Clock, Machine, Stopwatch};
use crate::domain::timeline::{self, Resumed};
use crate::domain::{
    AppInfo, AppInstanceId, BlindCause, BlindSpot, DeadLetter, Event, Liveness, Mark, Reading,
    ServiceId, ServiceKey, Steady, Wall,
};
use crate::metrics::Metrics;
use crate::store::{self, AppRecord, Armed, EventLog, Row, ServiceRecord, SkippedRow, Store};

/// A loaded store, before anything is written.
pub struct Boot {
    store: Box<dyn Store>,
    view: View,
    mark: Option<Mark>,
    skipped: Vec<SkippedRow>,
    /// The newest steady value in the store; time may not resume before it.
    newest: Option<Steady>,
    orphans: Vec<Armed>,
    next_sequence: u64,
}

impl Boot {
    /// Reads everything. Rows that cannot be decoded are skipped, counted and logged.
    ///
    /// # Errors
    /// When the store itself fails to read.
    pub fn load(mut store: Box<dyn Store>) -> Result<Self, store::Error> {
        let stopwatch = Stopwatch::start();
        let mut view = View::default();
        let mut registered: HashMap<ServiceKey, ServiceRecord> = HashMap::new();
        let mut orphans = Vec::new();
        let mut newest = None;
        let loaded = store.load(&mut |row| match row {
            Row::App(app, record) => view.put_app(app, record),
            Row::AppInfo(app, info) => add_info(&mut view, app, Arc::from(info)),
            Row::Service(key, service) => drop(registered.insert(key, service)),
            Row::Liveness(key, liveness) => {
                newest = newest.max(liveness.newest());
                if let Some(service) = registered.remove(&key) {
                    add(&mut view, key, service, liveness);
                }
            }
            Row::Armed(armed) => orphans.extend(place(&mut view, armed)),
            Row::Subscription(subscription) => {
                know(&mut view, &subscription.app);
                view.put_subscription(Arc::from(subscription));
            }
            Row::Cursor(id, cursor) => view.set_cursor(&id, cursor),
        })?;
        for skipped in &loaded.skipped {
            let SkippedRow { tree, key, reason } = skipped;
            log::error!("skipped a row of {tree} with key {key}: {reason}");
        }
        for key in registered.keys() {
            log::error!(
                "skipped service {} of {}: its liveness is missing",
                key.service,
                key.app
            );
        }
        view.index_all();
        let newest = newest
            .max(loaded.blind_spots.iter().map(|spot| spot.end).max())
            .max(loaded.last_event);
        view.blind_spots = loaded.blind_spots;
        view.policy = loaded.policy;
        let services = view.services().count();
        log::info!(
            "loaded {services} services in {} ms",
            stopwatch.elapsed_ms()
        );
        Ok(Self {
            store,
            view,
            mark: loaded.mark,
            skipped: loaded.skipped,
            newest,
            orphans,
            next_sequence: loaded.next_sequence,
        })
    }

    /// What was loaded.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The last mark.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Rows that could not be decoded.
    #[must_use]
    pub fn skipped(&self) -> &[SkippedRow] {
        &self.skipped
    }

    /// Steady time at a reading, were the server started now.
    #[must_use]
    pub fn resume(&self, reading: &Reading) -> Resumed {
        let newest = self.newest.unwrap_or(Steady::from_ms(0));
        match &self.mark {
            Some(mark) => timeline::resume(mark, newest, reading),
            // The first start; or a damaged mark, then the wall clock is all there is.
            None => Resumed {
                steady: Steady::from_ms(reading.wall.as_ms()).max(newest),
                length_known: false,
            },
        }
    }

    /// The blind spots as they would be were the server started at this reading: the outage counts.
    #[must_use]
    pub fn blind_spots_at(&self, reading: &Reading) -> Vec<BlindSpot> {
        let mut spots = self.view.blind_spots.clone();
        if let Some(outage) = self.outage(self.resume(reading)) {
            watch::add(&mut spots, outage);
        }
        spots
    }

    /// What happened to a service.
    ///
    /// # Errors
    /// When the store itself fails to read.
    pub fn history(&self, service: ServiceId) -> Result<Vec<Event>, store::Error> {
        self.store.history(service)
    }

    /// The log of events.
    #[must_use]
    pub fn log(&self) -> Arc<dyn EventLog> {
        self.store.log()
    }

    /// What could not be delivered.
    ///
    /// # Errors
    /// When the store itself fails to read.
    pub fn dead_letters(&self) -> Result<Vec<DeadLetter>, store::Error> {
        self.store.dead_letters()
    }

    /// Gives the store back, unchanged.
    #[must_use]
    pub fn into_store(self) -> Box<dyn Store> {
        self.store
    }

    /// The stretch that ends now because nobody watched; none at the very first start.
    fn outage(&self, resumed: Resumed) -> Option<BlindSpot> {
        let (start, cause) = match &self.mark {
            Some(mark) if mark.clean_stop => (mark.steady, BlindCause::PlannedStop),
            Some(mark) => (mark.steady, BlindCause::Down),
            None => (self.newest?, BlindCause::Down),
        };
        let Resumed {
            steady: end,
            length_known,
        } = resumed;
        Some(BlindSpot {
            start,
            end,
            cause,
            length_known,
        })
    }

    /// Starts the registry. The listener must accept already: the blind spot of the outage ends
    /// when the index is mended and all is ready. Blind spot, mark and policy are one commit, before
    /// the first answer.
    ///
    /// # Errors
    /// When the store fails; nothing was acknowledged then.
    pub fn start(
        mut self,
        terms: Terms,
        machine: Arc<dyn Machine>,
        metrics: Arc<Metrics>,
    ) -> Result<Running, Error> {
        let reading = machine.read();
        let resumed = self.resume(&reading);
        let clock = Clock::anchored(machine, resumed.steady, &reading);
        let outage = self.outage(resumed);
        if let Some(mark) = &self.mark {
            // Nobody tried in the meantime, so it does not count against a callback.
            self.view
                .postpone_giving_up(resumed.steady.ms_since(mark.steady));
        }
        let forgotten = self.view.forget_blind_spots();
        let outage = outage.map(|outage| watch::add(&mut self.view.blind_spots, outage).0);
        let policy = terms.rules.policy;
        self.view.policy = Some(policy);
        metrics
            .undecodable_rows
            .set(i64::try_from(self.skipped.len()).unwrap_or(i64::MAX));
        let late = writer::late_entries(&self.view, &policy);
        let told = self.view.subscriptions().map(|known| known.cursor.next);
        let needed_from = told.min().unwrap_or(self.next_sequence);
        let events = self.store.log();
        let newest = events.newest(TAIL_MAX).unwrap_or_else(|error| {
            log::error!("reading the newest events failed: {error}");
            Vec::new()
        });
        let log = Arc::new(Log::new(newest, self.next_sequence, needed_from));
        let inner = Arc::new(Inner {
            queue: Arc::new(Queue::new(terms.queue_max)),
            view: Arc::new(RwLock::new(self.view)),
            health: Arc::new(Health::new(resumed.steady)),
            log: log.clone(),
            events,
            lookups: Semaphore::new(LOOKUPS_MAX),
            clock: clock.clone(),
            tick_ms: terms.tick_ms,
            stall_ms: terms.stall_ms,
            metrics: metrics.clone(),
        });
        let watch = Watch::new(Instant::now(&clock), terms.stall_ms);
        let mut writer = Writer {
            store: self.store,
            view: inner.view.clone(),
            queue: inner.queue.clone(),
            health: inner.health.clone(),
            metrics,
            clock,
            terms,
            last_mark: resumed.steady,
            watch,
            has_stopped: false,
            next_sequence: self.next_sequence,
            log,
        };
        let mended = writer.mend_all(late, self.orphans);
        if let Err(error) = mended.and_then(|()| writer.begin(outage, forgotten)) {
            log::error!("starting failed: {error}");
            writer.store.abandon();
            return Err(Error::Failed);
        }
        Running::start(Registry(inner), writer)
    }
}

/// An application's row is missing only if it could not be decoded, and what belongs to it does
/// not suffer for that.
fn know(view: &mut View, app: &AppInstanceId) {
    if view.app(app).is_none() {
        log::error!("application {app} has no row; going on without it");
        let record = AppRecord {
            created: Wall::from_ns(0),
            info: None,
        };
        view.put_app(app.clone(), record);
    }
}

fn add_info(view: &mut View, app: AppInstanceId, info: Arc<AppInfo>) {
    know(view, &app);
    if let Some(known) = view.app(&app) {
        let record = AppRecord {
            info: Some(info),
            ..known.record.clone()
        };
        view.put_app(app, record);
    }
}

/// Adds a loaded service.
fn add(view: &mut View, key: ServiceKey, service: ServiceRecord, liveness: Liveness) {
    know(view, &key.app);
    view.put_unindexed(Entry {
        key,
        service,
        liveness,
        armed: None,
    });
}

/// Takes an entry of the expiry index over into the view; gives back the one that has to go.
fn place(view: &mut View, armed: Armed) -> Option<Armed> {
    match view.entry_mut(&armed.key) {
        // The index is walked from early to late, so the first one found is the one to keep.
        Some(entry) if entry.armed.is_none() && entry.liveness.monitored().is_some() => {
            entry.armed = Some(armed.at);
            None
        }
        _ => Some(armed),
    }
}
