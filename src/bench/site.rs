//! Where a measurement takes place: a server that is there, or one of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Deserialize;

use super::disk::Disk;
use super::fleet::ask;
use super::link::Target;
use super::machine::Machine;
use super::own::{Process, Workdir};
use super::report::{Failures, Findings, Report, ServerAbout};
use super::usage::Usage;
use super::{BenchError, Progress, Stop};
use crate::wire::problem::refusal;

/// Descriptors that are not connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// Which server is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// One that is started for this, on a store that is gone afterwards.
    Own,
    /// One that runs already: its URL.
    Url(String),
}

/// What all measurements need to be told.
#[derive(Debug)]
pub struct Setup {
    /// Which server.
    pub server: Where,
    /// Where a store of our own is made, and where syncs are measured.
    pub directory: PathBuf,
    /// Settings of a server of our own: `section.key=value`.
    pub settings: Vec<String>,
    /// Certificate authorities besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A bearer token, alone in a file; it is read once.
    pub token_file: Option<PathBuf>,
    /// For each connection and each answer.
    pub timeout: Duration,
    /// Says when it is over.
    pub stop: Stop,
    /// Shows how far it is.
    pub progress: Progress,
}

/// The server under test, ready.
pub(super) struct Site {
    pub(super) target: Arc<Target>,
    pub(super) about: ServerAbout,
    pub(super) process: Option<Process>,
    /// Behind the process: its directory must outlive it.
    pub(super) workdir: Option<Workdir>,
    disk: Disk,
    machine: Machine,
}

impl Setup {
    /// Makes the server ready, and measures what it stands on.
    pub(super) async fn open(&self) -> Result<Site, BenchError> {
        let machine = Machine::read();
        let (process, workdir, url, disk) = match &self.server {
            Where::Url(url) => {
                let disk = Disk::measure(&self.directory)?;
                (None, None, url.clone(), disk)
            }
            Where::Own => {
                let workdir = Workdir::new(&self.directory)?;
                let disk = Disk::measure(workdir.base())?;
                let process = Process::serve(&workdir, &self.settings, &self.stop).await?;
                let url = process.url.clone();
                (Some(process), Some(workdir), url, disk)
            }
        };
        let target = Arc::new(self.target(&url)?);
        let version = self.stop.unless(version(&target)).await??;
        let own = process.is_some();
        Ok(Site {
            about: ServerAbout {
                own,
                url: target.url.clone(),
                version: version.version,
                durability: version.durability,
                settings: match own {
                    true => self.settings.clone(),
                    false => Vec::new(),
                },
            },
            target,
            process,
            workdir,
            disk,
            machine,
        })
    }

    /// How a server is spoken to.
    pub(super) fn target(&self, url: &str) -> Result<Target, BenchError> {
        let token = self.token_file.as_deref().map(token).transpose()?;
        Target::new(url, self.ca_file.as_deref(), token.as_deref(), self.timeout)
    }
}

impl Site {
    /// Counters of a server of our own.
    pub(super) fn usage(&self) -> Option<Usage> {
        Usage::of(self.process.as_ref()?.pid)
    }

    /// Takes a server of our own down, and removes its store.
    pub(super) fn close(
        self,
        bench: &'static str,
        result: Findings,
        failures: Failures,
    ) -> Result<Report, BenchError> {
        if let Some(process) = self.process {
            process.stop();
        }
        self.workdir.map_or(Ok(()), Workdir::remove)?;
        Ok(Report {
            bench,
            mepulse_version: env!("CARGO_PKG_VERSION"),
            build: match cfg!(debug_assertions) {
                true => "debug",
                false => "release",
            },
            machine: self.machine,
            disk: self.disk,
            server: self.about,
            result,
            failures,
        })
    }
}

#[derive(Deserialize)]
struct Version {
    version: String,
    durability: String,
}

async fn version(target: &Target) -> Result<Version, BenchError> {
    let what = format!("asking {} for its version", target.url);
    let request = target.request("GET", "/version", b"");
    let (mut link, mut body) = (None, Vec::new());
    let status = ask(target, &mut link, &request, &mut body, &what).await?;
    if status != 200 {
        return Err(BenchError::refused(what, refusal(status, &body)));
    }
    serde_json::from_slice(&body)
        .map_err(|_| BenchError::refused(what, "the answer is not that of a mepulse"))
}

fn token(path: &Path) -> Result<String, BenchError> {
    let text = fs::read_to_string(path).map_err(BenchError::io(format!(
        "reading --token-file {}",
        path.display()
    )))?;
    let token = text.trim();
    let usable = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    match usable {
        true => Ok(token.to_owned()),
        false => Err(BenchError::Usage(format!(
            "--token-file {} holds no token: one line of visible characters is expected",
            path.display()
        ))),
    }
}

/// Raises the limit on open files for so many connections.
pub(super) fn make_room(connections: usize) -> Result<(), BenchError> {
    let needed = connections as u64 + DESCRIPTORS_RESERVED;
    let limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= needed);
    if enough(limit.current) {
        return Ok(());
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if enough(limit.maximum) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    Err(BenchError::Usage(format!(
        "{connections} connections need {needed} open files, and the limit is lower; raise it (ulimit -n) \
         or use fewer --connections"
    )))
}
