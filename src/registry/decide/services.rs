//! What producers do to their services: register, replace, remove, beat.

use super::Pending;
use crate::domain::liveness::{BeatRefusal, Beaten};
use crate::domain::{
    AppInstanceId, Attributes, Happening, Heartbeat, Liveness, ProducerState, Service, ServiceId,
    ServiceKey, ServiceState, Subject,
};
use crate::registry::Error;
use crate::registry::command::{BatchOutcome, Precondition};
use crate::registry::view::Entry;
use crate::store::ServiceRecord;

/// Blind spots are sorted by start and overlap little: the latest to end is among the last few.
const RECENT_BLIND_SPOTS: usize = 4;

/// What consumers see of a replaced registration.
fn what_changed(old: &Service, new: Service) -> Attributes {
    let former = Subject::of(old);
    if former != Subject::of(&new) {
        return Attributes::Renamed(Box::new(former));
    }
    // What a producer offers is between it and the platform.
    let differ_in_offer_only = Service {
        liveness_offer: old.liveness_offer,
        ..new
    } == *old;
    if differ_in_offer_only {
        Attributes::Same
    } else {
        Attributes::Changed
    }
}

impl Pending<'_> {
    pub(super) fn register(
        &mut self,
        key: ServiceKey,
        service: ServiceRecord,
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
        let offer = service.liveness_offer();
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
        self.note(&entry.key, entry.subject(), happening);
        self.put(entry.clone());
        self.tally.registered += 1;
        Ok(entry)
    }

    pub(super) fn replace(
        &mut self,
        key: &ServiceKey,
        service: ServiceRecord,
        state: ServiceState,
        condition: Precondition,
    ) -> Result<Entry, Error> {
        let old = self.entry_of(key)?;
        let offer = service.liveness_offer();
        let liveness = old
            .liveness
            .replaced(state, offer, &self.rules.policy, self.now)
            .map_err(|_| Error::SuspendedByProducer)?;
        if !condition.holds(old) {
            return Err(Error::Changed(key.service));
        }
        let service = match (offer, old.service.liveness_offer()) {
            (Some(_), _) | (None, None) => service,
            // Saying nothing about heartbeats keeps what was agreed on.
            (None, liveness_offer) => ServiceRecord::new(&Service {
                liveness_offer,
                ..service.service()
            }),
        };
        let (service, attributes) = if old.service == service {
            (old.service.clone(), Attributes::Same)
        } else {
            let attributes = what_changed(&old.service.service(), service.service());
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
            self.note(key, entry.subject(), happening);
        }
        self.put(entry.clone());
        Ok(entry)
    }

    pub(super) fn remove(&mut self, key: &ServiceKey) -> Result<(), Error> {
        let entry = self.entry_of(key)?;
        let state = entry.liveness.state();
        let subject = entry.subject();
        self.note(key, subject, Happening::Removed { state });
        self.drop_service(key);
        self.tally.removed += 1;
        Ok(())
    }

    pub(super) fn drop_service(&mut self, key: &ServiceKey) {
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

    pub(super) fn beat(
        &mut self,
        key: &ServiceKey,
        heartbeat: Heartbeat,
        condition: Precondition,
    ) -> Result<Beaten, Error> {
        let old = self.entry_of(key)?;
        let offer = old.service.liveness_offer();
        let beaten = old.liveness.beat(
            heartbeat,
            offer,
            &self.rules.policy,
            self.now,
            self.undisturbed(old),
        );
        // The request itself is judged before the condition, the state after it.
        let beaten = match beaten {
            Err(BeatRefusal::NotMonitored) => return Err(Error::NoLiveness(key.service)),
            Err(BeatRefusal::PromiseTooLong { interval }) => {
                return Err(Error::PromiseTooLong {
                    service: key.service,
                    interval,
                });
            }
            _ if !condition.holds(old) => return Err(Error::Changed(key.service)),
            Err(BeatRefusal::Inactive) => return Err(Error::Inactive(key.service)),
            Ok(beaten) => beaten,
        };
        let since = old.liveness.suspended_since();
        let entry = Entry {
            liveness: Liveness::Monitored(beaten.liveness),
            ..old.clone()
        };
        if let Some(since) = since {
            let subject = entry.subject();
            self.note(key, subject, Happening::Revived { since });
        }
        self.put(entry);
        self.tally.beats += 1;
        self.tally.revived += u64::from(beaten.revived);
        Ok(beaten)
    }

    /// All or nothing only where the request itself is wrong; else one outcome per service.
    pub(super) fn beat_many(
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
            let outcome = match self.beat(&key, heartbeat, Precondition::NONE) {
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
    pub(super) fn services_of(&self, app: &AppInstanceId) -> Vec<ServiceId> {
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
}
