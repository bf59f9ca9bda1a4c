//! What the store stands on: the filesystem, and what a sync costs there.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::BenchError;
use super::tally::Times;
use crate::clock::Stopwatch;

/// How often is synced, and how much is written before each sync: what a small commit does.
const SYNCS: u64 = 200;
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// A directory's filesystem, and what a sync costs in it.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// The directory.
    pub directory: PathBuf,
    /// Its filesystem's type: `ext4`, `tmpfs`, …
    pub filesystem: String,
    /// Appends of 4 KiB, each with an fdatasync, that were measured.
    pub fsyncs: u64,
    /// Half of them took no longer, in microseconds.
    pub fsync_p50_us: u64,
    /// 99 in a hundred took no longer, in microseconds.
    pub fsync_p99_us: u64,
}

impl Disk {
    /// Measures in a directory. Nothing stays behind there.
    pub(super) fn measure(directory: &Path) -> Result<Self, BenchError> {
        let directory = fs::canonicalize(directory)
            .map_err(BenchError::io(format!("opening {}", directory.display())))?;
        let path = directory.join(format!("mepulse-bench-{}.fsync", std::process::id()));
        let measured = syncs(&path);
        let removed = fs::remove_file(&path);
        let failed = || BenchError::io(format!("syncing {}", path.display()));
        let times = measured?.map_err(failed())?;
        removed.map_err(failed())?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Ok(Self {
            filesystem: filesystem(&mounts, &directory)
                .unwrap_or("unknown")
                .to_owned(),
            directory,
            fsyncs: SYNCS,
            fsync_p50_us: times.quantile_us(0.50),
            fsync_p99_us: times.quantile_us(0.99),
        })
    }
}

fn syncs(path: &Path) -> Result<io::Result<Times>, BenchError> {
    let mut times = Times::new()?;
    let mut measure = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        for _ in 0..SYNCS {
            let stopwatch = Stopwatch::start();
            file.write_all(&BLOCK)?;
            file.sync_data()?;
            times.record(stopwatch.elapsed());
        }
        Ok(())
    };
    Ok(measure().map(|()| times))
}

/// The filesystem type of the mount that a path lies in. Source: proc_pid_mountinfo(5).
fn filesystem<'a>(mounts: &'a str, path: &Path) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else {
            continue;
        };
        let (Some(point), Some(kind)) = (mount.split(' ').nth(4), kind.split(' ').next()) else {
            continue;
        };
        let point = point.replace("\\040", " ");
        // Of two mounts at the same place the later one is seen.
        if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind)
}

/// What a directory takes on its disk, in bytes. Files that go away meanwhile are not counted.
pub(super) fn size_bytes(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /tmp rw - tmpfs tmpfs rw
31 22 0:27 / /mnt/a\\040b rw - xfs /dev/vdb rw
32 22 0:28 / /mnt/twice rw - xfs /dev/vdb rw
33 22 0:29 / /mnt/twice rw - btrfs /dev/vdc rw
broken line";
        for (path, expected) in [
            ("/home/x", "ext4"),
            ("/tmp/x", "tmpfs"),
            ("/tmpx", "ext4"),
            ("/mnt/a b/c", "xfs"),
            ("/mnt/twice", "btrfs"),
        ] {
            assert_eq!(
                filesystem(mounts, Path::new(path)),
                Some(expected),
                "{path}"
            );
        }
        assert_eq!(filesystem("", Path::new("/")), None);
    }

    #[test]
    fn a_measurement_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::measure(directory.path()).unwrap();
        assert!(disk.fsync_p50_us <= disk.fsync_p99_us && disk.fsyncs == SYNCS);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        fs::write(directory.path().join("x"), [1; 5000]).unwrap();
        assert!(size_bytes(directory.path()) >= 4096);
        assert!(Disk::measure(Path::new("/no/such/place")).is_err());
    }
}
