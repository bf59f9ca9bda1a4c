//! Tells subscribers what happens: at least once, each in order, none delayed by another.
//!
//! There is one log of events and a cursor for each subscription, no row for each notice: a verdict
//! costs the same however many subscribers hear of it. One task follows the log and finds out who is
//! concerned (`interest`); those get a task of their own (`worker`) that reads on from their
//! cursor, sends, and moves the cursor through the registry, until there is nothing left to tell.
//! Subscribers to whom nothing has to be told cost nothing but their place in a map.
//!
//! Pure: `guard` (which addresses may be called), `backoff` (when to try again). `callback` is
//! the HTTP client.

mod backoff;
mod callback;
mod connect;
mod guard;
mod held;
mod interest;
mod places;
mod worker;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};

pub use self::callback::{Caller, Failure};
pub use self::guard::{Forbidden, Guard, Kind};
use self::interest::Interest;
use self::places::Places;
use self::worker::{Office, Standing, Worker};
use crate::domain::subscription::CallbackUri;
use crate::domain::{Cursor, Failing, Subscription, SubscriptionId};
use crate::metrics::Metrics;
use crate::registry::{Registry, Told};
use crate::wire::Links;

/// Events read from the log in one go.
const PAGE: usize = 512;
/// The cursors of those who are not concerned move on the disk once they are so far behind: it
/// bounds what a restart looks at again.
const STALE: u64 = 1024;
/// Cursors moved in one commit.
const ADVANCED_MAX: usize = 512;
/// How often what may be forgotten is looked at.
const TICK: Duration = Duration::from_secs(1);
/// A worker that broke is started again after this.
const RESTART_MS: u64 = 60_000;
/// A stop waits so long for notifications under way. What is not answered by then is sent again.
const FAREWELL: Duration = Duration::from_millis(1500);

/// Descriptors that callbacks may need, with so many under way at once.
#[must_use]
pub fn descriptors(in_flight_max: usize) -> usize {
    // What the pool has begun for an exchange may outlive it for a moment.
    callback::KEPT_MAX + 2 * in_flight_max
}

/// The operator's choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What could not be delivered for so long is given up, in milliseconds.
    pub give_up_after_ms: u64,
    /// Callbacks under way at once.
    pub in_flight_max: usize,
    /// Events in one notification.
    pub batch_max: usize,
}

/// Delivers one notification. A seam for tests.
pub trait Post: Send + Sync + 'static {
    /// Calls back, once. The key is that of the notification: a repeat carries the same.
    fn post(
        &self,
        to: &CallbackUri,
        body: Bytes,
        key: u64,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
}

impl Post for Caller {
    fn post(
        &self,
        to: &CallbackUri,
        body: Bytes,
        key: u64,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        Self::post(self, to, body, key)
    }
}

/// See the module.
pub struct Notifier<P> {
    office: Arc<Office<P>>,
    known: HashMap<SubscriptionId, Known>,
    /// The version of the subscriptions that `known` is about.
    version: Option<u64>,
    interest: Interest,
    /// Everybody concerned by an event before this one has been found.
    found_until: u64,
    workers: JoinSet<(SubscriptionId, Option<Standing>)>,
    stop: watch::Receiver<bool>,
}

/// A subscription, and who works for it.
struct Known {
    subscription: Arc<Subscription>,
    state: State,
}

enum State {
    /// It has been told of everything that concerns it, before this event. A worker may have read on
    /// while the log was not followed so far.
    Idle { next: u64, is_proven: bool },
    /// It has something to be told from `from` on.
    Busy {
        from: u64,
        worker: AbortHandle,
        /// The newest event that is known to concern it.
        newest: u64,
    },
}

