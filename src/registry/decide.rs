//! Decides what commands do, without doing it: pure but for the collected answers.
//!
//! [`Pending`] is an overlay over the view. Each command sees what the earlier ones of its batch
//! decided; nothing is visible outside until the batch is on the disk and [`Outcome::install`]ed.
//! A refused command answers its own caller and spoils nobody else's.

mod apps;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::command::{Ack, BatchOutcome, Command, Condition, Reply};
use super::view::{Entry, View};
use super::{Error, Rules};
use crate::domain::liveness::{BeatRefusal, Beaten};
use crate::domain::silence::deadline;
use crate::domain::{
    AppInstanceId, Attributes, BlindSpot, Cursor, DeadLetter, Event, Evidence, Happening,
    Heartbeat, Liveness, Moment, Policy, ProducerState, Service, ServiceId, ServiceKey,
    ServiceState, Steady, Subject, Subscription, SubscriptionId,
};
use crate::store::{AppRecord, Armed, Batch, Change};

/// Blind spots are sorted by start and overlap little: the latest to end is among the last few.
const RECENT_BLIND_SPOTS: usize = 4;

/// What a batch of commands has decided so far.
pub(super) struct Pending<'a> {
    view: &'a View,
    rules: &'a Rules,
    now: Moment,
    apps: HashMap<AppInstanceId, PendingApp>,
    services: HashMap<ServiceId, Option<Entry>>,
    /// Entries of the expiry index that belong to nobody.
    orphans: Vec<Armed>,
    events: Vec<Event>,
    /// The sequence that the first of them gets.
    next_sequence: u64,
    subscriptions: HashMap<SubscriptionId, Option<Arc<Subscription>>>,
    cursors: HashMap<SubscriptionId, Cursor>,
    dead_letters: Vec<DeadLetter>,
    acks: Vec<Ack>,
    tally: Tally,
}

#[derive(Default)]
struct PendingApp {
    /// What becomes of it: `None`, nothing; `Some(None)`, it goes.
    change: Option<Option<AppRecord>>,
    added: BTreeSet<ServiceId>,
    removed: BTreeSet<ServiceId>,
}

/// What happened in a batch, for metrics and logs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) beats: u64,
    pub(super) registered: u64,
    pub(super) removed: u64,
    /// Removed because they did not come back.
    pub(super) forgotten: u64,
    pub(super) revived: u64,
    /// Suspended services with the deadline that passed.
    pub(super) suspended: Vec<(ServiceKey, Steady)>,
}

/// A decided batch.
pub(super) struct Outcome {
    /// For the store.
    pub(super) batch: Batch,
    /// For the callers, once it is on the disk.
    pub(super) acks: Vec<Ack>,
    pub(super) tally: Tally,
    services: HashMap<ServiceId, Option<Entry>>,
}

/// Where the entry of a running timer belongs in the expiry index; `None` when none runs.
///
/// One that already stands early enough stays where it is: that is what makes a plain beat cost no
/// index write, and no look at the blind spots.
pub(super) fn index_at(
    entry: &Entry,
    policy: &Policy,
    blind_spots: &[BlindSpot],
) -> Option<Steady> {
    let timer = policy
        .timer_of(&entry.liveness)
        .or_else(|| policy.removal_of(&entry.liveness))?;
    match entry.armed {
        Some(armed) if armed <= timer.earliest() => Some(armed),
        armed => {
            let deadline = deadline(&timer, blind_spots);
            Some(armed.map_or(deadline, |armed| armed.min(deadline)))
        }
    }
}

/// What consumers see of a replaced registration.
fn what_changed(old: &Service, new: &Service) -> Attributes {
    let former = Subject::of(old);
    if former != Subject::of(new) {
        return Attributes::Renamed(Box::new(former));
    }
    // What a producer offers is between it and the platform.
    let offer = |service: &Service| service.liveness_offer;
    let differ_in_offer_only = Service {
        liveness_offer: offer(old),
        ..new.clone()
    } == *old;
    if differ_in_offer_only {
        Attributes::Same
    } else {
        Attributes::Changed
    }
}

