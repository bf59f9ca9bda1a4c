//! Configuration: what was typed, from four layers, becomes one checked [`Config`].
//!
//! Order of precedence: flags (`--listen`, `--data-dir`, `--set section.key=value`), then the
//! environment (`MEPULSE_<SECTION>__<KEY>`), then the file, then the defaults. The defaults of all
//! keys stand in `sections` and `auth` and nowhere else; `config.toml` documents them and a test compares.

mod auth;
mod check;
mod layers;
mod sections;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;

pub use self::auth::{Auth, AuthMode, EdgeGallery, KeyAlgorithm, VerificationKey, is_local};
use self::layers::{Layers, keys, lookup};
pub use self::sections::{
    Apps, History, Liveness, Notify, PatchResponse, Platform, Server, Store, Truth,
};
use crate::domain::{LivenessInterval, Policy};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The listener and its limits.
    pub server: Server,
    /// The database.
    pub store: Store,
    /// Terms of the heartbeat.
    pub liveness: Liveness,
    /// How we know that we are watching.
    pub truth: Truth,
    /// What is kept of the past.
    pub history: History,
    /// Application instances.
    pub apps: Apps,
    /// What the platform offers to applications.
    pub platform: Platform,
    /// Telling subscribers.
    pub notify: Notify,
    /// Who may speak for whom.
    pub auth: Auth,
    /// EdgeGallery's own clients.
    pub edgegallery: EdgeGallery,
}

/// Why a configuration is refused. Names the key and where it was set.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {path} failed: {source}", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {reason}", path = .path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The parser's reason.
        reason: String,
    },
    /// No such key.
    #[error("unknown key `{key}` in {layer}{hint}")]
    UnknownKey {
        /// As written.
        key: String,
        /// Where it was set.
        layer: String,
        /// `; did you mean …?`
        hint: String,
    },
    /// `--set` without `section.key=value`.
    #[error(
        "--set {0:?}: expected section.key=value, for example --set liveness.default_interval_s=10"
    )]
    SetSyntax(String),
    /// A value of the wrong type.
    #[error("`{key}` in {layer}: {reason}")]
    Value {
        /// Which key.
        key: String,
        /// Where it was set.
        layer: String,
        /// What was expected.
        reason: String,
    },
    /// Values that cannot work together.
    #[error("configuration: {0}")]
    Conflict(String),
}

/// What was typed: where the layers come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config`; without it `./config.toml` if it is there.
    pub file: Option<PathBuf>,
    /// Flags as `section.key=value`, the later one wins.
    pub set: Vec<String>,
    /// The environment.
    pub env: Vec<(String, String)>,
}

impl Config {
    /// Reads all layers and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key and the layer.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let mut layers = Layers::defaults()?;
        let local = Path::new("config.toml");
        match &sources.file {
            Some(path) => layers.add_file(path)?,
            None if local.is_file() => layers.add_file(local)?,
            None => {}
        }
        layers.add_env(&sources.env)?;
        for setting in &sources.set {
            layers.add_flag(setting)?;
        }
        layers.finish()
    }

    /// What the rules of the domain need of it.
    #[must_use]
    pub fn policy(&self) -> Policy {
        // `check` made sure that none is 0.
        let interval = |secs| {
            LivenessInterval::from_secs(secs).unwrap_or_else(|| {
                unreachable!("intervals are checked when the configuration is loaded")
            })
        };
        Policy {
            default_interval: interval(self.liveness.default_interval_s),
            min_interval: interval(self.liveness.min_interval_s),
            max_interval: interval(self.liveness.max_interval_s),
            grace_percent: self.liveness.grace_percent,
            grace_min_ms: self.liveness.grace_min_ms,
            blind_cap: self.truth.blind_cap,
            remove_after_ms: match self.liveness.remove_after_s {
                0 => None,
                secs => Some(u64::from(secs) * 1000),
            },
        }
    }

    /// This configuration with everything that can change while running taken from `new`, and the
    /// names of the keys that differ but need a restart.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> (Self, Vec<String>) {
        let merged = Self {
            liveness: new.liveness.clone(),
            apps: new.apps.clone(),
            truth: Truth {
                blind_cap: new.truth.blind_cap,
                ..self.truth.clone()
            },
            ..self.clone()
        };
        (merged.clone(), merged.differences(new))
    }

    /// The names of the keys in which two configurations differ.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let (Ok(mine), Ok(theirs)) = (Table::try_from(self), Table::try_from(other)) else {
            return Vec::new();
        };
        keys(&mine)
            .into_iter()
            .filter(|key| lookup(&mine, key) != lookup(&theirs, key))
            .collect()
    }
}
