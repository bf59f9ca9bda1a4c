//! One batch: what it writes to which tree, and how it gets onto the disk.

use std::collections::HashMap;

use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use super::census::{Counted, Fingerprint};
use super::waiting::{ROWS_MANY, Waiting, only_overwrites, rows_of};
use super::{Engine, SledStore, Trees};
use crate::domain::{Mark, ServiceId, SubscriptionId};
use crate::store::records::Census;
use crate::store::schema::{self, meta};
use crate::store::{Batch, Change, DEAD_LETTERS_MAX, Durability, Error, FORGOTTEN_MAX, records};

/// The floor in `STORE` is refreshed at most this often: that costs two syncs. `WITNESS` is more
/// exact, and free.
const FLOOR_INTERVAL_MS: u64 = 60_000;

/// What is written to one tree.
#[derive(Default)]
struct Rows {
    batch: sled::Batch,
    touched: bool,
}

impl Rows {
    fn insert(&mut self, key: impl AsRef<[u8]>, value: impl Into<sled::IVec>) {
        self.batch.insert(key.as_ref(), value.into());
        self.touched = true;
    }

    fn remove(&mut self, key: impl AsRef<[u8]>) {
        self.batch.remove(key.as_ref());
        self.touched = true;
    }

    /// Writes a record in parts; a shorter one leaves parts of the longer one behind, which go.
    /// `each` sees every part that comes or goes.
    fn put_parts(
        &mut self,
        change: &Change<impl AsRef<[u8]>>,
        key_of: impl Fn(u16) -> Vec<u8>,
        mut each: impl FnMut(&[u8], &[u8]),
    ) {
        let [mut old, mut new] = [&change.old, &change.new].map(|record| {
            let bytes = record.as_ref().map(AsRef::as_ref).unwrap_or_default();
            bytes.chunks(schema::PART_BYTES_MAX)
        });
        for part in 0u16.. {
            let key = key_of(part);
            let (old, new) = (old.next(), new.next());
            for value in old.iter().chain(&new) {
                each(&key, value);
            }
            match (old, new) {
                (_, Some(new)) => self.insert(key, new),
                (Some(_), None) => self.remove(key),
                (None, None) => break,
            }
        }
    }
}

/// What is written to each tree.
#[derive(Default)]
pub(super) struct Writes {
    meta: Rows,
    apps: Rows,
    services: Rows,
    liveness: Rows,
    expiry: Rows,
    blind_spots: Rows,
    events: Rows,
    history: Rows,
    app_info: Rows,
    subscriptions: Rows,
    cursors: Rows,
    dead_letters: Rows,
}

impl Writes {
    /// What the journal has, and the census that goes with it.
    pub(super) fn of_waiting(waiting: &Waiting, census: &mut Census) -> Self {
        let mut writes = Self::default();
        let mut sum = Fingerprint(census.fingerprint.unwrap_or(0));
        writes.put_waiting(waiting, &mut sum);
        writes.put_census(census, sum);
        writes
    }

    /// Those trees that anything is written to.
    pub(super) fn touched(self, trees: &Trees) -> Vec<(&sled::Tree, sled::Batch)> {
        [
            (&trees.meta, self.meta),
            (&trees.apps, self.apps),
            (&trees.services, self.services),
            (&trees.liveness, self.liveness),
            (&trees.expiry, self.expiry),
            (&trees.blind_spots, self.blind_spots),
            (&trees.events, self.events),
            (&trees.history, self.history),
            (&trees.app_info, self.app_info),
            (&trees.subscriptions, self.subscriptions),
            (&trees.cursors, self.cursors),
            (&trees.dead_letters, self.dead_letters),
        ]
        .into_iter()
        .filter(|(_, rows)| rows.touched)
        .map(|(tree, rows)| (tree, rows.batch))
        .collect()
    }

    fn put_census(&mut self, census: &mut Census, sum: Fingerprint) {
        census.fingerprint = census.fingerprint.map(|_| sum.0);
        self.liveness
            .insert(schema::CENSUS_KEY, records::encode_census(census));
    }

