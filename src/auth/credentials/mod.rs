//! The credentials of applications: what an administrator hands out, and what the server goes by.
//!
//! [`Credentials`] is the administrator's side. It changes the files whether the server runs or not,
//! and the server reads them again when they have changed.

mod access_keys;
mod admin;
mod clients;

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub(super) use self::access_keys::OpenedKeys;
pub use self::admin::{AccessKey, Credentials, Listed};
pub(super) use self::clients::Clients;
use super::{AuthError, place};
use crate::config::EdgeGallery;

/// The version of both files.
const VERSION: u64 = 1;

/// Where everything is.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// `<data_dir>/auth`
    pub(super) directory: PathBuf,
    /// Applications and their secrets.
    pub(super) clients: PathBuf,
    /// Access keys and their secret keys.
    pub(super) access_keys: PathBuf,
    /// What those are encrypted with.
    pub(super) cipher_key: PathBuf,
}

impl Paths {
    pub(super) fn new(data_dir: &Path, edgegallery: &EdgeGallery) -> Self {
        let directory = place::directory(data_dir);
        let cipher_key = match edgegallery.key_file.as_os_str().is_empty() {
            true => directory.join("access-keys.key"),
            false => edgegallery.key_file.clone(),
        };
        Self {
            clients: directory.join("clients.json"),
            access_keys: directory.join("access-keys.json"),
            directory,
            cipher_key,
        }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u64,
}

/// One of the two files; `None` if there is none.
fn load<T: DeserializeOwned>(path: &Path, what: &'static str) -> Result<Option<T>, AuthError> {
    let Some(text) = place::read(path)? else {
        return Ok(None);
    };
    let malformed = |error: serde_json::Error| AuthError::malformed(path, what, error);
    // First, because whatever else a newer one has in it is not understood.
    let Versioned { version } = serde_json::from_slice(&text).map_err(malformed)?;
    match version {
        VERSION => serde_json::from_slice(&text).map(Some).map_err(malformed),
        0 => Err(AuthError::malformed(path, what, "there is no version 0")),
        _ => Err(AuthError::Newer {
            path: path.to_owned(),
            version,
        }),
    }
}

#[cfg(test)]
mod tests;
