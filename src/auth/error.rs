//! What goes wrong with files of keys and credentials.

use std::io;
use std::path::{Path, PathBuf};

use crate::domain::AppInstanceId;

/// Keys or credentials cannot be used, or not be changed. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The operating system refuses.
    #[error("{doing} {path} failed: {source}", path = .path.display())]
    Io {
        /// `reading`, `writing`, …
        doing: &'static str,
        /// Which file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file with a secret in it that others can get at.
    #[error(
        "{path} holds a secret, but its mode is {mode:04o}: group or others can read or write it; \
         run chmod 600 on it, and replace the secret if somebody may have seen it",
        path = .path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file that does not hold what it should.
    #[error("{path} is no {what}: {reason}", path = .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A newer release has written it.
    #[error(
        "{path} has version {version}, which this release does not know; use the newer one",
        path = .path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// As it stands there.
        version: u64,
    },
    /// More than would be read again.
    #[error(
        "{path} would get longer than {max} bytes and could not be read again, so it was left as it \
         is; remove applications that are gone",
        path = .path.display()
    )]
    Full {
        /// Which file.
        path: PathBuf,
        /// The most that it may hold.
        max: u64,
    },
    /// Secret keys are there, but not the key that they are encrypted with.
    #[error(
        "{keys} holds secret keys, but the key that they are encrypted with is not in {key}; put \
         it back, or remove each access key (mepulse admin app remove APP --access-key AK) and give \
         the applications new ones",
        keys = .keys.display(), key = .key.display()
    )]
    NoCipherKey {
        /// `access-keys.json`.
        keys: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// Secret keys were encrypted with another key, or somebody has changed them.
    #[error(
        "the secret key of access key {access_key} in {keys} cannot be decrypted with {key}: it is \
         not the key that it was encrypted with, or the entry was changed; put the right key back, or \
         remove the access key (mepulse admin app remove APP --access-key AK) and add it anew",
        keys = .keys.display(), key = .key.display()
    )]
    WrongCipherKey {
        /// Whose secret.
        access_key: String,
        /// `access-keys.json`.
        keys: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// There is a credential already.
    #[error("{0} has a credential already; rotate it for a new secret, or remove it first")]
    Exists(AppInstanceId),
    /// There is no credential.
    #[error("{0} has no credential here; add it first")]
    Unknown(AppInstanceId),
    /// There is no such access key.
    #[error("{app} has no access key {access_key}; mepulse admin app list shows those that it has")]
    NoAccessKey {
        /// Which application.
        app: AppInstanceId,
        /// What it does not have.
        access_key: String,
    },
    /// An access key of another application.
    #[error("the access key {access_key} belongs to {owner} already; use another one")]
    AccessKeyTaken {
        /// Which access key.
        access_key: String,
        /// Whose it is.
        owner: AppInstanceId,
    },
    /// An access key or secret key that cannot be one.
    #[error("{0}")]
    Unfit(&'static str),
    /// The cryptography fails, which has no reason that could be told.
    #[error("{0} failed; the system gives no randomness, perhaps")]
    Cryptography(&'static str),
}

impl AuthError {
    /// For `map_err`.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    pub(super) fn malformed(path: &Path, what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            what,
            reason: reason.to_string(),
        }
    }
}
