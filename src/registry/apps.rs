//! Use cases around applications, their subscriptions, and what these have been told.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::command::{Command, Item, Told};
use super::{Error, Page, Registry};
use crate::domain::subscription::{CallbackUri, Filter};
use crate::domain::{AppInfo, AppInstanceId, DeadLetter, Subscription, SubscriptionId};

impl Registry {
    /// What could not be delivered.
    ///
    /// # Errors
    /// When the registry is not able now.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        self.look(|store| store.dead_letters()).await
    }

    /// What happened from a sequence on, as far as it is kept; looks at no more than `max` events.
    ///
    /// # Errors
    /// When the registry is not able now.
    pub async fn events(&self, from: u64, max: usize) -> Result<Page, Error> {
        if let Some(page) = self.0.log.recent(from, max) {
            return Ok(page);
        }
        let _turn = self.turn().await?;
        // The log may show what is not on the disk yet; up to the head it is.
        let head = self.0.log.end();
        let log = self.0.events.clone();
        let read = tokio::task::spawn_blocking(move || log.read(from, max));
        let page = match read.await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                log::error!("reading the log of events failed: {error}");
                return Err(Error::Failed);
            }
            Err(_) => return Err(Error::Failed),
        };
        let events = page.events.into_iter().map(Arc::new);
        Ok(Page {
            events: events.filter(|event| event.sequence < head).collect(),
            next: page.next.map_or(head, |next| next.min(head)),
        })
    }

    /// The sequence that the next event gets, whenever it changes. What happened before it is on the
    /// disk and in the view.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<u64> {
        self.0.log.head()
    }

    /// Events from here on are kept whatever their age, because somebody is to be told of them.
    pub fn hold_events_from(&self, sequence: u64) {
        self.0.log.hold_from(sequence);
    }

    /// Subscriptions have been told so far; on the disk when this returns.
    ///
    /// # Errors
    /// When the registry is not able now.
    pub async fn advance(&self, told: Vec<Told>) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        let advance = || Item::Advance { told, reply };
        if !self.0.queue.push_own(advance) {
            return Err(self.0.closed());
        }
        self.0.answered(answer).await?
    }

    /// Subscribes. It is told of everything that happens from now on.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::TooManySubscriptions`], or the registry is not able now.
    pub async fn subscribe(
        &self,
        app: AppInstanceId,
        callback: CallbackUri,
        filter: Filter,
    ) -> Result<Arc<Subscription>, Error> {
        let subscription = Box::new(Subscription {
            id: SubscriptionId::random(),
            app,
            callback,
            filter,
            from: 0,
        });
        self.ask(|reply| Command::Subscribe {
            subscription,
            reply,
        })
        .await
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], [`Error::UnknownSubscription`], or the registry is not able now.
    pub async fn unsubscribe(
        &self,
        app: AppInstanceId,
        subscription: SubscriptionId,
    ) -> Result<(), Error> {
        self.ask(|reply| Command::Unsubscribe {
            app,
            subscription,
            reply,
        })
        .await
    }

    /// An application says what it is, for the first time or (the same) again.
    ///
    /// # Errors
    /// [`Error::AlreadyRegistered`], or the registry is not able now.
    pub async fn register_app(&self, app: AppInstanceId, info: AppInfo) -> Result<(), Error> {
        self.say(app, info, false).await
    }

    /// A known application says what it is, whatever it said before.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], or the registry is not able now.
    pub async fn replace_app(&self, app: AppInstanceId, info: AppInfo) -> Result<(), Error> {
        self.say(app, info, true).await
    }

    async fn say(&self, app: AppInstanceId, info: AppInfo, replace: bool) -> Result<(), Error> {
        let info = Arc::new(info);
        self.ask(|reply| Command::RegisterApp {
            app,
            info,
            replace,
            reply,
        })
        .await
    }

    /// Makes an application known, if it is not yet.
    ///
    /// # Errors
    /// When the registry is not able now.
    pub async fn admit(&self, app: AppInstanceId) -> Result<(), Error> {
        self.ask(|reply| Command::Admit { app, reply }).await
    }

    /// Removes an application, its services and its subscriptions, in one commit.
    ///
    /// # Errors
    /// [`Error::UnknownApp`], or the registry is not able now.
    pub async fn remove_app(&self, app: AppInstanceId) -> Result<(), Error> {
        self.ask(|reply| Command::RemoveApp { app, reply }).await
    }
}
