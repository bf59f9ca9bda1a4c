//! Places for a data directory.

use std::path::PathBuf;

use tempfile::TempDir;

use super::wall::Wall;
use crate::support::disk::Disk;
use crate::support::mount::OnDisk;

/// Where the data directory is.
pub(crate) enum Place {
    Plain,
    /// On a disk that can stall.
    SlowDisk,
    /// Anywhere, and the server's wall clock can be stepped.
    FalseClock,
}

/// What is kept for a [`Place`].
pub(super) enum Home {
    Plain(TempDir),
    SlowDisk(Disk, OnDisk),
    FalseClock(TempDir, Wall),
}

impl Home {
    pub(super) fn new(place: &Place) -> Result<Self, String> {
        if matches!(place, Place::SlowDisk) {
            let disk = Disk::new(256);
            let attached = OnDisk::attach(&disk, true)?;
            return Ok(Self::SlowDisk(disk, attached));
        }
        let keep = tempfile::tempdir().unwrap();
        Ok(match place {
            Place::FalseClock => Self::FalseClock(keep, Wall::new()?),
            Place::Plain | Place::SlowDisk => Self::Plain(keep),
        })
    }

    pub(super) fn data_dir(&self) -> PathBuf {
        match self {
            Self::Plain(keep) | Self::FalseClock(keep, _) => keep.path().join("data"),
            Self::SlowDisk(_, attached) => attached.data_dir(),
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        match self {
            Self::Plain(keep) | Self::FalseClock(keep, _) => keep.path().join("log"),
            Self::SlowDisk(_, attached) => attached.log(),
        }
    }
}
