//! The keys of identity servers, which their tokens are verified with.
//!
//! Every key is good for exactly one algorithm, which the operator or the key set has chosen: what a
//! token's header asks for only selects among keys, it never says how one is used.

mod jwks;
mod pem;

use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey};
use log::{info, warn};

use super::{AuthError, InvalidToken, crypto, place};
use crate::config::{Auth, KeyAlgorithm};

/// No more keys are held. A token without a `kid` may have to be tried with several.
pub const KEYS_MAX: usize = 64;

/// Bits of an RSA modulus that are taken.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// One key.
#[derive(Debug)]
struct Key {
    /// The one algorithm that it is good for.
    algorithm: KeyAlgorithm,
    /// Its name, if it has one.
    kid: Option<String>,
    key: DecodingKey,
}

/// All keys that tokens of others are verified with.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

impl KeySet {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// [`AuthError`], naming the file: it is missing, or no public key of that algorithm, or holds
    /// no usable key, or there are more than [`KEYS_MAX`].
    pub fn load(config: &Auth) -> Result<Self, AuthError> {
        Self::read(config, true)
    }

    /// The same of files that have changed. A key set without a usable key is taken then: that is how
    /// the last key is revoked.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), but for that.
    pub(super) fn reload(config: &Auth) -> Result<Self, AuthError> {
        Self::read(config, false)
    }

    fn read(config: &Auth, is_start: bool) -> Result<Self, AuthError> {
        crypto::install();
        let mut keys = Vec::new();
        for configured in &config.keys {
            let text = text_of(&configured.file)?;
            let key = pem::public_key(&text, configured.algorithm)
                .map_err(|reason| AuthError::malformed(&configured.file, "public key", reason))?;
            keys.push(Key {
                algorithm: configured.algorithm,
                kid: Some(configured.kid.clone()).filter(|kid| !kid.is_empty()),
                key,
            });
        }
        let mut remarks = jwks::Remarks::default();
        let mut is_revoked = false;
        let jwks = &config.jwks_file;
        if !jwks.as_os_str().is_empty() {
            let text = text_of(jwks)?;
            let unusable = |reason| AuthError::malformed(jwks, "usable key set (JWKS)", reason);
            let (found, said) = jwks::keys(text.as_bytes()).map_err(unusable)?;
            if found.is_empty() && is_start {
                return Err(unusable(said.why_none()));
            }
            is_revoked = found.is_empty();
            keys.extend(found);
            remarks = said;
        }
        if keys.len() > KEYS_MAX {
            let last = config.keys.last().map(|last| last.file.as_path());
            let file = if jwks.as_os_str().is_empty() {
                last
            } else {
                Some(jwks.as_path())
            };
            return Err(AuthError::malformed(
                file.unwrap_or(Path::new("auth.keys")),
                "usable set of keys",
                format!("there are {} keys, and {KEYS_MAX} are the most", keys.len()),
            ));
        }
        // Not before it is certain that the keys are used.
        for remark in remarks.skipped {
            warn!("auth.jwks_file {}: {remark}", jwks.display());
        }
        if is_revoked {
            warn!(
                "auth.jwks_file {}: no key in it can be used; all that it held before are revoked",
                jwks.display()
            );
        }
        for remark in remarks.assumed {
            info!("auth.jwks_file {}: {remark}", jwks.display());
        }
        Ok(Self { keys })
    }

    /// The files that [`load`](Self::load) reads.
    #[must_use]
    pub fn files(config: &Auth) -> Vec<PathBuf> {
        let files = config.keys.iter().map(|key| key.file.clone());
        let jwks = Some(config.jwks_file.clone()).filter(|file| !file.as_os_str().is_empty());
        files.chain(jwks).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a token with this header may have been signed with: those of its name, else
    /// those without a name, and of them only those that are good for its algorithm.
    ///
    /// # Errors
    /// [`InvalidToken::UnknownKey`], or [`InvalidToken::Algorithm`] if there is such a key, but for
    /// another algorithm.
    pub(super) fn candidates(
        &self,
        kid: Option<&str>,
        algorithm: KeyAlgorithm,
    ) -> Result<impl Iterator<Item = &DecodingKey>, InvalidToken> {
        let fits = move |key: &&Key, kid: Option<&str>| {
            key.kid.as_deref() == kid && key.algorithm == algorithm
        };
        let named = kid.filter(|_| self.keys.iter().any(|key| fits(&key, kid)));
        if !self.keys.iter().any(|key| fits(&key, named)) {
            let of_another = |key: &Key| key.kid.is_none() || key.kid.as_deref() == kid;
            return Err(if self.keys.iter().any(of_another) {
                InvalidToken::Algorithm
            } else {
                InvalidToken::UnknownKey
            });
        }
        let chosen = named.map(str::to_owned);
        let keys = self.keys.iter();
        Ok(keys
            .filter(move |key| fits(key, chosen.as_deref()))
            .map(|key| &key.key))
    }
}

/// The library's name of an algorithm.
pub(super) const fn library_name(algorithm: KeyAlgorithm) -> Algorithm {
    match algorithm {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// The algorithm of an `alg`; `None` if we do not take it.
pub(super) fn algorithm_named(alg: &str) -> Option<KeyAlgorithm> {
    match alg {
        "RS256" => Some(KeyAlgorithm::RS256),
        "RS384" => Some(KeyAlgorithm::RS384),
        "RS512" => Some(KeyAlgorithm::RS512),
        "ES256" => Some(KeyAlgorithm::ES256),
        // The second is the newer name of the same (RFC 9864, 2.2).
        "EdDSA" | "Ed25519" => Some(KeyAlgorithm::EdDSA),
        _ => None,
    }
}

fn text_of(file: &Path) -> Result<String, AuthError> {
    let content = place::read(file)?
        .ok_or_else(|| AuthError::io("reading", file)(std::io::ErrorKind::NotFound.into()))?;
    String::from_utf8(content.to_vec())
        .map_err(|_| AuthError::malformed(file, "text", "it is not UTF-8"))
}

/// An RSA key of its two numbers, big-endian.
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Result<DecodingKey, String> {
    let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
    let bits = modulus.first().map_or(0, |first| {
        let unused = usize::try_from(first.leading_zeros()).unwrap_or(0);
        modulus.len() * 8 - unused
    });
    if !RSA_BITS.contains(&bits) {
        return Err(format!(
            "its RSA modulus has {bits} bits; {} to {} are taken",
            RSA_BITS.start(),
            RSA_BITS.end()
        ));
    }
    let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
    // What ring takes: from 3 to 33 bits.
    if !odd(modulus) || !odd(exponent) || exponent == [1] || exponent.len() > 5 {
        return Err("its RSA modulus or exponent is none".to_owned());
    }
    Ok(DecodingKey::from_rsa_raw_components(modulus, exponent))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// A point on P-256 as its uncompressed form has it.
fn p256_key(point: &[u8]) -> Result<DecodingKey, String> {
    match point {
        [4, rest @ ..] if rest.len() == 64 => Ok(DecodingKey::from_ec_der(point)),
        _ => Err("it is no uncompressed point on P-256".to_owned()),
    }
}

fn ed25519_key(key: &[u8]) -> Result<DecodingKey, String> {
    match key.len() {
        32 => Ok(DecodingKey::from_ed_der(key)),
        length => Err(format!("an Ed25519 key has 32 bytes, not {length}")),
    }
}

#[cfg(test)]
mod tests;
