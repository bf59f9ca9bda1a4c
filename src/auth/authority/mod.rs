//! What the server asks: who is calling, and who gets a token.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use log::{debug, info, warn};
use uuid::Uuid;

use super::cache::{self, Cache};
use super::credentials::{Clients, Credentials, OpenedKeys, Paths};
use super::hashing::Hashing;
use super::issuer::{Issued, Issuer, Subject};
use super::keys::KeySet;
use super::limits::{Account, Limits, Network};
use super::remembered::Remembered;
use super::replay::{NotTaken, Replay};
use super::token::{TOKEN_BYTES_MAX, Token, Verified};
use super::watched::Watched;
use super::{AuthError, InvalidToken, sdk_hmac};
use crate::config::{Auth, AuthMode, EdgeGallery};
use crate::domain::{AppInstanceId, Caller, Moment};

/// What unknown access keys are verified with, so that they take as long as known ones.
const NOBODYS_SECRET_KEY: [u8; 64] = [0; 64];

/// One sentence for whatever is wrong with a credential: nobody learns which half of it was right.
const WRONG_CLIENT: &str = "the client id or its secret is wrong";

/// The same for access keys.
const WRONG_SIGNATURE: &str = "the access key or the signature is wrong";

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

    /// A token for an application that shows its secret (RFC 6749, 4.4). Slow on purpose the first
    /// time, and waits for its turn then: to be called where that is allowed. The same right secret
    /// is known again after that: it costs no hash, needs no turn, and is charged to nobody.
    ///
    /// # Errors
    /// [`Refused`]. An unknown client takes as long as a wrong secret. Each client has an allowance at
    /// each address `from` which it is asked for, and all that are unknown have one together: who uses
    /// them up can tell which ids are known, and ids are no secrets.
    pub fn client_credentials(
        &self,
        from: Option<IpAddr>,
        id: &str,
        secret: &str,
        now: Moment,
    ) -> Result<Issued, Refused> {
        let clients = self.clients.get();
        let known = AppInstanceId::parse(id).ok().and_then(|app| {
            let client = clients.known.get(&app)?;
            Some((app, client))
        });
        let credential = known.as_ref().map(|(_, client)| client.credential);
        if !self.remembered.knows(credential, secret) {
            let from = from.map(Network::of);
            let account = credential.map_or(Account::Nobody, Account::Client);
            self.charge(from, account, now)?;
            let hash = known
                .as_ref()
                .and_then(|(_, client)| client.secret.as_deref());
            let is_right = self.hashing.verify(from, secret, hash);
            if !is_right.map_err(Refused::Later)? {
                // Not what was sent: it may be the secret, in the place of the id.
                match &known {
                    Some((app, _)) => info!("no token for client {app}: not its secret"),
                    None => info!("no token for an unknown client"),
                }
                return Err(Refused::Denied(WRONG_CLIENT.to_owned()));
            }
        }
        let Some((app, client)) = known else {
            return Err(Refused::Denied(WRONG_CLIENT.to_owned()));
        };
        self.remembered.remember(client.credential, secret);
        self.issue(app, client.credential, self.auth.token_ttl_s, now)
    }

    /// A token for an application that has signed its request with an access key. `date` is the value
    /// of [`sdk_hmac::DATE_HEADER`], which must be among the signed headers.
    ///
    /// # Errors
    /// [`Refused`]. An unknown access key takes as long as a wrong signature. A signature is good once
    /// within `edgegallery.replay_window_s`. Only signatures that do not verify are charged to the
    /// address: to verify one is cheap.
    pub fn sdk_hmac(
        &self,
        from: Option<IpAddr>,
        authorization: &sdk_hmac::Authorization,
        date: &str,
        request: &sdk_hmac::Request<'_>,
        now: Moment,
    ) -> Result<Issued, Refused> {
        let access_key = authorization.access_key.as_str();
        let signed_s = sdk_hmac::seconds_of(date).ok_or_else(|| {
            Refused::Malformed(format!(
                "{} is no date; one like 20261123T060656Z was expected",
                sdk_hmac::DATE_HEADER
            ))
        })?;
        let has_date = request
            .headers
            .iter()
            .any(|(name, value)| *name == sdk_hmac::DATE_HEADER && value.trim() == date);
        let names = request.headers.iter().map(|(name, _)| *name);
        if !has_date || !names.eq(authorization.signed_headers.iter().map(String::as_str)) {
            let sentence = "the headers that are signed are not those of the request";
            return Err(Refused::Malformed(sentence.to_owned()));
        }
        let max_skew_s = self.edgegallery.max_skew_s;
        let (wall_s, _) = now.wall.split();
        if max_skew_s > 0 && wall_s.abs_diff(signed_s) > max_skew_s {
            return Err(Refused::Denied(format!(
                "{} is more than {max_skew_s} s away from the time here",
                sdk_hmac::DATE_HEADER
            )));
        }
        let access_keys = self.access_keys.get();
        let known = access_keys.get(access_key);
        let secret = known.map_or(NOBODYS_SECRET_KEY.as_slice(), |known| &known.secret);
        let is_signed = sdk_hmac::verify(secret, date, request, &authorization.signature);
        let Some(key) = known.filter(|key| is_signed && self.stands(&key.app, &key.credential))
        else {
            self.charge(from.map(Network::of), Account::Signatures, now)?;
            // Not what was sent: it may be the secret key, in the place of the access key.
            match known {
                Some(_) => info!("no token for access key {access_key}: not its signature"),
                None => info!("no token for an unknown access key"),
            }
            return Err(Refused::Denied(WRONG_SIGNATURE.to_owned()));
        };
        // Last, so that nobody else fills the memory.
        self.replay
            .remember(access_key, authorization.signature, now.steady)
            .map_err(|reason| match reason {
                NotTaken::Again => {
                    info!("no token for access key {access_key:?}: a signature came in twice");
                    let sentence = "this signature has been used already; sign again";
                    Refused::Denied(sentence.to_owned())
                }
                NotTaken::Full(wait) => Refused::Later(wait),
            })?;
        let ttl_s = self.edgegallery.token_ttl_s;
        self.issue(key.app.clone(), key.credential, ttl_s, now)
    }

    fn issue(
        &self,
        app: AppInstanceId,
        credential: Uuid,
        ttl_s: u64,
        now: Moment,
    ) -> Result<Issued, Refused> {
        let issuer = self.issuer.get();
        let issuer = issuer
            .as_ref()
            .as_ref()
            .ok_or_else(|| Refused::Failed("no tokens are issued here".to_owned()))?;
        let subject = Subject::Application { app, credential };
        let issued = issuer
            .issue(&subject, ttl_s, now)
            .map_err(|error| Refused::Failed(error.to_string()))?;
        if let Subject::Application { app, .. } = subject {
            debug!("a token for {app}, good for {ttl_s} s");
        }
        Ok(issued)
    }

    /// Whose address is not known comes over a socket of our own, and is not charged.
    fn charge(&self, from: Option<Network>, account: Account, now: Moment) -> Result<(), Refused> {
        from.map_or(Ok(()), |from| self.limits.charge(from, account, now.steady))
            .map_err(Refused::Later)
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
