//! The embedded engine: one transaction, one flush, one `fdatasync` per commit.
//!
//! What is not negotiable here was reproduced first: sled's own `flush` is no `fsync` (acknowledged
//! data was lost in simulated power cuts), so the log is synced through our own handle, kept open for
//! life; `flush_async` deadlocks; one transaction per request is ten times slower than one per batch;
//! the engine's flusher thread must run, because its space is reclaimed there.

mod census;
mod open;
mod preflight;

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError};

use self::census::{Counted, Fingerprint};
pub use self::open::{OpenMode, OpenOptions};
use super::codec::DecodeError;
use super::data_dir::{DataDir, Seal, StoreFile, Witness};
use super::records::Census;
use super::schema::{self, meta, tree};
use super::{
    Armed, Batch, Durability, Error, FORGOTTEN_MAX, Loaded, OpenError, Row, SkippedRow, Store,
    records,
};
use crate::domain::{BootId, Event, Mark, Service, ServiceId, ServiceKey, Steady};

/// The floor in `STORE` is refreshed at most this often: that costs two syncs. `WITNESS` is more
/// exact, and free.
const FLOOR_INTERVAL_MS: u64 = 60_000;

/// Registrations on sled.
pub struct SledStore {
    db: sled::Db,
    trees: Trees,
    log: File,
    durability: Durability,
    data_dir: DataDir,
    store_file: StoreFile,
    census: Census,
    syncs: u64,
    witness: File,
    boot_id: BootId,
    floor_written_at: Option<Steady>,
}

struct Trees {
    meta: sled::Tree,
    apps: sled::Tree,
    services: sled::Tree,
    liveness: sled::Tree,
    expiry: sled::Tree,
    blind_spots: sled::Tree,
    events: sled::Tree,
    history: sled::Tree,
}

impl Trees {
    fn open(db: &sled::Db) -> Result<Self, sled::Error> {
        Ok(Self {
            meta: db.open_tree(tree::META)?,
            apps: db.open_tree(tree::APPS)?,
            services: db.open_tree(tree::SERVICES)?,
            liveness: db.open_tree(tree::LIVENESS)?,
            expiry: db.open_tree(tree::EXPIRY)?,
            blind_spots: db.open_tree(tree::BLIND_SPOTS)?,
            events: db.open_tree(tree::EVENTS)?,
            history: db.open_tree(tree::HISTORY)?,
        })
    }
}

impl SledStore {
    /// Opens (or, when serving, makes) the store in a data directory.
    ///
    /// # Errors
    /// [`OpenError`]; each says what to do next.
    pub fn open(options: &OpenOptions<'_>) -> Result<Self, OpenError> {
        open::open(options)
    }

    /// The store's id.
    #[must_use]
    pub fn store_id(&self) -> uuid::Uuid {
        self.store_file.store_id
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        self.data_dir.path()
    }

    /// The store's schema.
    #[must_use]
    pub fn schema(&self) -> u32 {
        self.store_file.schema
    }

