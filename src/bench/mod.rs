//! How much, and how fast: load for a server, measured from outside, and what this machine is.
//!
//! * `answer`, `link`: an HTTP client that costs little, because it shares the machine with the server
//! * `schedule`, `load`, `worker`, `tally`: closed and open loops, and what came of them
//! * `work`, `fleet`: what is asked, and the services that it is asked of
//! * `site`, `own`, `usage`, `machine`, `disk`: the server under test, what it takes, and what it stands on
//! * `run`, `expire`, `recover`, `ratio`, `size`: the measurements, each a [`report::Report`]
//!
//! Whatever is not as it should be is counted, by kind, and shown: a number that leaves failures out
//! says nothing.

mod answer;
mod disk;
mod expire;
mod fleet;
mod link;
mod load;
mod machine;
mod own;
mod progress;
mod ratio;
mod recover;
pub mod report;
mod run;
mod schedule;
mod site;
mod size;
mod stop;
mod stream;
mod tally;
mod usage;
mod work;
mod worker;

use std::io;
use std::path::PathBuf;

pub use self::expire::{ExpirePlan, Grace, expire};
pub use self::load::{Pace, Plan};
pub use self::progress::Progress;
pub use self::ratio::{RatioPlan, ratio};
pub use self::recover::{RecoverPlan, recover};
pub use self::run::{Kind, LoadPlan, load};
pub use self::site::{Setup, Where};
pub use self::size::{SizePlan, size};
pub use self::stop::Stop;
use crate::tls::TlsError;

/// Connections at once at the most: more than a server takes by default.
pub const CONNECTIONS_MAX: u32 = 10_000;
/// Services at the most.
pub const SERVICES_MAX: u32 = 2_000_000;
/// A measurement's length in seconds at the most.
pub const DURATION_S_MAX: u32 = 3600;
/// Requests per second of an open loop at the most.
pub const RATE_PER_S_MAX: u32 = 1_000_000;
/// Services of one application: what a server takes by default (`apps.services_max_per_app`).
pub const SERVICES_PER_APP_MAX: u32 = 1000;

/// A measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file operation or a system call failed.
    #[error("{what} failed: {source}")]
    Io {
        /// What was tried, with the file's name.
        what: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Something that everything else rests on was not answered as it should be.
    #[error("{what} failed: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// What the server said, or why it said nothing.
        reason: String,
    },
    /// A server of our own does not come up, or ends by itself.
    #[error("the server that was started for this ended or does not start: {said}")]
    Server {
        /// The end of its log.
        said: String,
    },
    /// The directory of a server of our own is still there after it has ended.
    #[error("{} could not be removed: {source}; remove it by hand", path.display())]
    LeftBehind {
        /// The directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Somebody asked for an end.
    #[error("interrupted; what was started and registered for this is gone again")]
    Interrupted,
}

impl BenchError {
    /// For `map_err` of file operations and system calls.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn refused(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refused {
            what: what.into(),
            reason: reason.into(),
        }
    }
}
