//! The load: connections that ask one thing after the other, on threads of their own.
//!
//! Closed loop: each connection asks again as soon as it is answered; that shows what a server can do.
//! Open loop: requests are due at instants that nothing moves, and latency counts from there. A server
//! that stalls for a second is late for every request of that second, not for one per connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::link::{Link, Lost, Target};
use super::schedule::{Pacer, Schedule};
use super::tally::Tally;
use super::work::{Work, Wrong};
use super::{BenchError, Stop};
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

/// When requests leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as answers come.
    Closed,
    /// So many per second, whatever becomes of them.
    Open {
        /// Of all connections together.
        rate_per_s: u32,
    },
}

/// How load is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// When requests leave.
    pub pace: Pace,
    /// Connections, each with one request under way at the most.
    pub connections: usize,
    /// Threads that make it.
    pub threads: usize,
    /// Not counted, before what is.
    pub warm_up: Duration,
    /// What is counted.
    pub duration: Duration,
}

impl Plan {
    fn end(&self) -> Duration {
        self.warm_up + self.duration
    }
}

/// What all threads share.
struct Common {
    target: Arc<Target>,
    work: Arc<dyn Work>,
    plan: Plan,
    stop: Stop,
    answered: Arc<AtomicU64>,
}

/// Load under way. Ends early when dropped.
pub(super) struct Running {
    go: watch::Sender<Option<Stopwatch>>,
    threads: Vec<JoinHandle<Result<Tally, BenchError>>>,
    /// Closed when the last thread is through.
    over: mpsc::Receiver<()>,
    end: watch::Sender<bool>,
    /// Good answers so far, also in the warm-up.
    pub(super) answered: Arc<AtomicU64>,
}

impl Running {
    /// Opens all connections, and waits for [`Self::go`].
    pub(super) async fn prepare(
        target: &Arc<Target>,
        work: &Arc<dyn Work>,
        plan: Plan,
        stop: &Stop,
    ) -> Result<Self, BenchError> {
        let threads_wanted = plan.threads.clamp(1, plan.connections.max(1));
        let (go, gone) = watch::channel(None);
        let (ready, mut readies) = mpsc::channel(threads_wanted);
        let (over, overs) = mpsc::channel(1);
        let (end, ended) = Stop::new();
        let answered = Arc::new(AtomicU64::new(0));
        let common = Arc::new(Common {
            target: target.clone(),
            work: work.clone(),
            plan,
            stop: ended,
            answered: answered.clone(),
        });
        let mut threads = Vec::new();
        for number in 0..threads_wanted {
            let (common, ready, over, gone) =
                (common.clone(), ready.clone(), over.clone(), gone.clone());
            let share = plan.connections / threads_wanted
                + usize::from(number < plan.connections % threads_wanted);
            let schedule = match plan.pace {
                Pace::Closed => None,
                Pace::Open { rate_per_s } => {
                    Some(Schedule::new(rate_per_s, number, threads_wanted))
                }
            };
            let thread = std::thread::Builder::new().name(format!("load-{number}"));
            let thread = thread.spawn(move || {
                let tally = run_thread(&common, share, schedule, &ready, gone);
                drop(over);
                tally
            });
            threads.push(thread.map_err(BenchError::io("starting a thread"))?);
        }
        drop((ready, over));
        let running = Self {
            go,
            threads,
            over: overs,
            end,
            answered,
        };
        for _ in 0..threads_wanted {
            match stop.unless(readies.recv()).await? {
                Some(Ok(())) => {}
                Some(Err(lost)) => {
                    return Err(BenchError::refused("connecting", lost.to_string()));
                }
                None => return Err(BenchError::refused("connecting", "a thread ended")),
            }
        }
        Ok(running)
    }

    /// Starts the clock.
    pub(super) fn go(&self) -> Stopwatch {
        let started = Stopwatch::start();
        self.go.send_replace(Some(started));
        started
    }

    /// Waits for the end.
    pub(super) async fn finish(mut self, stop: &Stop) -> Result<Tally, BenchError> {
        stop.unless(self.over.recv()).await?;
        self.collect()
    }

    /// Ends it now.
    pub(super) fn cut(mut self) -> Result<Tally, BenchError> {
        self.collect()
    }

    fn collect(&mut self) -> Result<Tally, BenchError> {
        self.end.send_replace(true);
        let mut sum = Tally::new()?;
        for thread in self.threads.drain(..) {
            let tally = thread
                .join()
                .map_err(|_| BenchError::refused("making load", "a thread panicked"))?;
            sum.add(&tally?);
        }
        Ok(sum)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end.send_replace(true);
        for thread in self.threads.drain(..) {
            // It was given up; nobody wants to know.
            let _ = thread.join();
        }
    }
}

fn run_thread(
    common: &Arc<Common>,
    connections: usize,
    schedule: Option<Schedule>,
    ready: &mpsc::Sender<Result<(), Lost>>,
    mut gone: watch::Receiver<Option<Stopwatch>>,
) -> Result<Tally, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(BenchError::io("starting an event loop"))?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let mut links = Vec::new();
        for _ in 0..connections {
            let opened = common.stop.unless(Link::open(&common.target)).await?;
            match opened {
                Ok(link) => links.push(link),
                Err(lost) => {
                    let _ = ready.send(Err(lost)).await;
                    return Tally::new();
                }
            }
        }
        let _ = ready.send(Ok(())).await;
        let started = common
            .stop
            .unless(gone.wait_for(|go| go.is_some()))
            .await?
            .map_or(None, |started| *started);
        // Whoever would start the clock is gone.
        let Some(started) = started else {
            return Tally::new();
        };
        let local = Rc::new(Local::new(common.clone(), schedule, started)?);
        let mut workers = JoinSet::new();
        for link in links {
            let worker = Worker::new(local.clone(), link);
            match schedule {
                None => workers.spawn_local(worker.closed()),
                Some(_) => workers.spawn_local(worker.open()),
            };
        }
        let all = async {
            while let Some(ended) = workers.join_next().await {
                if ended.is_err() {
                    return Err(BenchError::refused("making load", "a connection panicked"));
                }
            }
            Ok(())
        };
        match common.stop.unless(all).await {
            // What was counted until then may still be of use.
            Err(BenchError::Interrupted) => {}
            done => done??,
        }
        Ok(local.close())
    }))
}

/// What the connections of one thread share.
struct Local {
    common: Arc<Common>,
    started: Stopwatch,
    tally: RefCell<Tally>,
    /// Of an open loop.
    pacer: Option<Pacer>,
}

impl Local {
    fn new(
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
    fn close(&self) -> Tally {
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
struct Worker {
    local: Rc<Local>,
    link: Option<Link>,
    request: Vec<u8>,
    body: Vec<u8>,
    /// When it was last answered.
    heard: Duration,
}

impl Worker {
    fn new(local: Rc<Local>, link: Link) -> Self {
        Self {
            local,
            link: Some(link),
            request: Vec::with_capacity(REQUEST_BYTES),
            body: Vec::new(),
            heard: Duration::ZERO,
        }
    }

    async fn closed(mut self) {
        let local = self.local.clone();
        loop {
            let now = local.started.elapsed();
            if now >= local.common.plan.end() || !self.ask(now).await {
                return;
            }
        }
    }

    async fn open(mut self) {
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
            let counts = local.counts(due);
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
