//! Tells one subscriber what it has not been told, in order, until there is nothing left.
//!
//! What a notification is about is settled before it is sent, and stands in the cursor: a repeat,
//! also one after a crash, is the same notification under the same key. A subscriber that keeps up
//! gets one event at a time; one that is behind gets several at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::backoff;
use super::{Failure, Post, Terms};
use crate::domain::{Cursor, DeadLetter, Event, Failing, Notice, Steady, Subscription};
use crate::metrics::Metrics;
use crate::registry::{self, Registry, Told};
use crate::wire::Links;
use crate::wire::notification::ServiceAvailabilityNotification;

/// Events looked at in one go.
const PAGE: usize = 256;
/// Events given up in one commit at the most.
const GIVEN_UP_MAX: usize = 256;

/// What all workers share.
pub(super) struct Office<P> {
    pub(super) registry: Registry,
    pub(super) post: P,
    pub(super) links: Arc<Links>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) terms: Terms,
    /// Callbacks under way at once, of those who took the last one.
    pub(super) healthy: Semaphore,
    /// And of those who did not: they may hang, and keep nobody but each other waiting.
    pub(super) suspects: Semaphore,
}

/// One subscriber that has to be told something.
pub(super) struct Worker<P> {
    pub(super) office: Arc<Office<P>>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) cursor: Cursor,
    pub(super) stop: watch::Receiver<bool>,
}

/// The registry is going down, or the subscription is gone: there is nothing more to do.
struct Gone;

impl From<registry::Error> for Gone {
    fn from(_: registry::Error) -> Self {
        Self
    }
}

impl<P: Post> Worker<P> {
    /// Runs until everything has been told. Returns where the cursor stands then; `None`: there is
    /// nothing more to do for this subscription, because it is gone or the server stops.
    pub(super) async fn run(mut self) -> Option<Cursor> {
        loop {
            match self.tell_next().await {
                Ok(true) => {}
                Ok(false) => break Some(self.cursor),
                Err(Gone) => break None,
            }
        }
    }

    /// Sends the next notification, once; `false` if there is none.
    async fn tell_next(&mut self) -> Result<bool, Gone> {
        let events = self.settled().await?;
        let Some(last) = events.last() else {
            return Ok(false);
        };
        let last = last.sequence;
        if let Some(failing) = &self.cursor.failing {
            let now = self.office.registry.now().steady;
            self.rest(failing.retry_at.ms_since(now)).await?;
        }
        match self.send(&events, last).await? {
            Ok(()) => self.took(&events, last).await?,
            Err(failure) => self.refused(&events, last, failure).await?,
        }
        Ok(true)
    }

