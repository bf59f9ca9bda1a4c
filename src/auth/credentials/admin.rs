//! The administrator's side: each change is one locked read, change and replacement of the files.

use std::path::Path;

use chrono::{DateTime, SecondsFormat};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::place::Lock;
use super::super::sdk_hmac::ACCESS_KEY_BYTES_MAX;
use super::super::{AuthError, secret};
use super::Paths;
use super::access_keys::AccessKeys;
use super::clients::{Client, Clients};
use crate::config::EdgeGallery;
use crate::domain::{AppInstanceId, Wall};

/// Longest secret key in bytes; EdgeGallery's have 64.
const SECRET_KEY_BYTES_MAX: usize = 1024;

/// The credentials of a data directory. Nothing is read or made before it is needed.
#[derive(Debug, Clone)]
pub struct Credentials {
    paths: Paths,
}

/// An access key and its secret key. The secret key is nowhere else in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// The access key (AK).
    pub access_key: String,
    /// Its secret key (SK).
    pub secret_key: Zeroizing<String>,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "access key {}", self.access_key)
    }
}

/// One application, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which one.
    pub app: AppInstanceId,
    /// Whether it has a secret for `/oauth2/token`.
    pub has_secret: bool,
    /// Its access keys.
    pub access_keys: Vec<String>,
    /// When its credential was made or rotated (RFC 3339).
    pub created: String,
}

impl Credentials {
    /// Of this data directory, which need not exist yet.
    #[must_use]
    pub fn new(data_dir: &Path, edgegallery: &EdgeGallery) -> Self {
        Self {
            paths: Paths::new(data_dir, edgegallery),
        }
    }

    /// Adds an application; the secret that it gets, if it is to have one.
    ///
    /// # Errors
    /// [`AuthError::Exists`], or a file cannot be used.
    pub fn add(
        &self,
        app: &AppInstanceId,
        with_secret: bool,
        now: Wall,
    ) -> Result<Option<Zeroizing<String>>, AuthError> {
        let (secret, client) = new_client(with_secret, now)?;
        self.change(|clients| {
            if clients.known.contains_key(app) {
                return Err(AuthError::Exists(app.clone()));
            }
            // If it was removed before, the server still has to remove its services of then: it does
            // that first.
            clients.known.insert(app.clone(), client);
            Ok(())
        })?;
        Ok(secret)
    }

    /// Gives an application another secret. Tokens that it got for the old one end at once; those for
    /// access keys do not.
    ///
    /// # Errors
    /// [`AuthError::Unknown`], or a file cannot be used.
    pub fn rotate(&self, app: &AppInstanceId, now: Wall) -> Result<Zeroizing<String>, AuthError> {
        let (secret, client) = new_client(true, now)?;
        self.change(|clients| match clients.known.get_mut(app) {
            Some(known) => {
                *known = client;
                Ok(())
            }
            None => Err(AuthError::Unknown(app.clone())),
        })?;
        secret.ok_or(AuthError::Cryptography("making a secret"))
    }

    /// Gives an application an access key with a secret key that it has already. If the access key is
    /// its own already, the secret key is replaced, and tokens for the old one end.
    ///
    /// # Errors
    /// [`AuthError::Unknown`], [`AuthError::AccessKeyTaken`], [`AuthError::Unfit`], or a file cannot be
    /// used.
    pub fn add_access_key(
        &self,
        app: &AppInstanceId,
        access_key: &str,
        secret_key: &str,
    ) -> Result<(), AuthError> {
        check(access_key, secret_key)?;
        let _lock = Lock::take(&self.paths.directory)?;
        if !Clients::load(&self.paths.clients)?.known.contains_key(app) {
            return Err(AuthError::Unknown(app.clone()));
        }
        let mut keys = AccessKeys::load(&self.paths.access_keys)?;
        if let Some(taken) = keys.sealed.get(access_key)
            && taken.app != *app
        {
            return Err(AuthError::AccessKeyTaken {
                access_key: access_key.to_owned(),
                owner: taken.app.clone(),
            });
        }
        let sealed = keys
            .cipher(&self.paths)?
            .seal(access_key, app, secret_key)?;
        keys.sealed.insert(access_key.to_owned(), sealed);
        keys.save(&self.paths.access_keys)
    }

    /// Gives an application a new access key and secret key.
    ///
    /// # Errors
    /// [`AuthError::Unknown`], or a file cannot be used.
    pub fn new_access_key(&self, app: &AppInstanceId) -> Result<AccessKey, AuthError> {
        let access_key = String::clone(&*secret::new_key::<14>()?);
        let secret_key = secret::new_key::<48>()?;
        self.add_access_key(app, &access_key, &secret_key)?;
        Ok(AccessKey {
            access_key,
            secret_key,
        })
    }

