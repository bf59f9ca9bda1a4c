//! Who may come in: everybody, or whoever proves who he is.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use ipnet::IpNet;

use super::answer::Problem;
use super::request::{Arrived, Request};
use crate::auth::{Authority, Issued, Refused, sdk_hmac};
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
    /// Applications with credentials that the registry has been told of.
    admitted: Mutex<HashSet<AppInstanceId>>,
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
            admitted: Mutex::default(),
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
        let caller = self.caller(&arrived, now);
        if caller.is_err() {
            metrics.unauthenticated.inc();
        }
        Ok(arrived.of(caller?))
    }

    fn caller(&self, arrived: &Arrived, now: impl FnOnce() -> Moment) -> Result<Caller, Problem> {
        let peer = arrived.peer();
        if peer.is_private {
            return Ok(Caller::Operator);
        }
        match self.mode {
            AuthMode::None => return Ok(Caller::Anyone),
            AuthMode::Jwt => {}
        }
        if peer.address.is_some_and(|address| self.vouches(address))
            && let Some(app) = arrived.named_application()?
        {
            return Ok(Caller::application(app));
        }
        match (arrived.bearer()?, &peer.certified) {
            (Some(_), _) if peer.is_exposed => Err(Problem::in_the_clear()),
            (Some(token), _) => {
                let verified = self.authority.verify(token, now());
                verified.map_err(|invalid| Problem::invalid_token(&invalid.to_string()))
            }
            (None, Some(certified)) => Ok(certified.clone()),
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

    /// A token for whoever signed the request with an access key.
    pub(super) fn sdk_hmac(
        &self,
        from: Option<IpAddr>,
        authorization: &sdk_hmac::Authorization,
        date: &str,
        request: &sdk_hmac::Request<'_>,
        now: Moment,
    ) -> Result<Issued, Refused> {
        self.authority
            .sdk_hmac(from, authorization, date, request, now)
    }

    /// Takes over what has changed on the disk: keys, credentials, and with them the applications
    /// that the operator has added or removed.
    ///
    /// # Errors
    /// When the registry is not able now; the next call goes on.
    pub async fn refresh(&self, registry: &Registry) -> Result<(), registry::Error> {
        let authority = self.authority.clone();
        let refreshed = tokio::task::spawn_blocking(move || authority.refresh()).await;
        for error in refreshed.unwrap_or_default() {
            log::error!("{error}. What was read before stays in force");
        }
        for app in self.authority.removed() {
            match registry.remove_app(app.clone()).await {
                Ok(()) => log::info!("application {app} was removed by the operator"),
                Err(registry::Error::UnknownApp(_)) => {}
                Err(error) => return Err(error),
            }
            self.admitted().remove(&app);
            let authority = self.authority.clone();
            let forgotten = tokio::task::spawn_blocking(move || authority.forget_removed(&app));
            if let Ok(Err(error)) = forgotten.await {
                log::error!("{error}");
            }
        }
        let new: Vec<_> = {
            let admitted = self.admitted();
            let apps = self.authority.applications().into_iter();
            apps.filter(|app| !admitted.contains(app)).collect()
        };
        for apps in new.chunks(ADMITTED_AT_ONCE) {
            let admitting = apps.iter().map(|app| registry.admit(app.clone()));
            for (app, done) in apps.iter().zip(join_all(admitting).await) {
                done?;
                self.admitted().insert(app.clone());
            }
        }
        Ok(())
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, HashSet<AppInstanceId>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
