//! The registry in memory: serves every read, follows the disk and never leads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::{
    AppInstanceId, BlindSpot, ByService, Cursor, Liveness, Policy, Selection, ServiceId,
    ServiceKey, ServiceState, Steady, Subject, Subscription, SubscriptionId,
};
use crate::store::{AppRecord, ServiceRecord};

/// Fewer services than this are not worth a thread.
const SHARE_MIN: usize = 10_000;

/// One registered service with everything we know of it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, and its id.
    pub key: ServiceKey,
    /// What its producer registered.
    pub service: ServiceRecord,
    /// State and agreement.
    pub liveness: Liveness,
    /// Where its entry of the expiry index stands: `Some` exactly while a timer runs (to silence, or
    /// to removal), and never later than the timer's deadline.
    pub armed: Option<Steady>,
}

impl Entry {
    /// What the service is called, for the events about it.
    #[must_use]
    pub fn subject(&self) -> Subject {
        let (name, category_id) = self.service.words();
        Subject::new(name, category_id)
    }
}

/// A known application.
#[derive(Debug, Clone)]
pub struct App {
    /// What is stored of it.
    pub record: AppRecord,
    /// Its services.
    pub services: BTreeSet<ServiceId>,
    /// Its subscriptions.
    pub subscriptions: BTreeSet<SubscriptionId>,
}

/// A subscription, and how far it has been told as far as the disk knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribed {
    /// What it asks for.
    pub subscription: Arc<Subscription>,
    /// Where it stands.
    pub cursor: Cursor,
}

/// See the module.
#[derive(Debug, Default)]
pub struct View {
    /// When we did not watch, sorted by start.
    pub blind_spots: Vec<BlindSpot>,
    /// The policy in force; `None` before the very first start.
    pub policy: Option<Policy>,
    apps: BTreeMap<AppInstanceId, App>,
    /// Boxed, because a table that has just grown is half empty.
    services: ByService<Box<Entry>>,
    by_state: [usize; ServiceState::ALL.len()],
    names: Index,
    categories: Index,
    subscriptions: HashMap<SubscriptionId, Subscribed>,
    subscriptions_version: u64,
}

/// Services by a word, compactly: the word's hash stands for it, so what is found has to be looked
/// at once more.
#[derive(Debug, Default)]
struct Index {
    words: BTreeSet<(u64, ServiceId)>,
    hasher: RandomState,
}

impl Index {
    fn insert(&mut self, word: &str, id: ServiceId) {
        self.words.insert((self.hasher.hash_one(word), id));
    }

    fn remove(&mut self, word: &str, id: ServiceId) {
        self.words.remove(&(self.hasher.hash_one(word), id));
    }

    /// Replaces everything.
    fn fill<'a>(&mut self, words: impl Iterator<Item = (&'a str, ServiceId)>) {
        let words = words.map(|(word, id)| (self.hasher.hash_one(word), id));
        self.words = words.collect();
    }

    /// Those that may have the word.
    fn find(&self, word: &str) -> impl Iterator<Item = ServiceId> {
        let hash = self.hasher.hash_one(word);
        let (first, last) = ([0; 16], [u8::MAX; 16]);
        let range = (hash, ServiceId::from_bytes(first))..=(hash, ServiceId::from_bytes(last));
        self.words.range(range).map(|(_, id)| *id)
    }
}

impl View {
    /// A known application.
    #[must_use]
    pub fn app(&self, app: &AppInstanceId) -> Option<&App> {
        self.apps.get(app)
    }