impl<P: Post> Notifier<P> {
    /// Nothing is sent before it runs.
    #[must_use]
    pub fn new(
        registry: Registry,
        post: P,
        links: Arc<Links>,
        metrics: Arc<Metrics>,
        terms: Terms,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            office: Arc::new(Office {
                registry,
                post,
                links,
                metrics,
                terms,
                places: Places::new(terms.in_flight_max),
            }),
            known: HashMap::new(),
            version: None,
            interest: Interest::default(),
            found_until: 0,
            workers: JoinSet::new(),
            stop,
        }
    }

    /// Follows the log until it is told to stop, or the registry fails.
    pub async fn run(mut self) {
        let mut head = self.office.registry.head();
        self.found_until = *head.borrow_and_update();
        self.refresh();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stop = self.stop.clone();
        let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
        tokio::pin!(stopped);
        let failed = {
            let registry = self.office.registry.clone();
            async move { registry.failed().await }
        };
        tokio::pin!(failed);
        loop {
            enum Due {
                Follow(u64),
                Tidy,
            }
            let due = tokio::select! {
                () = &mut stopped => break,
                () = &mut failed => break,
                changed = head.changed() => match changed {
                    Ok(()) => Due::Follow(*head.borrow_and_update()),
                    Err(_) => break,
                },
                Some(ended) = self.workers.join_next(), if !self.workers.is_empty() => {
                    match ended {
                        Ok((id, standing)) => self.ended(id, standing),
                        Err(error) => self.broke(&error),
                    }
                    continue;
                }
                _ = tick.tick() => Due::Tidy,
            };
            // Both may wait for a disk that hangs.
            let done = async {
                match due {
                    Due::Follow(head) => self.follow(head).await,
                    Due::Tidy => self.tidy().await,
                }
            };
            tokio::select! {
                done = done => if done.is_err() { break },
                () = &mut stopped => break,
            }
        }
        let rest = async { while self.workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, rest).await;
    }

    /// Takes over which subscriptions there are.
    fn refresh(&mut self) {
        let registry = self.office.registry.clone();
        let view = registry.view();
        if self.version == Some(view.subscriptions_version()) {
            return;
        }
        self.version = Some(view.subscriptions_version());
        let interest = &mut self.interest;
        self.known.retain(|id, known| {
            let stays = view.subscription(id).is_some();
            if !stays {
                interest.remove(&known.subscription);
                if let State::Busy { worker, .. } = &known.state {
                    worker.abort();
                }
            }
            stays
        });
        let new: Vec<_> = view
            .subscriptions()
            .filter(|known| !self.known.contains_key(&known.subscription.id))
            .cloned()
            .collect();
        drop(view);
        for new in new {
            self.interest.add(&new.subscription);
            let id = new.subscription.id;
            let known = Known {
                subscription: new.subscription,
                state: State::Idle {
                    next: new.cursor.next,
                    is_proven: false,
                },
            };
            self.known.insert(id, known);
            // After a start: what happened while nobody told anybody.
            if new.cursor.next < self.found_until {
                self.start(id, new.cursor, self.found_until - 1);
            }
        }
    }

    /// Has a subscription told.
    fn start(&mut self, id: SubscriptionId, cursor: Cursor, newest: u64) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        let is_proven = match known.state {
            State::Idle { is_proven, .. } => is_proven,
            State::Busy { .. } => false,
        };
        let from = cursor.next;
        let worker = Worker {
            office: self.office.clone(),
            subscription: known.subscription.clone(),
            standing: Standing { cursor, is_proven },
            ahead: Vec::new(),
            stop: self.stop.clone(),
        };
        let worker = self.workers.spawn(async move { (id, worker.run().await) });
        known.state = State::Busy {
            from,
            worker,
            newest,
        };
    }

    /// A worker has told everything it knew of.
    fn ended(&mut self, id: SubscriptionId, standing: Option<Standing>) {
        let Some(known) = self.known.get_mut(&id) else {
            return;
        };
        let State::Busy { newest, .. } = known.state else {
            return;
        };
        // Without one the server stops, or the subscription is gone.
        let Some(Standing { cursor, is_proven }) = standing else {
            return;
        };
        known.state = State::Idle {
            next: cursor.next,
            is_proven,
        };
        // Something may have come while it was ending.
        if cursor.next <= newest {
            self.start(id, cursor, newest);
        }
    }

    /// A worker panicked, which none should; its subscriber must not suffer for ever. (Or it was
    /// aborted because its subscription is gone.)
    fn broke(&mut self, error: &JoinError) {
        let broken = self
            .known
            .iter()
            .find_map(|(id, known)| match &known.state {
                State::Busy { worker, newest, .. } if worker.id() == error.id() => {
                    Some((*id, *newest))
                }
                State::Busy { .. } | State::Idle { .. } => None,
            });
        let Some((id, newest)) = broken else { return };
        let wait_ms = RESTART_MS.min(self.office.terms.give_up_after_ms / 2);
        log::error!("telling {id:?} failed: {error}; trying again in {wait_ms} ms");
        let registry = &self.office.registry;
        let now = registry.now().steady;
        let cursor = registry.view().subscription(&id).map(|known| Cursor {
            failing: Some(Failing {
                since: known.cursor.failing.as_ref().map_or(now, |f| f.since),
                attempts: 1,
                retry_at: now.plus_ms(wait_ms),
                error: "an error of our own; see the log".to_owned(),
            }),
            ..known.cursor.clone()
        });
        if let Some(cursor) = cursor {
            self.start(id, cursor, newest);
        }
    }

    /// Finds out who is concerned by the events before `head`.
    async fn follow(&mut self, head: u64) -> Result<(), crate::registry::Error> {
        // The view is never behind the log: who subscribed before these events is in there.
        self.refresh();
        while self.found_until < head {
            let page = self.office.registry.events(self.found_until, PAGE).await?;
            for event in &page.events {
                let Some(notice) = event.notice() else {
                    continue;
                };
                let mut idle = Vec::new();
                let known = &mut self.known;
                self.interest.each(&notice, |id| {
                    let concerned = known
                        .get_mut(&id)
                        .filter(|known| known.subscription.filter.matches(&notice));
                    match concerned.map(|known| &mut known.state) {
                        Some(State::Busy { newest, .. }) => *newest = notice.sequence,
                        Some(State::Idle { next, .. }) if notice.sequence >= *next => idle.push(id),
                        Some(State::Idle { .. }) | None => {}
                    }
                });
                // A renamed service may concern somebody twice.
                idle.sort_unstable();
                idle.dedup();
                for id in idle {
                    self.start(id, Cursor::at(notice.sequence), notice.sequence);
                }
            }
            self.found_until = page.next;
        }
        Ok(())
    }

    /// Says which events are still needed, and moves the cursors of those who are not concerned.
    async fn tidy(&mut self) -> Result<(), crate::registry::Error> {
        self.refresh();
        let mut needed_from = self.found_until;
        // The more there are, the more a move of all of them costs.
        let stale_at = STALE.max(self.known.len() as u64);
        let mut stale = Vec::new();
        {
            let view = self.office.registry.view();
            for (id, known) in &self.known {
                let on_disk = view.subscription(id).map_or(0, |known| known.cursor.next);
                match known.state {
                    State::Busy { from, .. } => needed_from = needed_from.min(from.max(on_disk)),
                    State::Idle { next, .. } if on_disk + stale_at <= self.found_until => {
                        stale.push(Told {
                            subscription: *id,
                            cursor: Cursor::at(next.max(self.found_until)),
                            dead_letters: Vec::new(),
                        });
                    }
                    State::Idle { .. } => {}
                }
            }
        }
        self.office.registry.hold_events_from(needed_from);
        for part in stale.chunks(ADVANCED_MAX) {
            self.office.registry.advance(part.to_vec()).await?;
        }
        Ok(())
    }
}
