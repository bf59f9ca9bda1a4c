//! The sections and their keys, with the default of each.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::ConfigError;
use crate::store::Durability;

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
    /// The server's certificate and those that lead to its authority: a PEM file; empty: no TLS.
    pub tls_cert_file: PathBuf,
    /// Its private key: a PEM file.
    pub tls_key_file: PathBuf,
    /// The authorities of client certificates, which then name applications: a PEM file; empty:
    /// none is asked for.
    pub tls_client_ca_file: PathBuf,
    /// TLS ends in front of this server, so tokens may come without it.
    pub tls_in_front: bool,
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
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_client_ca_file: PathBuf::new(),
            tls_in_front: false,
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            durability: Durability::PowerLoss,
            cache_mb: 16,
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
    /// The networks of `allow`.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`], naming the entry.
    pub fn networks(&self) -> Result<Vec<IpNet>, ConfigError> {
        networks("notify.allow", &self.allow)
    }
}

/// The networks of a list. One address is a network of its own.
pub(super) fn networks(key: &str, list: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let network = |text: &String| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or(address).map_err(|_| {
            ConfigError::Conflict(format!(
                "`{key}`: {text:?} is no network; expected one like 127.0.0.0/8 or fd00::/8"
            ))
        })
    };
    list.iter().map(network).collect()
}