    /// Waits; less long when the server stops.
    async fn rest(&self, ms: u64) -> Result<(), Gone> {
        let mut stop = self.stop.clone();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(()),
            () = stopped => Err(Gone),
        }
    }

    /// The events of the notification that is to be sent next. Without any, the cursor stands at the
    /// end of the log.
    async fn settled(&mut self) -> Result<Vec<Arc<Event>>, Gone> {
        let (max, until) = match self.cursor.through {
            Some(last) => (usize::MAX, Some(last + 1)),
            None => (1, None),
        };
        loop {
            let (events, looked_until) = self.matching(self.cursor.next, max, until).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.cursor.next = self.cursor.next.max(looked_until);
            // What a notification was to be about is gone: damage, or an operator's hand.
            if self.cursor.through.take().is_none() {
                return Ok(events);
            }
        }
    }

    /// Events from `from` on that this subscriber is to be told of, at most `max`, before `until` or
    /// the end of the log. Also: everything before this sequence was looked at.
    async fn matching(
        &self,
        from: u64,
        max: usize,
        until: Option<u64>,
    ) -> Result<(Vec<Arc<Event>>, u64), Gone> {
        let registry = &self.office.registry;
        let head = *registry.head().borrow();
        let until = until.unwrap_or(head).min(head);
        let mut found = Vec::new();
        let mut next = from;
        while next < until {
            let page = registry.events(next, PAGE).await?;
            let Some(last) = page.last() else { break };
            next = last.sequence + 1;
            for event in page {
                if event.sequence >= until {
                    break;
                }
                let asked = event.notice();
                if asked.is_some_and(|notice| self.subscription.filter.matches(&notice)) {
                    let sequence = event.sequence;
                    found.push(event);
                    if found.len() == max {
                        return Ok((found, sequence + 1));
                    }
                }
            }
        }
        Ok((found, until))
    }

    /// One attempt. Nothing is sent for a subscription that is gone by now.
    async fn send(&mut self, events: &[Arc<Event>], key: u64) -> Result<Result<(), Failure>, Gone> {
        let office = self.office.clone();
        let pool = if self.cursor.failing.is_some() {
            &office.suspects
        } else {
            &office.healthy
        };
        let _permit = pool.acquire().await.map_err(|_| Gone)?;
        let subscription = &self.subscription;
        let is_there = {
            let view = office.registry.view();
            view.subscription(&subscription.id).is_some()
        };
        if !is_there || *self.stop.borrow() {
            return Err(Gone);
        }
        let notices: Vec<Notice<'_>> = events.iter().filter_map(|event| event.notice()).collect();
        let link = office
            .links
            .subscription(&subscription.app, subscription.id);
        let body = ServiceAvailabilityNotification::new(&notices, link, &office.links);
        // A value of ours, which always serialises.
        let body = serde_json::to_vec(&body).unwrap_or_default().into();
        Ok(office.post.post(&subscription.callback, body, key).await)
    }

    /// It took it. What comes next is settled in the same commit.
    async fn took(&mut self, events: &[Arc<Event>], last: u64) -> Result<(), Gone> {
        let office = self.office.clone();
        let now = office.registry.now().steady;
        let metrics = &office.metrics;
        metrics.notified(events.iter().map(|event| now.ms_since(event.at.steady)));
        if let Some(failing) = self.cursor.failing.take() {
            log::info!(
                "{:?} of {} takes notifications again, after {} failed attempts in {} s",
                self.subscription.id,
                self.subscription.app,
                failing.attempts,
                now.ms_since(failing.since) / 1000
            );
        }
        let (behind, _) = self
            .matching(last + 1, office.terms.batch_max, None)
            .await?;
        self.cursor.next = last + 1;
        self.cursor.through = match behind.as_slice() {
            [] | [_] => None,
            [.., newest] => Some(newest.sequence),
        };
        self.advance(Vec::new()).await
    }

    /// It did not take it.
    async fn refused(
        &mut self,
        events: &[Arc<Event>],
        last: u64,
        failure: Failure,
    ) -> Result<(), Gone> {
        let office = self.office.clone();
        office.metrics.notifications_failed.inc();
        let now = office.registry.now().steady;
        let (since, attempts) = match &self.cursor.failing {
            Some(failing) => (failing.since, failing.attempts.saturating_add(1)),
            None => {
                log::warn!(
                    "{:?} of {} does not take notifications: {}; trying again",
                    self.subscription.id,
                    self.subscription.app,
                    failure.reason
                );
                (now, 1)
            }
        };
        let retry_after_ms = failure
            .retry_after
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        let wait_ms = backoff::delay_ms(attempts, retry_after_ms, fastrand::u64(..));
        self.cursor.failing = Some(Failing {
            since,
            attempts,
            retry_at: now.plus_ms(wait_ms),
            error: failure.reason,
        });
        let given_up = self.overdue(events, since, now).await?;
        if let Some(newest) = given_up.last() {
            self.cursor.next = newest.sequence.max(last) + 1;
            self.cursor.through = None;
        }
        let letters = self.dead_letters(&given_up);
        self.advance(letters).await
    }

    /// What has been waiting for too long: the notification that was refused, and what follows it.
    /// An event's time runs from when it happened, or from when the callback began to fail: the time
    /// in which nobody tried does not count.
    async fn overdue(
        &self,
        refused: &[Arc<Event>],
        since: Steady,
        now: Steady,
    ) -> Result<Vec<Arc<Event>>, Gone> {
        let give_up_after_ms = self.office.terms.give_up_after_ms;
        let is_overdue =
            |event: &Arc<Event>| now.ms_since(event.at.steady.max(since)) >= give_up_after_ms;
        // A notification is one thing: it goes as a whole, when the newest of its events may.
        let Some(newest) = refused.last().filter(|newest| is_overdue(newest)) else {
            return Ok(Vec::new());
        };
        let mut given_up = refused.to_vec();
        let (following, _) = self
            .matching(newest.sequence + 1, GIVEN_UP_MAX, None)
            .await?;
        given_up.extend(following.into_iter().take_while(is_overdue));
        Ok(given_up)
    }

    fn dead_letters(&self, given_up: &[Arc<Event>]) -> Vec<DeadLetter> {
        let Some(failing) = self
            .cursor
            .failing
            .as_ref()
            .filter(|_| !given_up.is_empty())
        else {
            return Vec::new();
        };
        log::warn!(
            "{:?} of {}: {} events could not be delivered and are dead letters now; last error: {}",
            self.subscription.id,
            self.subscription.app,
            given_up.len(),
            failing.error
        );
        self.office
            .metrics
            .dead_letters
            .inc_by(given_up.len() as u64);
        let at = self.office.registry.now().wall;
        let letter = |event: &Arc<Event>| DeadLetter {
            subscription: self.subscription.id,
            sequence: event.sequence,
            at,
            error: failing.error.clone(),
        };
        given_up.iter().map(letter).collect()
    }

    async fn advance(&self, dead_letters: Vec<DeadLetter>) -> Result<(), Gone> {
        let told = Told {
            subscription: self.subscription.id,
            cursor: self.cursor.clone(),
            dead_letters,
        };
        Ok(self.office.registry.advance(vec![told]).await?)
    }
}
