//! The state file: which service has which id, so that none is ever registered twice.
//!
//! Replaced as a whole, and synced, before a registration leaves and after it is answered: whatever
//! ends the agent in between, its next start knows that there may be one that nobody knows of.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::info::BeatLink;
use crate::files;

const VERSION: u32 = 1;

/// The file cannot be used, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another agent has it.
    #[error("the state file {path} is in use by another agent; give each its own agent.state_file", path = .0.display())]
    InUse(PathBuf),
    /// The operating system refuses.
    #[error("the state file {path} failed: {source}; it must be writable, and so must its directory", path = .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A newer agent has written it.
    #[error("the state file {path} has version {version}, which this agent does not know; use the newer one, or another file", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// As it stands there.
        version: u32,
    },
}

/// Whose services are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The platform's URL as configured, without a slash at the end.
    pub server: String,
    /// The application.
    pub app: String,
}

/// What is remembered of one service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// Its id; `None`: not known (yet).
    pub id: Option<String>,
    /// Fingerprint of the registration as it was sent last.
    pub registration: String,
    /// A registration was sent whose answer has not come: there may be a service that is not `id`.
    pub in_doubt: bool,
    /// We have set it INACTIVE, nobody else.
    pub inactive: bool,
    /// Where its beats went. Not every platform shows the link again that it gave at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beat: Option<BeatLink>,
}

#[derive(Debug, Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    services: Vec<Row>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    server: String,
    app: String,
    name: String,
    #[serde(flatten)]
    memory: Memory,
}

#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    /// Counts the changes.
    version: u64,
}

/// The open file. Changes block until the disk has them.
#[derive(Debug)]
pub struct StateFile {
    /// Empty: only in memory.
    path: PathBuf,
    scope: Scope,
    /// Locked briefly: whoever only looks must not wait for the disk.
    rows: Mutex<Rows>,
    /// Up to which version the file has it. Locked while it is written.
    written: Mutex<u64>,
    /// Locked as long as this lives.
    _lock: Option<File>,
}

