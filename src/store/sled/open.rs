//! Opening: an empty store is never mistaken for a new one.
//!
//! sled 0.34 opens a deleted, cut or garbled log as an empty database, with `Ok`, and rewrites its
//! files while it does. So the files are judged before sled sees them: against the seal of an
//! orderly stop, else by a scan of the log; what looks wrong is rehearsed on a copy. Only what
//! passes is opened, and is then checked once more against `STORE`.

use std::fs::{self, File};
use std::path::Path;

use uuid::Uuid;

use super::preflight::{self, Finding};
use super::{SledStore, Trees};
use crate::clock::wall_now;
use crate::store::data_dir::{DataDir, Seal, StoreFile, sync_dir};
use crate::store::migrate::{self, Step, StepError};
use crate::store::schema::{meta, tree};
use crate::store::{Durability, OpenError, codec, records};

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
}

pub(super) fn open(options: &OpenOptions<'_>) -> Result<SledStore, OpenError> {
    let data_dir = DataDir::lock(options.data_dir, options.mode == OpenMode::Serve)?;
    let known = data_dir.read_store_file()?;
    let newest = migrate::newest_schema(options.steps);
    if let Some(file) = &known {
        check_schema(file.schema, newest, options.mode)?;
        check_log(&data_dir, file, options)?;
    }
    let known = match known {
        // The seal breaks now, before the engine rewrites its files.
        Some(
            file @ StoreFile {
                sealed_log: Some(_),
                ..
            },
        ) => {
            let unsealed = StoreFile {
                sealed_log: None,
                ..file
            };
            data_dir.write_store_file(&unsealed)?;
            Some(unsealed)
        }
        None if options.mode == OpenMode::Inspect && !data_dir.log_path().exists() => {
            return Err(OpenError::Missing {
                dir: data_dir.path().to_owned(),
            });
        }
        other => other,
    };
    let sled_dir = data_dir.sled_dir();
    let db = repair_and_open(&sled_dir, options)?;
    // From here on an error must not drop the database: that would write.
    finish_open(db, data_dir, known, options).map_err(|(error, db)| {
        std::mem::forget(db);
        error
    })
}

fn new_store_file() -> StoreFile {
    StoreFile {
        store_id: Uuid::new_v4(),
        schema: 0,
        commit_floor: 0,
        sealed_log: None,
    }
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

/// Judges the engine's log before the engine is opened. Writes nothing in the engine's directory.
fn check_log(
    data_dir: &DataDir,
    file: &StoreFile,
    options: &OpenOptions<'_>,
) -> Result<(), OpenError> {
    let path = data_dir.log_path();
    match fs::metadata(&path) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Err(OpenError::LogMissing { path }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(OpenError::LogMissing { path });
        }
        Err(error) => return Err(OpenError::io("reading", path)(error)),
    }
    if let Some(sealed) = &file.sealed_log {
        let found = Seal::of(&path).map_err(OpenError::io("reading", &path))?;
        return if found == *sealed {
            Ok(())
        } else if found.bytes != sealed.bytes {
            let reason = format!("{} bytes instead of {}", found.bytes, sealed.bytes);
            Err(OpenError::LogChanged { path, reason })
        } else {
            Err(OpenError::LogChanged {
                path,
                reason: "its checksum differs".to_owned(),
            })
        };
    }
    let sled_dir = data_dir.sled_dir();
    match preflight::inspect(&sled_dir).map_err(OpenError::io("reading", &path))? {
        Finding::Sound => Ok(()),
        Finding::Suspect(what) => {
            log::warn!("the store's log looks damaged ({what}); rehearsing the opening on a copy");
            rehearse(data_dir, file, &what, options)
        }
    }
}