    fn put_services(&mut self, batch: &Batch, sum: &mut Fingerprint) {
        for (key, change) in &batch.services {
            let key_of = |part| schema::service_part_key(key, part);
            self.services.put_parts(change, key_of, |key, value| {
                sum.toggle(Counted::Services, key, value);
            });
        }
        for armed in &batch.disarm {
            self.expiry.remove(schema::expiry_key(armed.at, &armed.key));
        }
        for armed in &batch.arm {
            self.expiry
                .insert(schema::expiry_key(armed.at, &armed.key), &[]);
        }
    }

    fn put_waiting(&mut self, waiting: &Waiting, sum: &mut Fingerprint) {
        for (key, change) in waiting.liveness() {
            for value in change.old.iter().chain(&change.new) {
                sum.toggle(Counted::Liveness, &key, value);
            }
            match change.new {
                Some(new) => self.liveness.insert(key, new),
                None => self.liveness.remove(key),
            }
        }
        if let Some(mark) = waiting.mark() {
            self.meta.insert(meta::MARK, mark);
        }
    }

    /// Parts that are there but cannot be read are in no one's view, so what goes is looked up.
    fn put_apps(&mut self, batch: &Batch, trees: &Trees) -> Result<(), Error> {
        for (app, change) in &batch.apps {
            for key in trees.app_info.scan_prefix(schema::app_key(app)).keys() {
                self.app_info.remove(key?);
            }
            match &change.new {
                Some(new) => self
                    .apps
                    .insert(schema::app_key(app), records::encode_app(new)),
                None => self.apps.remove(schema::app_key(app)),
            }
            let info = Change {
                old: None,
                new: change.new.as_ref().and_then(|app| app.info.as_deref()),
            };
            let key_of = |part| schema::app_part_key(app, part);
            self.app_info.put_parts(
                &info.map(|info| records::encode_app_info(info)),
                key_of,
                |_, _| {},
            );
        }
        Ok(())
    }

    fn put_subscriptions(&mut self, batch: &Batch, sum: &mut Fingerprint) {
        for change in &batch.subscriptions {
            let Some(subscription) = change.new.as_ref().or(change.old.as_ref()) else {
                continue;
            };
            let rows = change.map(|subscription| records::encode_subscription(subscription));
            let key_of =
                |part| schema::subscription_part_key(&subscription.app, subscription.id, part);
            self.subscriptions.put_parts(&rows, key_of, |key, value| {
                sum.toggle(Counted::Subscriptions, key, value);
            });
            if change.new.is_none() {
                self.cursors.remove(subscription.id.as_bytes());
            }
        }
        for (id, cursor) in &batch.cursors {
            self.cursors
                .insert(id.as_bytes(), records::encode_cursor(cursor));
        }
        for letter in &batch.dead_letters {
            let key = schema::dead_letter_key(letter.subscription, letter.sequence);
            self.dead_letters
                .insert(key, records::encode_dead_letter(letter));
        }
    }

    fn put_blind_spots(&mut self, batch: &Batch) {
        for start in &batch.forget_blind_spots {
            self.blind_spots.remove(schema::steady_key(*start));
        }
        for spot in &batch.blind_spots {
            let key = schema::steady_key(spot.start);
            self.blind_spots
                .insert(key, records::encode_blind_spot(spot));
        }
    }

    fn put_events(&mut self, batch: &Batch, forgotten: &[(Option<ServiceId>, u64)]) {
        for event in &batch.events {
            let sequence = event.sequence.to_be_bytes();
            self.events.insert(sequence, records::encode_event(event));
            let key = schema::history_key(event.key.service, event.sequence);
            self.history.insert(key, &[]);
        }
        for (service, sequence) in forgotten {
            self.events.remove(sequence.to_be_bytes());
            if let Some(service) = service {
                self.history
                    .remove(schema::history_key(*service, *sequence));
            }
        }
    }
}