impl StateFile {
    /// Opens or makes a file. One that cannot be understood is put aside, because services are found
    /// again by their names. An empty path: nothing outlives the process.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(path: &Path, scope: Scope) -> Result<Self, StateError> {
        let mut opened = Self {
            path: path.to_owned(),
            scope,
            rows: Mutex::default(),
            written: Mutex::default(),
            _lock: None,
        };
        if path.as_os_str().is_empty() {
            return Ok(opened);
        }
        let failed = |source| StateError::Io {
            path: path.to_owned(),
            source,
        };
        // A file of its own: the state file itself is replaced.
        let lock = files::private()
            .open(files::sibling(path, ".lock"))
            .map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StateError::InUse(path.to_owned()))?;
        opened._lock = Some(lock);
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(opened),
            Err(error) => return Err(failed(error)),
        };
        // Whatever else a newer one has in it.
        if let Ok(Versioned { version }) = serde_json::from_slice(&text)
            && version > VERSION
        {
            return Err(StateError::Newer {
                path: path.to_owned(),
                version,
            });
        }
        match serde_json::from_slice::<Stored>(&text) {
            Ok(stored) => {
                opened.rows = Mutex::new(Rows {
                    rows: stored.services,
                    version: 0,
                });
            }
            Err(error) => {
                let aside = files::sibling(path, ".bad");
                log::warn!(
                    "the state file {} cannot be understood ({error}); it is now {}, and services \
                     are found again by their names",
                    path.display(),
                    aside.display()
                );
                fs::rename(path, aside).map_err(failed)?;
            }
        }
        Ok(opened)
    }

    /// What is remembered of a service of this scope.
    #[must_use]
    pub fn get(&self, name: &str) -> Memory {
        let rows = self.rows();
        let row = rows
            .rows
            .iter()
            .find(|row| self.owns(row) && row.name == name);
        row.map(|row| row.memory.clone()).unwrap_or_default()
    }

    /// The services of this scope that are remembered.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let rows = self.rows();
        let own = rows.rows.iter().filter(|row| self.owns(row));
        own.map(|row| row.name.clone()).collect()
    }

    /// Remembers, on the disk when this returns. Nothing is written that stands there already.
    ///
    /// # Errors
    /// [`StateError::Io`]; it is remembered in memory nevertheless.
    pub fn put(&self, name: &str, memory: Memory) -> Result<(), StateError> {
        let version = {
            let mut rows = self.rows();
            let known = rows
                .rows
                .iter_mut()
                .find(|row| self.owns(row) && row.name == name);
            let changes = match known {
                Some(row) if row.memory == memory => false,
                Some(row) => {
                    row.memory = memory;
                    true
                }
                None => {
                    rows.rows.push(Row {
                        server: self.scope.server.clone(),
                        app: self.scope.app.clone(),
                        name: name.to_owned(),
                        memory,
                    });
                    true
                }
            };
            rows.version += u64::from(changes);
            rows.version
        };
        self.write(version)
    }

    /// Forgets a service that is gone.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn forget(&self, name: &str) -> Result<(), StateError> {
        let version = {
            let mut rows = self.rows();
            let before = rows.rows.len();
            rows.rows
                .retain(|row| !(self.owns(row) && row.name == name));
            let changes = rows.rows.len() != before;
            rows.version += u64::from(changes);
            rows.version
        };
        self.write(version)
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owns(&self, row: &Row) -> bool {
        row.server == self.scope.server && row.app == self.scope.app
    }

    /// Sees to it that the file has all changes up to a version; those of others that wait go along.
    fn write(&self, version: u64) -> Result<(), StateError> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written >= version {
            return Ok(());
        }
        let (version, services) = {
            let rows = self.rows();
            (rows.version, rows.rows.clone())
        };
        let stored = Stored {
            version: VERSION,
            services,
        };
        let failed = |source: io::Error| StateError::Io {
            path: self.path.clone(),
            source,
        };
        let text = serde_json::to_vec_pretty(&stored).map_err(|error| failed(error.into()))?;
        files::replace(&self.path, &text).map_err(failed)?;
        *written = version;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scope(server: &str) -> Scope {
        Scope {
            server: server.to_owned(),
            app: "app".to_owned(),
        }
    }

    fn memory(id: &str) -> Memory {
        Memory {
            id: Some(id.to_owned()),
            ..Memory::default()
        }
    }

    #[test]
    fn what_is_remembered_is_found_again_by_server_application_and_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let state = StateFile::open(&path, scope("http://a")).unwrap();
        state.put("cam", memory("1")).unwrap();
        state.put("map", memory("2")).unwrap();
        drop(state);
        let other = StateFile::open(&path, scope("http://b")).unwrap();
        assert_eq!(other.get("cam"), Memory::default());
        other.put("cam", memory("3")).unwrap();
        other.forget("map").unwrap();
        drop(other);
        let state = StateFile::open(&path, scope("http://a")).unwrap();
        assert_eq!(state.get("cam"), memory("1"));
        assert_eq!(state.names(), ["cam", "map"]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn one_agent_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let _first = StateFile::open(&path, scope("http://a")).unwrap();
        let second = StateFile::open(&path, scope("http://a"));
        assert!(matches!(second, Err(StateError::InUse(_))));
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, "{").unwrap();
        let state = StateFile::open(&path, scope("http://a")).unwrap();
        assert_eq!(state.names(), Vec::<String>::new());
        assert_eq!(
            fs::read(directory.path().join("state.json.bad")).unwrap(),
            b"{"
        );
        drop(state);
        fs::write(&path, r#"{"version":2,"rows":{}}"#).unwrap();
        let newer = StateFile::open(&path, scope("http://a"));
        assert!(matches!(newer, Err(StateError::Newer { version: 2, .. })));
    }
}
