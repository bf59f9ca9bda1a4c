//! The log of events, read beside the writer.

use std::sync::{PoisonError, RwLock};

use crate::domain::Event;
use crate::store::codec::DecodeError;
use crate::store::{Error, EventLog, LogPage, records, schema};

/// A handle of its own on the tree. It must be gone before the engine can be closed.
pub(super) struct SledEvents(RwLock<Option<sled::Tree>>);

impl SledEvents {
    pub(super) fn new(tree: sled::Tree) -> Self {
        Self(RwLock::new(Some(tree)))
    }

    /// Lets go of the tree, once whoever reads is through with it.
    pub(super) fn close(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Does something with the tree, if the store is open.
    fn with<T: Default>(
        &self,
        read: impl FnOnce(&sled::Tree) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let tree = self.0.read().unwrap_or_else(PoisonError::into_inner);
        tree.as_ref().map_or_else(|| Ok(T::default()), read)
    }
}

fn decode(key: &[u8], value: &[u8]) -> Option<Event> {
    let decoded: Result<Event, DecodeError> =
        schema::parse_sequence_key(key).and_then(|sequence| records::decode_event(sequence, value));
    decoded
        .inspect_err(|error| log::error!("skipped an event with key {key:?}: {error}"))
        .ok()
}

impl EventLog for SledEvents {
    fn read(&self, from: u64, max: usize) -> Result<LogPage, Error> {
        self.with(|tree| {
            let mut page = LogPage::default();
            let mut rows = 0;
            for row in tree.range(from.to_be_bytes()..).take(max) {
                let (key, value) = row?;
                rows += 1;
                page.events.extend(decode(&key, &value));
                page.next = schema::parse_sequence_key(&key)
                    .ok()
                    .and_then(|sequence| sequence.checked_add(1))
                    .or(page.next);
            }
            if rows < max {
                page.next = None;
            }
            Ok(page)
        })
    }

    fn newest(&self, max: usize) -> Result<Vec<Event>, Error> {
        self.with(|tree| {
            let mut events = Vec::new();
            for row in tree.iter().rev().take(max) {
                let (key, value) = row?;
                events.extend(decode(&key, &value));
            }
            events.reverse();
            Ok(events)
        })
    }
}
