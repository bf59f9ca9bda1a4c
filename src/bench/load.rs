//! The load: connections that ask one thing after the other, on threads of their own.
//!
//! Closed loop: each connection asks again as soon as it is answered; that shows what a server can do.
//! Open loop: requests are due at instants that nothing moves, and latency counts from there. A server
//! that stalls for a second is late for every request of that second, not for one per connection.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};

use super::link::{Link, Lost, Target};
use super::schedule::Schedule;
use super::tally::Tally;
use super::work::Work;
use super::worker::{Local, Worker};
use super::{BenchError, Stop};
use crate::clock::Stopwatch;

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
    /// The end of what is counted, from the start.
    pub(super) fn end(&self) -> Duration {
        self.warm_up + self.duration
    }
}

/// What all threads share.
pub(super) struct Common {
    pub(super) target: Arc<Target>,
    pub(super) work: Arc<dyn Work>,
    pub(super) plan: Plan,
    pub(super) stop: Stop,
    pub(super) answered: Arc<AtomicU64>,
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
