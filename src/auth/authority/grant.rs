//! Who gets a token: for a secret, or for a signature.

use std::net::IpAddr;

use log::{debug, info};
use uuid::Uuid;

use super::super::issuer::{Issued, Subject};
use super::super::limits::{Account, Network};
use super::super::replay::NotTaken;
use super::super::sdk_hmac;
use super::{Authority, Refused};
use crate::domain::{AppInstanceId, Moment};

/// What unknown access keys are verified with, so that they take as long as known ones.
pub(super) const NOBODYS_SECRET_KEY: [u8; 64] = [0; 64];

/// One sentence for whatever is wrong with a credential: nobody learns which half of it was right.
pub(super) const WRONG_CLIENT: &str = "the client id or its secret is wrong";

/// The same for access keys.
pub(super) const WRONG_SIGNATURE: &str = "the access key or the signature is wrong";

impl Authority {
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
}
