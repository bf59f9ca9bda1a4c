//! Secrets: made at random, stored hashed.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::AuthError;

/// Memory of one hash in KiB, passes and lanes. Source: OWASP, Password Storage Cheat Sheet.
pub(super) const ARGON2: (u32, u32, u32) = (19_456, 2, 1);

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

/// Whether this text is a hash that [`Hashing::verify`](super::hashing::Hashing::verify) can do something with.
pub(super) fn is_hash(text: &str) -> bool {
    PasswordHash::new(text).is_ok_and(|hash| {
        hash.algorithm.as_str() == "argon2id"
            && hash.salt.is_some()
            && hash.hash.is_some()
            && Params::try_from(&hash).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_holds_no_secret_and_other_texts_are_no_hashes() {
        let secret = new_secret().unwrap();
        assert_eq!(secret.len(), 43);
        assert_ne!(secret, new_secret().unwrap());
        let hash = hash(&secret).unwrap();
        let parameters = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(hash.starts_with(parameters), "{hash}");
        assert!(is_hash(&hash) && !hash.contains(secret.as_str()));
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
}
