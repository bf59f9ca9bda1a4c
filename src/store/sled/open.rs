//! Opening: an empty store is never mistaken for a new one.
//!
//! sled 0.34 opens a deleted, cut or garbled log as an empty database, with `Ok`, and rewrites its
//! files while it does. So the files are judged before sled sees them: against the seal of an
//! orderly stop, else by a scan of the log; what looks wrong is rehearsed on a copy. Only what
//! passes is opened, and is then checked once more against `STORE`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use uuid::Uuid;

use super::census::Fingerprint;
use super::events::SledEvents;
use super::journal::{self, Journal};
use super::preflight::{self, Finding};
use super::replay::Tail;
use super::waiting::Waiting;
use super::{Engine, SledStore, Trees};
use crate::clock::wall_now;
use crate::domain::BootId;
use crate::store::data_dir::{DataDir, Seal, StoreFile, sync_dir};
use crate::store::migrate::{self, Step, StepError};
use crate::store::records::Census;
use crate::store::schema::{CENSUS_KEY, meta, tree};
use crate::store::witness::{Testimony, Witness};
use crate::store::{Durability, OpenError, codec, records};

/// How often the engine's own thread reclaims space. Too often: it moves the last segment of the log
/// (512 KiB) to its middle, and with some 20 000 services it finds one to move each time it looks,
/// for ever, also when nothing is committed. Too seldom: what commits do not reclaim themselves adds
/// up, at 10 s some 3 MB a minute.
const RECLAIM_INTERVAL_MS: u64 = 2_000;

/// What the store is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The server: makes what is missing, migrates.
    Serve,
    /// An offline look: refuses to make or migrate anything.
    Inspect,
}

/// How to open a store.
#[derive(Clone, Copy)]
pub struct OpenOptions<'a> {
    /// The data directory.
    pub data_dir: &'a Path,
    /// What for.
    pub mode: OpenMode,
    /// The engine's page cache in MiB.
    pub cache_mb: u64,
    /// What a commit survives.
    pub durability: Durability,
    /// The migration steps; [`migrate::STEPS`] outside tests.
    pub steps: &'a [Step],
    /// The machine's boot: what was not synced in another one may be gone by right.
    pub boot_id: BootId,
}

/// What must be in the log, at least.
#[derive(Debug, Clone, Copy)]
struct Expected {
    store_id: Option<Uuid>,
    commit_floor: u64,
    /// The journal begins behind that commit.
    journal_follows: bool,
}

impl Expected {
    /// Where so much must be on the disk, and the journal holds this of it.
    fn new(store_id: Option<Uuid>, commit_floor: u64, tail: Option<&Tail>) -> Self {
        let in_engine = tail.map_or(commit_floor, |tail| tail.engine_floor(commit_floor));
        Self {
            store_id: store_id.or(tail.and_then(Tail::store_id)),
            commit_floor: in_engine,
            journal_follows: tail.and_then(Tail::reach) >= Some(commit_floor),
        }
    }

    /// Why a log that ends with this commit is not all of it.
    fn too_short(&self, found: Option<u64>) -> String {
        let found = found.map_or("no commit".to_owned(), |seq| format!("commit {seq}"));
        let floor = self.commit_floor;
        if self.journal_follows {
            format!("it ends at {found}, and the journal beside it goes on after commit {floor}")
        } else {
            format!("it ends at {found}, and {floor} were on the disk")
        }
    }
}

