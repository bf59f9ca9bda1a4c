//! What `mepulse admin` prints, the same whether the server told it or the store was opened.
//!
//! Only stored facts are in here: relative times ("in 12 s") are made where they are printed.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

use super::links::Links;
use super::service::ServiceInfo;
use crate::domain::silence::deadline;
use crate::domain::{
    BlindSpot, Liveness, Moment, Policy, Service, ServiceKey, ServiceState, Steady, Wall,
};

/// A service as the registry knows it.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Whose it is, and its id.
    pub key: &'a ServiceKey,
    /// `serName`.
    pub name: &'a str,
    /// State and agreement.
    pub liveness: &'a Liveness,
}

/// One line of `admin services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReport {
    /// The owner.
    pub app_instance_id: String,
    /// The service.
    pub ser_instance_id: String,
    /// Its name.
    pub ser_name: String,
    /// `ACTIVE`, `INACTIVE` or `SUSPENDED`.
    pub state: String,
    /// The interval in seconds; absent without an agreement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_interval: Option<u32>,
    /// Last heartbeat, else registration or re-activation; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_stamp: Option<String>,
    /// Heartbeats since registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beats: Option<u64>,
    /// When it counts as silent, in steady ms; absent unless a timer runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_steady_ms: Option<u64>,
    /// Since when it is SUSPENDED, in steady ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_steady_ms: Option<u64>,
}

/// What `admin show` prints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceDetail {
    /// As in the list.
    #[serde(flatten)]
    pub report: ServiceReport,
    /// The running timer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timer: Option<TimerReport>,
    /// The registration as the API shows it.
    pub service_info: serde_json::Value,
}

/// The terms of a running timer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimerReport {
    /// Where it started, in steady ms.
    pub base_steady_ms: u64,
    /// The interval that counts, in ms.
    pub interval_ms: u64,
    /// The grace, in ms.
    pub grace_ms: u64,
    /// Within how many ms the producer tries again when it cannot reach us.
    pub retry_ms: u64,
    /// Whether the producer promised that.
    pub promised: bool,
}

impl ServiceReport {
    /// Reports a service; without a policy (a store that was never served) there are no deadlines.
    #[must_use]
    pub fn new(known: Known<'_>, policy: Option<&Policy>, blind_spots: &[BlindSpot]) -> Self {
        let Known {
            key,
            name,
            liveness,
        } = known;
        let monitored = liveness.monitored();
        let timer = policy.and_then(|policy| policy.timer_of(liveness));
        let deadline_steady_ms = timer.map(|timer| deadline(&timer, blind_spots).as_ms());
        let suspended_steady_ms = liveness.suspended_since().map(Steady::as_ms);
        Self {
            app_instance_id: key.app.to_string(),
            ser_instance_id: key.service.to_string(),
            ser_name: name.to_owned(),
            state: liveness.state().as_str().to_owned(),
            liveness_interval: monitored.map(|m| m.agreement.shown().as_secs()),
            time_stamp: monitored.map(|m| rfc3339(m.time_stamp)),
            beats: monitored.map(|m| m.beats),
            deadline_steady_ms,
            suspended_steady_ms,
        }
    }
}

impl ServiceDetail {
    /// Reports all that is known of a service.
    #[must_use]
    pub fn new(
        known: Known<'_>,
        service: &Service,
        policy: Option<&Policy>,
        blind_spots: &[BlindSpot],
    ) -> Self {
        let Known { key, liveness, .. } = known;
        let timer = policy.and_then(|policy| policy.timer_of(liveness));
        let promise = liveness.running().and_then(|(running, _)| running.promise);
        let timer = timer.map(|timer| TimerReport {
            base_steady_ms: timer.base.as_ms(),
            interval_ms: timer.interval_ms,
            grace_ms: timer.grace_ms,
            retry_ms: timer.retry_ms,
            promised: promise.is_some(),
        });
        // Path-absolute links: an offline look does not know the operator's prefix.
        let info = ServiceInfo::new(key, service, liveness, &Links::default());
        Self {
            report: ServiceReport::new(known, policy, blind_spots),
            timer,
            service_info: serde_json::to_value(info).unwrap_or_default(),
        }
    }
}

/// What does not change while a store is open.
#[derive(Debug, Clone)]
pub struct About {
    /// The data directory.
    pub data_dir: String,
    /// The store's id.
    pub store_id: String,
    /// The store's schema.
    pub schema: u32,
    /// What an acknowledgement survives.
    pub durability: &'static str,
    /// The server's address.
    pub address: String,
    /// Steady time when the server started, in ms.
    pub started_steady_ms: u64,
}

/// How many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Known applications.
    pub apps: usize,
    /// Services in state ACTIVE.
    pub active: usize,
    /// Services in state INACTIVE.
    pub inactive: usize,
    /// Services in state SUSPENDED.
    pub suspended: usize,
}

/// What `admin status` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// `running` or `stopped`.
    pub server: String,
    /// The running server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The data directory.
    pub data_dir: String,
    /// The store's id.
    pub store_id: String,
    /// The store's schema.
    pub schema: u32,
    /// How many there are.
    pub counts: Counts,
    /// Recorded blind spots that a running timer can still see.
    pub blind_spots: usize,
    /// Rows skipped because they cannot be decoded.
    pub undecodable_rows: u64,
    /// Steady time now, or as it would be were the server started now; in ms.
    pub steady_ms: u64,
    /// When the server was last known to watch, RFC 3339; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_watched: Option<String>,
    /// Whether the last stop was orderly; absent while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_stop: Option<bool>,
}

/// The running server, as `admin status` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// Where it listens.
    pub address: String,
    /// Its release.
    pub version: String,
    /// For how long it has been running, in ms.
    pub uptime_ms: u64,
    /// What an acknowledgement survives.
    pub durability: String,
    /// Why it is not ready; empty when it is.
    pub not_ready: Vec<String>,
}

impl Status {
    /// The status of a running server.
    #[must_use]
    pub fn running(
        about: &About,
        counts: Counts,
        blind_spots: &[BlindSpot],
        now: Moment,
        not_ready: Vec<String>,
        undecodable_rows: u64,
    ) -> Self {
        let steady_ms = now.steady.as_ms();
        Self {
            server: "running".to_owned(),
            process: Some(Process {
                pid: std::process::id(),
                address: about.address.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: steady_ms.saturating_sub(about.started_steady_ms),
                durability: about.durability.to_owned(),
                not_ready,
            }),
            data_dir: about.data_dir.clone(),
            store_id: about.store_id.clone(),
            schema: about.schema,
            counts,
            blind_spots: blind_spots.len(),
            undecodable_rows,
            steady_ms,
            last_watched: None,
            clean_stop: None,
        }
    }
}

impl Counts {
    /// From a count per state.
    pub fn new(apps: usize, count: impl Fn(ServiceState) -> usize) -> Self {
        Self {
            apps,
            active: count(ServiceState::Active),
            inactive: count(ServiceState::Inactive),
            suspended: count(ServiceState::Suspended),
        }
    }
}

/// A date for people and for JSON, to the millisecond.
#[must_use]
pub fn rfc3339(wall: Wall) -> String {
    let (seconds, nanos) = wall.split();
    let date = i64::try_from(seconds)
        .ok()
        .and_then(|secs| DateTime::<Utc>::from_timestamp(secs, nanos));
    date.map_or_else(String::new, |date| {
        date.to_rfc3339_opts(SecondsFormat::Millis, true)
    })
}