/// Opens a copy of the log and compares it with `STORE`; the original stays untouched.
fn rehearse(
    data_dir: &DataDir,
    file: &StoreFile,
    what: &str,
    options: &OpenOptions<'_>,
) -> Result<(), OpenError> {
    let copy = data_dir.path().join("rehearsal");
    let _ = fs::remove_dir_all(&copy);
    let result = copy_dir(&data_dir.sled_dir(), &copy)
        .map_err(OpenError::io("copying the store's log to", &copy))
        .and_then(|()| {
            let db = repair_and_open(&copy, options)?;
            compare(&db, data_dir, file)
        });
    let _ = fs::remove_dir_all(&copy);
    match result {
        Ok(_) => {
            log::warn!("the rehearsal found every commit that STORE vouches for; opening");
            Ok(())
        }
        Err(OpenError::Io {
            action,
            path,
            source,
        }) => Err(OpenError::Io {
            action,
            path,
            source,
        }),
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
        // The engine reclaims space only in this thread.
        .flush_every_ms(Some(500));
    let refused = |reason: String| OpenError::Engine {
        dir: sled_dir.to_owned(),
        reason,
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(refused(error.to_string())),
        Err(_) => Err(refused(
            "its log is damaged (the engine gave up in the middle)".to_owned(),
        )),
    }
}

type Refused = (OpenError, sled::Db);

fn finish_open(
    db: sled::Db,
    data_dir: DataDir,
    known: Option<StoreFile>,
    options: &OpenOptions<'_>,
) -> Result<SledStore, Refused> {
    match finish(&db, &data_dir, known, options) {
        Ok((trees, log, store_file, commit_seq)) => Ok(SledStore {
            db,
            trees,
            log,
            durability: options.durability,
            data_dir,
            store_file,
            commit_seq,
            marked_seq: commit_seq,
            floor: None,
        }),
        Err(error) => Err((error, db)),
    }
}

fn finish(
    db: &sled::Db,
    data_dir: &DataDir,
    known: Option<StoreFile>,
    options: &OpenOptions<'_>,
) -> Result<(Trees, File, StoreFile, u64), OpenError> {
    let engine = |error: sled::Error| OpenError::Engine {
        dir: data_dir.sled_dir(),
        reason: error.to_string(),
    };
    let newest = migrate::newest_schema(options.steps);
    let log_path = data_dir.log_path();
    let log = File::open(&log_path).map_err(OpenError::io("opening", &log_path))?;
    let (mut file, commit_seq) = match known {
        Some(file) => {
            let commit_seq = compare(db, data_dir, &file)?;
            (file, commit_seq)
        }
        None => adopt_or_create(db, data_dir)?,
    };
    let schema = migrate::schema_of(db).map_err(|error| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason: error.to_string(),
    })?;
    check_schema(schema, newest, options.mode)?;
    let is_new = schema == 0;
    if schema < newest {
        // An older binary must refuse from here on, also if this is interrupted. A store that is
        // being made has no STORE yet: writing it is what completes the making.
        file.schema = newest;
        if !is_new {
            data_dir.write_store_file(&file)?;
        }
        migrate::run(db, &log, options.steps)?;
    }
    if is_new {
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
    Ok((trees, log, file, commit_seq))
}

/// Holds the opened database against `STORE`; returns its commit sequence.
fn compare(db: &sled::Db, data_dir: &DataDir, file: &StoreFile) -> Result<u64, OpenError> {
    let differs = |reason: String| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason,
    };
    let (id, commit_seq) = identity(db).map_err(|error| differs(error.to_string()))?;
    match id {
        None => Err(differs("the log opens as an empty database".to_owned())),
        Some(id) if id != file.store_id => Err(differs(format!(
            "the log belongs to store {id}, not to {}",
            file.store_id
        ))),
        Some(_) if commit_seq < file.commit_floor => Err(differs(format!(
            "the log ends at commit {commit_seq}, and {} were acknowledged",
            file.commit_floor
        ))),
        Some(_) => Ok(commit_seq),
    }
}

/// The database's own word: its id, and how many commits it has seen at its last mark.
fn identity(db: &sled::Db) -> Result<(Option<Uuid>, u64), StepError> {
    let meta = db.open_tree(tree::META)?;
    let damaged = |what: &str| {
        let what = what.to_owned();
        move |error| StepError::Record(format!("meta/{what}: {error}"))
    };
    let id = match meta.get(meta::STORE_ID)? {
        None => None,
        Some(bytes) => Some(codec::decode_v1::<[u8; 16]>(&bytes).map_err(damaged(meta::STORE_ID))?),
    };
    let commit_seq = match meta.get(meta::MARK)? {
        None => 0,
        Some(bytes) => records::decode_mark(&bytes).map_err(damaged(meta::MARK))?.1,
    };
    Ok((id.map(Uuid::from_bytes), commit_seq))
}

/// There is no `STORE`: a new directory, one whose making was interrupted, or a lost `STORE`.
fn adopt_or_create(db: &sled::Db, data_dir: &DataDir) -> Result<(StoreFile, u64), OpenError> {
    let refused = |reason: String| OpenError::NotThisStore {
        dir: data_dir.path().to_owned(),
        reason,
    };
    let (id, commit_seq) = identity(db).map_err(|error| refused(error.to_string()))?;
    if let Some(store_id) = id {
        log::warn!(
            "STORE is missing in {}; writing it anew",
            data_dir.path().display()
        );
        let schema = migrate::schema_of(db).map_err(|error| refused(error.to_string()))?;
        return Ok((
            StoreFile {
                store_id,
                schema,
                commit_floor: commit_seq,
                sealed_log: None,
            },
            commit_seq,
        ));
    }
    // The id is the last thing that the making writes into the database.
    let foreign = db.tree_names().into_iter().find(|name| {
        let ours = [
            tree::META,
            tree::APPS,
            tree::SERVICES,
            tree::LIVENESS,
            tree::EXPIRY,
            tree::BLIND_SPOTS,
        ];
        let known = ours.iter().any(|ours| ours.as_bytes() == name.as_ref());
        !known && name.as_ref() != b"__sled__default"
    });
    match foreign {
        None => Ok((new_store_file(), 0)),
        Some(name) => Err(refused(format!(
            "there is a database with a tree {:?} that mepulse did not write",
            String::from_utf8_lossy(&name)
        ))),
    }
}
