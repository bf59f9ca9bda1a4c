//! Secrets: made at random, stored hashed, compared in constant time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::AuthError;

/// Memory of one hash in KiB, passes and lanes. Source: OWASP, Password Storage Cheat Sheet.
const ARGON2: (u32, u32, u32) = (19_456, 2, 1);

/// What no secret has: verified against for clients that are not known, so that they take as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bWVwdWxzZSBub2JvZHk\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes under way at a time: each takes 19 MiB and a core for some ten milliseconds, and the cores
/// are there for heartbeats.
const AT_ONCE_MAX: usize = 1;

/// Requests that wait for one of these places.
const WAITING_MAX: usize = 60;

/// When there may be a place again, for those who find none.
const BUSY: Duration = Duration::from_secs(1);

/// Random bytes.
///
/// # Errors
/// [`AuthError::Cryptography`].
pub(super) fn random<const BYTES: usize>() -> Result<Zeroizing<[u8; BYTES]>, AuthError> {
    let mut bytes = Zeroizing::new([0; BYTES]);
    SystemRandom::new()
        .fill(bytes.as_mut_slice())
        .map_err(|_| AuthError::Cryptography("making random bytes"))?;
    Ok(bytes)
}

/// A new secret: 32 random bytes in base64url.
///
/// # Errors
/// [`AuthError::Cryptography`].
pub(super) fn new_secret() -> Result<Zeroizing<String>, AuthError> {
    let bytes = random::<32>()?;
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

/// Random bytes in base64, as EdgeGallery writes its keys.
///
/// # Errors
/// [`AuthError::Cryptography`].
pub(super) fn new_key<const BYTES: usize>() -> Result<Zeroizing<String>, AuthError> {
    let bytes = random::<BYTES>()?;
    Ok(Zeroizing::new(STANDARD.encode(bytes.as_slice())))
}

/// The hash of a secret as it is stored; slow on purpose.
///
/// # Errors
/// [`AuthError::Cryptography`].
pub(super) fn hash(secret: &str) -> Result<String, AuthError> {
    let failed = || AuthError::Cryptography("hashing a secret");
    let (memory, passes, lanes) = ARGON2;
    let params = Params::new(memory, passes, lanes, None).map_err(|_| failed())?;
    let salt = random::<16>()?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(secret.as_bytes(), salt.as_slice())
        .map_err(|_| failed())?;
    Ok(hash.to_string())
}

/// Whether this text is a hash that [`Hashing::verify`] can do something with.
pub(super) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm.as_str() == "argon2id"
            && hash.salt.is_some()
            && hash.hash.is_some()
            && Params::try_from(&hash).is_ok()
    })
}

/// The places for hashes, so that many requests at once cannot take all memory.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    places: Mutex<Places>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    waiting: usize,
}

impl Hashing {
    /// Whether this is the secret of that hash. Without a hash it is not, which takes as long to
    /// find out. Slow, and waits for its turn: to be called where that is allowed.
    ///
    /// # Errors
    /// Too many are waiting; after how long to try again.
    pub(super) fn verify(&self, secret: &str, hash: Option<&str>) -> Result<bool, Duration> {
        let _place = self.take_place()?;
        let known = hash.and_then(|hash| PasswordHash::new(hash).ok());
        let Some(hash) = known.clone().or_else(|| PasswordHash::new(NOBODY).ok()) else {
            return Ok(false);
        };
        // Its parameters are those of the hash; the outputs are compared in constant time.
        let verified = Argon2::default().verify_password(secret.as_bytes(), &hash);
        Ok(verified.is_ok() && known.is_some())
    }

    fn take_place(&self) -> Result<Place<'_>, Duration> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.taken >= AT_ONCE_MAX {
            if places.waiting >= WAITING_MAX {
                return Err(BUSY);
            }
            places.waiting += 1;
            while places.taken >= AT_ONCE_MAX {
                let freed = self.freed.wait(places);
                places = freed.unwrap_or_else(PoisonError::into_inner);
            }
            places.waiting -= 1;
        }
        places.taken += 1;
        Ok(Place(self))
    }
}

struct Place<'a>(&'a Hashing);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken -= 1;
        drop(places);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_hash_alone() {
        let hashing = Hashing::default();
        let secret = new_secret().unwrap();
        assert_eq!(secret.len(), 43);
        let hash = hash(&secret).unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(is_hash(&hash) && !hash.contains(secret.as_str()));
        assert_eq!(hashing.verify(&secret, Some(&hash)), Ok(true));
        assert_eq!(hashing.verify(&secret[1..], Some(&hash)), Ok(false));
        assert_eq!(hashing.verify("", Some(&hash)), Ok(false));
        assert_eq!(hashing.verify(&secret, None), Ok(false));
        assert_eq!(hashing.verify(&secret, Some("nonsense")), Ok(false));
        assert_ne!(secret, new_secret().unwrap());
    }

    #[test]
    fn the_hash_for_nobody_costs_the_same() {
        assert!(is_hash(NOBODY));
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&nobody).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), ARGON2);
        assert_eq!(nobody.hash.unwrap().len(), 32);
        for bad in [
            "",
            "secret",
            "$argon2id$v=19$m=19456,t=2,p=1$bWVwdWxzZQ",
            "$2b$x",
        ] {
            assert!(!is_hash(bad), "{bad}");
        }
    }

    #[test]
    fn keys_have_the_lengths_of_edgegallerys() {
        assert_eq!(new_key::<14>().unwrap().len(), 20);
        assert_eq!(new_key::<48>().unwrap().len(), 64);
    }

    #[test]
    fn the_places_are_few_and_come_back() {
        let hashing = Hashing::default();
        let held: Vec<_> = (0..AT_ONCE_MAX)
            .map(|_| hashing.take_place().unwrap())
            .collect();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..WAITING_MAX)
                .map(|_| scope.spawn(|| hashing.take_place().is_ok()))
                .collect();
            while hashing.places.lock().unwrap().waiting < WAITING_MAX {
                std::thread::yield_now();
            }
            assert_eq!(hashing.take_place().err(), Some(BUSY));
            drop(held);
            for waiter in waiters {
                assert!(waiter.join().unwrap());
            }
        });
        assert!(hashing.take_place().is_ok());
        assert_eq!(hashing.places.lock().unwrap().taken, 0);
    }
}
