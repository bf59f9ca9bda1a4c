//! The registry in memory: serves every read, follows the disk and never leads it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::domain::{
    AppInstanceId, BlindSpot, Liveness, Policy, Service, ServiceId, ServiceKey, ServiceState,
    Steady,
};
use crate::store::AppRecord;

/// One registered service with everything we know of it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, and its id.
    pub key: ServiceKey,
    /// What its producer registered.
    pub service: Arc<Service>,
    /// State and agreement.
    pub liveness: Liveness,
    /// Where its entry of the expiry index stands: `Some` exactly while a timer runs (to silence, or
    /// to removal), and never later than the timer's deadline.
    pub armed: Option<Steady>,
}

/// A known application.
#[derive(Debug, Clone)]
pub struct App {
    /// What is stored of it.
    pub record: AppRecord,
    /// Its services.
    pub services: BTreeSet<ServiceId>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct View {
    /// When we did not watch, sorted by start.
    pub blind_spots: Vec<BlindSpot>,
    /// The policy in force; `None` before the very first start.
    pub policy: Option<Policy>,
    apps: BTreeMap<AppInstanceId, App>,
    services: HashMap<ServiceId, Entry>,
    by_state: [usize; ServiceState::ALL.len()],
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
        self.services.get(id)
    }

    /// A service of this very application.
    #[must_use]
    pub fn service_of(&self, key: &ServiceKey) -> Option<&Entry> {
        self.services
            .get(&key.service)
            .filter(|entry| entry.key.app == key.app)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Entry> {
        self.services.values()
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
            .filter_map(|id| self.services.get(id))
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

    /// Adds an application that is not known yet.
    pub(super) fn add_app(&mut self, app: AppInstanceId, record: AppRecord) {
        self.apps.entry(app).or_insert_with(|| App {
            record,
            services: BTreeSet::new(),
        });
    }

    /// Adds or replaces a service.
    pub(super) fn put(&mut self, mut entry: Entry) {
        self.by_state[entry.liveness.state() as usize] += 1;
        let id = entry.key.service;
        match self.services.get_mut(&id) {
            Some(old) => {
                self.by_state[old.liveness.state() as usize] -= 1;
                *old = entry;
            }
            None => {
                // The services of an application share one copy of its id.
                if let Some((app, _)) = self.apps.get_key_value(&entry.key.app) {
                    entry.key.app = app.clone();
                }
                if let Some(app) = self.apps.get_mut(&entry.key.app) {
                    app.services.insert(id);
                }
                self.services.insert(id, entry);
            }
        }
    }

    /// Takes a service out.
    pub(super) fn remove(&mut self, id: &ServiceId) {
        if let Some(old) = self.services.remove(id) {
            self.by_state[old.liveness.state() as usize] -= 1;
            if let Some(app) = self.apps.get_mut(&old.key.app) {
                app.services.remove(id);
            }
        }
    }

    /// For building the view: takes an entry of the expiry index over.
    pub(super) fn entry_mut(&mut self, key: &ServiceKey) -> Option<&mut Entry> {
        self.services
            .get_mut(&key.service)
            .filter(|entry| entry.key.app == key.app)
    }
}