pub(super) fn open(options: &OpenOptions<'_>) -> Result<SledStore, OpenError> {
    let data_dir = DataDir::lock(options.data_dir, options.mode == OpenMode::Serve)?;
    let mut known = data_dir.read_store_file()?;
    let found = data_dir.read_witness();
    let witness = found.filter(|witness| {
        witness.durability == Durability::PowerLoss || witness.boot_id == options.boot_id
    });
    if let Some(file) = &known {
        check_schema(
            file.schema,
            migrate::newest_schema(options.steps),
            options.mode,
        )?;
    }
    let log_path = data_dir.log_path();
    let log_bytes = match fs::metadata(&log_path) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(OpenError::io("reading", log_path)(error)),
    };
    let store_id = known
        .as_ref()
        .map(|file| file.store_id)
        .or(witness.map(|witness| witness.store_id));
    let commit_floor = known
        .as_ref()
        .map_or(0, |file| file.commit_floor)
        .max(witness.map_or(0, |witness| witness.commit_seq));
    let sealed = known.as_ref().and_then(|file| file.sealed_log);
    if found.is_some_and(|witness| witness.in_doubt) {
        forget_cached(&log_path)?;
        forget_cached(&data_dir.journal_path())?;
    }
    let tail = match sealed {
        Some(_) => Tail::beside_sealed(&data_dir, store_id, commit_floor),
        None => Tail::left(&data_dir, known.as_ref(), store_id)?,
    };
    let expected = Expected::new(store_id, commit_floor, tail.as_ref());
    match sealed {
        Some(sealed) if log_bytes > 0 => check_seal(&log_path, sealed)?,
        None if log_bytes > 0 => check_log(&data_dir, expected, options)?,
        None if known.is_none() && expected.store_id.is_none() => {
            if options.mode == OpenMode::Inspect {
                return Err(OpenError::Missing {
                    dir: data_dir.path().to_owned(),
                });
            }
        }
        Some(_) | None => return Err(OpenError::LogMissing { path: log_path }),
    }
    let tail = match tail {
        Some(tail) => tail,
        None => {
            let path = data_dir.journal_path();
            journal::create(&path).map_err(OpenError::io("creating", &path))?;
            Tail::default()
        }
    };
    if let Some(file) = &mut known
        && file.sealed_log.take().is_some()
    {
        // The seal breaks now, before the engine rewrites its files.
        data_dir.write_store_file(file)?;
    }
    let db = repair_and_open(&data_dir.sled_dir(), options)?;
    // From here on nothing must drop the database unless it is taken over: that would write.
    let finished = unpanicked(data_dir.path(), || {
        finish(&db, &data_dir, known, expected, &tail, options)
    });
    super::threads::keep_together();
    match finished {
        Ok(found) => Ok(SledStore {
            log_of_events: Arc::new(SledEvents::new(found.trees.events.clone())),
            engine: Arc::new(Engine {
                db,
                trees: found.trees,
                log: found.log,
                log_path,
            }),
            journal: found.journal,
            waiting: Waiting::default(),
            takeover: None,
            direct_rows: 0,
            testimony: Arc::new(found.testimony),
            durability: options.durability,
            data_dir,
            store_file: found.store_file,
            census: found.census,
            syncs: 0,
            floor_written_at: None,
        }),
        Err(error) => {
            // What holds of the disk as it was found holds no longer.
            if let OpenError::Io { .. } | OpenError::Engine { .. } | OpenError::Migration(_) = error
                && let Some(witness) = witness
                && let Ok(file) = data_dir.open_witness()
            {
                Testimony::new(file, witness).doubt();
            }
            std::mem::forget(db);
            Err(error)
        }
    }
}

/// The engine panics over some damage.
fn unpanicked<T>(dir: &Path, work: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(OpenError::Engine {
            dir: dir.to_owned(),
            reason: "its log is damaged (the engine gave up in the middle)".to_owned(),
        })
    })
}

/// After a failed sync the cache may show what the disk does not have, and the next sync says nothing
/// of it. What is judged, and then built upon, must be what the disk has.
fn forget_cached(path: &Path) -> Result<(), OpenError> {
    let forget = || {
        let file = match File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        file.sync_data()?;
        if let Err(errno) = fadvise(&file, 0, None, Advice::DontNeed) {
            // Some kernels are built without: better judged by the cache than never opened again.
            log::warn!(
                "{}: reading it past the cache failed: {errno}",
                path.display()
            );
        }
        Ok(())
    };
    forget().map_err(OpenError::io("reading anew", path))
}

fn check_schema(found: u32, newest: u32, mode: OpenMode) -> Result<(), OpenError> {
    if found > newest {
        Err(OpenError::NewerSchema {
            found,
            known: newest,
        })
    } else if found < newest && mode == OpenMode::Inspect {
        Err(OpenError::OlderSchema {
            found,
            known: newest,
        })
    } else {
        Ok(())
    }
}

