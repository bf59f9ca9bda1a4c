//! The embedded engine, with one transaction, one flush and one `fdatasync` per commit; and before it
//! a journal, for commits that only overwrite rows.
//!
//! What is not negotiable here was reproduced first: sled's own `flush` is no `fsync` (acknowledged
//! data was lost in simulated power cuts), so the log is synced through our own handle, kept open for
//! life; `flush_async` deadlocks; one transaction per request is ten times slower than one per batch;
//! the engine's flusher thread must run, because commits do not reclaim all of its space.

mod census;
mod commit;
mod events;
mod journal;
mod load;
mod open;
mod preflight;
mod replay;
mod takeover;
mod threads;
mod waiting;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use self::journal::Journal;
pub use self::open::{OpenMode, OpenOptions};
use self::takeover::Takeover;
use self::waiting::Waiting;
use super::data_dir::{DataDir, Seal, StoreFile};
use super::records::Census;
use super::schema::{self, tree};
use super::witness::Testimony;
use super::{Armed, Batch, Durability, Error, EventLog, Loaded, OpenError, Row, Store, records};
use crate::domain::{DeadLetter, Event, ServiceId, Steady};

/// Registrations on sled.
pub struct SledStore {
    engine: Arc<Engine>,
    durability: Durability,
    data_dir: DataDir,
    store_file: StoreFile,
    census: Census,
    /// Unused, where a commit need not survive a power cut: the engine's own flush is cheap then.
    journal: Option<Journal>,
    /// What only the journal has, but for what is on its way into the engine.
    waiting: Waiting,
    takeover: Option<Takeover>,
    /// So many rows go past the journal, as long as commits are large.
    direct_rows: usize,
    syncs: u64,
    testimony: Arc<Testimony>,
    floor_written_at: Option<Steady>,
    log_of_events: Arc<events::SledEvents>,
}

/// The engine, and what is needed to put it onto the disk.
struct Engine {
    db: sled::Db,
    trees: Trees,
    log: File,
    log_path: PathBuf,
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
    app_info: sled::Tree,
    subscriptions: sled::Tree,
    cursors: sled::Tree,
    dead_letters: sled::Tree,
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
            app_info: db.open_tree(tree::APP_INFO)?,
            subscriptions: db.open_tree(tree::SUBSCRIPTIONS)?,
            cursors: db.open_tree(tree::CURSORS)?,
            dead_letters: db.open_tree(tree::DEAD_LETTERS)?,
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
}

impl Store for SledStore {
    fn load(&mut self, each: &mut dyn FnMut(Row)) -> Result<Loaded, Error> {
        self.settle()?;
        let (mut loaded, sum) = load::beside(&self.engine.trees, each)?;
        let told = self.census.fingerprint.replace(sum.0);
        loaded.altered = told.is_some_and(|told| told != sum.0);
        if loaded.altered {
            log::error!(
                "the rows of {} are not those that were committed last: something else than mepulse \
                 has changed or lost registrations, heartbeats or subscriptions",
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
        for row in self.engine.trees.expiry.range(..end) {
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
        for row in self.engine.trees.expiry.iter() {
            if let Ok((at, _)) = schema::parse_expiry_key(&row?.0) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn history(&self, service: ServiceId) -> Result<Vec<Event>, Error> {
        let mut events = Vec::new();
        for key in self
            .engine
            .trees
            .history
            .scan_prefix(service.as_bytes())
            .keys()
        {
            let Ok(sequence) = schema::parse_history_key(&key?) else {
                continue;
            };
            let row = self.engine.trees.events.get(sequence.to_be_bytes())?;
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

    fn log(&self) -> Arc<dyn EventLog> {
        self.log_of_events.clone()
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetter>, Error> {
        let mut letters = Vec::new();
        for row in self.engine.trees.dead_letters.iter() {
            let (key, value) = row?;
            let decoded = schema::parse_dead_letter_key(&key)
                .and_then(|(id, sequence)| records::decode_dead_letter(id, sequence, &value));
            match decoded {
                Ok(letter) => letters.push(letter),
                Err(error) => log::error!("skipped a dead letter with key {key:?}: {error}"),
            }
        }
        Ok(letters)
    }

    fn syncs(&self) -> u64 {
        self.syncs
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        (*self).seal()
    }

    fn abandon(self: Box<Self>) {
        self.testimony.doubt();
        std::mem::forget(self);
    }
}

impl SledStore {
    /// Closes the engine and seals its log in `STORE`. Also how an offline look ends, because
    /// opening alone rewrites the engine's files.
    ///
    /// # Errors
    /// When the last writes fail.
    pub fn seal(mut self) -> Result<(), Error> {
        let flushed = self.settle();
        if let Err(error) = flushed.and_then(|()| Ok(self.engine.db.flush().map(drop)?)) {
            Box::new(self).abandon();
            return Err(error);
        }
        let Self {
            engine,
            data_dir,
            mut store_file,
            census,
            log_of_events,
            testimony,
            ..
        } = self;
        log_of_events.close();
        let Some(Engine {
            db,
            trees,
            log,
            log_path,
        }) = Arc::into_inner(engine)
        else {
            // Only a takeover shares it, and none is under way.
            log::error!(
                "the store is still in use; it stays unsealed, and the next start scans it"
            );
            return Ok(());
        };
        drop(trees);
        // Joins the engine's thread; its files are quiet from here on.
        drop(db);
        let seal = log.sync_data().and_then(|()| Seal::of(&log_path));
        store_file.sealed_log = Some(seal.map_err(|source| {
            testimony.doubt();
            Error::Sync {
                path: log_path,
                source,
            }
        })?);
        store_file.commit_floor = census.commit_seq;
        data_dir.write_store_file(&store_file)?;
        Ok(())
    }
}
