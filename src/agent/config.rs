//! The agent's configuration: its own file, read strictly and checked as a whole.
//!
//! `scripts/agent.toml` documents every key; a test loads it.

mod check;
mod credentials;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Table;

pub(in crate::agent) use self::credentials::is_access_key;
pub use self::credentials::{AccessKey, OAuth2, Secret};
use crate::wire;

/// Services of one agent at the most: so many ids fit into one batch heartbeat.
pub const SERVICES_MAX: usize = wire::liveness::BATCH_IDS_MAX;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The platform.
    pub server: Server,
    /// The agent itself.
    pub agent: Agent,
    /// The local status server.
    #[serde(default)]
    pub status: Status,
    /// What is registered.
    pub services: Vec<Service>,
    /// There may be no services: EdgeGallery's agents also stand beside applications that only ask.
    #[serde(skip)]
    pub may_be_idle: bool,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Where the platform is: `http://host:port` or `https://…`, with a prefix if it has one.
    pub url: String,
    /// Certificate authorities besides the system's, a PEM file; empty: none.
    #[serde(default)]
    pub ca_file: PathBuf,
    /// Certificate that the agent shows, a PEM file; empty: none.
    #[serde(default)]
    pub client_cert_file: PathBuf,
    /// Its private key, a PEM file.
    #[serde(default)]
    pub client_key_file: PathBuf,
    /// A bearer token, alone in a file; empty: none.
    #[serde(default)]
    pub token_file: PathBuf,
    /// Tokens by OAuth 2.0 client credentials, instead.
    #[serde(default)]
    pub oauth2: OAuth2,
    /// Tokens for an access key, instead.
    #[serde(default)]
    pub access_key: AccessKey,
    /// The name that the platform's certificate must have; empty: the host of `url`.
    #[serde(default)]
    pub tls_name: String,
    /// Tokens may be fetched from other machines without TLS, and sent to them.
    #[serde(default)]
    pub allow_plain: bool,
    /// An answer must be complete within so many milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// The root of service management behind `url`. Source: GS MEC 011 V2.2.1, 8.2.1.
    #[serde(default = "api_root")]
    pub api_root: String,
}

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Whose services these are.
    pub app_instance_id: String,
    /// Where ids are remembered; empty: nowhere, and services are found again by their names.
    #[serde(default = "state_file")]
    pub state_file: PathBuf,
    /// What becomes of the services when the agent stops.
    #[serde(default)]
    pub on_stop: OnStop,
    /// Deregistration takes so many milliseconds at the most.
    #[serde(default = "stop_timeout_ms")]
    pub stop_timeout_ms: u64,
    /// What to do when somebody else has set a service INACTIVE.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// The longest pause between two tries, in seconds, where no promise asks for a shorter one.
    #[serde(default = "retry_max_s")]
    pub retry_max_s: u64,
}

/// `[agent] on_stop`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnStop {
    /// They are removed.
    #[default]
    Deregister,
    /// They stay, and are SUSPENDED unless the agent comes back in time.
    Leave,
}

/// `[agent] on_conflict`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnConflict {
    /// Keep quiet for it, and look again at each interval.
    #[default]
    Wait,
    /// Set it ACTIVE.
    Activate,
    /// End the agent with exit code 1.
    Stop,
}

/// `[status]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Status {
    /// `host:port` or `unix:/path`; empty: no status server.
    pub listen: String,
    /// Whoever reaches the status server may have the token: applications that ask their agent.
    pub hand_out_tokens: bool,
}

/// `[[services]]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// `serName`.
    pub name: String,
    /// `livenessInterval` as offered, in seconds; the platform may choose another one.
    #[serde(default = "interval_s")]
    pub interval_s: u32,
    /// No `livenessInterval` is offered: EdgeGallery's files may ask for no heartbeats.
    #[serde(skip)]
    pub offers_none: bool,
    /// `version`.
    #[serde(default = "version")]
    pub version: String,
    /// `serializer`.
    #[serde(default = "serializer")]
    pub serializer: String,
    /// `transportInfo`.
    pub transport: Option<Table>,
    /// `transportId`, instead of it: one of the platform's own.
    pub transport_id: Option<String>,
    /// `serCategory`.
    pub category: Option<Table>,
    /// `scopeOfLocality`; the platform's default is `MEC_HOST`.
    pub scope_of_locality: Option<String>,
    /// `consumedLocalOnly`; the platform's default is true.
    pub consumed_local_only: Option<bool>,
    /// What to do while the probe says no.
    #[serde(default)]
    pub when_unhealthy: WhenUnhealthy,
    /// What decides whether the service is well; without it, it always is.
    pub probe: Option<Probe>,
}

/// `[[services]] when_unhealthy`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnhealthy {
    /// Do not beat: the platform suspends it.
    #[default]
    Silence,
    /// Set it INACTIVE at once, and ACTIVE again.
    Inactive,
}

/// `[services.probe]`: exactly one of `http`, `tcp`, `exec` and `file`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// A request is answered as it should be.
    pub http: Option<HttpProbe>,
    /// A connection is accepted.
    pub tcp: Option<TcpProbe>,
    /// A command ends with exit code 0.
    pub exec: Option<ExecProbe>,
    /// A file has been written lately.
    pub file: Option<FileProbe>,
    /// Seconds from one probe to the next.
    #[serde(default = "probe_interval_s")]
    pub interval_s: u64,
    /// A probe that takes longer says no, in milliseconds.
    #[serde(default = "probe_timeout_ms")]
    pub timeout_ms: u64,
    /// So many noes in a row, and the service is unhealthy.
    #[serde(default = "unhealthy_after")]
    pub unhealthy_after: u32,
    /// So many yeses in a row, and it is healthy again.
    #[serde(default = "healthy_after")]
    pub healthy_after: u32,
}