/// Holds the log against the seal of the last orderly stop.
fn check_seal(log: &Path, sealed: Seal) -> Result<(), OpenError> {
    let found = Seal::of(log).map_err(OpenError::io("reading", log))?;
    let reason = if found == sealed {
        return Ok(());
    } else if found.bytes == sealed.bytes {
        "its checksum differs".to_owned()
    } else {
        format!("{} bytes instead of {}", found.bytes, sealed.bytes)
    };
    Err(OpenError::LogChanged {
        path: log.to_owned(),
        reason,
    })
}

/// Judges a log that nobody sealed, before the engine is opened. Writes nothing in the engine's
/// directory.
fn check_log(
    data_dir: &DataDir,
    expected: Expected,
    options: &OpenOptions<'_>,
) -> Result<(), OpenError> {
    let path = data_dir.log_path();
    let mut newest = None;
    let mut seen = |bytes: &[u8]| {
        if let Some(store_id) = expected.store_id {
            newest = newest.max(records::newest_census_in(bytes, store_id));
        }
    };
    let finding = preflight::inspect(&data_dir.sled_dir(), &mut seen)
        .map_err(OpenError::io("reading", &path))?;
    match finding {
        Finding::Sound if expected.store_id.is_some() && newest < Some(expected.commit_floor) => {
            Err(OpenError::LogDamaged {
                path,
                reason: expected.too_short(newest),
            })
        }
        Finding::Sound => Ok(()),
        Finding::Suspect(what) if expected.store_id.is_none() => {
            Err(OpenError::LogDamaged { path, reason: what })
        }
        Finding::Suspect(what) => {
            log::warn!("the store's log looks damaged ({what}); rehearsing the opening on a copy");
            rehearse(data_dir, expected, &what, options)
        }
    }
}