impl Engine {
    /// All of it or nothing; in the hands of the operating system when this returns.
    pub(super) fn write(&self, mut writes: Vec<(&sled::Tree, sled::Batch)>) -> Result<(), Error> {
        if writes.len() == 1
            && let Some((tree, batch)) = writes.pop()
        {
            // One tree: its own batch is as atomic, and cheaper.
            tree.apply_batch(batch)?;
        } else {
            let (trees, batches): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
            trees
                .as_slice()
                .transaction(|trees| {
                    for (tree, batch) in trees.iter().zip(&batches) {
                        tree.apply_batch(batch)?;
                    }
                    Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
                })
                .map_err(|error| match error {
                    TransactionError::Storage(error) => Error::Engine(error),
                    TransactionError::Abort(never) => match never {},
                })?;
        }
        self.db.flush()?;
        Ok(())
    }

    /// sled's `flush` ends with `sync_file_range`: no disk cache flush, no file size. The sync
    /// that makes an acknowledgement true is this one. (`File::sync_data` is `fdatasync`; through
    /// the C library, so that the fault injection of the tests sees it.)
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.log.sync_data().map_err(|source| Error::Sync {
            path: self.log_path.clone(),
            source,
        })
    }
}

impl SledStore {
    /// The batches of each touched tree.
    fn write_set(
        &self,
        batch: &Batch,
        waiting: &Waiting,
        census: &mut Census,
    ) -> Result<Vec<(&sled::Tree, sled::Batch)>, Error> {
        let mut sum = Fingerprint(census.fingerprint.unwrap_or(0));
        let mut writes = Writes::default();
        writes.put_apps(batch, &self.engine.trees)?;
        writes.put_services(batch, &mut sum);
        writes.put_waiting(waiting, &mut sum);
        writes.put_subscriptions(batch, &mut sum);
        for (subscription, sequence) in self.forgotten_letters(batch)? {
            let key = schema::dead_letter_key(subscription, sequence);
            writes.dead_letters.remove(key);
        }
        writes.put_census(census, sum);
        writes.put_blind_spots(batch);
        writes.put_events(batch, &self.forgotten_events(batch)?);
        if let Some(policy) = &batch.policy {
            writes
                .meta
                .insert(meta::POLICY, records::encode_policy(policy));
        }
        Ok(writes.touched(&self.engine.trees))
    }

    /// The dead letters that this commit forgets: all of a subscription that goes, and the oldest
    /// of one that has too many.
    fn forgotten_letters(&self, batch: &Batch) -> Result<Vec<(SubscriptionId, u64)>, Error> {
        let mut forgotten = Vec::new();
        let kept = |id: SubscriptionId| {
            let rows = self
                .engine
                .trees
                .dead_letters
                .scan_prefix(id.as_bytes())
                .keys();
            rows.map(|key| Ok(schema::parse_dead_letter_key(&key?).ok()))
                .filter_map(Result::transpose)
                .collect::<Result<Vec<_>, Error>>()
        };
        for change in &batch.subscriptions {
            if let Change {
                old: Some(old),
                new: None,
            } = change
            {
                forgotten.extend(kept(old.id)?);
            }
        }
        let mut added: HashMap<SubscriptionId, usize> = HashMap::new();
        for letter in &batch.dead_letters {
            *added.entry(letter.subscription).or_default() += 1;
        }
        for (id, added) in added {
            let kept = kept(id)?;
            let surplus = (kept.len() + added).saturating_sub(DEAD_LETTERS_MAX);
            forgotten.extend(kept.into_iter().take(surplus));
        }
        Ok(forgotten)
    }

    /// The events that this commit forgets: the surplus of each service that something happens to,
    /// and what is too old. The service is `None` where the event cannot be read.
    fn forgotten_events(&self, batch: &Batch) -> Result<Vec<(Option<ServiceId>, u64)>, Error> {
        let mut forgotten = Vec::new();
        let mut added: HashMap<ServiceId, usize> = HashMap::new();
        for event in &batch.events {
            *added.entry(event.key.service).or_default() += 1;
        }
        for (service, added) in added {
            let rows = self
                .engine
                .trees
                .history
                .scan_prefix(service.as_bytes())
                .keys();
            let kept: Vec<_> = rows.collect::<Result<_, _>>()?;
            let surplus = (kept.len() + added).saturating_sub(batch.events_per_service_max);
            let sequences = kept.iter().take(surplus);
            forgotten.extend(
                sequences
                    .filter_map(|key| schema::parse_history_key(key).ok())
                    .filter(|sequence| *sequence < batch.events_needed_from)
                    .map(|sequence| (Some(service), sequence)),
            );
        }
        if let Some(before) = batch.forget_events_before {
            let last = self.engine.trees.events.last()?.map(|(key, _)| key);
            for row in self.engine.trees.events.iter().take(FORGOTTEN_MAX) {
                let (key, value) = row?;
                let Ok(sequence) = schema::parse_sequence_key(&key) else {
                    continue;
                };
                match records::decode_event(sequence, &value) {
                    _ if last.as_ref() == Some(&key) => break,
                    _ if sequence >= batch.events_needed_from => break,
                    Ok(event) if event.at.wall >= before => break,
                    Ok(event) => forgotten.push((Some(event.key.service), sequence)),
                    Err(_) => forgotten.push((None, sequence)),
                }
            }
        }
        Ok(forgotten)
    }