/// `http = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// What is asked for with GET.
    pub url: String,
    /// The statuses that mean yes; empty: any 2xx.
    #[serde(default)]
    pub status: Vec<u16>,
    /// A text that the answer must contain.
    #[serde(default)]
    pub body_contains: String,
}

/// `tcp = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpProbe {
    /// `host:port`
    pub address: String,
}

/// `exec = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecProbe {
    /// The program and its arguments; no shell.
    pub command: Vec<String>,
}

/// `file = { … }`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileProbe {
    /// The file.
    pub path: PathBuf,
    /// It was written within so many seconds.
    pub max_age_s: u64,
}

/// Where the status server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// `host:port`; port 0 picks a free one.
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

impl Status {
    /// `None`: nowhere.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn listen(&self) -> Result<Option<Listen>, ConfigError> {
        let text = self.listen.as_str();
        if text.is_empty() {
            return Ok(None);
        }
        let path = text.strip_prefix("unix:").map(PathBuf::from);
        let listen = match path {
            Some(path) => path.file_name().is_some().then_some(Listen::Unix(path)),
            None => text.parse().ok().map(Listen::Tcp),
        };
        listen.map(Some).ok_or_else(|| {
            ConfigError::Wrong(format!(
                "`status.listen` ({text:?}) must be like 127.0.0.1:9187 or unix:/run/mepulse/agent.sock"
            ))
        })
    }
}

impl Server {
    /// A server with the defaults.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            ca_file: PathBuf::new(),
            client_cert_file: PathBuf::new(),
            client_key_file: PathBuf::new(),
            token_file: PathBuf::new(),
            oauth2: OAuth2::default(),
            access_key: AccessKey::default(),
            tls_name: String::new(),
            allow_plain: false,
            timeout_ms: timeout_ms(),
            api_root: api_root(),
        }
    }
}

impl Agent {
    /// An agent with the defaults.
    #[must_use]
    pub fn of(app_instance_id: &str) -> Self {
        Self {
            app_instance_id: app_instance_id.to_owned(),
            state_file: state_file(),
            on_stop: OnStop::default(),
            stop_timeout_ms: stop_timeout_ms(),
            on_conflict: OnConflict::default(),
            retry_max_s: retry_max_s(),
        }
    }
}

impl Service {
    /// A service with the defaults; it still needs a transport.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            interval_s: interval_s(),
            offers_none: false,
            version: version(),
            serializer: serializer(),
            transport: None,
            transport_id: None,
            category: None,
            scope_of_locality: None,
            consumed_local_only: None,
            when_unhealthy: WhenUnhealthy::default(),
            probe: None,
        }
    }
}

fn timeout_ms() -> u64 {
    5_000
}

fn api_root() -> String {
    wire::links::ROOT.to_owned()
}

fn state_file() -> PathBuf {
    PathBuf::from("mepulse-agent.json")
}

fn stop_timeout_ms() -> u64 {
    3_000
}

fn retry_max_s() -> u64 {
    30
}

fn interval_s() -> u32 {
    30
}

fn version() -> String {
    "1.0".to_owned()
}

fn serializer() -> String {
    "JSON".to_owned()
}

fn probe_interval_s() -> u64 {
    5
}

fn probe_timeout_ms() -> u64 {
    2_000
}

fn unhealthy_after() -> u32 {
    3
}

fn healthy_after() -> u32 {
    1
}

/// Why a configuration is refused: a sentence that names the key.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading the configuration {path} failed: {source}; name one with --config", path = .path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Another file cannot be read.
    #[error("reading {path} failed: {source}", path = .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML, or has a key or a value that does not belong there.
    #[error("{path}: {reason}", path = .path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// The parser's reason, with the line.
        reason: String,
    },
    /// A value that cannot be, or values that do not go together.
    #[error("configuration: {0}")]
    Wrong(String),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            reason: with_nearest(&error),
        })?;
        config.check()?;
        Ok(config)
    }
}

impl Service {
    /// What is registered: a `ServiceInfo` whose state is ACTIVE.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.1.2.2.
    #[must_use]
    pub fn registration(&self) -> Map<String, Value> {
        let table = |table: &Table| serde_json::to_value(table).unwrap_or_default();
        let interval = (!self.offers_none).then(|| Value::from(self.interval_s));
        let optional = [
            ("livenessInterval", interval),
            ("transportInfo", self.transport.as_ref().map(table)),
            ("transportId", self.transport_id.clone().map(Value::from)),
            ("serCategory", self.category.as_ref().map(table)),
            (
                "scopeOfLocality",
                self.scope_of_locality.clone().map(Value::from),
            ),
            (
                "consumedLocalOnly",
                self.consumed_local_only.map(Value::from),
            ),
        ];
        let mut body = Map::new();
        for (member, value) in [
            ("serName", Value::from(self.name.as_str())),
            ("version", Value::from(self.version.as_str())),
            ("serializer", Value::from(self.serializer.as_str())),
            ("state", Value::from("ACTIVE")),
        ] {
            body.insert(member.to_owned(), value);
        }
        for (member, value) in optional {
            if let Some(value) = value {
                body.insert(member.to_owned(), value);
            }
        }
        body
    }
}

/// The parser's message, and for an unknown key the one that was meant.
fn with_nearest(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let text = text.trim_end();
    let mut names = error.message().split('`').skip(1).step_by(2);
    if !error.message().starts_with("unknown field") {
        return text.to_owned();
    }
    let unknown = names.next().unwrap_or_default();
    let nearest = names
        .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
        .min();
    nearest.map_or(text.to_owned(), |(_, known)| {
        format!("{text}\ndid you mean `{known}`?")
    })
}

#[cfg(test)]
mod tests;
