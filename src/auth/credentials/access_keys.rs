//! `access-keys.json`: access keys, and their secret keys encrypted.
//!
//! A secret key must be known to verify an HMAC, so a hash does not do. It is encrypted with
//! AES-256-GCM and bound to its access key and application; the key for that is in a file of its own,
//! which may be kept elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::{AuthError, place, secret};
use super::{Paths, VERSION, load};
use crate::domain::AppInstanceId;

const WHAT: &str = "list of access keys";

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct AccessKeys {
    pub(super) sealed: BTreeMap<String, Sealed>,
}

/// An access key whose secret key is encrypted.
#[derive(Debug, Clone)]
pub(super) struct Sealed {
    pub(super) app: AppInstanceId,
    pub(super) credential: Uuid,
    nonce: [u8; NONCE_LEN],
    secret: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u64,
    keys: BTreeMap<String, StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredKey {
    application: String,
    credential: Uuid,
    nonce: String,
    secret: String,
}

/// The access keys as the server uses them.
#[derive(Debug, Default)]
pub(in crate::auth) struct OpenedKeys {
    keys: HashMap<String, OpenedKey>,
    standing: HashMap<Uuid, AppInstanceId>,
}

/// An access key whose secret key is known.
pub(in crate::auth) struct OpenedKey {
    /// Whose it is.
    pub(in crate::auth) app: AppInstanceId,
    /// Names the credential: its tokens end with it.
    pub(in crate::auth) credential: Uuid,
    /// The secret key.
    pub(in crate::auth) secret: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for OpenedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "an access key of {}", self.app)
    }
}

impl OpenedKeys {
    /// Reads the file; without one there are no keys. Unless they are to be used the secret keys stay
    /// encrypted.
    ///
    /// # Errors
    /// [`AuthError`], naming the file that is at fault.
    pub(in crate::auth) fn load(paths: &Paths, use_them: bool) -> Result<Self, AuthError> {
        let sealed = AccessKeys::load(&paths.access_keys)?.sealed;
        let mut opened = Self::default();
        if use_them && !sealed.is_empty() {
            let cipher = Cipher::load(paths)?.ok_or_else(|| no_cipher_key(paths))?;
            for (access_key, sealed) in &sealed {
                let key = OpenedKey {
                    app: sealed.app.clone(),
                    credential: sealed.credential,
                    secret: cipher.open(access_key, sealed, paths)?,
                };
                opened.keys.insert(access_key.clone(), key);
            }
        }
        let all = sealed.into_values();
        opened.standing = all.map(|sealed| (sealed.credential, sealed.app)).collect();
        Ok(opened)
    }

    /// The key of this name.
    pub(in crate::auth) fn get(&self, access_key: &str) -> Option<&OpenedKey> {
        self.keys.get(access_key)
    }

    /// Whether this credential is one of that application's access keys.
    pub(in crate::auth) fn stands(&self, app: &AppInstanceId, credential: &Uuid) -> bool {
        self.standing.get(credential) == Some(app)
    }
}

impl AccessKeys {
    /// Reads the file; without one there are none.
    ///
    /// # Errors
    /// [`AuthError`], naming the file.
    pub(super) fn load(path: &Path) -> Result<Self, AuthError> {
        let Some(stored) = load::<Stored>(path, WHAT)? else {
            return Ok(Self::default());
        };
        let mut sealed = BTreeMap::new();
        for (access_key, key) in stored.keys {
            let wrong = |member: &str| {
                let reason = format!("the {member} of {access_key:?} is none");
                AuthError::malformed(path, WHAT, reason)
            };
            let nonce = STANDARD.decode(&key.nonce).ok();
            let nonce = nonce.and_then(|nonce| nonce.try_into().ok());
            let read = Sealed {
                app: AppInstanceId::parse(&key.application).map_err(|_| wrong("application"))?,
                credential: key.credential,
                nonce: nonce.ok_or_else(|| wrong("nonce"))?,
                secret: STANDARD.decode(&key.secret).map_err(|_| wrong("secret"))?,
            };
            sealed.insert(access_key, read);
        }
        Ok(Self { sealed })
    }