/// Opens a copy of the log and compares it with what must be in there; the original stays
/// untouched.
fn rehearse(
    data_dir: &DataDir,
    expected: Expected,
    what: &str,
    options: &OpenOptions<'_>,
) -> Result<(), OpenError> {
    // With whatever repairing the copy leaves beside it.
    let stage = data_dir.path().join("rehearsal");
    let copy = stage.join("sled");
    let _ = fs::remove_dir_all(&stage);
    let copied = fs::create_dir(&stage).and_then(|()| copy_dir(&data_dir.sled_dir(), &copy));
    let result = copied
        .map_err(OpenError::io("copying the store's log to", &copy))
        .and_then(|()| {
            let db = repair_and_open(&copy, options)?;
            unpanicked(&copy, || {
                let census = compare(&db, data_dir, expected)?;
                count(&db, data_dir, &census)
            })
        });
    let _ = fs::remove_dir_all(&stage);
    match result {
        Ok(_) => {
            log::warn!(
                "the rehearsal found every commit and every row that must be there; opening"
            );
            Ok(())
        }
        Err(error @ OpenError::Io { .. }) => Err(error),
        Err(error) => {
            let reason = format!("{what}; a trial opening of a copy says: {error}");
            Err(OpenError::LogDamaged {
                path: data_dir.log_path(),
                reason,
            })
        }
    }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Mends what sled itself cannot: a snapshot that was being written when the process died makes it
/// refuse for ever, and so does a damaged one. The log has everything, so both can go.
fn repair_and_open(sled_dir: &Path, options: &OpenOptions<'_>) -> Result<sled::Db, OpenError> {
    for path in snapshots(sled_dir) {
        if path
            .extension()
            .is_some_and(|ending| ending == "generating")
        {
            log::warn!(
                "removing {}: it was being written when the process died",
                path.display()
            );
            fs::remove_file(&path).map_err(OpenError::io("removing", &path))?;
        }
    }
    let error = match engine_open(sled_dir, options) {
        Ok(db) => return Ok(db),
        Err(error) => error,
    };
    let snapshots = snapshots(sled_dir);
    if snapshots.is_empty() {
        return Err(error);
    }
    let aside = sled_dir.with_file_name(format!("snapshots-aside-{}", wall_now().as_ms()));
    log::error!(
        "{error}; moving the snapshots to {} and rebuilding from the log",
        aside.display()
    );
    fs::create_dir(&aside).map_err(OpenError::io("creating", &aside))?;
    for path in snapshots {
        if let Some(name) = path.file_name() {
            fs::rename(&path, aside.join(name)).map_err(OpenError::io("moving", &path))?;
        }
    }
    engine_open(sled_dir, options)
}

fn snapshots(sled_dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(sled_dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("snap."))
        .map(|entry| entry.path())
        .collect()
}

fn engine_open(sled_dir: &Path, options: &OpenOptions<'_>) -> Result<sled::Db, OpenError> {
    let config = sled::Config::new()
        .path(sled_dir)
        .cache_capacity(options.cache_mb * 1024 * 1024)
        .flush_every_ms(Some(RECLAIM_INTERVAL_MS));
    unpanicked(sled_dir, || {
        config.open().map_err(|error| OpenError::Engine {
            dir: sled_dir.to_owned(),
            reason: error.to_string(),
        })
    })
}

/// What the opened engine was found or made to hold, and our own handles.
struct Finished {
    trees: Trees,
    log: File,
    journal: Option<Journal>,
    testimony: Testimony,
    store_file: StoreFile,
    census: Census,
}

fn finish(
    db: &sled::Db,
    data_dir: &DataDir,
    known: Option<StoreFile>,
    expected: Expected,
    tail: &Tail,
    options: &OpenOptions<'_>,
) -> Result<Finished, OpenError> {
    let engine = |error: sled::Error| OpenError::Engine {
        dir: data_dir.sled_dir(),
        reason: error.to_string(),
    };
    let newest = migrate::newest_schema(options.steps);
    let log_path = data_dir.log_path();
    let log = File::open(&log_path).map_err(OpenError::io("opening", &log_path))?;
    let (mut file, mut census) = match known {
        Some(file) => (file, compare(db, data_dir, expected)?),
        None => adopt_or_create(db, data_dir, expected)?,
    };
    let schema = migrate::schema_of(db).map_err(|error| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason: error.to_string(),
    })?;
    check_schema(schema, newest, options.mode)?;
    tail.replay(db, &mut census).map_err(engine)?;
    let is_new = schema == 0;
    if schema < newest {
        // An older binary must refuse from here on, also if this is interrupted. A store that is
        // being made has no STORE yet: writing it is what completes the making.
        file.schema = newest;
        if !is_new {
            data_dir.write_store_file(&file)?;
            // The steps rewrite rows; counted anew when they are loaded.
            census.fingerprint = None;
            put_census(db, &census).map_err(engine)?;
        }
        migrate::run(db, &log, options.steps)?;
    }
    if is_new {
        put_census(db, &census).map_err(engine)?;
        let meta = db.open_tree(tree::META).map_err(engine)?;
        let id = codec::encode(1, file.store_id.as_bytes());
        meta.insert(meta::STORE_ID, id).map_err(engine)?;
    }
    let trees = Trees::open(db).map_err(engine)?;
    db.flush().map_err(engine)?;
    let sync_all = || {
        log.sync_all()?;
        File::open(data_dir.sled_dir().join("conf"))?.sync_all()?;
        sync_dir(&data_dir.sled_dir())?;
        sync_dir(data_dir.path())
    };
    sync_all().map_err(OpenError::io("syncing", &log_path))?;
    data_dir.write_store_file(&file)?;
    let latest = Witness {
        store_id: file.store_id,
        commit_seq: census.commit_seq,
        boot_id: options.boot_id,
        durability: options.durability,
        in_doubt: false,
    };
    let testimony = Testimony::new(data_dir.open_witness()?, latest);
    let journal = match options.durability {
        Durability::PowerLoss => {
            let path = data_dir.journal_path();
            Some(Journal::open(&path).map_err(OpenError::io("opening", &path))?)
        }
        Durability::ProcessCrash => None,
    };
    Ok(Finished {
        trees,
        log,
        journal,
        testimony,
        store_file: file,
        census,
    })
}

