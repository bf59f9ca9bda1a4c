//! What the rooms get of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::Failure;
use crate::auth::Authority;
use crate::config::{Config, ConfigError};
use crate::domain::service::Transport;
use crate::http::Settings;
use crate::notify::{self, Caller, Guard};
use crate::registry::{Rules, Terms};
use crate::tls::{ServerFiles, ServerTls};
use crate::wire::transport::parse_transports;

pub(super) fn rules(config: &Config) -> Rules {
    Rules {
        policy: config.policy(),
        auto_accept: config.apps.auto_accept,
        services_max_per_app: config.apps.services_max_per_app,
        subscriptions_max_per_app: config.apps.subscriptions_max_per_app,
    }
}

pub(super) fn registry(config: &Config) -> Terms {
    Terms {
        rules: rules(config),
        queue_max: config.server.queue_max,
        linger_ms: config.store.commit_linger_ms,
        linger_commands: config.store.commit_linger_beats,
        mark_interval_ms: config.store.mark_interval_ms,
        idle_mark_interval_ms: config.store.idle_mark_interval_ms,
        tick_ms: config.truth.tick_ms,
        stall_ms: config.truth.stall_ms,
        events_per_service_max: config.history.keep_per_service,
        events_kept_ms: config.history.keep_days * 24 * 3600 * 1000,
    }
}

pub(super) fn notify(config: &Config) -> notify::Terms {
    notify::Terms {
        give_up_after_ms: config.notify.give_up_after_s * 1000,
        in_flight_max: config.notify.in_flight_max,
        batch_max: config.notify.batch_max,
    }
}

pub(super) fn settings(config: &Config) -> Settings {
    Settings {
        patch_response: config.liveness.patch_response,
        hide_suspended: config.liveness.hide_suspended,
        auto_accept: config.apps.auto_accept,
    }
}

/// What is made of the configuration beyond its own checks.
pub(super) struct Prepared {
    pub(super) guard: Guard,
    pub(super) caller: Caller,
    pub(super) transports: Arc<[Transport]>,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) authority: Authority,
}

impl Prepared {
    pub(super) fn new(config: &Config) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| ConfigError::Conflict(error.to_string());
        let guard = Guard::new(&config.notify.networks()?);
        let timeout = Duration::from_millis(config.notify.timeout_ms);
        let caller = Caller::new(guard.clone(), there(&config.notify.ca_file), timeout)
            .map_err(|error| wrong(&error))?;
        let transports: Result<Vec<_>, _> = config
            .platform
            .transports
            .iter()
            .map(serde_json::to_value)
            .collect();
        let transports = transports
            .map_err(|error| error.to_string())
            .and_then(|list| parse_transports(list).map_err(|error| error.to_string()))
            .map_err(|error| ConfigError::Conflict(format!("`platform.transports`: {error}")))?;
        let tls = server_files(config).map(ServerTls::open).transpose();
        let authority = Authority::open(&config.auth, &config.edgegallery, &config.store.data_dir);
        Ok(Self {
            guard,
            caller,
            transports: transports.into(),
            tls: tls.map_err(|error| wrong(&error))?.map(Arc::new),
            authority: authority.map_err(|error| wrong(&error))?,
        })
    }
}

fn server_files(config: &Config) -> Option<ServerFiles> {
    let server = &config.server;
    Some(ServerFiles {
        certificates: there(&server.tls_cert_file)?.to_owned(),
        private_key: there(&server.tls_key_file)?.to_owned(),
        client_authorities: there(&server.tls_client_ca_file).map(PathBuf::from),
    })
}

/// A path, if it is set.
fn there(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}
