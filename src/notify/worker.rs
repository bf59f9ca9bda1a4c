//! Tells one subscriber what it has not been told, in order, until there is nothing left.
//!
//! What a notification is about is settled before it is sent, and stands in the cursor: a repeat,
//! also one after a crash, is the same notification under the same key. A subscriber that keeps up
//! gets one event at a time; one that is behind gets several at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::backoff;
use super::places::Places;
use super::{Failure, Post, Terms};
use crate::domain::{Cursor, DeadLetter, Event, Failing, Notice, Steady, Subscription};
use crate::metrics::Metrics;
use crate::registry::{self, Registry, Told};
use crate::wire::Links;
use crate::wire::notification::ServiceAvailabilityNotification;

/// Events looked at in one go, at least and at the most.
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 256;
/// A callback that takes longer is not proven: it may be about to hang.
const SOON_MS: u64 = 1000;
/// Events given up in one commit at the most.
const GIVEN_UP_MAX: usize = 256;

/// What all workers share.
pub(super) struct Office<P> {
    pub(super) registry: Registry,
    pub(super) post: P,
    pub(super) links: Arc<Links>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) terms: Terms,
    pub(super) places: Places,
}

/// One subscriber that has to be told something.
pub(super) struct Worker<P> {
    pub(super) office: Arc<Office<P>>,
    pub(super) subscription: Arc<Subscription>,
    pub(super) standing: Standing,
    /// What comes next, where it was read already.
    pub(super) ahead: Vec<Arc<Event>>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Where a subscription stands.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// How far it has been told.
    pub(super) cursor: Cursor,
    /// Whether its callback took the last notification, and soon.
    pub(super) is_proven: bool,
}

/// The registry is going down, or the subscription is gone: there is nothing more to do.
struct Gone;

impl From<registry::Error> for Gone {
    fn from(_: registry::Error) -> Self {
        Self
    }
}

impl<P: Post> Worker<P> {
    /// Runs until everything has been told. Returns where the subscription stands then; `None`: there
    /// is nothing more to do for it, because it is gone or the server stops.
    pub(super) async fn run(mut self) -> Option<Standing> {
        loop {
            match self.tell_next().await {
                Ok(true) => {}
                Ok(false) => break Some(self.standing),
                Err(Gone) => break None,
            }
        }
    }

    fn now(&self) -> Steady {
        self.office.registry.now().steady
    }

