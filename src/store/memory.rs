//! An engine for tests: keeps everything in maps, and fails or blocks on request.
//!
//! Clones share the content, so that a test can look inside and "restart" on the same data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{
    AppRecord, Armed, Batch, DEAD_LETTERS_MAX, Error, EventLog, FIRST_SEQUENCE, FORGOTTEN_MAX,
    Loaded, LogPage, Row, ServiceRecord, Store,
};
use crate::domain::{
    AppInstanceId, BlindSpot, Cursor, DeadLetter, Event, Liveness, Mark, Policy, ServiceId,
    ServiceKey, Steady, Subscription, SubscriptionId,
};

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone)]
struct State {
    apps: BTreeMap<AppInstanceId, AppRecord>,
    services: BTreeMap<ServiceKey, ServiceRecord>,
    liveness: BTreeMap<ServiceKey, Liveness>,
    expiry: BTreeSet<Armed>,
    blind_spots: BTreeMap<Steady, BlindSpot>,
    mark: Option<Mark>,
    policy: Option<Policy>,
    events: BTreeMap<u64, Event>,
    subscriptions: BTreeMap<SubscriptionId, Arc<Subscription>>,
    cursors: BTreeMap<SubscriptionId, Cursor>,
    dead_letters: BTreeMap<(SubscriptionId, u64), DeadLetter>,
    commits: u64,
    /// So many commits still succeed; `None`: all.
    left: Option<u64>,
    hold: bool,
    waiting: usize,
}

impl MemoryStore {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches were committed.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// From now on every commit fails.
    pub fn fail_commits(&self) {
        self.fail_commits_after(Some(0));
    }

    /// So many commits still succeed, then every one fails; `None`: none does.
    pub fn fail_commits_after(&self, left: Option<u64>) {
        self.state().left = left;
    }

    /// Commits wait while this is on: a stalled disk.
    pub fn hold_commits(&self, hold: bool) {
        self.state().hold = hold;
        self.0.changed.notify_all();
    }

    /// How many commits wait because of [`Self::hold_commits`].
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// A store of its own with what is committed now: what a crash would leave behind.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let state = State {
            left: None,
            hold: false,
            waiting: 0,
            ..self.state().clone()
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        }))
    }

    /// The expiry index.
    #[must_use]
    pub fn expiry(&self) -> Vec<Armed> {
        self.state().expiry.iter().cloned().collect()
    }

    /// What is stored of a service's liveness.
    #[must_use]
    pub fn liveness(&self, key: &ServiceKey) -> Option<Liveness> {
        self.state().liveness.get(key).copied()
    }

    /// How far a subscription has been told.
    #[must_use]
    pub fn cursor(&self, id: SubscriptionId) -> Option<Cursor> {
        self.state().cursors.get(&id).cloned()
    }

    /// The recorded blind spots.
    #[must_use]
    pub fn blind_spots(&self) -> Vec<BlindSpot> {
        self.state().blind_spots.values().copied().collect()
    }

    /// The last mark.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        self.state().mark
    }
}

