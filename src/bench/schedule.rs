//! When requests of an open loop are due, whatever becomes of those before them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::Notify;

use super::BenchError;
use crate::clock::Stopwatch;

/// Between two looks whether anybody still waits.
const NAP: Duration = Duration::from_millis(50);

/// Evenly spaced instants. Several threads share a rate: each takes every n-th instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    rate_per_s: u32,
    step: u64,
    next: u64,
}

impl Schedule {
    /// The part of one of `threads` threads; `rate_per_s` is that of all, and at least 1.
    pub(super) fn new(rate_per_s: u32, thread: usize, threads: usize) -> Self {
        Self {
            rate_per_s: rate_per_s.max(1),
            step: threads as u64,
            next: thread as u64,
        }
    }

    /// When the next request is due, counted from the start.
    pub(super) fn due(&self) -> Duration {
        let rate = u64::from(self.rate_per_s);
        let (secs, rest) = (self.next / rate, self.next % rate);
        Duration::from_secs(secs) + Duration::from_nanos(rest * 1_000_000_000 / rate)
    }

    /// Goes on to the one after it.
    pub(super) fn advance(&mut self) {
        self.next += self.step;
    }
}

/// Makes instants due, each in its time, on a thread of its own: the runtime's timers have whole
/// milliseconds, which would look like latency of the server. It ends when dropped.
pub(super) struct Pacer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    due: Mutex<VecDeque<Duration>>,
    more: Notify,
    /// Nothing more will be due.
    last: AtomicBool,
    /// Nobody waits any more.
    over: AtomicBool,
}

impl Pacer {
    /// Goes through the schedule up to `end`, counted by `clock`.
    pub(super) fn start(
        schedule: Schedule,
        end: Duration,
        clock: Stopwatch,
    ) -> Result<Self, BenchError> {
        let shared = Arc::new(Shared::default());
        let pacing = shared.clone();
        let thread = std::thread::Builder::new().name("pacer".to_owned());
        let thread = thread.spawn(move || pacing.pace(schedule, end, clock));
        Ok(Self {
            shared,
            thread: Some(thread.map_err(BenchError::io("starting a thread"))?),
        })
    }

    /// The next instant that is due, as soon as it is; `None` at the end.
    pub(super) async fn next(&self) -> Option<Duration> {
        loop {
            // Before the look: what happens in between is not missed.
            let more = self.shared.more.notified();
            let last = self.shared.last.load(Ordering::SeqCst);
            if let Some(due) = self.shared.due().pop_front() {
                return Some(due);
            }
            if last {
                return None;
            }
            more.await;
        }
    }

    /// What is due and was not taken.
    pub(super) fn left(&self) -> Vec<Duration> {
        self.shared.due().drain(..).collect()
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // It only sleeps and counts.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn due(&self) -> MutexGuard<'_, VecDeque<Duration>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self, mut schedule: Schedule, end: Duration, clock: Stopwatch) {
        while schedule.due() < end && !self.over.load(Ordering::SeqCst) {
            let now = clock.elapsed();
            if let Some(early) = schedule.due().checked_sub(now).filter(|d| !d.is_zero()) {
                std::thread::sleep(early.min(NAP));
                continue;
            }
            while schedule.due() <= now && schedule.due() < end {
                self.due().push_back(schedule.due());
                self.more.notify_one();
                schedule.advance();
            }
        }
        self.last.store(true, Ordering::SeqCst);
        self.more.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(mut schedule: Schedule, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        for _ in 0..count {
            found.push(u64::try_from(schedule.due().as_micros()).unwrap());
            schedule.advance();
        }
        found
    }

    #[test]
    fn instants_are_even_and_do_not_drift() {
        assert_eq!(
            dues(Schedule::new(4, 0, 1), 6),
            [0, 250_000, 500_000, 750_000, 1_000_000, 1_250_000]
        );
        // A third of a second is no whole number of microseconds, yet three of them are a second.
        assert_eq!(
            dues(Schedule::new(3, 0, 1), 4),
            [0, 333_333, 666_666, 1_000_000]
        );
        let mut late = Schedule::new(1_000_000, 0, 1);
        late.next = 3_600_000_000;
        assert_eq!(late.due(), Duration::from_secs(3600));
    }

    #[test]
    fn threads_share_one_schedule() {
        let mut shared: Vec<_> = (0..3)
            .flat_map(|thread| dues(Schedule::new(1000, thread, 3), 4))
            .collect();
        shared.sort_unstable();
        assert_eq!(shared, dues(Schedule::new(1000, 0, 1), 12));
    }

    #[tokio::test]
    async fn instants_come_in_their_time_and_then_end() {
        let clock = Stopwatch::start();
        let end = Duration::from_millis(50);
        let pacer = Pacer::start(Schedule::new(1000, 0, 1), end, clock).unwrap();
        for number in 0..50 {
            let due = pacer.next().await.unwrap();
            assert_eq!(due, Duration::from_millis(number));
            assert!(clock.elapsed() >= due);
        }
        assert_eq!(pacer.next().await, None);
        // Nobody takes anything: all of it is left.
        let pacer = Pacer::start(Schedule::new(1000, 0, 1), end, Stopwatch::start()).unwrap();
        let mut left = 0;
        for _ in 0..200 {
            tokio::time::sleep(end).await;
            left += pacer.left().len();
            if left >= 50 {
                break;
            }
        }
        assert_eq!(left, 50);
        // Far from its end: it does not keep anybody.
        let clock = Stopwatch::start();
        drop(Pacer::start(Schedule::new(1, 0, 1), end * 1000, clock).unwrap());
        assert!(clock.elapsed() < end * 500);
    }
}
