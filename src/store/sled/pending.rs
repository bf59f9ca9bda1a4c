//! What was committed, or is about to be, and does not stand in the trees yet.

use std::collections::HashMap;

use super::journal::{JournalRow, RowOf};
use crate::store::schema::{self, meta};
use crate::store::{Batch, Change, records};

/// So many services' rows are worth a fold; with twice as many a fold has to be waited for.
const ROWS_RIPE: usize = 2048;
/// A commit of so many rows costs the engine little more than its rows.
pub(super) const ROWS_MANY: usize = 16;
/// After a fold that did not pay so many rows go into the engine at once, before it is tried again.
pub(super) const ROWS_DIRECT: usize = 16 * ROWS_RIPE;

/// Rows that change, encoded.
#[derive(Default)]
pub(super) struct Pending {
    /// By key, each as it stands in its tree and as it will.
    liveness: HashMap<Vec<u8>, Change<Vec<u8>>>,
    mark: Option<Vec<u8>>,
    /// Commits that were added, and their rows.
    commits: usize,
    rows: usize,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.liveness.is_empty() && self.mark.is_none()
    }

    /// Whether it should go into the engine.
    pub(super) fn is_ripe(&self) -> bool {
        self.liveness.len() >= ROWS_RIPE
    }

    /// Whether it must not become more.
    pub(super) fn is_full(&self) -> bool {
        self.liveness.len() >= 2 * ROWS_RIPE
    }

    /// Whether the engine was spared anything: rows that were written over, or many small commits.
    pub(super) fn has_paid(&self) -> bool {
        self.rows >= 2 * self.liveness.len() || self.rows < ROWS_MANY * self.commits
    }

    /// Takes over what a batch does to liveness and the mark.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.commits += 1;
        self.rows += batch.liveness.len();
        for (key, change) in &batch.liveness {
            let new = change.new.as_ref().map(records::encode_liveness);
            self.liveness
                .entry(schema::service_key(key))
                .or_insert_with(|| Change {
                    old: change.old.as_ref().map(records::encode_liveness),
                    new: None,
                })
                .new = new;
        }
        if let Some(mark) = &batch.mark {
            self.mark = Some(records::encode_mark(mark));
        }
    }

    /// The rows of a batch that was added.
    pub(super) fn rows_of<'a>(
        &'a self,
        batch: &'a Batch,
    ) -> impl Iterator<Item = JournalRow<'a>> + 'a {
        let keys = batch.liveness.iter();
        let liveness = keys.filter_map(|(key, _)| {
            let (key, change) = self.liveness.get_key_value(&schema::service_key(key))?;
            Some(JournalRow {
                tree: RowOf::Liveness,
                key,
                value: change.new.as_ref()?,
            })
        });
        let mark = batch.mark.and_then(|_| {
            Some(JournalRow {
                tree: RowOf::Meta,
                key: meta::MARK.as_bytes(),
                value: self.mark.as_ref()?,
            })
        });
        liveness.chain(mark)
    }

    /// All rows of the tree `liveness`.
    pub(super) fn liveness(&self) -> impl Iterator<Item = (&Vec<u8>, &Change<Vec<u8>>)> {
        self.liveness.iter()
    }

    /// The row of the mark.
    pub(super) fn mark(&self) -> Option<&Vec<u8>> {
        self.mark.as_ref()
    }
}

/// Whether a batch only overwrites rows that stand there: heartbeats, and the mark. Only that may
/// go into the journal. What it forgets for its age is not looked at here.
pub(super) fn only_overwrites(batch: &Batch) -> bool {
    let Batch {
        apps,
        services,
        liveness,
        subscriptions,
        cursors,
        dead_letters,
        disarm,
        arm,
        blind_spots,
        forget_blind_spots,
        mark: _,
        policy,
        events,
        events_per_service_max: _,
        forget_events_before: _,
        events_needed_from: _,
    } = batch;
    let overwrites = |change: &Change<_>| change.old.is_some() && change.new.is_some();
    liveness.iter().all(|(_, change)| overwrites(change))
        && apps.is_empty()
        && services.is_empty()
        && subscriptions.is_empty()
        && cursors.is_empty()
        && dead_letters.is_empty()
        && disarm.is_empty()
        && arm.is_empty()
        && blind_spots.is_empty()
        && forget_blind_spots.is_empty()
        && policy.is_none()
        && events.is_empty()
}
