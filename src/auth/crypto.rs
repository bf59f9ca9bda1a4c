//! The signatures behind `jsonwebtoken`: ring's, and only those that we take.
//!
//! `jsonwebtoken` comes without cryptography of its own here. What is not listed below is refused
//! with an error, whatever a token or a key file asks for: no HMAC, because a public key that is
//! taken for its secret would make everybody an issuer, and no "none".

use std::sync::OnceLock;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{self as ring_signature, Ed25519KeyPair, RsaParameters, UnparsedPublicKey};
use signature::{Signer, Verifier};

/// The provider that [`install`] puts in its place.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // They are for making JWKs of keys and for thumbprints, which nobody does here. They refuse
    // nevertheless, because the dummies that the library offers panic.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

/// Makes `jsonwebtoken` use ring. Whoever makes a key calls it; only the first call does something.
pub(super) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // Nobody else in this process uses the library.
        if PROVIDER.install_default().is_err() {
            log::error!("another provider of signatures for tokens was installed before ours");
        }
    });
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    if *algorithm != Algorithm::EdDSA {
        return Err(unsupported());
    }
    if key.family() != AlgorithmFamily::Ed {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    // OpenSSL writes keys without the public half.
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
        .map_err(|_| ErrorKind::InvalidEddsaKey)?;
    Ok(Box::new(EdSigner(pair)))
}

struct EdSigner(Ed25519KeyPair);

impl Signer<Vec<u8>> for EdSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for EdSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

/// How a signature is verified.
#[derive(Clone, Copy)]
enum Scheme {
    /// PKCS #1 v1.5 with a modulus of 2048 to 8192 bits.
    Rsa(&'static RsaParameters),
    /// A key that stands there as its raw bytes.
    Raw(&'static dyn ring_signature::VerificationAlgorithm),
}

impl Scheme {
    /// That of an algorithm, and whose keys it takes; `None` for all that we do not take.
    fn of(algorithm: Algorithm) -> Option<(Self, AlgorithmFamily)> {
        let rsa = |parameters| Some((Self::Rsa(parameters), AlgorithmFamily::Rsa));
        match algorithm {
            Algorithm::RS256 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::ES256 => Some((
                Self::Raw(&ring_signature::ECDSA_P256_SHA256_FIXED),
                AlgorithmFamily::Ec,
            )),
            Algorithm::EdDSA => Some((Self::Raw(&ring_signature::ED25519), AlgorithmFamily::Ed)),
            _ => None,
        }
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let (scheme, family) = Scheme::of(*algorithm).ok_or_else(unsupported)?;
    if key.family() != family {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        scheme,
        key: key.clone(),
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    scheme: Scheme,
    key: DecodingKey,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> std::result::Result<(), signature::Error> {
        let verified = match (self.scheme, self.key.kind()) {
            (Scheme::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                ring_signature::RsaPublicKeyComponents { n, e }
                    .verify(parameters, message, signature)
            }
            (Scheme::Rsa(parameters), DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(parameters, der).verify(message, signature)
            }
            (Scheme::Raw(how), DecodingKeyKind::SecretOrDer(bytes)) => {
                UnparsedPublicKey::new(how, bytes).verify(message, signature)
            }
            (Scheme::Raw(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
                return Err(signature::Error::new());
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::crypto::{sign, verify};
    use jsonwebtoken::jwk::{Jwk, ThumbprintHash};

    use super::*;
    use crate::auth::testing::{self, Pair};

    const MESSAGE: &[u8] = b"header.claims";

    #[test]
    fn what_ring_signs_is_verified_and_nothing_else() {
        install();
        install();
        for pair in testing::pairs() {
            let signature = pair.sign(MESSAGE);
            let key = pair.decoding_key();
            let algorithm = pair.algorithm();
            assert!(verify(&signature, MESSAGE, &key, algorithm).unwrap());
            assert!(!verify(&signature, b"header.other", &key, algorithm).unwrap());
            assert!(!verify("", MESSAGE, &key, algorithm).unwrap());
            assert!(verify("*", MESSAGE, &key, algorithm).is_err());
        }
    }

    #[test]
    fn only_our_algorithms_and_only_with_their_keys() {
        install();
        let pair = Pair::ed25519();
        let secret = DecodingKey::from_secret(b"secret");
        for algorithm in [
            Algorithm::HS256,
            Algorithm::HS384,
            Algorithm::HS512,
            Algorithm::ES384,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ] {
            assert!(verify("AA", MESSAGE, &secret, algorithm).is_err());
            assert!(verify("AA", MESSAGE, &pair.decoding_key(), algorithm).is_err());
            assert!(sign(MESSAGE, &EncodingKey::from_secret(b"secret"), algorithm).is_err());
        }
        for algorithm in [Algorithm::RS256, Algorithm::ES256] {
            assert!(verify("AA", MESSAGE, &pair.decoding_key(), algorithm).is_err());
            assert!(sign(MESSAGE, &EncodingKey::from_ed_der(b""), algorithm).is_err());
        }
        let mislabelled = DecodingKey::from_rsa_raw_components(b"n", b"e");
        assert!(verify("AA", MESSAGE, &mislabelled, Algorithm::EdDSA).is_err());
        assert!(sign(MESSAGE, &EncodingKey::from_ed_der(b""), Algorithm::EdDSA).is_err());
    }

    #[test]
    fn short_moduli_verify_nothing() {
        install();
        let key = DecodingKey::from_rsa_raw_components(&[0xff; 128], &[1, 0, 1]);
        assert!(!verify("AAAA", MESSAGE, &key, Algorithm::RS256).unwrap());
    }

    #[test]
    fn what_makes_jwks_refuses_instead_of_panicking() {
        install();
        let key = EncodingKey::from_ed_der(&[0; 48]);
        assert!(Jwk::from_encoding_key(&key, Algorithm::EdDSA).is_err());
        assert!((PROVIDER.key_utils.compute_digest)(b"", ThumbprintHash::SHA256).is_err());
    }
}