    /// Makes a batch durable: in the journal, if that may have it and it pays, else in the engine, and
    /// all that the journal holds with it.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        self.waiting.add(batch);
        if self.journalled(batch)? {
            self.take_over_if_due()?;
        } else {
            self.write_through(batch)?;
        }
        self.syncs += u64::from(self.durability == Durability::PowerLoss);
        // Journal and log are written first, so it is never ahead of them.
        self.testimony.committed(self.census.commit_seq);
        match &batch.mark {
            Some(mark) => self.refresh_floor(mark),
            None => Ok(()),
        }
    }

    /// One write, one sync. `false`: it is nothing for the journal, would not pay, or finds no room.
    fn journalled(&mut self, batch: &Batch) -> Result<bool, Error> {
        let rows = batch.liveness.len();
        if rows >= ROWS_MANY && self.direct_rows > 0 {
            self.direct_rows = self.direct_rows.saturating_sub(rows);
            return Ok(false);
        }
        let is_for_it = self.journal.is_some()
            && only_overwrites(batch)
            && self.forgotten_events(batch)?.is_empty();
        let (true, Some(journal)) = (is_for_it, &mut self.journal) else {
            return Ok(false);
        };
        let path = || self.data_dir.journal_path();
        let commit_seq = self.census.commit_seq + 1;
        let is_written = journal
            .append(self.store_file.store_id, commit_seq, rows_of(batch))
            .map_err(|source| Error::Write {
                path: path(),
                source,
            })?;
        if is_written {
            journal.sync().map_err(|source| Error::Sync {
                path: path(),
                source,
            })?;
            self.census.commit_seq = commit_seq;
        }
        Ok(is_written)
    }

    /// One transaction, one flush, one sync.
    fn write_through(&mut self, batch: &Batch) -> Result<(), Error> {
        self.finish_takeover()?;
        let waiting = std::mem::take(&mut self.waiting);
        let mut census = Census {
            commit_seq: self.census.commit_seq + 1,
            ..self.census
        };
        let writes = self.write_set(batch, &waiting, &mut census)?;
        self.engine.write(writes)?;
        // What the journal held must be on the disk elsewhere before it begins anew.
        if self.durability == Durability::PowerLoss {
            self.engine.sync()?;
        }
        self.census = census;
        if let Some(journal) = &mut self.journal {
            journal.restart();
        }
        Ok(())
    }

    /// Gives the engine what only the journal has.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        self.finish_takeover()?;
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.write_through(&Batch::default())
    }

    /// What was just committed is on the disk, so the floor may rise to it.
    fn refresh_floor(&mut self, mark: &Mark) -> Result<(), Error> {
        let due = self
            .floor_written_at
            .is_none_or(|at| mark.steady.ms_since(at) >= FLOOR_INTERVAL_MS);
        if !due {
            return Ok(());
        }
        self.floor_written_at = Some(mark.steady);
        if self.durability == Durability::ProcessCrash {
            // The floor is synced, so what it vouches for must be.
            self.engine.sync()?;
        }
        self.store_file.commit_floor = self.census.commit_seq;
        if let Err(error) = self.data_dir.write_store_file(&self.store_file) {
            // The old floor is still true.
            log::warn!("{error}; trying again in a minute");
        }
        Ok(())
    }
}
