//! The data directory: its lock, and the `STORE` file that says which store lives here.
//!
//! ```text
//! <data_dir>/            0700
//!   lock                 held for life by the server, or by an offline admin command
//!   STORE                small text, replaced atomically; read before the engine is opened
//!   WITNESS              one line, overwritten in place: the newest commit on the disk
//!   journal              16 MiB: heartbeats that are on the disk and not in the engine yet
//!   sled/                the engine's files
//!   admin.sock           while the server runs
//! ```
//!
//! `STORE` exists because the engine takes an emptied or damaged log for a new database: it keeps
//! the id that the opened store must have, a floor of its commit sequence, and, after an orderly
//! stop, the seal (length and checksum) of the log. The floor is refreshed rarely, because that is
//! synced; `WITNESS` is not, and holds the exact floor of a process that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::OpenError;
use super::witness::Witness;

/// The data directory, locked: as long as this value lives no other process opens it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The content of the `STORE` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFile {
    /// The id that the opened store must carry.
    pub store_id: Uuid,
    /// The newest schema that any part of the store may have.
    pub schema: u32,
    /// The store has seen at least so many commits.
    pub commit_floor: u64,
    /// Present after an orderly stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_log: Option<Seal>,
}

/// What the log looked like when it was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32 of all of it.
    pub crc32: u32,
}

const STORE_HEADER: &str = "# Written by mepulse; do not edit. It guards the store beside it \
                            against loss and mix-ups.\n";

impl DataDir {
    /// Makes the directory if asked to, and takes the lock.
    ///
    /// # Errors
    /// [`OpenError::Missing`], [`OpenError::InUse`], or a failed file operation.
    pub fn lock(path: &Path, create: bool) -> Result<Self, OpenError> {
        if create {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(OpenError::io("creating", path))?;
            make_private(path)?;
        } else if !path.join("lock").is_file() {
            return Err(OpenError::Missing {
                dir: path.to_owned(),
            });
        }
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(OpenError::io("opening", &lock_path))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = lock.read_to_string(&mut holder);
                let pid = holder.trim().parse().ok();
                return Err(OpenError::InUse {
                    dir: path.to_owned(),
                    pid,
                });
            }
            Err(errno) => return Err(OpenError::io("locking", lock_path)(errno.into())),
        }
        // Only a hint for the message above, so a failure does no harm.
        let _ = lock
            .set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the engine's files are.
    #[must_use]
    pub fn sled_dir(&self) -> PathBuf {
        self.path.join("sled")
    }

    /// The engine's log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.path.join("sled").join("db")
    }

    /// The journal of heartbeats.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.path.join("journal")
    }

    /// Reads `STORE`; `None` if there is none.
    ///
    /// # Errors
    /// When it is there and cannot be understood.
    pub fn read_store_file(&self) -> Result<Option<StoreFile>, OpenError> {
        let path = self.path.join("STORE");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(OpenError::io("reading", path)(error)),
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|error| OpenError::StoreFile {
                path,
                reason: error.message().to_owned(),
            })
    }

    fn witness_path(&self) -> PathBuf {
        self.path.join("WITNESS")
    }

    /// What `WITNESS` says, if anything.
    #[must_use]
    pub fn read_witness(&self) -> Option<Witness> {
        Witness::from_bytes(&fs::read(self.witness_path()).ok()?)
    }

    /// Opens `WITNESS` for writing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open_witness(&self) -> Result<File, OpenError> {
        let path = self.witness_path();
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(OpenError::io("opening", path))
    }

    /// Replaces `STORE` atomically; it is on the disk when this returns.
    ///
    /// # Errors
    /// A failed file operation; the old content is then still there.
    pub fn write_store_file(&self, content: &StoreFile) -> Result<(), OpenError> {
        let path = self.path.join("STORE");
        let temporary = self.path.join("STORE.new");
        let text = toml::to_string(content).map_err(|error| OpenError::StoreFile {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(STORE_HEADER.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_dir(&self.path)
        };
        write().map_err(OpenError::io("writing", &path))
    }
}

/// Nobody else may read registrations, or talk to the admin's socket.
fn make_private(path: &Path) -> Result<(), OpenError> {
    let metadata = fs::metadata(path).map_err(OpenError::io("reading", path))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        log::warn!("{} was open to others; making it 0700", path.display());
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(OpenError::io("making private", path))?;
    }
    Ok(())
}

/// Makes renames and new names in a directory durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

impl Seal {
    /// Reads the whole log once.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(log: &Path) -> std::io::Result<Self> {
        let mut file = File::open(log)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer)?;
            if read == 0 {
                return Ok(Self {
                    bytes,
                    crc32: hasher.finalize(),
                });
            }
            hasher.update(&buffer[..read]);
            bytes += u64::try_from(read).unwrap_or(0);
        }
    }
}