    /// The batches of each touched tree.
    fn write_set(
        &self,
        batch: &Batch,
        census: &mut Census,
    ) -> Result<Vec<(&sled::Tree, sled::Batch)>, Error> {
        let mut sum = Fingerprint(census.fingerprint.unwrap_or(0));
        let mut apps = sled::Batch::default();
        for (app, record) in &batch.apps {
            apps.insert(schema::app_key(app), records::encode_app(record));
        }
        let mut services = sled::Batch::default();
        for (key, change) in &batch.services {
            let encode = |service: &Option<Arc<Service>>| {
                let service = service.as_ref();
                service.map_or(Vec::new(), |service| records::encode_service(service))
            };
            let (old, new) = (encode(&change.old), encode(&change.new));
            let mut old = old.chunks(schema::PART_BYTES_MAX);
            let mut new = new.chunks(schema::PART_BYTES_MAX);
            for part in 0u16.. {
                let row = schema::service_part_key(key, part);
                let (old, new) = (old.next(), new.next());
                for value in old.iter().chain(&new) {
                    sum.toggle(Counted::Services, &row, value);
                }
                match (old, new) {
                    (_, Some(new)) => services.insert(row, new),
                    // A shorter registration leaves parts of the longer one behind.
                    (Some(_), None) => services.remove(row),
                    (None, None) => break,
                }
            }
        }
        let mut liveness = sled::Batch::default();
        for (key, change) in &batch.liveness {
            let row = schema::service_key(key);
            if let Some(old) = &change.old {
                sum.toggle(Counted::Liveness, &row, &records::encode_liveness(old));
            }
            match &change.new {
                Some(new) => {
                    let new = records::encode_liveness(new);
                    sum.toggle(Counted::Liveness, &row, &new);
                    liveness.insert(row, new);
                }
                None => liveness.remove(row),
            }
        }
        census.fingerprint = census.fingerprint.map(|_| sum.0);
        liveness.insert(schema::CENSUS_KEY, records::encode_census(census));
        let mut expiry = sled::Batch::default();
        for armed in &batch.disarm {
            expiry.remove(schema::expiry_key(armed.at, &armed.key));
        }
        for armed in &batch.arm {
            expiry.insert(schema::expiry_key(armed.at, &armed.key), &[]);
        }
        let mut blind_spots = sled::Batch::default();
        for start in &batch.forget_blind_spots {
            blind_spots.remove(&schema::steady_key(*start));
        }
        for spot in &batch.blind_spots {
            blind_spots.insert(
                &schema::steady_key(spot.start),
                records::encode_blind_spot(spot),
            );
        }
        let forgotten = self.forgotten_events(batch)?;
        let mut events = sled::Batch::default();
        let mut history = sled::Batch::default();
        for event in &batch.events {
            let key = schema::history_key(event.key.service, event.sequence);
            events.insert(&event.sequence.to_be_bytes(), records::encode_event(event));
            history.insert(&key, &[]);
        }
        for (service, sequence) in &forgotten {
            events.remove(&sequence.to_be_bytes());
            if let Some(service) = service {
                history.remove(&schema::history_key(*service, *sequence));
            }
        }
        let mut meta = sled::Batch::default();
        if let Some(mark) = &batch.mark {
            meta.insert(meta::MARK, records::encode_mark(mark));
        }
        if let Some(policy) = &batch.policy {
            meta.insert(meta::POLICY, records::encode_policy(policy));
        }
        let trees = &self.trees;
        Ok([
            (
                &trees.meta,
                meta,
                batch.mark.is_some() || batch.policy.is_some(),
            ),
            (&trees.apps, apps, !batch.apps.is_empty()),
            (&trees.services, services, !batch.services.is_empty()),
            (&trees.liveness, liveness, true),
            (
                &trees.expiry,
                expiry,
                !batch.disarm.is_empty() || !batch.arm.is_empty(),
            ),
            (
                &trees.blind_spots,
                blind_spots,
                !batch.blind_spots.is_empty() || !batch.forget_blind_spots.is_empty(),
            ),
            (
                &trees.events,
                events,
                !batch.events.is_empty() || !forgotten.is_empty(),
            ),
            (
                &trees.history,
                history,
                !batch.events.is_empty() || !forgotten.is_empty(),
            ),
        ]
        .into_iter()
        .filter(|(_, _, touched)| *touched)
        .map(|(tree, batch, _)| (tree, batch))
        .collect())
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
            let rows = self.trees.history.scan_prefix(service.as_bytes()).keys();
            let kept: Vec<_> = rows.collect::<Result<_, _>>()?;
            let surplus = (kept.len() + added).saturating_sub(batch.events_per_service_max);
            let sequences = kept.iter().take(surplus);
            forgotten.extend(
                sequences
                    .filter_map(|key| schema::parse_history_key(key).ok())
                    .map(|sequence| (Some(service), sequence)),
            );
        }
        if let Some(before) = batch.forget_events_before {
            let last = self.trees.events.last()?.map(|(key, _)| key);
            for row in self.trees.events.iter().take(FORGOTTEN_MAX) {
                let (key, value) = row?;
                let Ok(sequence) = schema::parse_sequence_key(&key) else {
                    continue;
                };
                match records::decode_event(sequence, &value) {
                    _ if last.as_ref() == Some(&key) => break,
                    Ok(event) if event.at.wall >= before => break,
                    Ok(event) => forgotten.push((Some(event.key.service), sequence)),
                    Err(_) => forgotten.push((None, sequence)),
                }
            }
        }
        Ok(forgotten)
    }

    /// One transaction, one flush, one sync.
    fn write(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut census = Census {
            commit_seq: self.census.commit_seq + 1,
            ..self.census
        };
        let mut writes = self.write_set(batch, &mut census)?;
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
        if self.durability == Durability::PowerLoss {
            self.sync_log()?;
            self.syncs += 1;
        }
        self.census = census;
        self.testify();
        match &batch.mark {
            Some(mark) => self.refresh_floor(mark),
            None => Ok(()),
        }
    }

    /// sled's `flush` ends with `sync_file_range`: no disk cache flush, no file size. The sync
    /// that makes an acknowledgement true is this one. (`File::sync_data` is `fdatasync`; through
    /// the C library, so that the fault injection of the tests sees it.)
    fn sync_log(&self) -> Result<(), Error> {
        self.log.sync_data().map_err(|source| Error::Sync {
            path: self.data_dir.log_path(),
            source,
        })
    }

    /// Notes the commit. Not synced: it must outlive this process, and must never be ahead of the
    /// log, which it cannot be, because the log is written first.
    fn testify(&self) {
        let witness = Witness {
            store_id: self.store_file.store_id,
            commit_seq: self.census.commit_seq,
            boot_id: self.boot_id,
            durability: self.durability,
        };
        if let Err(error) = self.witness.write_all_at(&witness.to_bytes(), 0) {
            // An older one is still true.
            log::debug!("noting the commit failed: {error}");
        }
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
            self.sync_log()?;
        }
        self.store_file.commit_floor = self.census.commit_seq;
        if let Err(error) = self.data_dir.write_store_file(&self.store_file) {
            // The old floor is still true.
            log::warn!("{error}; trying again in a minute");
        }
        Ok(())
    }
}