    /// Removes an application with its access keys; all of its tokens end. Its services are left to the
    /// server.
    ///
    /// # Errors
    /// [`AuthError::Unknown`], or a file cannot be used.
    pub fn remove(&self, app: &AppInstanceId) -> Result<(), AuthError> {
        let _lock = Lock::take(&self.paths.directory)?;
        let mut clients = Clients::load(&self.paths.clients)?;
        let mut keys = AccessKeys::load(&self.paths.access_keys)?;
        let before = keys.sealed.len();
        keys.sealed.retain(|_, sealed| sealed.app != *app);
        let had_keys = keys.sealed.len() < before;
        let was_known = clients.known.remove(app).is_some();
        if !was_known && !had_keys {
            return Err(AuthError::Unknown(app.clone()));
        }
        // The keys first: what is cut short in between can be done again.
        if had_keys {
            keys.save(&self.paths.access_keys)?;
        }
        clients.removed.insert(app.clone());
        clients.save(&self.paths.clients)
    }

    /// Takes one access key away; its tokens end at once. The application, its services and whatever
    /// else it has stay. The key that secret keys are encrypted with is not needed for it.
    ///
    /// # Errors
    /// [`AuthError::NoAccessKey`], or a file cannot be used.
    pub fn remove_access_key(
        &self,
        app: &AppInstanceId,
        access_key: &str,
    ) -> Result<(), AuthError> {
        let _lock = Lock::take(&self.paths.directory)?;
        let mut keys = AccessKeys::load(&self.paths.access_keys)?;
        let own = keys.sealed.get(access_key);
        if own.is_none_or(|sealed| sealed.app != *app) {
            return Err(AuthError::NoAccessKey {
                app: app.clone(),
                access_key: access_key.to_owned(),
            });
        }
        keys.sealed.remove(access_key);
        keys.save(&self.paths.access_keys)
    }

    /// The server has removed the services of a removed application.
    ///
    /// # Errors
    /// [`AuthError`]: a file cannot be used.
    pub(in crate::auth) fn forget_removed(&self, app: &AppInstanceId) -> Result<(), AuthError> {
        self.change(|clients| {
            clients.removed.remove(app);
            Ok(())
        })
    }

    /// All applications, by their ids.
    ///
    /// # Errors
    /// [`AuthError`]: a file cannot be used.
    pub fn list(&self) -> Result<Vec<Listed>, AuthError> {
        let clients = Clients::load(&self.paths.clients)?;
        let keys = AccessKeys::load(&self.paths.access_keys)?;
        let listed = |(app, client): (&AppInstanceId, &Client)| {
            let own = keys.sealed.iter().filter(|(_, sealed)| sealed.app == *app);
            Listed {
                app: app.clone(),
                has_secret: client.secret.is_some(),
                access_keys: own.map(|(access_key, _)| access_key.clone()).collect(),
                created: client.created.clone(),
            }
        };
        Ok(clients.known.iter().map(listed).collect())
    }

    /// The credential that tokens for an application are issued for.
    ///
    /// # Errors
    /// [`AuthError::Unknown`], or a file cannot be used.
    pub fn credential_of(&self, app: &AppInstanceId) -> Result<Uuid, AuthError> {
        let clients = Clients::load(&self.paths.clients)?;
        let known = clients.known.get(app);
        known
            .map(|client| client.credential)
            .ok_or_else(|| AuthError::Unknown(app.clone()))
    }

    /// `<data_dir>/auth`
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.paths.directory
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Clients) -> Result<(), AuthError>,
    ) -> Result<(), AuthError> {
        let _lock = Lock::take(&self.paths.directory)?;
        let mut clients = Clients::load(&self.paths.clients)?;
        change(&mut clients)?;
        clients.save(&self.paths.clients)
    }
}

/// Before anything is locked, because hashing is slow.
fn new_client(
    with_secret: bool,
    now: Wall,
) -> Result<(Option<Zeroizing<String>>, Client), AuthError> {
    let secret = with_secret.then(secret::new_secret).transpose()?;
    let hash = secret
        .as_ref()
        .map(|secret| secret::hash(secret))
        .transpose()?;
    let (secs, nanos) = now.split();
    let created = i64::try_from(secs)
        .ok()
        .and_then(|secs| DateTime::from_timestamp(secs, nanos))
        .unwrap_or_default();
    let client = Client {
        credential: Uuid::new_v4(),
        secret: hash,
        created: created.to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    Ok((secret, client))
}

/// Whether requests could be signed with them.
fn check(access_key: &str, secret_key: &str) -> Result<(), AuthError> {
    // A comma would end the field that names it.
    let is_word = access_key
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b',');
    if !is_word || !(1..=ACCESS_KEY_BYTES_MAX).contains(&access_key.len()) {
        return Err(AuthError::Unfit(
            "an access key must be 1 to 128 printable ASCII characters without spaces and commas",
        ));
    }
    if !(1..=SECRET_KEY_BYTES_MAX).contains(&secret_key.len()) {
        return Err(AuthError::Unfit("a secret key must be 1 to 1024 bytes"));
    }
    Ok(())
}
