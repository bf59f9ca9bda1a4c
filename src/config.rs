//! Configuration: what was typed, from four layers, becomes one checked [`Config`].
//!
//! Order of precedence: flags (`--listen`, `--data-dir`, `--set section.key=value`), then the
//! environment (`MEPULSE_<SECTION>__<KEY>`), then the file, then the defaults. The defaults of all
//! keys are in this file and nowhere else; `config.toml` documents them and a test compares.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::domain::{LivenessInterval, Policy};
use crate::store::Durability;

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
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Prefix that makes links absolute; empty: links are path-absolute.
    pub public_url: String,
    /// Longest request body in bytes.
    pub body_limit_bytes: usize,
    /// A request's head must be complete within so many milliseconds of its first byte.
    pub header_timeout_ms: u64,
    /// A request's body must be complete within so many milliseconds.
    pub body_timeout_ms: u64,
    /// A connection may be silent between requests, or not take its answer, for so many milliseconds.
    pub idle_timeout_ms: u64,
    /// Connections at once; further ones get 503.
    pub connections_max: usize,
    /// Writes waiting for the disk; further ones get 503.
    pub queue_max: usize,
}

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// The data directory.
    pub data_dir: PathBuf,
    /// What an acknowledgement survives.
    pub durability: Durability,
    /// The engine's page cache in MiB.
    pub cache_mb: u64,
    /// A small batch waits so many milliseconds for company; 0: never.
    pub commit_linger_ms: u64,
    /// From so many commands on a batch does not wait.
    pub commit_linger_beats: usize,
    /// A mark joins a commit when the last one is so many milliseconds old.
    pub mark_interval_ms: u64,
    /// Without commits a mark is written every so many milliseconds.
    pub idle_mark_interval_ms: u64,
}

/// `[liveness]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Liveness {
    /// Interval in seconds for producers that leave the choice to us.
    pub default_interval_s: u32,
    /// Shorter proposals are raised to this, in seconds.
    pub min_interval_s: u32,
    /// Longer proposals are lowered to this, in seconds.
    pub max_interval_s: u32,
    /// Grace as a share of the interval, in percent.
    pub grace_percent: u32,
    /// The least grace in milliseconds.
    pub grace_min_ms: u64,
    /// What a plain heartbeat is answered with.
    pub patch_response: PatchResponse,
    /// Whether `GET /services` leaves SUSPENDED services out.
    pub hide_suspended: bool,
    /// A SUSPENDED service is removed after so many seconds; 0: never.
    pub remove_after_s: u32,
}

/// What a heartbeat is answered with when nothing needs telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PatchResponse {
    /// 204 without a body.
    Minimal,
    /// 200 with `ServiceLivenessInfo`.
    Representation,
}

/// `[truth]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Truth {
    /// The pulse's period in milliseconds.
    pub tick_ms: u64,
    /// A gap between pulses, or a commit, longer than this is a blind spot, in milliseconds.
    pub stall_ms: u64,
    /// Credits for blind spots end after so many intervals of watched time.
    pub blind_cap: u32,
}

/// `[history]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Events kept of each service.
    pub keep_per_service: usize,
    /// Events older than so many days go.
    pub keep_days: u64,
}

/// `[apps]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apps {
    /// Whether an unknown application is accepted with its first service.
    pub auto_accept: bool,
    /// Services per application; further ones get 429.
    pub services_max_per_app: usize,
    /// Subscriptions per application; further ones get 429.
    pub subscriptions_max_per_app: usize,
}

/// `[platform]`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `TransportInfo`s that services may name by `transportId`. Source: GS MEC 011 V2.2.1, 8.2.5.
    pub transports: Vec<Table>,
}

/// `[notify]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notify {
    /// Networks that callbacks may lie in although they are loopback, link-local or the like.
    pub allow: Vec<String>,
    /// A callback must have answered within so many milliseconds.
    pub timeout_ms: u64,
    /// What could not be delivered for so many seconds becomes a dead letter.
    pub give_up_after_s: u64,
    /// Certificate authorities for https callbacks besides the system's: a PEM file; empty: none.
    pub ca_file: PathBuf,
    /// Callbacks under way at once.
    pub in_flight_max: usize,
    /// Events in one notification to a subscriber that is behind.
    pub batch_max: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8088)),
            public_url: String::new(),
            body_limit_bytes: 65_536,
            header_timeout_ms: 5_000,
            body_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            connections_max: 10_000,
            queue_max: 8_192,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            durability: Durability::PowerLoss,
            cache_mb: 64,
            commit_linger_ms: 8,
            commit_linger_beats: 8,
            mark_interval_ms: 1_000,
            idle_mark_interval_ms: 60_000,
        }
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            default_interval_s: 30,
            min_interval_s: 5,
            max_interval_s: 86_400,
            grace_percent: 20,
            grace_min_ms: 2_000,
            patch_response: PatchResponse::Minimal,
            hide_suspended: true,
            remove_after_s: 0,
        }
    }
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            tick_ms: 100,
            stall_ms: 1_000,
            blind_cap: 10,
        }
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            keep_per_service: 100,
            keep_days: 30,
        }
    }
}