impl Store for SledStore {
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<Loaded, Error> {
        let mut loaded = Loaded::default();
        let mut sum = Fingerprint::default();
        let trees = &self.trees;
        if let Some(bytes) = trees.meta.get(meta::MARK)? {
            match records::decode_mark(&bytes) {
                Ok(mark) => loaded.mark = Some(mark),
                Err(error) => loaded.skip(tree::META, meta::MARK.as_bytes(), &error),
            }
        }
        if let Some(bytes) = trees.meta.get(meta::POLICY)? {
            match records::decode_policy(&bytes) {
                Ok(policy) => loaded.policy = Some(policy),
                Err(error) => loaded.skip(tree::META, meta::POLICY.as_bytes(), &error),
            }
        }
        for row in trees.apps.iter() {
            let (key, value) = row?;
            let decoded = schema::parse_app_key(&key)
                .and_then(|app| Ok(Row::App(app, records::decode_app(&value)?)));
            loaded.take(tree::APPS, &key, decoded, each);
        }
        load_services(&trees.services, &mut sum, &mut loaded, each)?;
        for row in trees.liveness.iter() {
            let (key, value) = row?;
            if key == schema::CENSUS_KEY {
                continue;
            }
            sum.toggle(Counted::Liveness, &key, &value);
            let decoded = schema::parse_service_key(&key)
                .and_then(|id| Ok(Row::Liveness(id, records::decode_liveness(&value)?)));
            loaded.take(tree::LIVENESS, &key, decoded, each);
        }
        for row in trees.expiry.iter() {
            let (key, _) = row?;
            let decoded =
                schema::parse_expiry_key(&key).map(|(at, key)| Row::Armed(Armed { at, key }));
            loaded.take(tree::EXPIRY, &key, decoded, each);
        }
        for row in trees.blind_spots.iter() {
            let (key, value) = row?;
            let decoded = schema::parse_steady_key(&key)
                .and_then(|start| records::decode_blind_spot(start, &value));
            match decoded {
                Ok(spot) => loaded.blind_spots.push(spot),
                Err(error) => loaded.skip(tree::BLIND_SPOTS, &key, &error),
            }
        }
        for row in trees.events.iter().rev() {
            let (key, value) = row?;
            if let Ok(sequence) = schema::parse_sequence_key(&key) {
                loaded.next_sequence = sequence + 1;
                // One that cannot be decoded is reported when it is asked for.
                let event = records::decode_event(sequence, &value).ok();
                loaded.last_event = event.map(|event| event.at.steady);
                break;
            }
        }
        if self
            .census
            .fingerprint
            .replace(sum.0)
            .is_some_and(|told| told != sum.0)
        {
            log::error!(
                "the rows of {} are not those that were committed last: something else than mepulse \
                 has changed or lost registrations or heartbeats",
                self.data_dir.path().display()
            );
        }
        Ok(loaded)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        self.write(batch)
    }

