//! Decides what commands do, without doing it: pure but for the collected answers.
//!
//! [`Pending`] is an overlay over the view. Each command sees what the earlier ones of its batch
//! decided; nothing is visible outside until the batch is on the disk and [`Outcome::install`]ed.
//! A refused command answers its own caller and spoils nobody else's.

mod apps;
mod judge;
mod services;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::command::{Ack, Command, Reply};
use super::view::{Entry, View};
use super::{Error, Rules};
use crate::domain::silence::deadline;
use crate::domain::{
    AppInstanceId, BlindSpot, ByService, Cursor, DeadLetter, Event, Happening, Moment, Policy,
    ServiceId, ServiceKey, Steady, Subject, Subscription, SubscriptionId,
};
use crate::store::{AppRecord, Armed, Batch, Change};

/// What a batch of commands has decided so far.
pub(super) struct Pending<'a> {
    view: &'a View,
    rules: &'a Rules,
    now: Moment,
    apps: HashMap<AppInstanceId, PendingApp>,
    services: ByService<Option<Entry>>,
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
    services: ByService<Option<Entry>>,
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

impl<'a> Pending<'a> {
    /// Nothing decided yet; the first event will get `next_sequence`.
    pub(super) fn new(view: &'a View, rules: &'a Rules, now: Moment, next_sequence: u64) -> Self {
        Self {
            view,
            rules,
            now,
            apps: HashMap::new(),
            services: ByService::default(),
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
            Command::Admit { app, reply } => {
                self.accept(&app);
                Ack::Done(reply, Ok(()))
            }
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
        let entry = self.entry(&key.service);
        if let Some(entry) = entry.filter(|entry| entry.key.app == key.app) {
            return Ok(entry);
        }
        self.must_know(&key.app)?;
        Err(Error::UnknownService(key.service))
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

    /// Entries of the expiry index that are to go.
    pub(super) fn drop_orphans(&mut self, orphans: impl IntoIterator<Item = Armed>) {
        self.orphans.extend(orphans);
    }

    /// Folds everything into one batch for the store.
    pub(super) fn fold(mut self) -> Outcome {
        // Of subscriptions that go later in the same batch nothing may stay behind.
        let goes = |id: &SubscriptionId| matches!(self.subscriptions.get(id), Some(None));
        self.cursors.retain(|id, _| !goes(id));
        self.dead_letters
            .retain(|letter| !goes(&letter.subscription));
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
                .is_some_and(|(old, new)| old.service.is(&new.service));
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
