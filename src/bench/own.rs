//! A server of our own, on a store that is gone afterwards, whatever happens.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::{BenchError, Stop};
use crate::clock::Stopwatch;

/// A server needs up to five seconds for a stop in good order.
const STOP_MS_MAX: u64 = 7000;
/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);
/// So much of its log is told when it does not start.
const LOG_CHARS_MAX: usize = 600;
/// How its start-up line begins.
const ANNOUNCED: &str = "mepulse listening on ";

/// A directory that is removed with all that is in it.
#[derive(Debug)]
pub(super) struct Workdir(PathBuf);

impl Workdir {
    /// Makes one inside `base`.
    pub(super) fn new(base: &Path) -> Result<Self, BenchError> {
        let base = fs::canonicalize(base)
            .map_err(BenchError::io(format!("opening {}", base.display())))?;
        let name = format!(
            "mepulse-bench-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        );
        let path = base.join(name);
        let mut builder = DirBuilder::new();
        builder
            .mode(0o700)
            .create(&path)
            .map_err(BenchError::io(format!("making {}", path.display())))?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory that it was made in.
    pub(super) fn base(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }

    /// Where the server's store is.
    pub(super) fn store(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Removes it, and says so if it cannot be.
    pub(super) fn remove(self) -> Result<(), BenchError> {
        fs::remove_dir_all(&self.0).map_err(|source| BenchError::LeftBehind {
            path: self.0.clone(),
            source,
        })
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log::warn!("{} could not be removed: {error}", self.0.display());
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A process of this very program that serves. It ends when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Closing it would be an error of the server's when it says more.
    _stdout: BufReader<ChildStdout>,
    pub(super) pid: u32,
    /// As it announced itself.
    pub(super) url: String,
    /// Since just before it was started.
    pub(super) started: Stopwatch,
}

impl Process {
    /// `mepulse serve` on the store in a directory. Nothing but `settings` and the defaults count: no
    /// configuration file, no environment.
    pub(super) async fn serve(
        workdir: &Workdir,
        settings: &[String],
        stop: &Stop,
    ) -> Result<Self, BenchError> {
        let config = workdir.path().join("config.toml");
        fs::write(&config, "").map_err(BenchError::io(format!("writing {}", config.display())))?;
        let mut args: Vec<_> = ["serve", "--listen", "127.0.0.1:0", "--config"]
            .map(Into::into)
            .into();
        args.push(config.into_os_string());
        args.push("--data-dir".into());
        args.push(workdir.store().into_os_string());
        for setting in settings {
            args.push("--set".into());
            args.push(setting.into());
        }
        Self::start(&args, workdir, stop).await
    }

    /// `mepulse bench baseline`
    pub(super) async fn baseline(workdir: &Workdir, stop: &Stop) -> Result<Self, BenchError> {
        let args = ["bench", "baseline", "--listen", "127.0.0.1:0"].map(Into::into);
        Self::start(&args, workdir, stop).await
    }

    async fn start(
        args: &[std::ffi::OsString],
        workdir: &Workdir,
        stop: &Stop,
    ) -> Result<Self, BenchError> {
        let program = std::env::current_exe().map_err(BenchError::io("finding this program"))?;
        let log = workdir.path().join("server.log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(BenchError::io(format!("opening {}", log.display())))?;
        let mut command = Command::new(&program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .env_remove("RUST_LOG")
            // Ctrl-C on a terminal is for us; we tell it when it is its turn.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"MEPULSE_") {
                command.env_remove(name);
            }
        }
        let started = Stopwatch::start();
        let mut child = command
            .spawn()
            .map_err(BenchError::io(format!("starting {}", program.display())))?;
        let (Some(stdout), Some(pid)) = (child.stdout.take(), child.id()) else {
            return Err(BenchError::Server { said: tail(&log) });
        };
        let mut process = Self {
            child,
            _stdout: BufReader::new(stdout),
            pid,
            url: String::new(),
            started,
        };
        let mut line = String::new();
        stop.unless(process._stdout.read_line(&mut line))
            .await?
            .map_err(BenchError::io("reading the server's start-up line"))?;
        let url = line.trim_end().strip_prefix(ANNOUNCED);
        process.url = url
            .ok_or_else(|| BenchError::Server { said: tail(&log) })?
            .to_owned();
        Ok(process)
    }

    /// `kill -9`, and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<(), BenchError> {
        self.child
            .kill()
            .await
            .map_err(BenchError::io("killing the server"))
    }

    /// Ends it in good order; also what dropping it does.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = |child: &mut Child| matches!(child.try_wait(), Ok(None));
        if !running(&mut self.child) {
            return;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            log::warn!("stopping the server {} failed: {error}", self.pid);
        }
        let stopping = Stopwatch::start();
        while running(&mut self.child) {
            if stopping.elapsed_ms() > STOP_MS_MAX {
                log::warn!("the server {} does not stop and is killed", self.pid);
                let _ = self.child.start_kill();
            }
            if stopping.elapsed_ms() > 2 * STOP_MS_MAX {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// The end of a log, on one line.
fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let text = text.trim().replace('\n', " | ");
    let skipped = text.chars().count().saturating_sub(LOG_CHARS_MAX);
    match text.is_empty() {
        true => "it said nothing".to_owned(),
        false => text.chars().skip(skipped).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workdir_goes_with_all_that_is_in_it() {
        let base = tempfile::tempdir().unwrap();
        let workdir = Workdir::new(base.path()).unwrap();
        fs::create_dir(workdir.store()).unwrap();
        fs::write(workdir.store().join("x"), "x").unwrap();
        let log = workdir.path().join("server.log");
        assert_eq!(tail(&log), "it said nothing");
        fs::write(&log, format!("{}\nlast\n", "x".repeat(LOG_CHARS_MAX))).unwrap();
        assert!(tail(&log).ends_with("x | last"));
        drop(workdir);
        Workdir::new(base.path()).unwrap().remove().unwrap();
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
        assert!(Workdir::new(Path::new("/no/such/place")).is_err());
    }
}
