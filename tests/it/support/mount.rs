//! File systems made for one test, gone when dropped; and a visible SKIP where they cannot be made.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fuser::BackgroundSession;
use tempfile::TempDir;

use super::disk::{Disk, IMAGE_NAME};

/// Says on the real standard error (a passing test's own is swallowed) what was not tested, and
/// why. `MEPULSE_NO_SKIP` makes it a failure, for machines that are known to be able.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var_os("MEPULSE_NO_SKIP").is_none(),
        "{test} cannot run here: {reason}"
    );
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {reason}");
}

/// Why this process cannot mount; `needs` are further commands.
fn obstacle(needs: &[&str]) -> Option<String> {
    if !is_root() {
        return Some("it needs root, to mount".to_owned());
    }
    let tool = ["mount", "umount"]
        .iter()
        .chain(needs)
        .find(|tool| !has_command(tool))?;
    Some(format!("there is no {tool} command"))
}

/// Whether there is such a command.
pub(crate) fn has_command(name: &str) -> bool {
    let mut look = Command::new("sh");
    look.args(["-c", "command -v \"$0\"", name])
        .stdout(Stdio::null());
    look.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = format!("{command:?}");
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        let message = String::from_utf8_lossy(&output.stderr);
        Err(format!("{name}: {}", message.trim()))
    }
}

/// A mounted directory; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(arguments: &[&str], source: &Path, target: &Path) -> Result<Self, String> {
        let mut mount = Command::new("mount");
        run(mount.args(arguments).args([source, target]))?;
        Ok(Self(target.to_owned()))
    }
}

impl Mounted {
    /// Whether it is gone now; else it goes once nobody holds it any more.
    fn unmount(&self) -> bool {
        // A process that was just killed may hold it for another moment.
        for _ in 0..500 {
            if run(Command::new("umount").arg(&self.0)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = run(Command::new("umount").arg("-l").arg(&self.0));
        false
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// The file system with the disk's image; unmounted when dropped.
struct Served {
    mounted: Option<Mounted>,
    session: Option<BackgroundSession>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let (Some(mounted), Some(session)) = (self.mounted.take(), self.session.take()) else {
            return;
        };
        // The loop device lets go of the image a moment after its own unmounting.
        if mounted.unmount() {
            let _ = session.join();
        }
        // Else its thread ends with this process.
        std::mem::forget(mounted);
    }
}

/// A directory on an ext4 on a [`Disk`].
pub(crate) struct OnDisk {
    // In the order in which they have to go.
    _ext4: Mounted,
    _served: Served,
    directory: TempDir,
}

impl OnDisk {
    /// Attaches a disk; an ext4 is made on it first if it is `new`.
    pub(crate) fn attach(disk: &Disk, new: bool) -> Result<Self, String> {
        if let Some(reason) = obstacle(&["mkfs.ext4"]) {
            return Err(reason);
        }
        for device in ["/dev/fuse", "/dev/loop-control"] {
            if !Path::new(device).exists() {
                return Err(format!("there is no {device}"));
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let [raw, ext4] = ["raw", "ext4"].map(|name| directory.path().join(name));
        std::fs::create_dir(&raw).unwrap();
        std::fs::create_dir(&ext4).unwrap();
        let session = disk
            .serve(&raw)
            .map_err(|error| format!("mounting a FUSE file system failed: {error}"))?;
        let served = Served {
            mounted: Some(Mounted(raw.clone())),
            session: Some(session),
        };
        let image = raw.join(IMAGE_NAME);
        if new {
            // All of it now, nothing later in the background.
            let mut mkfs = Command::new("mkfs.ext4");
            mkfs.args(["-q", "-F", "-b", "4096", "-N", "512", "-J", "size=4", "-E"])
                .arg("lazy_itable_init=0,lazy_journal_init=0,nodiscard")
                .arg(&image);
            run(&mut mkfs)?;
        }
        Ok(Self {
            _ext4: Mounted::new(&["-t", "ext4", "-o", "loop"], &image, &ext4)?,
            _served: served,
            directory,
        })
    }

    /// Where the data directory goes.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("ext4").join("data")
    }

    /// A log that the disk's fate does not touch.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}

/// A small file system in memory.
pub(crate) struct Small {
    mounted: Mounted,
    directory: TempDir,
}

impl Small {
    pub(crate) fn new(mib: u32) -> Result<Self, String> {
        if let Some(reason) = obstacle(&[]) {
            return Err(reason);
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("small");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={mib}m");
        let arguments = ["-t", "tmpfs", "-o", &options];
        Ok(Self {
            mounted: Mounted::new(&arguments, Path::new("mepulse-test"), &path)?,
            directory,
        })
    }

    pub(crate) fn enlarge(&self, mib: u32) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,size={mib}m")]);
        run(mount.arg(&self.mounted.0)).unwrap();
    }

    /// Where the data directory goes.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.mounted.0.join("data")
    }

    /// A log outside of it.
    pub(crate) fn log(&self) -> PathBuf {
        self.directory.path().join("server.log")
    }
}