    /// Sends the next notification, once, or gives it up; `false` if there is none.
    async fn tell_next(&mut self) -> Result<bool, Gone> {
        let events = self.settled().await?;
        let Some(newest) = events.last() else {
            return Ok(false);
        };
        let key = newest.sequence;
        if let Some(failing) = &self.standing.cursor.failing {
            let retry_at = failing.retry_at;
            let given_up_at = self.given_up_at(newest, failing.since);
            let gives_up = given_up_at <= retry_at;
            let until = retry_at.min(given_up_at);
            self.rest(until.ms_since(self.now())).await?;
            if gives_up {
                // Sleeping and the clock may differ by a little; then there is another turn.
                if self.now() >= given_up_at {
                    self.give_up(events).await?;
                }
                return Ok(true);
            }
        }
        match self.send(&events, key).await? {
            Ok(()) => self.took(&events, key).await?,
            Err(failure) => self.refused(failure).await?,
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
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        loop {
            let cursor = &self.standing.cursor;
            let (max, until) = match cursor.through {
                Some(last) => (usize::MAX, Some(last + 1)),
                None => (1, None),
            };
            let (events, looked_until) = self.matching(cursor.next, max, until).await?;
            if !events.is_empty() {
                return Ok(events);
            }
            let cursor = &mut self.standing.cursor;
            cursor.next = cursor.next.max(looked_until);
            // Else: what a notification was to be about is gone: damage, or an operator's hand.
            if cursor.through.take().is_none() {
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
        let page_max = max.clamp(PAGE_MIN, PAGE_MAX);
        let mut found = Vec::new();
        let mut next = from;
        while next < until {
            let page = registry.events(next, page_max).await?;
            next = page.next;
            for event in page.events {
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
        let host = self.subscription.callback.authority();
        let _place = office.places.take(&host, self.standing.is_proven).await;
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
        let began = self.now();
        let result = office.post.post(&subscription.callback, body, key).await;
        self.standing.is_proven = result.is_ok() && self.now().ms_since(began) <= SOON_MS;
        Ok(result)
    }

    /// It took it. What comes next is settled in the same commit.
    async fn took(&mut self, events: &[Arc<Event>], last: u64) -> Result<(), Gone> {
        let now = self.now();
        let metrics = &self.office.metrics;
        metrics.notified(events.iter().map(|event| now.ms_since(event.at.steady)));
        if let Some(failing) = self.standing.cursor.failing.take() {
            log::info!(
                "{:?} of {} takes notifications again, after {} failed attempts in {} s",
                self.subscription.id,
                self.subscription.app,
                failing.attempts,
                now.ms_since(failing.since) / 1000
            );
        }
        let batch_max = self.office.terms.batch_max;
        (self.ahead, _) = self.matching(last + 1, batch_max, None).await?;
        let cursor = &mut self.standing.cursor;
        cursor.next = last + 1;
        cursor.through = match self.ahead.as_slice() {
            [] | [_] => None,
            [.., newest] => Some(newest.sequence),
        };
        self.advance(Vec::new()).await
    }

    /// It did not take it.
    async fn refused(&mut self, failure: Failure) -> Result<(), Gone> {
        self.office.metrics.notifications_failed.inc();
        let now = self.now();
        let (since, attempts) = match &self.standing.cursor.failing {
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
        let give_up_after_ms = self.office.terms.give_up_after_ms;
        let jitter = fastrand::u64(..);
        let wait_ms = backoff::delay_ms(attempts, retry_after_ms, give_up_after_ms, jitter);
        self.standing.cursor.failing = Some(Failing {
            since,
            attempts,
            retry_at: now.plus_ms(wait_ms),
            error: failure.reason,
        });
        self.advance(Vec::new()).await
    }

    /// When an event has been waiting for too long, if its callback fails until then. Its time runs
    /// from when it happened, or from when the callback began to fail: time in which nobody tried
    /// does not count.
    fn given_up_at(&self, event: &Event, since: Steady) -> Steady {
        let began = event.at.steady.max(since);
        began.plus_ms(self.office.terms.give_up_after_ms)
    }

    /// Gives a notification up, which goes as a whole, and what follows it and has been waiting for
    /// too long as well.
    async fn give_up(&mut self, mut events: Vec<Arc<Event>>) -> Result<(), Gone> {
        let (Some(failing), Some(newest)) = (&self.standing.cursor.failing, events.last()) else {
            return Ok(());
        };
        let now = self.now();
        let is_overdue = |event: &Arc<Event>| self.given_up_at(event, failing.since) <= now;
        let (following, _) = self
            .matching(newest.sequence + 1, GIVEN_UP_MAX, None)
            .await?;
        events.extend(following.into_iter().take_while(is_overdue));
        log::warn!(
            "{:?} of {}: {} events could not be delivered and are dead letters now; last error: {}",
            self.subscription.id,
            self.subscription.app,
            events.len(),
            failing.error
        );
        let metrics = &self.office.metrics;
        metrics.dead_letters.inc_by(events.len() as u64);
        let at = self.office.registry.now().wall;
        let letter = |event: &Arc<Event>| DeadLetter {
            subscription: self.subscription.id,
            sequence: event.sequence,
            at,
            error: failing.error.clone(),
        };
        let letters = events.iter().map(letter).collect();
        let cursor = &mut self.standing.cursor;
        if let Some(newest) = events.last() {
            cursor.next = newest.sequence + 1;
        }
        cursor.through = None;
        self.advance(letters).await
    }

    async fn advance(&self, dead_letters: Vec<DeadLetter>) -> Result<(), Gone> {
        let told = Told {
            subscription: self.subscription.id,
            cursor: self.standing.cursor.clone(),
            dead_letters,
        };
        Ok(self.office.registry.advance(vec![told]).await?)
    }
}