    /// Replaces the file; to be called under the lock.
    ///
    /// # Errors
    /// [`AuthError::Io`]; the old content is then still there.
    pub(super) fn save(&self, path: &Path) -> Result<(), AuthError> {
        let stored = |(access_key, key): (&String, &Sealed)| {
            let stored = StoredKey {
                application: key.app.to_string(),
                credential: key.credential,
                nonce: STANDARD.encode(key.nonce),
                secret: STANDARD.encode(&key.secret),
            };
            (access_key.clone(), stored)
        };
        let stored = Stored {
            version: VERSION,
            keys: self.sealed.iter().map(stored).collect(),
        };
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| AuthError::io("writing", path)(error.into()))?;
        place::write(path, &text)
    }

    /// What further secret keys are to be encrypted with: what these are encrypted with, and if there
    /// are none yet a new key. To be called under the lock.
    ///
    /// # Errors
    /// [`AuthError`] when the key is missing or another one.
    pub(super) fn cipher(&self, paths: &Paths) -> Result<Cipher, AuthError> {
        let Some(cipher) = Cipher::load(paths)? else {
            return match self.sealed.is_empty() {
                true => Cipher::make(&paths.cipher_key),
                false => Err(no_cipher_key(paths)),
            };
        };
        // Two keys in one file would be found out only by the server.
        for (access_key, sealed) in &self.sealed {
            cipher.open(access_key, sealed, paths)?;
        }
        Ok(cipher)
    }
}

fn no_cipher_key(paths: &Paths) -> AuthError {
    AuthError::NoCipherKey {
        keys: paths.access_keys.clone(),
        key: paths.cipher_key.clone(),
    }
}

/// Encrypts secret keys.
pub(super) struct Cipher(LessSafeKey);

impl Cipher {
    fn load(paths: &Paths) -> Result<Option<Self>, AuthError> {
        let path = &paths.cipher_key;
        let Some(content) = place::read_secret(path)? else {
            return Ok(None);
        };
        let key = STANDARD.decode(content.trim_ascii()).map(Zeroizing::new);
        let cipher = key.ok().and_then(|key| Self::new(&key));
        cipher.map(Some).ok_or_else(|| {
            let what = "key for access keys";
            AuthError::malformed(path, what, "32 bytes in base64 were expected")
        })
    }

    fn make(path: &Path) -> Result<Self, AuthError> {
        let key = secret::random::<32>()?;
        let text = Zeroizing::new(STANDARD.encode(key.as_slice()) + "\n");
        place::write(path, text.as_bytes())?;
        log::info!("made a new key for access keys: {}", path.display());
        Self::new(key.as_slice()).ok_or(AuthError::Cryptography("making a key for access keys"))
    }

    fn new(key: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }

    /// Encrypts a new secret key.
    ///
    /// # Errors
    /// [`AuthError::Cryptography`].
    pub(super) fn seal(
        &self,
        access_key: &str,
        app: &AppInstanceId,
        secret_key: &str,
    ) -> Result<Sealed, AuthError> {
        let nonce = *secret::random::<NONCE_LEN>()?;
        let mut secret = secret_key.as_bytes().to_vec();
        self.0
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                bound_to(access_key, app),
                &mut secret,
            )
            .map_err(|_| AuthError::Cryptography("encrypting a secret key"))?;
        Ok(Sealed {
            app: app.clone(),
            credential: Uuid::new_v4(),
            nonce,
            secret,
        })
    }

    fn open(
        &self,
        access_key: &str,
        sealed: &Sealed,
        paths: &Paths,
    ) -> Result<Zeroizing<Vec<u8>>, AuthError> {
        let nonce = Nonce::assume_unique_for_key(sealed.nonce);
        let mut secret = Zeroizing::new(sealed.secret.clone());
        let opened = self
            .0
            .open_in_place(nonce, bound_to(access_key, &sealed.app), &mut secret);
        match opened.map(|plain| plain.len()) {
            Ok(length) => {
                secret.truncate(length);
                Ok(secret)
            }
            Err(_) => Err(AuthError::WrongCipherKey {
                access_key: access_key.to_owned(),
                keys: paths.access_keys.clone(),
                key: paths.cipher_key.clone(),
            }),
        }
    }
}

/// A secret key that is moved to another name does not decrypt.
fn bound_to(access_key: &str, app: &AppInstanceId) -> Aad<Vec<u8>> {
    Aad::from([access_key.as_bytes(), b"\0", app.as_str().as_bytes()].concat())
}
