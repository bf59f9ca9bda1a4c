//! Signals; and the configuration, read again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::super::Failure;
use super::terms::{self, Prepared};
use crate::config::{Config, Sources};
use crate::http::Settings;
use crate::registry::Registry;

/// Whether a server could be started so.
fn check(config: &Config) -> Result<(), Failure> {
    config.check_open()?;
    Prepared::new(config).map(|_| ())
}

/// Takes a changed configuration over.
pub(super) struct Reloader {
    pub(super) config: Config,
    pub(super) sources: Sources,
    pub(super) settings: watch::Sender<Settings>,
    pub(super) registry: Registry,
}

impl Reloader {
    fn reload(&mut self) {
        let new = match Config::load(&self.sources) {
            Ok(new) => new,
            Err(error) => {
                log::error!("SIGHUP: {error}. Everything stays as it was");
                return;
            }
        };
        let (merged, need_restart) = self.config.reloaded(&new);
        if let Err(error) = merged.check() {
            log::error!(
                "SIGHUP: {error}, as long as {} are as they were. Everything stays; restart to take \
                 all of it over",
                need_restart.join(", ")
            );
            return;
        }
        // Also what takes effect only then must not keep the next start from succeeding.
        if let Err(Failure { message, .. }) = check(&new) {
            log::error!("SIGHUP: {message}. Everything stays as it was");
            return;
        }
        for key in need_restart {
            log::warn!("SIGHUP: `{key}` has changed and takes effect at the next start");
        }
        let changed = self.config.differences(&merged);
        log::info!(
            "SIGHUP: configuration read; {}",
            if changed.is_empty() {
                "nothing changed".to_owned()
            } else {
                format!("changed: {}", changed.join(", "))
            }
        );
        self.settings.send_replace(terms::settings(&merged));
        self.registry.reload(terms::rules(&merged));
        self.config = merged;
    }
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT; SIGHUP reloads.
    pub(super) async fn until_stop(mut self, mut reloader: Reloader) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => break log::info!("SIGTERM: stopping"),
                _ = self.interrupt.recv() => break log::info!("SIGINT: stopping"),
                _ = self.hangup.recv() => reloader.reload(),
            }
        }
    }
}