impl Default for Apps {
    fn default() -> Self {
        Self {
            auto_accept: true,
            services_max_per_app: 1_000,
            subscriptions_max_per_app: 100,
        }
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            timeout_ms: 5_000,
            give_up_after_s: 86_400,
            ca_file: PathBuf::new(),
            in_flight_max: 256,
            batch_max: 64,
        }
    }
}

impl Notify {
    /// The networks of `allow`. One address is a network of its own.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming the entry.
    pub fn networks(&self) -> Result<Vec<IpNet>, ConfigError> {
        let network = |text: &String| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or(address).map_err(|_| {
                ConfigError::Conflict(format!(
                    "`notify.allow`: {text:?} is no network; expected one like 127.0.0.0/8 or fd00::/8"
                ))
            })
        };
        self.allow.iter().map(network).collect()
    }
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

    /// Rules that span several values.
    /// Whether the values go together.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] names the first that do not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Self {
            server,
            store,
            liveness,
            truth,
            history,
            notify,
            ..
        } = self;
        let conflict = |text: String| Err(ConfigError::Conflict(text));
        let day_ms = 24 * 3600 * 1000;
        for (key, value, min, max) in [
            (
                "server.body_limit_bytes",
                server.body_limit_bytes as u64,
                1,
                16 << 20,
            ),
            (
                "server.header_timeout_ms",
                server.header_timeout_ms,
                1,
                day_ms,
            ),
            ("server.body_timeout_ms", server.body_timeout_ms, 1, day_ms),
            ("server.idle_timeout_ms", server.idle_timeout_ms, 1, day_ms),
            (
                "server.connections_max",
                server.connections_max as u64,
                1,
                1_000_000,
            ),
            ("server.queue_max", server.queue_max as u64, 1, 1_000_000),
            ("store.cache_mb", store.cache_mb, 1, 1 << 20),
            ("store.commit_linger_ms", store.commit_linger_ms, 0, 1000),
            (
                "store.commit_linger_beats",
                store.commit_linger_beats as u64,
                1,
                1_000_000,
            ),
            ("store.mark_interval_ms", store.mark_interval_ms, 0, day_ms),
            (
                "store.idle_mark_interval_ms",
                store.idle_mark_interval_ms,
                1,
                day_ms,
            ),
            (
                "liveness.min_interval_s",
                liveness.min_interval_s.into(),
                1,
                u32::MAX.into(),
            ),
            (
                "liveness.grace_percent",
                liveness.grace_percent.into(),
                0,
                10_000,
            ),
            ("liveness.grace_min_ms", liveness.grace_min_ms, 1, day_ms),
            ("truth.tick_ms", truth.tick_ms, 1, truth.stall_ms / 2),
            ("truth.stall_ms", truth.stall_ms, 2, day_ms),
            ("truth.blind_cap", truth.blind_cap.into(), 1, 1_000_000),
            (
                "history.keep_per_service",
                history.keep_per_service as u64,
                1,
                100_000,
            ),
            ("history.keep_days", history.keep_days, 1, 36_500),
            ("notify.timeout_ms", notify.timeout_ms, 1, day_ms),
            (
                "notify.give_up_after_s",
                notify.give_up_after_s,
                1,
                36_500 * 24 * 3600,
            ),
            (
                "notify.in_flight_max",
                notify.in_flight_max as u64,
                4,
                10_000,
            ),
            ("notify.batch_max", notify.batch_max as u64, 1, 1_000),
        ] {
            if value < min || value > max {
                return conflict(format!("`{key}` ({value}) must be between {min} and {max}"));
            }
        }
        notify.networks()?;
        if !(liveness.min_interval_s <= liveness.default_interval_s
            && liveness.default_interval_s <= liveness.max_interval_s)
        {
            return conflict(format!(
                "`liveness.min_interval_s` ({}) ≤ `liveness.default_interval_s` ({}) ≤ \
                 `liveness.max_interval_s` ({}) must hold",
                liveness.min_interval_s, liveness.default_interval_s, liveness.max_interval_s
            ));
        }
        let grace_floor_ms = truth.stall_ms + 2 * truth.tick_ms;
        if liveness.grace_min_ms < grace_floor_ms {
            return conflict(format!(
                "`liveness.grace_min_ms` ({}) must be at least `truth.stall_ms` + 2 · \
                 `truth.tick_ms` ({grace_floor_ms}): a stall that is too short to be recorded must \
                 not cost a living service its verdict",
                liveness.grace_min_ms
            ));
        }
        let url = &server.public_url;
        let is_url = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        if !url.is_empty()
            && is_url.is_none_or(|rest| {
                rest.is_empty() || rest.ends_with('/') || rest.contains(['?', '#', ' '])
            })
        {
            return conflict(format!(
                "`server.public_url` ({url:?}) must be empty or like https://mep.example:443/prefix, \
                 without a slash at the end"
            ));
        }
        Ok(())
    }
}