impl<'a> Pending<'a> {
    /// Nothing decided yet; the first event will get `next_sequence`.
    pub(super) fn new(view: &'a View, rules: &'a Rules, now: Moment, next_sequence: u64) -> Self {
        Self {
            view,
            rules,
            now,
            apps: HashMap::new(),
            services: HashMap::new(),
            orphans: Vec::new(),
            events: Vec::new(),
            next_sequence,
            subscriptions: HashMap::new(),
            cursors: HashMap::new(),
            dead_letters: Vec::new(),
            acks: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Decides one command of a client.
    pub(super) fn decide(&mut self, command: Command) {
        let ack = match command {
            Command::Register {
                key,
                service,
                state,
                reply,
            } => Ack::Entry(reply, self.register(key, service, state)),
            Command::Replace {
                key,
                service,
                state,
                condition,
                reply,
            } => Ack::Entry(reply, self.replace(&key, service, state, condition)),
            Command::Remove { key, reply } => Ack::Done(reply, self.remove(&key)),
            Command::Beat {
                key,
                heartbeat,
                condition,
                reply,
            } => Ack::Beat(reply, self.beat(&key, heartbeat, condition)),
            Command::BeatMany {
                app,
                services,
                heartbeat,
                reply,
            } => Ack::Batch(reply, self.beat_many(&app, services, heartbeat)),
            Command::Subscribe {
                subscription,
                reply,
            } => Ack::Subscribed(reply, self.subscribe(*subscription)),
            Command::Unsubscribe {
                app,
                subscription,
                reply,
            } => Ack::Done(reply, self.unsubscribe(&app, subscription)),
            Command::RegisterApp {
                app,
                info,
                replace,
                reply,
            } => Ack::Done(reply, self.register_app(&app, info, replace)),
            Command::RemoveApp { app, reply } => Ack::Done(reply, self.remove_app(&app)),
        };
        self.acks.push(ack);
    }

    /// Answers once everything that was decided so far is on the disk.
    pub(super) fn when_done(&mut self, reply: Reply<()>) {
        self.acks.push(Ack::Done(reply, Ok(())));
    }

    fn entry(&self, id: &ServiceId) -> Option<&Entry> {
        match self.services.get(id) {
            Some(pending) => pending.as_ref(),
            None => self.view.service(id),
        }
    }

    fn entry_of(&self, key: &ServiceKey) -> Result<&Entry, Error> {
        self.must_know(&key.app)?;
        self.entry(&key.service)
            .filter(|entry| entry.key.app == key.app)
            .ok_or(Error::UnknownService(key.service))
    }

    /// Notes what happens; the writer gives it its sequence.
    fn note(&mut self, key: &ServiceKey, subject: Subject, what: Happening) {
        self.events.push(Event {
            sequence: 0,
            at: self.now,
            key: key.clone(),
            subject: Some(subject),
            what,
        });
    }

    /// Takes over a changed entry, with its place in the expiry index.
    fn put(&mut self, mut entry: Entry) {
        entry.armed = index_at(&entry, &self.rules.policy, &self.view.blind_spots);
        self.services.insert(entry.key.service, Some(entry));
    }

    fn register(
        &mut self,
        key: ServiceKey,
        service: Arc<Service>,
        state: ProducerState,
    ) -> Result<Entry, Error> {
        if !self.knows(&key.app) && !self.rules.auto_accept {
            return Err(Error::UnknownApp(key.app));
        }
        let registered = self.view.app(&key.app).map_or(0, |app| app.services.len());
        let pending = self.apps.entry(key.app.clone()).or_default();
        let limit = self.rules.services_max_per_app;
        if registered + pending.added.len() >= limit + pending.removed.len() {
            return Err(Error::TooManyServices { limit });
        }
        pending.added.insert(key.service);
        self.accept(&key.app);
        let offer = service.liveness_offer;
        let liveness = Liveness::registered(state, offer, &self.rules.policy, self.now);
        let entry = Entry {
            key,
            service,
            liveness,
            armed: None,
        };
        let happening = Happening::Registered {
            state: entry.liveness.state(),
            interval: entry.liveness.interval(),
        };
        self.note(&entry.key, Subject::of(&entry.service), happening);
        self.put(entry.clone());
        self.tally.registered += 1;
        Ok(entry)
    }

    fn replace(
        &mut self,
        key: &ServiceKey,
        service: Arc<Service>,
        state: ServiceState,
        condition: Condition,
    ) -> Result<Entry, Error> {
        let old = self.entry_of(key)?;
        let offer = service.liveness_offer;
        let liveness = old
            .liveness
            .replaced(state, offer, &self.rules.policy, self.now)
            .map_err(|_| Error::SuspendedByProducer)?;
        if !condition.holds(old) {
            return Err(Error::Changed(key.service));
        }
        let service = match offer {
            Some(_) => service,
            // Saying nothing about heartbeats keeps what was agreed on.
            None => Arc::new(Service {
                liveness_offer: old.service.liveness_offer,
                ..Arc::unwrap_or_clone(service)
            }),
        };
        let (service, attributes) = if *old.service == *service {
            (old.service.clone(), Attributes::Same)
        } else {
            let attributes = what_changed(&old.service, &service);
            (service, attributes)
        };
        let from = old.liveness.state();
        // Consumers see the interval, too.
        let attributes = match attributes {
            Attributes::Same if old.liveness.interval() != liveness.interval() => {
                Attributes::Changed
            }
            attributes => attributes,
        };
        let entry = Entry {
            service,
            liveness,
            ..old.clone()
        };
        if entry != *old {
            let happening = Happening::Replaced {
                from,
                to: liveness.state(),
                interval: liveness.interval(),
                attributes,
            };
            self.note(key, Subject::of(&entry.service), happening);
        }
        self.put(entry.clone());
        Ok(entry)
    }

    fn remove(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let entry = self.entry_of(key)?;
        let state = entry.liveness.state();
        let subject = Subject::of(&entry.service);
        self.note(key, subject, Happening::Removed { state });
        self.drop_service(key);
        self.tally.removed += 1;
        Ok(())
    }

    fn drop_service(&mut self, key: &ServiceKey) {
        self.services.insert(key.service, None);
        let pending = self.apps.entry(key.app.clone()).or_default();
        if !pending.added.remove(&key.service) {
            pending.removed.insert(key.service);
        }
    }

    /// Whether we have watched without a break since the last beat of a running timer.
    fn undisturbed(&self, entry: &Entry) -> bool {
        let base = entry.liveness.running().map(|(running, _)| running.base);
        let mut recent = self.view.blind_spots.iter().rev().take(RECENT_BLIND_SPOTS);
        base.is_some_and(|base| recent.all(|spot| spot.end <= base))
    }

    fn beat(
        &mut self,
        key: &ServiceKey,
        heartbeat: Heartbeat,
        condition: Condition,
    ) -> Result<Beaten, Error> {
        let old = self.entry_of(key)?;
        // What has no liveness resource cannot be in another state than expected.
        if old.liveness.monitored().is_some() && !condition.holds(old) {
            return Err(Error::Changed(key.service));
        }
        let offer = old.service.liveness_offer;
        let beaten = old
            .liveness
            .beat(
                heartbeat,
                offer,
                &self.rules.policy,
                self.now,
                self.undisturbed(old),
            )
            .map_err(|refusal| match refusal {
                BeatRefusal::NotMonitored => Error::NoLiveness(key.service),
                BeatRefusal::Inactive => Error::Inactive(key.service),
                BeatRefusal::PromiseTooLong { interval } => Error::PromiseTooLong {
                    service: key.service,
                    interval,
                },
            })?;
        let since = old.liveness.suspended_since();
        let entry = Entry {
            liveness: Liveness::Monitored(beaten.liveness),
            ..old.clone()
        };
        if let Some(since) = since {
            let subject = Subject::of(&entry.service);
            self.note(key, subject, Happening::Revived { since });
        }
        self.put(entry);
        self.tally.beats += 1;
        self.tally.revived += u64::from(beaten.revived);
        Ok(beaten)
    }

    /// All or nothing only where the request itself is wrong; else one outcome per service.
    fn beat_many(
        &mut self,
        app: &AppInstanceId,
        services: Option<Vec<ServiceId>>,
        heartbeat: Heartbeat,
    ) -> Result<Vec<(ServiceId, BatchOutcome)>, Error> {
        self.must_know(app)?;
        let services = services.unwrap_or_else(|| self.monitored_services(app));
        // The promise is checked for all before the first one beats.
        if let Some(promise) = heartbeat.promise {
            for id in &services {
                let interval = self
                    .entry(id)
                    .filter(|entry| entry.key.app == *app)
                    .and_then(|entry| entry.liveness.monitored())
                    .map(|monitored| monitored.agreement.counting());
                if let Some(interval) = interval.filter(|i| promise.as_ms() > i.as_ms()) {
                    return Err(Error::PromiseTooLong {
                        service: *id,
                        interval,
                    });
                }
            }
        }
        let beat = |service| {
            let key = ServiceKey {
                app: app.clone(),
                service,
            };
            let outcome = match self.beat(&key, heartbeat, Condition::NONE) {
                Ok(beaten) if beaten.new_interval => {
                    BatchOutcome::NewInterval(beaten.liveness.agreement.shown())
                }
                Ok(_) => BatchOutcome::Alive,
                Err(Error::Inactive(_)) => BatchOutcome::Inactive,
                Err(_) => BatchOutcome::Unknown,
            };
            (service, outcome)
        };
        Ok(services.into_iter().map(beat).collect())
    }

    /// The services of an application as they stand now, sorted.
    fn services_of(&self, app: &AppInstanceId) -> Vec<ServiceId> {
        let known = self.view.app(app).into_iter().flat_map(|app| &app.services);
        let added = self
            .apps
            .get(app)
            .into_iter()
            .flat_map(|pending| &pending.added);
        let mut services: Vec<_> = known
            .chain(added)
            .copied()
            .filter(|id| self.entry(id).is_some())
            .collect();
        services.sort_unstable();
        services
    }

    fn monitored_services(&self, app: &AppInstanceId) -> Vec<ServiceId> {
        let mut services = self.services_of(app);
        services.retain(|id| {
            self.entry(id)
                .is_some_and(|entry| entry.liveness.monitored().is_some())
        });
        services
    }

    /// Looks at due entries of the expiry index, as of the instant `at`: re-arms those that have
    /// beaten or got credit since, suspends the others.
    pub(super) fn judge(&mut self, due: Vec<Armed>, at: Steady) {
        for due in due {
            let id = due.key.service;
            let on_disk = self.view.service_of(&due.key).and_then(|entry| entry.armed);
            if on_disk != Some(due.at) {
                self.orphans.push(due);
                continue;
            }
            // Changed earlier in this batch, or gone: then its place in the index changes with it.
            let Some(entry) = self.entry(&id).filter(|entry| entry.armed == Some(due.at)) else {
                continue;
            };
            let unarmed = Entry {
                armed: None,
                ..entry.clone()
            };
            if let Some((liveness, evidence)) = self.verdict(&unarmed, at) {
                self.tally.suspended.push((due.key, evidence.deadline));
                let subject = Subject::of(&unarmed.service);
                let suspended = Happening::Suspended(Box::new(evidence));
                self.note(&unarmed.key, subject, suspended);
                self.put(Entry {
                    liveness,
                    ..unarmed
                });
            } else if let Some(since) = self.forgotten(&unarmed, at) {
                self.tally.forgotten += 1;
                let subject = Subject::of(&unarmed.service);
                self.note(&unarmed.key, subject, Happening::Forgotten { since });
                self.drop_service(&unarmed.key);
            } else {
                self.put(unarmed);
            }
        }
    }

    /// Since when an entry has been SUSPENDED, if that is too long at `at`.
    fn forgotten(&self, entry: &Entry, at: Steady) -> Option<Steady> {
        let timer = self.rules.policy.removal_of(&entry.liveness)?;
        (deadline(&timer, &self.view.blind_spots) <= at).then_some(timer.base)
    }

    /// The verdict on an entry whose deadline has passed at `at`, with its evidence.
    fn verdict(&self, entry: &Entry, at: Steady) -> Option<(Liveness, Evidence)> {
        let Rules { policy, .. } = self.rules;
        let timer = policy.timer_of(&entry.liveness)?;
        if deadline(&timer, &self.view.blind_spots) > at {
            return None;
        }
        let evidence =
            Evidence::collect(timer, entry.liveness.monitored()?, &self.view.blind_spots);
        Some((entry.liveness.expired(self.now.steady)?, evidence))
    }

    /// Brings the index entries of running timers forward where they are later than their deadlines
    /// (after the grace was made smaller), and puts in missing ones; the first `max` of `late`.
    pub(super) fn mend(&mut self, late: &mut VecDeque<ServiceId>, max: usize) {
        for id in late.drain(..late.len().min(max)) {
            if let Some(entry) = self.entry(&id).cloned() {
                self.put(entry);
            }
        }
    }

    /// Entries of the expiry index that are to go.
    pub(super) fn drop_orphans(&mut self, orphans: impl IntoIterator<Item = Armed>) {
        self.orphans.extend(orphans);
    }

    /// Folds everything into one batch for the store.
    pub(super) fn fold(self) -> Outcome {
        let mut batch = Batch {
            disarm: self.orphans,
            events: self.events,
            ..Batch::default()
        };
        for (app, pending) in self.apps {
            let Some(new) = pending.change else { continue };
            let old = self.view.app(&app).map(|app| app.record.clone());
            if old != new {
                batch.apps.push((app, Change { old, new }));
            }
        }
        for (id, new) in self.subscriptions {
            let old = self.view.subscription(&id);
            let old = old.map(|old| old.subscription.clone());
            if old != new {
                batch.subscriptions.push(Change { old, new });
            }
        }
        batch.cursors = self.cursors.into_iter().collect();
        batch.dead_letters = self.dead_letters;
        for (id, new) in &self.services {
            let old = self.view.service(id);
            let Some(key) = new.as_ref().or(old).map(|entry| &entry.key) else {
                continue;
            };
            let (old_armed, new_armed) = (
                old.and_then(|entry| entry.armed),
                new.as_ref().and_then(|entry| entry.armed),
            );
            if old_armed != new_armed {
                let armed = |at| Armed {
                    at,
                    key: key.clone(),
                };
                batch.disarm.extend(old_armed.map(armed));
                batch.arm.extend(new_armed.map(armed));
            }
            let service = |entry: &Entry| entry.service.clone();
            let same_service = old
                .zip(new.as_ref())
                .is_some_and(|(old, new)| Arc::ptr_eq(&old.service, &new.service));
            if !same_service {
                let change = Change {
                    old: old.map(service),
                    new: new.as_ref().map(service),
                };
                batch.services.push((key.clone(), change));
            }
            let change = Change {
                old: old.map(|entry| entry.liveness),
                new: new.as_ref().map(|entry| entry.liveness),
            };
            if change.old != change.new {
                batch.liveness.push((key.clone(), change));
            }
        }
        Outcome {
            batch,
            acks: self.acks,
            tally: self.tally,
            services: self.services,
        }
    }
}

impl Outcome {
    /// Takes the decisions over into the view: they are on the disk.
    pub(super) fn install(self, view: &mut View) -> (Vec<Ack>, Tally) {
        let mut gone = Vec::new();
        for (app, change) in self.batch.apps {
            match change.new {
                Some(record) => view.put_app(app, record),
                None => gone.push(app),
            }
        }
        for (id, entry) in self.services {
            match entry {
                Some(entry) => view.put(entry),
                None => view.remove(&id),
            }
        }
        for change in self.batch.subscriptions {
            match (change.old, change.new) {
                (_, Some(new)) => view.put_subscription(new),
                (Some(old), None) => view.remove_subscription(&old.id),
                (None, None) => {}
            }
        }
        for (id, cursor) in self.batch.cursors {
            view.set_cursor(&id, cursor);
        }
        for app in gone {
            view.remove_app(&app);
        }
        (self.acks, self.tally)
    }
}
