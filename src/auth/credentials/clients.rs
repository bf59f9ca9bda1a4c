//! `clients.json`: applications, the hashes of their secrets, and who has been removed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{AuthError, place, secret};
use super::{VERSION, load};
use crate::domain::AppInstanceId;

const WHAT: &str = "list of clients";

/// What the file says.
#[derive(Debug, Default)]
pub(in crate::auth) struct Clients {
    pub(in crate::auth) known: BTreeMap<AppInstanceId, Client>,
    /// Applications that were removed here and whose services the server is still to remove; they may
    /// have been added again since, and are in both lists then.
    pub(in crate::auth) removed: BTreeSet<AppInstanceId>,
}

/// The credential of one application.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::auth) struct Client {
    /// Names the credential: its tokens end with it.
    pub(in crate::auth) credential: Uuid,
    /// The secret's hash; `None`: the application is known, and has no secret.
    pub(in crate::auth) secret: Option<String>,
    /// When it was made, for people.
    pub(in crate::auth) created: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u64,
    clients: BTreeMap<String, Client>,
    #[serde(default)]
    removed: Vec<String>,
}

impl Clients {
    /// Reads the file; without one there is nobody.
    ///
    /// # Errors
    /// [`AuthError`], naming the file.
    pub(in crate::auth) fn load(path: &Path) -> Result<Self, AuthError> {
        let Some(stored) = load::<Stored>(path, WHAT)? else {
            return Ok(Self::default());
        };
        let id = |text: &str| {
            AppInstanceId::parse(text)
                .map_err(|error| AuthError::malformed(path, WHAT, format!("{text:?}: {error}")))
        };
        let mut clients = Self::default();
        for (app, client) in stored.clients {
            if client
                .secret
                .as_deref()
                .is_some_and(|hash| !secret::is_hash(hash))
            {
                let reason = format!("the secret of {app:?} is no Argon2id hash");
                return Err(AuthError::malformed(path, WHAT, reason));
            }
            clients.known.insert(id(&app)?, client);
        }
        for app in &stored.removed {
            clients.removed.insert(id(app)?);
        }
        Ok(clients)
    }

    /// Replaces the file; to be called under the lock.
    ///
    /// # Errors
    /// [`AuthError::Io`]; the old content is then still there.
    pub(in crate::auth) fn save(&self, path: &Path) -> Result<(), AuthError> {
        let known = self.known.iter();
        let stored = Stored {
            version: VERSION,
            clients: known
                .map(|(app, client)| (app.to_string(), client.clone()))
                .collect(),
            removed: self.removed.iter().map(ToString::to_string).collect(),
        };
        let text = serde_json::to_vec_pretty(&stored)
            .map_err(|error| AuthError::io("writing", path)(error.into()))?;
        place::write(path, &text)
    }
}
