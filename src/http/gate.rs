//! Who may come in: everybody, or whoever proves who he is.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::join_all;
use ipnet::IpNet;
use tokio::sync::Mutex;

use super::answer::Problem;
use super::proof::{Arrived, Proof};
use super::request::Request;
use crate::auth::{Authority, Issued, Refused};
use crate::config::{AuthMode, Config, ConfigError};
use crate::domain::{AppInstanceId, Caller, Moment};
use crate::metrics::Metrics;
use crate::registry::{self, Registry};

/// Applications that are made known in one go.
const ADMITTED_AT_ONCE: usize = 256;

/// The gate.
pub struct Gate {
    mode: AuthMode,
    issues_tokens: bool,
    proxies: Vec<IpNet>,
    authority: Arc<Authority>,
    /// Applications that are being removed.
    removals: Mutex<HashMap<AppInstanceId, Removal>>,
}

impl Gate {
    /// As configured.
    ///
    /// # Errors
    /// [`ConfigError`] for a proxy that is no network.
    pub fn new(config: &Config, authority: Authority) -> Result<Self, ConfigError> {
        Ok(Self {
            mode: config.auth.mode,
            issues_tokens: config.auth.mode == AuthMode::Jwt && config.auth.token_endpoint,
            proxies: config.auth.proxies()?,
            authority: Arc::new(authority),
            removals: Mutex::default(),
        })
    }

    /// Whether requests of the API must say who makes them.
    pub(super) fn asks(&self) -> bool {
        self.mode == AuthMode::Jwt
    }

    /// Whether `/oauth2/token` is served.
    pub(super) fn issues_tokens(&self) -> bool {
        self.issues_tokens
    }

    /// Finds out who is calling; a request goes no further without.
    pub(super) fn identify(
        &self,
        arrived: Arrived,
        now: impl FnOnce() -> Moment,
        metrics: &Metrics,
    ) -> Result<Request, Problem> {
        let caller = self.caller(arrived.proof(), now);
        if caller.is_err() {
            metrics.unauthenticated.inc();
        }
        Ok(arrived.of(caller?))
    }

    /// Who is calling, as things stand.
    pub(super) fn caller(
        &self,
        proof: &Proof,
        now: impl FnOnce() -> Moment,
    ) -> Result<Caller, Problem> {
        let peer = &proof.peer;
        if peer.is_private {
            return Ok(Caller::Operator);
        }
        match self.mode {
            AuthMode::None => return Ok(Caller::Anyone),
            AuthMode::Jwt => {}
        }
        if peer.address.is_some_and(|address| self.vouches(address))
            && let Some(app) = proof.named_application()?
        {
            return Ok(Caller::application(app));
        }
        match (proof.bearer()?, &peer.certified) {
            (Some(_), _) if peer.is_exposed => Err(Problem::in_the_clear()),
            (Some(token), _) => {
                let verified = self.authority.verify(token, now());
                verified.map_err(|invalid| Problem::invalid_token(&invalid.to_string()))
            }
            (None, Some(certified)) if certified.stands(now()) => Ok(certified.caller.clone()),
            (None, Some(_)) => Err(Problem::certificate_over()),
            (None, None) => Err(Problem::no_token()),
        }
    }

    /// Whether what comes from there has been authenticated already.
    fn vouches(&self, address: IpAddr) -> bool {
        self.proxies
            .iter()
            .any(|network| network.contains(&address))
    }

    /// A token for a client with its secret.
    pub(super) async fn client_credentials(
        &self,
        from: Option<IpAddr>,
        id: String,
        secret: String,
        now: Moment,
    ) -> Result<Issued, Refused> {
        let authority = self.authority.clone();
        let verified = tokio::task::spawn_blocking(move || {
            authority.client_credentials(from, &id, &secret, now)
        });
        verified
            .await
            .unwrap_or_else(|error| Err(Refused::Failed(error.to_string())))
    }

    /// Keys and credentials.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Takes over what has changed on the disk: keys, credentials, and with them the applications
    /// that the operator has added or removed. One at a time.
    ///
    /// # Errors
    /// When the registry is not able now; the next call goes on.
    pub async fn refresh(&self, registry: &Registry) -> Result<(), registry::Error> {
        let mut removals = self.removals.lock().await;
        let authority = self.authority.clone();
        let refreshed = tokio::task::spawn_blocking(move || authority.refresh()).await;
        for error in refreshed.unwrap_or_default() {
            log::error!("{error}. What was read before stays in force");
        }
        let removed = self.authority.removed();
        removals.retain(|app, _| removed.contains(app));
        for app in removed {
            match removals.get(&app) {
                None => {
                    match registry.remove_app(app.clone()).await {
                        Ok(()) => log::info!("application {app} was removed by the operator"),
                        Err(registry::Error::UnknownApp(_)) => {}
                        Err(error) => return Err(error),
                    }
                    removals.insert(app, Removal::Done);
                }
                Some(Removal::Done) => {
                    // A request that had been let in before may have brought it back.
                    let is_added_again = self.authority.applications().contains(&app);
                    if !is_added_again && registry.remove_app(app.clone()).await.is_ok() {
                        log::info!("application {app} was removed once more");
                    }
                    self.forget(app, &mut removals).await;
                }
                Some(Removal::Stuck) => {}
            }
        }
        self.admit_applications(registry).await
    }

    /// Takes a removed application off the list.
    async fn forget(&self, app: AppInstanceId, removals: &mut HashMap<AppInstanceId, Removal>) {
        let authority = self.authority.clone();
        let forgotten = {
            let app = app.clone();
            tokio::task::spawn_blocking(move || authority.forget_removed(&app)).await
        };
        match forgotten {
            Ok(Ok(())) => drop(removals.remove(&app)),
            Ok(Err(error)) => {
                log::error!(
                    "{error}. Application {app} is gone, and stays on the list of removals"
                );
                removals.insert(app, Removal::Stuck);
            }
            Err(_) => {}
        }
    }

    /// Applications with credentials are known, whatever became of them.
    async fn admit_applications(&self, registry: &Registry) -> Result<(), registry::Error> {
        let new: Vec<_> = {
            let view = registry.view();
            let apps = self.authority.applications().into_iter();
            apps.filter(|app| view.app(app).is_none()).collect()
        };
        for apps in new.chunks(ADMITTED_AT_ONCE) {
            let admitting = apps.iter().map(|app| registry.admit(app.clone()));
            for done in join_all(admitting).await {
                done?;
            }
        }
        Ok(())
    }
}

/// How far the removal of an application has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removal {
    /// Its services are gone; looked at once more, and forgotten.
    Done,
    /// They are gone, but the list cannot be written.
    Stuck,
}
