//! Secrets that have been verified, so that the same right one is not hashed again.
//!
//! What is kept is an HMAC under a key that is made at start and never leaves the process: whoever
//! reads the file of hashes does not get it, and a restart forgets all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::hmac;
use uuid::Uuid;

use super::{AuthError, secret};

/// Credentials that are remembered, each in some 60 bytes. When there is no room further ones are
/// hashed every time, until others are removed or rotated.
const REMEMBERED_MAX: usize = 65_536;

type Tag = [u8; 32];

/// Which secret was right for which credential.
pub(super) struct Remembered {
    key: hmac::Key,
    tags: Mutex<HashMap<Uuid, Tag>>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} remembered secrets", self.tags().len())
    }
}

impl Remembered {
    /// None yet.
    ///
    /// # Errors
    /// [`AuthError::Cryptography`].
    pub(super) fn new() -> Result<Self, AuthError> {
        let key = secret::random::<32>()?;
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_slice()),
            tags: Mutex::default(),
        })
    }

    /// Whether this secret was right for that credential before. Takes the same time whatever the
    /// answer, also for nobody's credential.
    pub(super) fn knows(&self, credential: Option<Uuid>, secret: &str) -> bool {
        let known = credential.and_then(|credential| self.tags().get(&credential).copied());
        let shown = self.tag(&credential.unwrap_or_default(), secret);
        // The library compares only what it has made: both are hashed again, and that in constant time.
        let is_same = hmac::verify(
            &self.key,
            &shown,
            hmac::sign(&self.key, &known.unwrap_or_default()).as_ref(),
        );
        is_same.is_ok() && known.is_some()
    }

    /// Remembers a secret that was verified.
    pub(super) fn remember(&self, credential: Uuid, secret: &str) {
        let tag = self.tag(&credential, secret);
        let mut tags = self.tags();
        if tags.len() < REMEMBERED_MAX || tags.contains_key(&credential) {
            tags.insert(credential, tag);
        }
    }

    /// Forgets all credentials that are none any more. One that is remembered in the same moment
    /// stays until the next time; nobody asks for it.
    pub(super) fn retain(&self, stands: impl Fn(&Uuid) -> bool) {
        self.tags().retain(|credential, _| stands(credential));
    }

    fn tag(&self, credential: &Uuid, secret: &str) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(credential.as_bytes());
        context.update(secret.as_bytes());
        let mut tag = Tag::default();
        for (byte, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *byte = *from;
        }
        tag
    }

    fn tags(&self) -> MutexGuard<'_, HashMap<Uuid, Tag>> {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(number: usize) -> Uuid {
        Uuid::from_u128(number as u128)
    }

    #[test]
    fn a_secret_is_known_for_its_credential_alone_until_that_changes() {
        let remembered = Remembered::new().unwrap();
        let (one, two) = (credential(1), credential(2));
        assert!(!remembered.knows(Some(one), "secret"));
        remembered.remember(one, "secret");
        assert!(remembered.knows(Some(one), "secret"));
        assert!(!remembered.knows(Some(one), "secre"));
        assert!(!remembered.knows(Some(one), ""));
        assert!(!remembered.knows(Some(two), "secret"));
        assert!(!remembered.knows(None, "secret"));
        assert!(!format!("{remembered:?}").contains("secret\""));
        // Another process has another key.
        let other = Remembered::new().unwrap();
        assert_ne!(other.tag(&one, "secret"), remembered.tag(&one, "secret"));
        remembered.retain(|credential| *credential == two);
        assert!(!remembered.knows(Some(one), "secret"));
    }

    #[test]
    fn the_memory_is_bounded_and_room_comes_back() {
        let remembered = Remembered::new().unwrap();
        for number in 0..REMEMBERED_MAX {
            remembered.remember(credential(number), "s");
        }
        let late = credential(REMEMBERED_MAX);
        remembered.remember(late, "s");
        assert!(!remembered.knows(Some(late), "s"));
        // Who is there already may have another secret.
        remembered.remember(credential(0), "t");
        assert!(remembered.knows(Some(credential(0)), "t"));
        remembered.retain(|credential| *credential != Uuid::from_u128(5));
        remembered.remember(late, "s");
        assert!(remembered.knows(Some(late), "s"));
        assert_eq!(remembered.tags().len(), REMEMBERED_MAX);
    }
}