    /// A service, whoever owns it.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Entry> {
        self.services.get(id).map(Box::as_ref)
    }

    /// A service of this very application.
    #[must_use]
    pub fn service_of(&self, key: &ServiceKey) -> Option<&Entry> {
        self.service(&key.service)
            .filter(|entry| entry.key.app == key.app)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Entry> {
        self.services.values().map(Box::as_ref)
    }

    /// What can be made of the services, in no order. For everything at once: with many services, all
    /// processors take part.
    pub(super) fn collect<T: Send>(&self, of: impl Fn(&Entry) -> Option<T> + Sync) -> Vec<T> {
        let entries: Vec<&Entry> = self.services().collect();
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let share = entries.len().div_ceil(workers).max(SHARE_MIN);
        let work =
            &|share: &[&Entry]| -> Vec<T> { share.iter().filter_map(|entry| of(entry)).collect() };
        std::thread::scope(|scope| {
            let mut all = Vec::new();
            let mut others = Vec::new();
            for share in entries.chunks(share).skip(1) {
                let thread = std::thread::Builder::new();
                match thread.spawn_scoped(scope, move || work(share)) {
                    Ok(other) => others.push(other),
                    Err(_) => all.extend(work(share)),
                }
            }
            all.extend(work(entries.chunks(share).next().unwrap_or_default()));
            for other in others {
                let made = other.join();
                all.extend(made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        })
    }

    /// Those that a query may ask for by a name of some kind, sorted; `None`: it asks by none, and
    /// everything has to be looked at. What is found has to be held against the query.
    #[must_use]
    pub fn candidates(&self, selection: &Selection<String>) -> Option<Vec<ServiceId>> {
        let mut found: Vec<ServiceId> = match selection {
            Selection::All => return None,
            Selection::Ids(ids) => ids.iter().filter_map(|id| ServiceId::parse(id)).collect(),
            Selection::Names(names) => {
                let ids = names.iter().flat_map(|name| self.names.find(name));
                ids.collect()
            }
            Selection::Categories(categories) => {
                let ids = categories.iter().flat_map(|id| self.categories.find(id));
                ids.collect()
            }
        };
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// A subscription.
    #[must_use]
    pub fn subscription(&self, id: &SubscriptionId) -> Option<&Subscribed> {
        self.subscriptions.get(id)
    }

    /// A subscription of this very application.
    #[must_use]
    pub fn subscription_of(
        &self,
        app: &AppInstanceId,
        id: &SubscriptionId,
    ) -> Option<&Arc<Subscription>> {
        let found = self.subscriptions.get(id).map(|found| &found.subscription);
        found.filter(|subscription| subscription.app == *app)
    }

    /// All subscriptions, in no order.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Subscribed> {
        self.subscriptions.values()
    }

    /// Differs when subscriptions have come or gone.
    #[must_use]
    pub fn subscriptions_version(&self) -> u64 {
        self.subscriptions_version
    }

    /// The next services after `after`, by application and id, at most `max`; of one application,
    /// or of all. So that a long list can be walked without holding the view.
    #[must_use]
    pub fn page(
        &self,
        of: Option<&AppInstanceId>,
        after: Option<&ServiceKey>,
        max: usize,
    ) -> Vec<Entry> {
        let first = after.map(|key| &key.app).or(of);
        let apps = match first {
            Some(app) => self.apps.range(app..),
            None => self.apps.range::<AppInstanceId, _>(..),
        };
        apps.take_while(|(app, _)| of.is_none_or(|of| of == *app))
            .flat_map(|(app, content)| {
                let from = match after {
                    Some(key) if key.app == *app => Bound::Excluded(key.service),
                    _ => Bound::Unbounded,
                };
                content.services.range((from, Bound::Unbounded))
            })
            .filter_map(|id| self.service(id))
            .take(max)
            .cloned()
            .collect()
    }

    /// How many applications are known.
    #[must_use]
    pub fn apps_count(&self) -> usize {
        self.apps.len()
    }

    /// How many services are in a state.
    #[must_use]
    pub fn count(&self, state: ServiceState) -> usize {
        self.by_state[state as usize]
    }

    /// Drops the blind spots that ended before every running timer began: they can move no
    /// deadline. Returns their starts.
    pub(super) fn forget_blind_spots(&mut self) -> Vec<Steady> {
        let bases = self.services().filter_map(|entry| {
            let (running, _) = entry.liveness.running()?;
            Some(running.base)
        });
        let oldest = bases.min();
        let mut forgotten = Vec::new();
        self.blind_spots.retain(|spot| {
            let keep = oldest.is_some_and(|oldest| spot.end >= oldest);
            if !keep {
                forgotten.push(spot.start);
            }
            keep
        });
        forgotten
    }

    /// Adds an application, or replaces what is stored of it.
    pub(super) fn put_app(&mut self, app: AppInstanceId, record: AppRecord) {
        match self.apps.get_mut(&app) {
            Some(known) => known.record = record,
            None => {
                let new = App {
                    record,
                    services: BTreeSet::new(),
                    subscriptions: BTreeSet::new(),
                };
                self.apps.insert(app, new);
            }
        }
    }

    /// Takes an application out; its services and subscriptions have gone before.
    pub(super) fn remove_app(&mut self, app: &AppInstanceId) {
        self.apps.remove(app);
    }

    /// Adds a subscription.
    pub(super) fn put_subscription(&mut self, subscription: Arc<Subscription>) {
        self.subscriptions_version += 1;
        if let Some(app) = self.apps.get_mut(&subscription.app) {
            app.subscriptions.insert(subscription.id);
        }
        let cursor = Cursor::at(subscription.from);
        let subscribed = Subscribed {
            subscription,
            cursor,
        };
        let id = subscribed.subscription.id;
        self.subscriptions.insert(id, subscribed);
    }

    /// Takes a subscription out.
    pub(super) fn remove_subscription(&mut self, id: &SubscriptionId) {
        if let Some(Subscribed { subscription, .. }) = self.subscriptions.remove(id) {
            self.subscriptions_version += 1;
            if let Some(app) = self.apps.get_mut(&subscription.app) {
                app.subscriptions.remove(id);
            }
        }
    }

    /// How far a subscription has been told.
    pub(super) fn set_cursor(&mut self, id: &SubscriptionId, cursor: Cursor) {
        if let Some(subscribed) = self.subscriptions.get_mut(id) {
            subscribed.cursor = cursor;
        }
    }

    /// For the start: callbacks that were failing get as much more time as nobody tried them.
    pub(super) fn postpone_giving_up(&mut self, outage_ms: u64) {
        for subscribed in self.subscriptions.values_mut() {
            if let Some(failing) = &mut subscribed.cursor.failing {
                failing.since = failing.since.plus_ms(outage_ms);
            }
        }
    }

    fn index(&mut self, id: ServiceId, service: &ServiceRecord) {
        let (name, category) = service.words();
        self.names.insert(name, id);
        if let Some(category) = category {
            self.categories.insert(category, id);
        }
    }

    fn unindex(&mut self, id: ServiceId, service: &ServiceRecord) {
        let (name, category) = service.words();
        self.names.remove(name, id);
        if let Some(category) = category {
            self.categories.remove(category, id);
        }
    }

    /// Adds or replaces a service.
    pub(super) fn put(&mut self, entry: Entry) {
        let id = entry.key.service;
        let Some(old) = self.services.get_mut(&id) else {
            self.index(id, &entry.service);
            return self.put_unindexed(entry);
        };
        self.by_state[old.liveness.state() as usize] -= 1;
        self.by_state[entry.liveness.state() as usize] += 1;
        // A beat changes no registration.
        let new = (!old.service.is(&entry.service)).then(|| entry.service.clone());
        let old = std::mem::replace(&mut **old, entry).service;
        if let Some(new) = new {
            self.unindex(id, &old);
            self.index(id, &new);
        }
    }

    /// For building the view: adds a service that cannot be found by name until
    /// [`index_all`](Self::index_all).
    pub(super) fn put_unindexed(&mut self, mut entry: Entry) {
        let id = entry.key.service;
        self.by_state[entry.liveness.state() as usize] += 1;
        // The services of an application share one copy of its id.
        if let Some((app, _)) = self.apps.get_key_value(&entry.key.app) {
            entry.key.app = app.clone();
        }
        if let Some(app) = self.apps.get_mut(&entry.key.app) {
            app.services.insert(id);
        }
        // Only a damaged store has an id twice.
        if let Some(old) = self.services.insert(id, Box::new(entry)) {
            self.by_state[old.liveness.state() as usize] -= 1;
        }
    }

    /// For building the view: all names at once, which is several times as fast as one by one.
    pub(super) fn index_all(&mut self) {
        let services = &self.services;
        let words = || {
            let services = services.iter();
            services.map(|(id, entry)| (entry.service.words(), *id))
        };
        let (names, categories) = (&mut self.names, &mut self.categories);
        std::thread::scope(|scope| {
            scope.spawn(|| names.fill(words().map(|((name, _), id)| (name, id))));
            categories.fill(words().filter_map(|((_, category), id)| Some((category?, id))));
        });
    }

    /// Takes a service out.
    pub(super) fn remove(&mut self, id: &ServiceId) {
        if let Some(old) = self.services.remove(id) {
            self.by_state[old.liveness.state() as usize] -= 1;
            self.unindex(*id, &old.service);
            if let Some(app) = self.apps.get_mut(&old.key.app) {
                app.services.remove(id);
            }
        }
    }

    /// For building the view: takes an entry of the expiry index over.
    pub(super) fn entry_mut(&mut self, key: &ServiceKey) -> Option<&mut Entry> {
        let entry = self.services.get_mut(&key.service).map(Box::as_mut);
        entry.filter(|entry| entry.key.app == key.app)
    }
}
