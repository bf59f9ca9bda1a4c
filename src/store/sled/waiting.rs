//! What was committed, or is about to be, and does not stand in the trees yet.

use std::collections::hash_map::Entry;

use super::journal::{JournalRow, RowOf};
use crate::domain::{ByService, Liveness, Mark, ServiceKey};
use crate::store::schema::{self, meta};
use crate::store::{Batch, Change, records};

/// So many services' rows are worth a takeover, if it pays.
const ROWS_RIPE: usize = 2048;
/// So many are taken over in any case; with twice as many it has to be waited for. A commit that is not
/// for the journal waits for a takeover and takes along what has come since: a tenth of a second each.
pub(super) const ROWS_MAX: usize = 12_288;
/// How often a row was written over where that has paid well.
const TIMES_OVER: usize = 4;
/// A commit of so many rows costs the engine little more than its rows.
pub(super) const ROWS_MANY: usize = 16;
/// After a takeover that did not pay so many rows go into the engine at once, before it is tried again.
pub(super) const ROWS_DIRECT: usize = 16 * ROWS_MAX;

/// What has changed. A service's id is enough to find it: it is no other application's.
#[derive(Default)]
pub(super) struct Waiting {
    /// Each as it stands in its tree and as it will.
    liveness: ByService<(ServiceKey, Change<Liveness>)>,
    mark: Option<Mark>,
    /// Commits that were added, and their rows.
    commits: usize,
    rows: usize,
}

impl Waiting {
    /// Whether there is no commit in it. One without rows counts: the census has to tell of it.
    pub(super) fn is_empty(&self) -> bool {
        self.commits == 0
    }

    /// Whether it should go into the engine.
    pub(super) fn is_ripe(&self) -> bool {
        let rows = self.liveness.len();
        rows >= ROWS_MAX || rows >= ROWS_RIPE && self.has_spared(TIMES_OVER)
    }

    /// Whether it must not become more.
    pub(super) fn is_full(&self) -> bool {
        self.liveness.len() >= 2 * ROWS_MAX
    }

    /// Whether the engine was spared anything.
    pub(super) fn has_paid(&self) -> bool {
        self.has_spared(2)
    }

    /// Whether rows were written over so many times, or came in many small commits.
    fn has_spared(&self, times: usize) -> bool {
        self.rows >= times * self.liveness.len() || self.rows < ROWS_MANY * self.commits
    }

    /// Takes over what a batch does to liveness and the mark.
    pub(super) fn add(&mut self, batch: &Batch) {
        self.commits += 1;
        self.rows += batch.liveness.len();
        for (key, change) in &batch.liveness {
            match self.liveness.entry(key.service) {
                Entry::Occupied(mut known) => known.get_mut().1.new = change.new,
                Entry::Vacant(vacant) => {
                    vacant.insert((key.clone(), *change));
                }
            }
        }
        self.mark = batch.mark.or(self.mark);
    }

    /// All rows of the tree `liveness`, each with its key.
    pub(super) fn liveness(&self) -> impl Iterator<Item = (Vec<u8>, Change<Vec<u8>>)> {
        let rows = self.liveness.values();
        rows.map(|(key, change)| {
            let change = change.map(records::encode_liveness);
            (schema::service_key(key), change)
        })
    }

    /// The row of the mark.
    pub(super) fn mark(&self) -> Option<Vec<u8>> {
        self.mark.as_ref().map(records::encode_mark)
    }
}

/// The rows of a batch that only overwrites, for the journal.
pub(super) fn rows_of(batch: &Batch) -> impl Iterator<Item = JournalRow<Vec<u8>>> {
    let liveness = batch.liveness.iter().filter_map(|(key, change)| {
        Some(JournalRow {
            tree: RowOf::Liveness,
            key: schema::service_key(key),
            value: records::encode_liveness(change.new.as_ref()?),
        })
    });
    let mark = batch.mark.as_ref().map(|mark| JournalRow {
        tree: RowOf::Meta,
        key: meta::MARK.into(),
        value: records::encode_mark(mark),
    });
    liveness.chain(mark)
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
