//! What the server asks: who is calling, and who gets a token.

mod grant;

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use log::{info, warn};
use uuid::Uuid;

use super::cache::{self, Cache};
use super::credentials::{Clients, Credentials, OpenedKeys, Paths};
use super::hashing::Hashing;
use super::issuer::Issuer;
use super::keys::KeySet;
use super::limits::Limits;
use super::remembered::Remembered;
use super::replay::Replay;
use super::token::{TOKEN_BYTES_MAX, Token, Verified};
use super::{AuthError, InvalidToken};
use crate::config::{Auth, AuthMode, EdgeGallery};
use crate::domain::{AppInstanceId, Caller, Moment};
use crate::files::Watched;

/// Why somebody gets no token. The sentences may be shown to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The request cannot be understood.
    #[error("{0}")]
    Malformed(String),
    /// The credential is none, or was used already.
    #[error("{0}")]
    Denied(String),
    /// Too much is going on; to be tried again after so long.
    #[error("too many requests for tokens; try again in {} s", .0.as_secs().max(1))]
    Later(Duration),
    /// It is not the caller's fault.
    #[error("{0}")]
    Failed(String),
}

/// All keys and credentials, and what was seen of their use. To be shared; nothing of it blocks for
/// long but [`client_credentials`](Self::client_credentials), [`refresh`](Self::refresh) and
/// [`forget_removed`](Self::forget_removed).
#[derive(Debug)]
pub struct Authority {
    auth: Auth,
    edgegallery: EdgeGallery,
    paths: Paths,
    /// For the one change that the server itself makes.
    credentials: Credentials,
    /// Of identity servers.
    keys: Watched<KeySet>,
    /// Our own; `None`: there is no key and none is needed.
    issuer: Watched<Option<Issuer>>,
    clients: Watched<Clients>,
    access_keys: Watched<OpenedKeys>,
    cache: Cache,
    hashing: Hashing,
    remembered: Remembered,
    replay: Replay,
    limits: Limits,
}

impl Authority {
    /// Reads all keys and credentials. The signing key is made if tokens are issued and there is none;
    /// one that is there is good for verifying in any case.
    ///
    /// # Errors
    /// [`AuthError`], naming the file.
    pub fn open(
        auth: &Auth,
        edgegallery: &EdgeGallery,
        data_dir: &Path,
    ) -> Result<Self, AuthError> {
        let paths = Paths::new(data_dir, edgegallery);
        let issues = issues(auth, edgegallery);
        if issues {
            Issuer::open(&paths.directory)?;
        }
        let keys = Watched::open(KeySet::files(auth), || KeySet::load(auth))?;
        if !keys.get().is_empty() {
            info!(
                "tokens are verified with {} configured keys",
                keys.get().len()
            );
        }
        let has_keys = !KeySet::files(auth).is_empty();
        if auth.mode == AuthMode::Jwt && has_keys && auth.audience.is_empty() {
            warn!(
                "auth.audience is not set: tokens that the identity server has issued for others are \
                 taken here too. Set it to what names this platform in their aud"
            );
        }
        Ok(Self {
            keys,
            issuer: Watched::open(vec![Issuer::file(&paths.directory)], || {
                read_issuer(&paths, issues)
            })?,
            clients: Watched::open(vec![paths.clients.clone()], || {
                Clients::load(&paths.clients)
            })?,
            access_keys: Watched::open(
                vec![paths.access_keys.clone(), paths.cipher_key.clone()],
                || OpenedKeys::load(&paths, edgegallery.enabled),
            )?,
            credentials: Credentials::new(data_dir, edgegallery),
            cache: Cache::default(),
            hashing: Hashing::default(),
            remembered: Remembered::new()?,
            replay: Replay::new(edgegallery.replay_window_s),
            limits: Limits::new(auth.token_requests_per_min),
            auth: auth.clone(),
            edgegallery: edgegallery.clone(),
            paths,
        })
    }

