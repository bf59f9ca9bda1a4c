//! Applications and their subscriptions.

use std::sync::Arc;

use super::Pending;
use crate::domain::{AppInfo, AppInstanceId, Happening, ServiceKey, Subscription, SubscriptionId};
use crate::registry::Error;
use crate::registry::command::Told;
use crate::store::AppRecord;

impl Pending<'_> {
    /// What is stored of an application, if it is known.
    fn record(&self, app: &AppInstanceId) -> Option<&AppRecord> {
        match self.apps.get(app).and_then(|app| app.change.as_ref()) {
            Some(change) => change.as_ref(),
            None => self.view.app(app).map(|app| &app.record),
        }
    }

    pub(super) fn knows(&self, app: &AppInstanceId) -> bool {
        self.record(app).is_some()
    }

    pub(super) fn must_know(&self, app: &AppInstanceId) -> Result<(), Error> {
        if self.knows(app) {
            Ok(())
        } else {
            Err(Error::UnknownApp(app.clone()))
        }
    }

    /// Sees to it that an application is known.
    pub(super) fn accept(&mut self, app: &AppInstanceId) {
        if !self.knows(app) {
            self.put_app(app, None);
        }
    }

    /// Sets what an application says of itself.
    fn put_app(&mut self, app: &AppInstanceId, info: Option<Arc<AppInfo>>) {
        let created = self
            .record(app)
            .map_or(self.now.wall, |record| record.created);
        let pending = self.apps.entry(app.clone()).or_default();
        pending.change = Some(Some(AppRecord { created, info }));
    }

    /// An application says what it is. Saying the same again changes nothing, so that one that
    /// did not hear the answer may repeat itself.
    pub(super) fn register_app(
        &mut self,
        app: &AppInstanceId,
        info: Arc<AppInfo>,
        replace: bool,
    ) -> Result<(), Error> {
        let said = match self.record(app) {
            None if replace => return Err(Error::UnknownApp(app.clone())),
            None => None,
            Some(record) => record.info.as_deref(),
        };
        match said {
            Some(said) if *said == *info => Ok(()),
            Some(_) if !replace => Err(Error::AlreadyRegistered(app.clone())),
            Some(_) | None => {
                self.put_app(app, Some(info));
                Ok(())
            }
        }
    }

    /// An application goes, with its services, their timers, and its subscriptions.
    pub(super) fn remove_app(&mut self, app: &AppInstanceId) -> Result<(), Error> {
        self.must_know(app)?;
        for service in self.services_of(app) {
            let key = ServiceKey {
                app: app.clone(),
                service,
            };
            if let Some(entry) = self.entry(&service) {
                let state = entry.liveness.state();
                let subject = entry.subject();
                self.note(&key, subject, Happening::Removed { state });
                self.drop_service(&key);
                self.tally.removed += 1;
            }
        }
        for id in self.subscriptions_of(app) {
            self.subscriptions.insert(id, None);
        }
        self.apps.entry(app.clone()).or_default().change = Some(None);
        Ok(())
    }

    fn subscriptions_of(&self, app: &AppInstanceId) -> Vec<SubscriptionId> {
        let known = self.view.app(app);
        let known = known.into_iter().flat_map(|app| &app.subscriptions);
        let mut ids: Vec<_> = known
            .copied()
            .filter(|id| !self.subscriptions.contains_key(id))
            .collect();
        let pending = self.subscriptions.iter().filter_map(|(id, pending)| {
            let subscription = pending.as_ref()?;
            (subscription.app == *app).then_some(*id)
        });
        ids.extend(pending);
        ids
    }

    fn subscription(&self, id: SubscriptionId) -> Option<&Arc<Subscription>> {
        match self.subscriptions.get(&id) {
            Some(pending) => pending.as_ref(),
            None => {
                let known = self.view.subscription(&id)?;
                Some(&known.subscription)
            }
        }
    }

    /// It is told of every event after this command.
    pub(super) fn subscribe(
        &mut self,
        subscription: Subscription,
    ) -> Result<Arc<Subscription>, Error> {
        let app = &subscription.app;
        self.must_know(app)?;
        let limit = self.rules.subscriptions_max_per_app;
        if self.subscriptions_of(app).len() >= limit {
            return Err(Error::TooManySubscriptions { limit });
        }
        let subscription = Arc::new(Subscription {
            from: self.next_sequence + self.events.len() as u64,
            ..subscription
        });
        self.subscriptions
            .insert(subscription.id, Some(subscription.clone()));
        Ok(subscription)
    }

    pub(super) fn unsubscribe(
        &mut self,
        app: &AppInstanceId,
        id: SubscriptionId,
    ) -> Result<(), Error> {
        self.must_know(app)?;
        self.subscription(id)
            .filter(|subscription| subscription.app == *app)
            .ok_or(Error::UnknownSubscription(id))?;
        self.subscriptions.insert(id, None);
        Ok(())
    }

    /// Subscriptions have been told; those that are gone do not matter any more.
    pub(in crate::registry) fn advance(&mut self, told: Vec<Told>) {
        for told in told {
            if self.subscription(told.subscription).is_some() {
                self.cursors.insert(told.subscription, told.cursor);
                self.dead_letters.extend(told.dead_letters);
            }
        }
    }
}