impl Store for MemoryStore {
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<Loaded, Error> {
        let state = self.state();
        for (app, record) in &state.apps {
            each(Row::App(app.clone(), record.clone()));
        }
        for (key, service) in &state.services {
            each(Row::Service(key.clone(), service.clone()));
        }
        for (key, liveness) in &state.liveness {
            each(Row::Liveness(key.clone(), *liveness));
        }
        for armed in &state.expiry {
            each(Row::Armed(armed.clone()));
        }
        for subscription in state.subscriptions.values() {
            each(Row::Subscription(Box::new(subscription.as_ref().clone())));
        }
        for (id, cursor) in &state.cursors {
            each(Row::Cursor(*id, cursor.clone()));
        }
        Ok(Loaded {
            mark: state.mark,
            policy: state.policy,
            blind_spots: state.blind_spots.values().copied().collect(),
            skipped: Vec::new(),
            next_sequence: state
                .events
                .last_key_value()
                .map_or(FIRST_SEQUENCE, |(last, _)| last + 1),
            last_event: state
                .events
                .last_key_value()
                .map(|(_, last)| last.at.steady),
            altered: false,
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut state = self.state();
        state.waiting += 1;
        while state.hold {
            state = self
                .0
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
        match &mut state.left {
            Some(0) => return Err(Error::Injected),
            Some(left) => *left -= 1,
            None => {}
        }
        state.commits += 1;
        for (app, change) in &batch.apps {
            match &change.new {
                Some(record) => state.apps.insert(app.clone(), record.clone()),
                None => state.apps.remove(app),
            };
        }
        for change in &batch.subscriptions {
            match (&change.old, &change.new) {
                (_, Some(new)) => {
                    state.subscriptions.insert(new.id, new.clone());
                }
                (Some(old), None) => {
                    state.subscriptions.remove(&old.id);
                    state.cursors.remove(&old.id);
                    state.dead_letters.retain(|(id, _), _| *id != old.id);
                }
                (None, None) => {}
            }
        }
        state.cursors.extend(batch.cursors.iter().cloned());
        for letter in &batch.dead_letters {
            let id = letter.subscription;
            state
                .dead_letters
                .insert((id, letter.sequence), letter.clone());
            let kept = state.dead_letters.range((id, 0)..=(id, u64::MAX)).count();
            let surplus = kept.saturating_sub(DEAD_LETTERS_MAX);
            let oldest = state.dead_letters.range((id, 0)..);
            let oldest: Vec<_> = oldest.take(surplus).map(|(key, _)| *key).collect();
            for key in oldest {
                state.dead_letters.remove(&key);
            }
        }
        for (key, service) in &batch.services {
            match &service.new {
                Some(service) => state.services.insert(key.clone(), service.clone()),
                None => state.services.remove(key),
            };
        }
        for (key, liveness) in &batch.liveness {
            match &liveness.new {
                Some(liveness) => state.liveness.insert(key.clone(), *liveness),
                None => state.liveness.remove(key),
            };
        }
        for armed in &batch.disarm {
            state.expiry.remove(armed);
        }
        state.expiry.extend(batch.arm.iter().cloned());
        for start in &batch.forget_blind_spots {
            state.blind_spots.remove(start);
        }
        state
            .blind_spots
            .extend(batch.blind_spots.iter().map(|spot| (spot.start, *spot)));
        state.mark = batch.mark.or(state.mark);
        state.policy = batch.policy.or(state.policy);
        for event in &batch.events {
            state.events.insert(event.sequence, event.clone());
            let of_service = |other: &&Event| other.key.service == event.key.service;
            let kept = state.events.values().filter(of_service);
            let sequences: Vec<u64> = kept.map(|event| event.sequence).collect();
            let surplus = sequences.len().saturating_sub(batch.events_per_service_max);
            let unneeded = |sequence: &&u64| **sequence < batch.events_needed_from;
            for sequence in sequences[..surplus].iter().filter(unneeded) {
                state.events.remove(sequence);
            }
        }
        if let Some(before) = batch.forget_events_before {
            let last = state.events.last_key_value().map(|(last, _)| *last);
            let old = state
                .events
                .values()
                .take_while(|e| e.at.wall < before && e.sequence < batch.events_needed_from);
            let old: Vec<u64> = old.take(FORGOTTEN_MAX).map(|e| e.sequence).collect();
            for sequence in old.into_iter().filter(|old| Some(*old) != last) {
                state.events.remove(&sequence);
            }
        }
        Ok(())
    }

    fn due(&self, until: Steady, max: usize) -> Result<Vec<Armed>, Error> {
        let state = self.state();
        Ok(state
            .expiry
            .iter()
            .take_while(|armed| armed.at <= until)
            .take(max)
            .cloned()
            .collect())
    }

    fn next_due(&self) -> Result<Option<Steady>, Error> {
        Ok(self.state().expiry.first().map(|armed| armed.at))
    }

    fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error> {
        let state = self.state();
        let events = state.events.values();
        Ok(events
            .filter(|event| event.key.service == service)
            .cloned()
            .collect())
    }

    fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.clone())
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        Ok(self.state().dead_letters.values().cloned().collect())
    }

    fn syncs(&self) -> u64 {
        self.state().commits
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }

    fn abandon(self: Box<Self>) {}
}

impl EventLog for MemoryStore {
    fn read(&self, from: u64, max: usize) -> Result<LogPage, Error> {
        let state = self.state();
        let events = state.events.range(from..).take(max);
        let events: Vec<_> = events.map(|(_, event)| event.clone()).collect();
        let last = events.last().filter(|_| events.len() == max);
        let next = last.map(|last| last.sequence + 1);
        Ok(LogPage { events, next })
    }

    fn newest(&self, max: usize) -> Result<Vec<Event>, Error> {
        let state = self.state();
        let newest = state.events.values().rev().take(max);
        let mut newest: Vec<_> = newest.cloned().collect();
        newest.reverse();
        Ok(newest)
    }
}