    /// On whose behalf a request with this bearer token is made.
    ///
    /// The signature of a token is verified once, and remembered; that it has not expired, and that
    /// its credential is still good, is found out every time.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn verify(&self, token: &str, now: Moment) -> Result<Caller, InvalidToken> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(InvalidToken::TooLong);
        }
        let fingerprint = cache::fingerprint(token);
        let judge = |verified: &Verified| self.judge(verified, now);
        if let Some(judged) = self.cache.look_up(&fingerprint, judge) {
            return judged;
        }
        // Before the keys are looked at: what other keys verified must not be remembered.
        let since = self.cache.epoch();
        let token = Token::parse(token)?;
        let verified = match self.issuer.get().as_ref() {
            // Our name is our key's alone, whatever else is configured.
            Some(issuer) if issuer.is_named_by(&token) => issuer.verify(&token)?,
            _ => token.verify(&self.keys.get(), &self.auth)?,
        };
        let caller = self.judge(&verified, now)?;
        self.cache.insert(since, fingerprint, verified);
        Ok(caller)
    }

    fn judge(&self, verified: &Verified, now: Moment) -> Result<Caller, InvalidToken> {
        verified.judge(now)?;
        match &verified.credential {
            Some((app, credential)) if !self.stands(app, credential) => Err(InvalidToken::Revoked),
            _ => Ok(verified.caller.clone()),
        }
    }

    /// Whether a credential is still that of its application, or of one of its access keys.
    fn stands(&self, app: &AppInstanceId, credential: &Uuid) -> bool {
        let clients = self.clients.get();
        let client = clients.known.get(app);
        client.is_some_and(|client| {
            client.credential == *credential || self.access_keys.get().stands(app, credential)
        })
    }

    /// Reads again what has changed in the files. What cannot be read stays as it was; every error is
    /// given back once, and to be logged. Those that stand are in [`standing`](Self::standing).
    #[must_use]
    pub fn refresh(&self) -> Vec<AuthError> {
        let issues = issues(&self.auth, &self.edgegallery);
        let keys = self.keys.refresh(|| KeySet::reload(&self.auth));
        let issuer = self.issuer.refresh(|| read_issuer(&self.paths, issues));
        if matches!(keys, Ok(true)) {
            info!("keys have changed; there are {} now", self.keys.get().len());
        }
        if matches!(issuer, Ok(true)) {
            info!("the signing key has changed; tokens of the former one have ended");
        }
        if matches!(keys, Ok(true)) || matches!(issuer, Ok(true)) {
            self.cache.empty();
        }
        let clients = self.refresh_clients();
        let access_keys = self
            .access_keys
            .refresh(|| OpenedKeys::load(&self.paths, self.edgegallery.enabled));
        [keys, issuer, clients, access_keys]
            .into_iter()
            .filter_map(Result::err)
            .collect()
    }

    /// What could not be read the last time and is still not in force, as sentences. Nothing is read
    /// for it.
    #[must_use]
    pub fn standing(&self) -> Vec<String> {
        [
            self.keys.standing(),
            self.issuer.standing(),
            self.clients.standing(),
            self.access_keys.standing(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn refresh_clients(&self) -> Result<bool, AuthError> {
        let changed = self
            .clients
            .refresh(|| Clients::load(&self.paths.clients))?;
        if changed {
            let clients = self.clients.get();
            let stand = clients.known.values().map(|client| client.credential);
            let stand: HashSet<_> = stand.collect();
            self.remembered
                .retain(|credential| stand.contains(credential));
        }
        Ok(changed)
    }

    /// The applications that have a credential here.
    #[must_use]
    pub fn applications(&self) -> Vec<AppInstanceId> {
        self.clients.get().known.keys().cloned().collect()
    }

    /// The applications whose credential was removed and whose services are still to be removed. Those
    /// may be among the [`applications`](Self::applications) again: their services of before are
    /// removed first, and then they are admitted.
    #[must_use]
    pub fn removed(&self) -> Vec<AppInstanceId> {
        self.clients.get().removed.iter().cloned().collect()
    }

    /// That has been done for this one.
    ///
    /// # Errors
    /// [`AuthError`]: the list cannot be changed; the application stays on it.
    pub fn forget_removed(&self, app: &AppInstanceId) -> Result<(), AuthError> {
        self.credentials.forget_removed(app)?;
        self.refresh_clients().map(|_| ())
    }
}

/// Whether anybody can get a token from us.
fn issues(auth: &Auth, edgegallery: &EdgeGallery) -> bool {
    (auth.mode == AuthMode::Jwt && auth.token_endpoint) || edgegallery.enabled
}

fn read_issuer(paths: &Paths, issues: bool) -> Result<Option<Issuer>, AuthError> {
    match issues {
        true => Issuer::open(&paths.directory).map(Some),
        false => Issuer::open_existing(&paths.directory),
    }
}

#[cfg(test)]
mod tests;
