//! The one queue in front of the one writer: bounded, and frugal with wake-ups.
//!
//! The event loop never waits here: a full queue is an answer. The writer sleeps until the first
//! command, and with a small batch in hand a little longer for company; only the command that
//! ends its wait wakes it.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::command::{Command, Item};
use super::{Error, Terms};

/// Commands in one commit at the most. Bounds the time an acknowledgement waits for others.
const BATCH_MAX: usize = 1024;

/// Rows that one commit may touch at the most (a batch heartbeat is one command with many rows).
const BATCH_WEIGHT_MAX: usize = 8192;

#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    ready: Condvar,
    max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    items: VecDeque<Item>,
    closed: bool,
    /// The writer waits for so many items; 0: it does not wait.
    wake_at: usize,
    /// How many of them are the registry's own, and do not count against the room for clients.
    own: usize,
    /// How many of those cannot wait for company: the truth depends on their pace.
    urgent: usize,
}

impl Queue {
    pub(super) fn new(max: usize) -> Self {
        Self {
            inner: Mutex::default(),
            ready: Condvar::new(),
            max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command in.
    ///
    /// # Errors
    /// [`Error::Busy`] when it is full, [`Error::Stopping`] when it is closed.
    pub(super) fn push(&self, command: Command) -> Result<(), Error> {
        let inner = self.lock();
        if inner.closed {
            return Err(Error::Stopping);
        }
        if inner.items.len() - inner.own >= self.max {
            return Err(Error::Busy);
        }
        self.append(inner, Item::Client(command));
        Ok(())
    }

    /// Puts in what the registry itself has to say. It is never refused for lack of room, so that
    /// a flood of beats cannot keep verdicts from being made. `make` is called when it has its place, so
    /// that what it stamps is later than all that stands before it. `false`: the queue is closed.
    pub(super) fn push_own(&self, make: impl FnOnce() -> Item) -> bool {
        let mut inner = self.lock();
        if inner.closed {
            return false;
        }
        let item = make();
        inner.own += 1;
        inner.urgent += usize::from(item.is_urgent());
        self.append(inner, item);
        true
    }

    fn append(&self, mut inner: MutexGuard<'_, Inner>, item: Item) {
        inner.items.push_back(item);
        let wake = inner.wake_at > 0 && (inner.items.len() >= inner.wake_at || inner.urgent > 0);
        if wake {
            inner.wake_at = 0;
            drop(inner);
            self.ready.notify_one();
        }
    }

    /// How many items wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// No more commands are taken in; the writer gets what is there.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.wake_at = 0;
        drop(inner);
        self.ready.notify_all();
    }

    /// Waits for the next batch and moves it into `batch`, but not longer than `wait_max`: then the
    /// batch is empty. `false`: closed and empty.
    pub(super) fn take(&self, terms: &Terms, wait_max: Duration, batch: &mut Vec<Item>) -> bool {
        let mut inner = self.lock();
        if inner.items.is_empty() {
            if inner.closed {
                return false;
            }
            inner.wake_at = 1;
            let empty = |inner: &mut Inner| inner.items.is_empty() && !inner.closed;
            inner = self
                .ready
                .wait_timeout_while(inner, wait_max, empty)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if inner.items.is_empty() {
                inner.wake_at = 0;
                return !inner.closed;
            }
        }
        let lonely = |inner: &mut Inner| {
            !inner.closed && inner.urgent == 0 && inner.items.len() < terms.linger_commands
        };
        if terms.linger_ms > 0 && lonely(&mut inner) {
            inner.wake_at = terms.linger_commands;
            let linger = Duration::from_millis(terms.linger_ms);
            inner = self
                .ready
                .wait_timeout_while(inner, linger, lonely)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        inner.wake_at = 0;
        let mut weight = 0;
        while batch.len() < BATCH_MAX && weight < BATCH_WEIGHT_MAX {
            let Some(item) = inner.items.pop_front() else {
                break;
            };
            inner.urgent -= usize::from(item.is_urgent());
            match &item {
                Item::Client(command) => weight += command.weight(&terms.rules),
                Item::Advance { told, .. } => {
                    inner.own -= 1;
                    weight += told.len();
                }
                Item::Pulse { .. }
                | Item::Reload(_)
                | Item::Mend(_)
                | Item::Look(_)
                | Item::StopWatching { .. } => {
                    inner.own -= 1;
                    weight += 1;
                }
            }
            batch.push(item);
        }
        true
    }
}