    fn due(&self, until: Steady, max: usize) -> Result<Vec<Armed>, Error> {
        // Keys up to and including `until` are those below the next millisecond.
        let end = schema::steady_key(until.plus_ms(1));
        let mut due = Vec::new();
        for row in self.trees.expiry.range(..end) {
            // A key that is none of ours was reported when the store was loaded.
            if let Ok((at, key)) = schema::parse_expiry_key(&row?.0) {
                due.push(Armed { at, key });
                if due.len() == max {
                    break;
                }
            }
        }
        Ok(due)
    }

    fn next_due(&self) -> Result<Option<Steady>, Error> {
        for row in self.trees.expiry.iter() {
            if let Ok((at, _)) = schema::parse_expiry_key(&row?.0) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for key in self.trees.history.scan_prefix(service.as_bytes()).keys() {
            let Ok(sequence) = schema::parse_history_key(&key?) else {
                continue;
            };
            let row = self.trees.events.get(sequence.to_be_bytes())?;
            match row.map(|row| records::decode_event(sequence, &row)) {
                Some(Ok(event)) => events.push(event),
                Some(Err(error)) => {
                    log::error!("skipped event {sequence} of service {service}: {error}");
                }
                None => log::error!("event {sequence} of service {service} is missing"),
            }
        }
        Ok(events)
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        (*self).seal()
    }

    fn abandon(self: Box<Self>) {
        std::mem::forget(self);
    }
}

impl SledStore {
    /// Closes the engine and seals its log in `STORE`. Also how an offline look ends, because
    /// opening alone rewrites the engine's files.
    ///
    /// # Errors
    /// When the last writes fail.
    pub fn seal(self) -> Result<(), Error> {
        let Self {
            db,
            trees,
            log,
            data_dir,
            mut store_file,
            census,
            ..
        } = self;
        db.flush()?;
        drop(trees);
        // Joins the engine's thread; its files are quiet from here on.
        drop(db);
        let log_path = data_dir.log_path();
        let seal = log.sync_data().and_then(|()| Seal::of(&log_path));
        store_file.sealed_log = Some(seal.map_err(|source| Error::Sync {
            path: log_path,
            source,
        })?);
        store_file.commit_floor = census.commit_seq;
        data_dir.write_store_file(&store_file)?;
        Ok(())
    }
}

/// Registrations stand in parts: consecutive rows of one service, joined before decoding. The
/// checksum covers all parts, so a missing one is noticed.
fn load_services(
    services: &sled::Tree,
    sum: &mut Fingerprint,
    loaded: &mut Loaded,
    each: &mut dyn FnMut(Row),
) -> Result<(), Error> {
    let mut joined: Option<(ServiceKey, Vec<u8>)> = None;
    let mut finish = |joined: Option<(ServiceKey, Vec<u8>)>, loaded: &mut Loaded| {
        if let Some((key, bytes)) = joined {
            let raw_key = schema::service_key(&key);
            let decoded =
                records::decode_service(&bytes).map(|service| Row::Service(key, Box::new(service)));
            loaded.take(tree::SERVICES, &raw_key, decoded, each);
        }
    };
    for row in services.iter() {
        let (raw_key, value) = row?;
        sum.toggle(Counted::Services, &raw_key, &value);
        match schema::parse_service_part_key(&raw_key) {
            Ok((key, _)) => match &mut joined {
                Some((current, bytes)) if *current == key => bytes.extend_from_slice(&value),
                _ => finish(joined.replace((key, value.to_vec())), loaded),
            },
            Err(error) => loaded.skip(tree::SERVICES, &raw_key, &error),
        }
    }
    finish(joined, loaded);
    Ok(())
}

impl Loaded {
    fn take(
        &mut self,
        tree: &'static str,
        key: &[u8],
        row: Result<Row, DecodeError>,
        each: &mut dyn FnMut(Row),
    ) {
        match row {
            Ok(row) => each(row),
            Err(error) => self.skip(tree, key, &error),
        }
    }

    fn skip(&mut self, tree: &'static str, key: &[u8], reason: &DecodeError) {
        let key = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.skipped.push(SkippedRow {
            tree,
            key,
            reason: reason.to_string(),
        });
    }
}
