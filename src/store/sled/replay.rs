//! What the journal still holds when a store is opened: judged before the engine is touched, then
//! given to it.
//!
//! The records that count are the newest and those before it in an unbroken row. Whatever of them
//! was damaged, what is left of the row then begins too late for the engine's own newest commit, or
//! ends too early for what `STORE` and `WITNESS` know to have been on the disk: the store is refused.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use uuid::Uuid;

use super::census::{Counted, Fingerprint};
use super::journal::{Record, RowOf};
use crate::store::OpenError;
use crate::store::data_dir::{DataDir, StoreFile};
use crate::store::records::{self, Census};
use crate::store::schema::{CENSUS_KEY, JOURNAL_SINCE, tree};

/// The unbroken row of records that ends with the newest.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: Vec<Record>,
}

impl Tail {
    /// Beside a log that was sealed when the engine had everything: nothing. `None`: it has to be made
    /// anew, because it cannot be read, or goes on behind what was sealed: then the rest of the
    /// directory was put back without it.
    pub(super) fn beside_sealed(
        data_dir: &DataDir,
        store_id: Option<Uuid>,
        commit_floor: u64,
    ) -> Option<Self> {
        let tail = Self::read(&data_dir.journal_path(), store_id).ok()??;
        (tail.reach() <= Some(commit_floor)).then(Self::default)
    }

    /// Of a store that nobody sealed; `None`: it never had a journal.
    ///
    /// # Errors
    /// When it is missing, or cannot be read as one.
    pub(super) fn left(
        data_dir: &DataDir,
        known: Option<&StoreFile>,
        store_id: Option<Uuid>,
    ) -> Result<Option<Self>, OpenError> {
        let path = data_dir.journal_path();
        match Self::read(&path, store_id) {
            Ok(None) if known.is_some_and(|file| file.schema >= JOURNAL_SINCE) => {
                Err(OpenError::LogMissing { path })
            }
            Ok(tail) => Ok(tail),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(OpenError::LogDamaged {
                    path,
                    reason: error.to_string(),
                })
            }
            Err(error) => Err(OpenError::io("reading", path)(error)),
        }
    }

    /// Reads it; `None`: there is no journal. A record of another store counts for nothing;
    /// `store_id` is `None` where nobody knows it yet.
    ///
    /// # Errors
    /// When it cannot be read, or does not have its length ([`io::ErrorKind::InvalidData`]).
    fn read(path: &Path, store_id: Option<Uuid>) -> io::Result<Option<Self>> {
        let journal = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut records = Vec::new();
        Record::each_in(&journal, |record| {
            if store_id.is_none_or(|id| id == record.store_id) {
                records.push(record);
            }
        })?;
        Ok(Some(Self::of(records)))
    }

    fn of(mut records: Vec<Record>) -> Self {
        records.sort_by_key(|record| (record.store_id, record.commit_seq));
        let newest = records.iter().enumerate();
        let newest = newest.max_by_key(|(_, record)| record.commit_seq);
        let newest = newest.map_or(0, |(at, _)| at);
        records.truncate(newest + 1);
        let follow_each_other = |pair: &&[Record]| {
            matches!(pair, [earlier, later]
                if earlier.commit_seq.checked_add(1) == Some(later.commit_seq)
                    && earlier.store_id == later.store_id)
        };
        let row = records.windows(2).rev().take_while(follow_each_other);
        let first = newest - row.count();
        records.drain(..first);
        Self { records }
    }

    /// The newest commit in it.
    pub(super) fn reach(&self) -> Option<u64> {
        self.records.last().map(|record| record.commit_seq)
    }

    /// Whose it is, if anything is in it.
    pub(super) fn store_id(&self) -> Option<Uuid> {
        self.records.last().map(|record| record.store_id)
    }

    /// The commit that the engine must have at least, where `commit_floor` must be on the disk: if
    /// that one is in here, then the one before the first in here.
    pub(super) fn engine_floor(&self, commit_floor: u64) -> u64 {
        match (self.records.first(), self.records.last()) {
            (Some(first), Some(last)) if last.commit_seq >= commit_floor => {
                first.commit_seq.saturating_sub(1)
            }
            _ => commit_floor,
        }
    }

    /// Gives the engine what it does not have. To be synced by the caller; until then it may be
    /// interrupted, and done again.
    ///
    /// # Errors
    /// When the engine fails.
    pub(super) fn replay(&self, db: &sled::Db, census: &mut Census) -> Result<(), sled::Error> {
        let (store_id, engine) = (census.store_id, census.commit_seq);
        let missing: Vec<_> = (self.records.iter())
            .filter(|record| record.store_id == store_id && record.commit_seq > engine)
            .collect();
        let Some(newest) = missing.last() else {
            return Ok(());
        };
        let (liveness, meta) = (db.open_tree(tree::LIVENESS)?, db.open_tree(tree::META)?);
        let mut rows = BTreeMap::new();
        let mut meta_batch = sled::Batch::default();
        for row in missing.iter().flat_map(|record| record.rows()) {
            match row.tree {
                RowOf::Liveness => drop(rows.insert(row.key, row.value)),
                RowOf::Meta => meta_batch.insert(row.key, row.value),
            }
        }
        let mut sum = Fingerprint(census.fingerprint.unwrap_or(0));
        let mut batch = sled::Batch::default();
        for (key, new) in &rows {
            if let Some(old) = liveness.get(key)? {
                sum.toggle(Counted::Liveness, key, &old);
            }
            sum.toggle(Counted::Liveness, key, new);
            batch.insert(*key, *new);
        }
        census.commit_seq = newest.commit_seq;
        census.fingerprint = census.fingerprint.map(|_| sum.0);
        batch.insert(CENSUS_KEY, records::encode_census(census));
        // The census comes last, and with the rows that it vouches for: without it all is done anew.
        meta.apply_batch(meta_batch)?;
        liveness.apply_batch(batch)?;
        log::info!(
            "{} commits of {} services were in the journal only, up to commit {}",
            missing.len(),
            rows.len(),
            census.commit_seq
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests;
