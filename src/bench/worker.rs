//! One connection of the load: asks, waits, and counts what comes of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::BenchError;
use super::link::{Link, Lost};
use super::load::Common;
use super::schedule::{Pacer, Schedule};
use super::tally::Tally;
use super::work::Wrong;
use crate::clock::Stopwatch;

/// After the last instant of a schedule, requests that are behind go on for so long. What is left then
/// counts as not sent: the server cannot keep up with the rate.
const CATCH_UP: Duration = Duration::from_secs(5);
/// A server may close a connection that was silent for so long; another one is opened before.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Before a connection that failed is tried again: a server that is gone is not asked in a busy loop.
const RECONNECT_PAUSE: Duration = Duration::from_millis(20);
/// Room for a request; it grows where it must.
const REQUEST_BYTES: usize = 4096;

/// What the connections of one thread share.
pub(super) struct Local {
    common: Arc<Common>,
    started: Stopwatch,
    tally: RefCell<Tally>,
    /// Of an open loop.
    pacer: Option<Pacer>,
}

impl Local {
    pub(super) fn new(
        common: Arc<Common>,
        schedule: Option<Schedule>,
        started: Stopwatch,
    ) -> Result<Self, BenchError> {
        let end = common.plan.end();
        let pacer = schedule.map(|schedule| Pacer::start(schedule, end, started));
        Ok(Self {
            common,
            started,
            tally: RefCell::new(Tally::new()?),
            pacer: pacer.transpose()?,
        })
    }

    /// The next instant that is due; `None` at the end, or when it is too late for catching up.
    async fn next_due(&self) -> Option<Duration> {
        let late = self.started.elapsed() >= self.common.plan.end() + CATCH_UP;
        match &self.pacer {
            Some(pacer) if !late => pacer.next().await,
            Some(_) | None => None,
        }
    }

    fn counts(&self, at: Duration) -> bool {
        (self.common.plan.warm_up..self.common.plan.end()).contains(&at)
    }

    /// The tally, with what was due and never sent.
    pub(super) fn close(&self) -> Tally {
        let mut tally = self.tally.borrow_mut();
        let now = self.started.elapsed();
        for due in self.pacer.iter().flat_map(Pacer::left) {
            if self.counts(due) {
                tally.times.record(now.saturating_sub(due));
                tally.fail("not sent".to_owned(), || {
                    "all connections were busy: the server does not keep up with the rate".into()
                });
            }
        }
        tally.clone()
    }
}

/// One connection.
pub(super) struct Worker {
    local: Rc<Local>,
    link: Option<Link>,
    request: Vec<u8>,
    body: Vec<u8>,
    /// When it was last answered.
    heard: Duration,
}

impl Worker {
    pub(super) fn new(local: Rc<Local>, link: Link) -> Self {
        Self {
            local,
            link: Some(link),
            request: Vec::with_capacity(REQUEST_BYTES),
            body: Vec::new(),
            heard: Duration::ZERO,
        }
    }

    pub(super) async fn closed(mut self) {
        let local = self.local.clone();
        loop {
            let now = local.started.elapsed();
            if now >= local.common.plan.end() || !self.ask(now).await {
                return;
            }
        }
    }

    pub(super) async fn open(mut self) {
        let local = self.local.clone();
        while let Some(due) = local.next_due().await {
            if !self.ask(due).await {
                return;
            }
        }
    }

    /// Asks the next thing, and counts what comes of it; `false` if there is nothing left to ask.
    async fn ask(&mut self, due: Duration) -> bool {
        let local = self.local.clone();
        let common = &local.common;
        self.request.clear();
        let Some(job) = common.work.next(&mut self.request) else {
            return false;
        };
        let outcome = self.exchange().await;
        let now = local.started.elapsed();
        self.heard = now;
        let judged = match outcome {
            Ok(status) => common.work.judge(&job, status, &self.body),
            Err(lost) => Err(Wrong {
                kind: lost.kind().to_owned(),
                example: lost.to_string(),
            }),
        };
        let failed = judged.is_err();
        {
            let mut tally = local.tally.borrow_mut();
            let counts = match local.pacer {
                Some(_) => local.counts(due),
                // All that was under way in the measured time: what hung all through it, too.
                None => now >= common.plan.warm_up,
            };
            if counts {
                tally.times.record(now.saturating_sub(due));
            }
            match judged {
                Ok(entries) => {
                    common.answered.fetch_add(1, Ordering::Relaxed);
                    if local.counts(now) {
                        tally.answers_in_time += 1;
                        tally.entries_in_time += entries;
                    }
                    if counts {
                        tally.answers += 1;
                        *tally.by_kind.entry(job.kind).or_default() += 1;
                    }
                }
                Err(wrong) if counts => tally.fail(wrong.kind, || wrong.example),
                Err(_) => {}
            }
        }
        if failed && self.link.is_none() {
            tokio::time::sleep(RECONNECT_PAUSE).await;
        }
        true
    }

    async fn exchange(&mut self) -> Result<u16, Lost> {
        let target = &self.local.common.target;
        let silent = self.local.started.elapsed().saturating_sub(self.heard);
        let usable = |link: &Link| !link.is_over() && silent < SILENCE_MAX;
        let mut link = match self.link.take().filter(usable) {
            Some(link) => link,
            None => Link::open(target).await?,
        };
        let exchanged = link
            .exchange(&self.request, &mut self.body, target.timeout())
            .await;
        self.link = (!link.is_over()).then_some(link);
        exchanged
    }
}
