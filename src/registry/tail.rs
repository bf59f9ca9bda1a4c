//! The newest events in memory, for those who follow them; the store has the rest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::Event;

/// So many events are kept in memory: whoever is not further behind costs the store nothing.
pub(super) const TAIL_MAX: usize = 4096;

/// A part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What happened, as far as it is kept.
    pub events: Vec<Arc<Event>>,
    /// Everything before this sequence has been looked at: read on here.
    pub next: u64,
}

/// See the module. Written by the writer alone.
#[derive(Debug)]
pub(super) struct Log {
    tail: Mutex<VecDeque<Arc<Event>>>,
    /// The sequence that the next event gets.
    head: watch::Sender<u64>,
    needed_from: AtomicU64,
}

impl Log {
    /// A log with these newest events, whose next event gets `head`; those from `needed_from` on are
    /// to be kept.
    pub(super) fn new(newest: Vec<Event>, head: u64, needed_from: u64) -> Self {
        Self {
            tail: Mutex::new(newest.into_iter().map(Arc::new).collect()),
            head: watch::Sender::new(head),
            needed_from: AtomicU64::new(needed_from),
        }
    }

    fn tail(&self) -> MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These events are on the disk, and in the view.
    pub(super) fn append(&self, events: Vec<Event>) {
        let Some(last) = events.last() else { return };
        let head = last.sequence + 1;
        let mut tail = self.tail();
        tail.extend(events.into_iter().map(Arc::new));
        let surplus = tail.len().saturating_sub(TAIL_MAX);
        tail.drain(..surplus);
        // Before the lock goes: nobody may find an event that the head does not cover yet.
        self.head.send_replace(head);
    }

    /// The events from a sequence on, at most `max`; `None` if memory does not reach back so far.
    pub(super) fn recent(&self, from: u64, max: usize) -> Option<Page> {
        let tail = self.tail();
        let head = *self.head.borrow();
        if from >= head {
            return Some(Page {
                events: Vec::new(),
                next: from,
            });
        }
        tail.front().filter(|first| first.sequence <= from)?;
        // Events that were forgotten early leave holes.
        let skipped = tail.partition_point(|event| event.sequence < from);
        let events: Vec<_> = tail.iter().skip(skipped).take(max).cloned().collect();
        let last = events.last().filter(|_| events.len() == max);
        let next = last.map_or(head, |last| last.sequence + 1);
        Some(Page { events, next })
    }

    /// Where the log ends now.
    pub(super) fn end(&self) -> u64 {
        *self.head.borrow()
    }

    /// Tells the head whenever it moves.
    pub(super) fn head(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Events from here on are to be told to somebody.
    pub(super) fn hold_from(&self, sequence: u64) {
        self.needed_from.store(sequence, Ordering::Relaxed);
    }

    pub(super) fn needed_from(&self) -> u64 {
        self.needed_from.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        AppInstanceId, Happening, Moment, ServiceId, ServiceKey, ServiceState, Steady, Wall,
    };

    #[test]
    fn nobody_finds_an_event_before_the_head_covers_it() {
        const EVENTS: u64 = 100_000;
        let log = Log::new(Vec::new(), 0, 0);
        let event = |sequence| Event {
            sequence,
            at: Moment {
                steady: Steady::from_ms(0),
                wall: Wall::from_ns(0),
            },
            key: ServiceKey {
                app: AppInstanceId::parse("app").unwrap(),
                service: ServiceId::from_bytes([0; 16]),
            },
            subject: None,
            what: Happening::Removed {
                state: ServiceState::Active,
            },
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..EVENTS).for_each(|sequence| log.append(vec![event(sequence)])));
            let head = log.head();
            let mut seen = 0;
            while seen + 1 < EVENTS {
                // One step back: behind the head, so that memory is asked.
                let page = log.recent(seen, 64);
                let found = page.and_then(|page| page.events.last().cloned());
                let head = *head.borrow();
                match found {
                    Some(last) => {
                        assert!(last.sequence < head, "{} at head {head}", last.sequence);
                        seen = last.sequence;
                    }
                    None => seen = head.saturating_sub(1),
                }
            }
        });
    }
}