/// Holds the opened database against what must be in there; returns its census.
fn compare(db: &sled::Db, data_dir: &DataDir, expected: Expected) -> Result<Census, OpenError> {
    let differs = |reason: String| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason,
    };
    let (id, census) = identity(db).map_err(|error| differs(error.to_string()))?;
    match (id, census) {
        (None, _) | (_, None) => Err(differs("the log opens as an empty database".to_owned())),
        (Some(id), _) if expected.store_id.is_some_and(|expected| expected != id) => Err(differs(
            format!("the log belongs to store {id}, not to the one that STORE names"),
        )),
        (Some(_), Some(census)) if census.commit_seq < expected.commit_floor => {
            Err(differs(expected.too_short(Some(census.commit_seq))))
        }
        (Some(_), Some(census)) => Ok(census),
    }
}

/// Holds every row against the census.
fn count(db: &sled::Db, data_dir: &DataDir, census: &Census) -> Result<(), OpenError> {
    let sum = Trees::open(db).and_then(|trees| Fingerprint::of(&trees));
    let sum = sum.map_err(|error| OpenError::Engine {
        dir: data_dir.path().to_owned(),
        reason: error.to_string(),
    })?;
    match census.fingerprint {
        Some(told) if told != sum.0 => Err(OpenError::NotThisStore {
            dir: data_dir.path().to_owned(),
            reason: "some of its rows are missing or too old".to_owned(),
        }),
        Some(_) | None => Ok(()),
    }
}

fn put_census(db: &sled::Db, census: &Census) -> Result<(), sled::Error> {
    let liveness = db.open_tree(tree::LIVENESS)?;
    liveness.insert(CENSUS_KEY, records::encode_census(census))?;
    Ok(())
}

/// The database's own word: its id, and its census.
fn identity(db: &sled::Db) -> Result<(Option<Uuid>, Option<Census>), StepError> {
    let damaged = |what: &str| {
        let what = what.to_owned();
        move |error| StepError::Record(format!("{what}: {error}"))
    };
    let id = match db.open_tree(tree::META)?.get(meta::STORE_ID)? {
        None => None,
        Some(bytes) => {
            let id = codec::decode_v1::<[u8; 16]>(&bytes).map_err(damaged("the store's id"))?;
            Some(Uuid::from_bytes(id))
        }
    };
    let census = match db.open_tree(tree::LIVENESS)?.get(CENSUS_KEY)? {
        None => None,
        Some(bytes) => Some(records::decode_census(&bytes).map_err(damaged("the census"))?),
    };
    Ok((id, census))
}

/// There is no `STORE`: a new directory, one whose making was interrupted, or a lost `STORE`.
fn adopt_or_create(
    db: &sled::Db,
    data_dir: &DataDir,
    expected: Expected,
) -> Result<(StoreFile, Census), OpenError> {
    let refused = |reason: String| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason,
    };
    let (id, _) = identity(db).map_err(|error| refused(error.to_string()))?;
    if let Some(store_id) = id {
        let census = compare(db, data_dir, expected)?;
        log::warn!(
            "STORE is missing in {}; writing it anew",
            data_dir.path().display()
        );
        let schema = migrate::schema_of(db).map_err(|error| refused(error.to_string()))?;
        return Ok((
            StoreFile {
                store_id,
                schema,
                commit_floor: census.commit_seq,
                sealed_log: None,
            },
            census,
        ));
    }
    // The id is the last thing that the making writes into the database.
    let foreign = db.tree_names().into_iter().find(|name| {
        let known = tree::ALL
            .iter()
            .any(|ours| ours.as_bytes() == name.as_ref());
        !known && name.as_ref() != b"__sled__default"
    });
    match foreign {
        None => {
            let file = StoreFile {
                store_id: Uuid::new_v4(),
                schema: 0,
                commit_floor: 0,
                sealed_log: None,
            };
            let census = Census {
                store_id: file.store_id,
                commit_seq: 0,
                fingerprint: Some(0),
            };
            Ok((file, census))
        }
        Some(name) => Err(refused(format!(
            "there is a database with a tree {:?} that mepulse did not write",
            String::from_utf8_lossy(&name)
        ))),
    }
}
