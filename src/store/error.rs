//! What can go wrong with the store, each with what to do next.

use std::path::PathBuf;

use super::migrate::MigrationError;

/// A running store failed. What reached the disk is unknown: nothing may be committed after it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine reports a failure.
    #[error("the store failed: {0}")]
    Engine(#[from] sled::Error),
    /// Our own write failed.
    #[error("writing {path} failed: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Our own sync failed.
    #[error("syncing {path} to the disk failed: {source}", path = .path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The `STORE` file could not be replaced.
    #[error(transparent)]
    DataDir(#[from] OpenError),
    /// The engine panicked in the thread that gives it heartbeats.
    #[error("the store failed: the engine panicked while it took over heartbeats")]
    Panicked,
    /// A test asked for it.
    #[error("the store failed because a test said so")]
    Injected,
}

const NEXT_RESTORE: &str = "Nothing was written. Restore the data directory from a backup, or move \
    it aside to start with an empty registry";

/// A data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, and this command does not make one.
    #[error("there is no mepulse data directory at {dir}: check --data-dir, or start the server there first", dir = .dir.display())]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Another process holds the lock.
    #[error("the data directory {dir} is in use by another process{who}: stop that one first, or name another --data-dir", dir = .dir.display(), who = .pid.map_or(String::new(), |pid| format!(" (pid {pid})")))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file tells.
        pid: Option<u32>,
    },
    /// An ordinary file operation failed.
    #[error("{action} {path} failed: {source}", path = .path.display())]
    Io {
        /// What was tried, e.g. `creating`.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The `STORE` file is there but makes no sense.
    #[error("{path} cannot be read ({reason}). {NEXT_RESTORE}", path = .path.display())]
    StoreFile {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// Written by a newer release.
    #[error(
        "this store has schema {found}, and this mepulse knows schemas up to {known}: run the newer mepulse that wrote it. Nothing was written"
    )]
    NewerSchema {
        /// The store's.
        found: u32,
        /// The newest this binary knows.
        known: u32,
    },
    /// Written by an older release, and this command does not migrate.
    #[error(
        "this store has schema {found}, and this mepulse needs {known}: run `mepulse serve` once on this data directory, it migrates the store"
    )]
    OlderSchema {
        /// The store's.
        found: u32,
        /// What this binary needs.
        known: u32,
    },
    /// The log is gone or empty, or the journal is gone.
    #[error("{path}, a part of the store, is missing or empty, although this directory holds a store. {NEXT_RESTORE}", path = .path.display())]
    LogMissing {
        /// The file.
        path: PathBuf,
    },
    /// The log is not the one that was closed.
    #[error("the store's log {path} is not the one that was closed in good order ({reason}): it was cut, damaged or replaced. {NEXT_RESTORE}", path = .path.display())]
    LogChanged {
        /// The file.
        path: PathBuf,
        /// In what it differs.
        reason: String,
    },
    /// The log, or the journal, is damaged; found before it was touched.
    #[error("{path}, a part of the store, is damaged ({reason}). {NEXT_RESTORE}", path = .path.display())]
    LogDamaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// What was opened is another store, or an empty one.
    #[error("{dir} does not hold the store that its STORE file names ({reason}). Restore the data directory from a backup, or move it aside to start with an empty registry", dir = .dir.display())]
    NotThisStore {
        /// The directory.
        dir: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The engine could not open it.
    #[error("the store in {dir} cannot be opened: {reason}", dir = .dir.display())]
    Engine {
        /// The directory.
        dir: PathBuf,
        /// The engine's reason.
        reason: String,
    },
    /// A migration step failed. It can be run again.
    #[error(transparent)]
    Migration(#[from] MigrationError),
}

impl OpenError {
    /// For `map_err` on file operations.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