/// The layers merged so far. Keys and types are those of the defaults.
struct Layers {
    defaults: Table,
    merged: Table,
}

impl Layers {
    fn defaults() -> Result<Self, ConfigError> {
        let defaults = Table::try_from(Config::default())
            .map_err(|error| ConfigError::Conflict(error.to_string()))?;
        Ok(Self {
            merged: defaults.clone(),
            defaults,
        })
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let table: Table = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let layer = path.display().to_string();
        for (section, content) in table {
            let Value::Table(content) = content else {
                return Err(self.unknown(&section, layer));
            };
            if content.is_empty() && !self.defaults.contains_key(&section) {
                return Err(self.unknown(&section, layer));
            }
            for (key, value) in content {
                self.put(&format!("{section}.{key}"), value, &layer)?;
            }
        }
        Ok(())
    }

    /// Only names with a double underscore are ours: container platforms inject others, such as
    /// `MEPULSE_SERVICE_HOST`.
    fn add_env(&mut self, env: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, text) in env {
            let Some((section, key)) = name
                .strip_prefix("MEPULSE_")
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let key = format!("{section}.{key}").to_lowercase();
            self.put_text(&key, text, &format!("the environment ({name})"))?;
        }
        Ok(())
    }

    fn add_flag(&mut self, setting: &str) -> Result<(), ConfigError> {
        let (key, text) = setting
            .split_once('=')
            .filter(|(key, _)| key.contains('.'))
            .ok_or_else(|| ConfigError::SetSyntax(setting.to_owned()))?;
        self.put_text(key.trim(), text, "the command line")
    }

    /// A value given as text takes the type of the default.
    fn put_text(&mut self, key: &str, text: &str, layer: &str) -> Result<(), ConfigError> {
        let wrong = |expected: &str| ConfigError::Value {
            key: key.to_owned(),
            layer: layer.to_owned(),
            reason: format!("{text:?} is not {expected}"),
        };
        let default =
            lookup(&self.defaults, key).ok_or_else(|| self.unknown(key, layer.to_owned()))?;
        let value = match default {
            Value::Integer(_) => {
                Value::Integer(text.trim().parse().map_err(|_| wrong("a whole number"))?)
            }
            Value::Boolean(_) => {
                Value::Boolean(text.trim().parse().map_err(|_| wrong("true or false"))?)
            }
            // As in the file, or shorter: words with commas between them.
            Value::Array(_) if text.trim_start().starts_with('[') => {
                let parsed = format!("value = {text}").parse::<Table>();
                let value = parsed.ok().and_then(|mut table| table.remove("value"));
                value.ok_or_else(|| wrong("a TOML array"))?
            }
            Value::Array(_) => {
                let words = text.split(',').map(str::trim).filter(|w| !w.is_empty());
                Value::Array(words.map(Value::from).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.put(key, value, layer)
    }

    fn put(&mut self, key: &str, value: Value, layer: &str) -> Result<(), ConfigError> {
        let unknown = || self.unknown(key, layer.to_owned());
        let (section, name) = key.split_once('.').ok_or_else(unknown)?;
        let default = lookup(&self.defaults, key).ok_or_else(unknown)?;
        if !default.same_type(&value) {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                layer: layer.to_owned(),
                reason: format!(
                    "expected {}, found {}",
                    default.type_str(),
                    value.type_str()
                ),
            });
        }
        // One key at a time is tried, so that the message can name it and its layer.
        let mut candidate = self.defaults.clone();
        insert(&mut candidate, section, name, value.clone());
        if let Err(error) = candidate.try_into::<Config>() {
            return Err(ConfigError::Value {
                key: key.to_owned(),
                layer: layer.to_owned(),
                reason: error.message().to_owned(),
            });
        }
        insert(&mut self.merged, section, name, value);
        Ok(())
    }

    fn finish(self) -> Result<Config, ConfigError> {
        let config: Config = self
            .merged
            .try_into()
            .map_err(|error| ConfigError::Conflict(error.message().to_owned()))?;
        config.check()?;
        Ok(config)
    }

    fn unknown(&self, key: &str, layer: String) -> ConfigError {
        let nearest = keys(&self.defaults)
            .into_iter()
            .map(|known| (strsim::damerau_levenshtein(key, &known), known))
            .min();
        let hint = nearest.map_or(String::new(), |(_, known)| {
            format!("; did you mean `{known}`?")
        });
        ConfigError::UnknownKey {
            key: key.to_owned(),
            layer,
            hint,
        }
    }
}

fn insert(table: &mut Table, section: &str, name: &str, value: Value) {
    if let Some(Value::Table(section)) = table.get_mut(section) {
        section.insert(name.to_owned(), value);
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    table.get(section)?.as_table()?.get(name)
}

fn keys(table: &Table) -> Vec<String> {
    let sections = table
        .iter()
        .filter_map(|(section, content)| Some((section, content.as_table()?)));
    sections
        .flat_map(|(section, content)| content.keys().map(move |key| format!("{section}.{key}")))
        .collect()
}
