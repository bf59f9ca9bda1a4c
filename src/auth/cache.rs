//! Tokens that have been verified, so that a heartbeat does not cost a verification of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ring::digest;

use super::token::Verified;

/// Each with a lock of its own. A hit allocates nothing and holds one lock for a few look-ups, so
/// callers rarely meet; one lock for many readers would be no cheaper, because they would all meet at
/// its counter.
const SHARDS: usize = 16;

/// Tokens in one generation of a shard. Two generations of all shards: up to 32 768 tokens in some
/// 5 MiB.
const YOUNG_MAX: usize = 1_024;

/// SHA-256 of a token: what is kept is no token that could be used.
pub(super) type Fingerprint = [u8; 32];

/// The fingerprint of a token.
pub(super) fn fingerprint(token: &str) -> Fingerprint {
    let digest = digest::digest(&digest::SHA256, token.as_bytes());
    let mut bytes = [0; 32];
    for (byte, from) in bytes.iter_mut().zip(digest.as_ref()) {
        *byte = *from;
    }
    bytes
}

/// Verified tokens by their fingerprints. Which ones expire or end is not known here: whoever looks
/// one up judges it.
#[derive(Debug, Default)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
    /// Counts the times that it was emptied.
    emptied: AtomicU64,
}

/// Two generations: when the young one is full it becomes the old one, and the old one is dropped.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Fingerprint, Verified>,
    old: HashMap<Fingerprint, Verified>,
}

/// Since when the keys are known that a token is verified with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Cache {
    /// To be asked for before the keys are.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.emptied.load(Ordering::SeqCst))
    }

    /// What `judge` makes of a token that is known.
    pub(super) fn look_up<T>(
        &self,
        token: &Fingerprint,
        judge: impl FnOnce(&Verified) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(token);
        if let Some(found) = shard.young.get(token) {
            return Some(judge(found));
        }
        // Who is still in use becomes young again.
        let found = shard.old.remove(token)?;
        let judged = judge(&found);
        shard.insert(*token, found);
        Some(judged)
    }

    /// Remembers a token, unless the cache was emptied since that epoch: the keys may be others
    /// now.
    pub(super) fn insert(&self, since: Epoch, token: Fingerprint, verified: Verified) {
        let mut shard = self.shard(&token);
        if self.epoch() == since {
            shard.insert(token, verified);
        }
    }

    /// Forgets all tokens; to be called when other keys are in place.
    pub(super) fn empty(&self) {
        // First: what is inserted after this belongs to the new keys, what before is dropped below.
        self.emptied.fetch_add(1, Ordering::SeqCst);
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    fn shard(&self, token: &Fingerprint) -> MutexGuard<'_, Shard> {
        let [first, ..] = token;
        lock(&self.shards[usize::from(*first) % SHARDS])
    }
}

impl Shard {
    fn insert(&mut self, token: Fingerprint, verified: Verified) {
        if self.young.len() >= YOUNG_MAX {
            // The room of the generation that is dropped is used again.
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(token, verified);
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::issuer::{Issuer, Subject};
    use crate::auth::testing::at;
    use crate::auth::token::Token;
    use crate::domain::Caller;

    fn verified() -> Verified {
        let temporary = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(temporary.path()).unwrap();
        let operator = Subject::Operator {
            name: "a".to_owned(),
        };
        let issued = issuer.issue(&operator, 60, at(0)).unwrap();
        issuer
            .verify(&Token::parse(&issued.token).unwrap())
            .unwrap()
    }

    /// All in one shard.
    fn numbered(number: usize) -> Fingerprint {
        let mut token = [0; 32];
        token[24..].copy_from_slice(&(number as u64).to_be_bytes());
        token
    }

    fn knows(cache: &Cache, token: &Fingerprint) -> bool {
        cache.look_up(token, |found| found.caller == Caller::Operator) == Some(true)
    }

    #[test]
    fn tokens_in_use_outlive_those_that_are_not() {
        let cache = Cache::default();
        let verified = verified();
        let put = |number| cache.insert(cache.epoch(), numbered(number), verified.clone());
        for number in 0..YOUNG_MAX * 4 {
            put(number);
            assert!(knows(&cache, &numbered(0)), "{number}");
            let shard = lock(&cache.shards[0]);
            assert!(shard.young.len() <= YOUNG_MAX && shard.old.len() <= YOUNG_MAX);
        }
        assert!(!knows(&cache, &numbered(1)));
        assert!(knows(&cache, &numbered(YOUNG_MAX * 4 - 1)));
    }

    #[test]
    fn what_was_verified_with_other_keys_is_not_remembered() {
        let cache = Cache::default();
        let token = fingerprint("a");
        assert_ne!(token, fingerprint("b"));
        let before = cache.epoch();
        cache.insert(before, token, verified());
        assert!(knows(&cache, &token));
        cache.empty();
        assert!(!knows(&cache, &token));
        cache.insert(before, token, verified());
        assert!(!knows(&cache, &token));
        cache.insert(cache.epoch(), token, verified());
        assert!(knows(&cache, &token));
    }
}
