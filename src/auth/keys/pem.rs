//! Public keys in PEM files.

use jsonwebtoken::DecodingKey;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_PKCS1_RSAENCRYPTION, OID_SIG_ED25519,
};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::{ed25519_key, p256_key, rsa_key};
use crate::config::KeyAlgorithm;

/// The key in a file of one "PUBLIC KEY" (SPKI, RFC 7468, 13) or "RSA PUBLIC KEY" (PKCS #1).
///
/// # Errors
/// What is wrong with it.
pub(super) fn public_key(text: &str, algorithm: KeyAlgorithm) -> Result<DecodingKey, String> {
    let mut blocks = Pem::iter_from_buffer(text.as_bytes());
    let block = match blocks.next() {
        Some(Ok(block)) => block,
        Some(Err(error)) => return Err(format!("it is no PEM file: {error}")),
        None => return Err("it holds no PEM block".to_owned()),
    };
    if blocks.next().is_some() {
        return Err("it holds more than one PEM block".to_owned());
    }
    match (block.label.as_str(), algorithm) {
        ("PUBLIC KEY", _) => spki(&block.contents, algorithm),
        ("RSA PUBLIC KEY", KeyAlgorithm::RS256 | KeyAlgorithm::RS384 | KeyAlgorithm::RS512) => {
            pkcs1(&block.contents)
        }
        (label, _) if label.ends_with("PRIVATE KEY") => Err(
            "it holds a private key; take it away from here and give the public half alone"
                .to_owned(),
        ),
        ("CERTIFICATE", _) => Err(
            "it holds a certificate; give its public key (openssl x509 -pubkey -noout)".to_owned(),
        ),
        (label, _) => Err(format!(
            "it holds {label:?}, which is no key for {algorithm:?}; PUBLIC KEY was expected"
        )),
    }
}

fn spki(der: &[u8], algorithm: KeyAlgorithm) -> Result<DecodingKey, String> {
    let (rest, info) =
        SubjectPublicKeyInfo::from_der(der).map_err(|_| "it is no SPKI structure".to_owned())?;
    if !rest.is_empty() {
        return Err("something follows the key".to_owned());
    }
    let kind = &info.algorithm.algorithm;
    let curve = info
        .algorithm
        .parameters
        .as_ref()
        .and_then(|parameters| parameters.as_oid().ok());
    let key = info.subject_public_key.data.as_ref();
    match algorithm {
        KeyAlgorithm::RS256 | KeyAlgorithm::RS384 | KeyAlgorithm::RS512
            if *kind == OID_PKCS1_RSAENCRYPTION =>
        {
            pkcs1(key)
        }
        KeyAlgorithm::ES256
            if *kind == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == Some(OID_EC_P256) =>
        {
            p256_key(key)
        }
        KeyAlgorithm::EdDSA if *kind == OID_SIG_ED25519 => ed25519_key(key),
        _ => Err(format!("it is no key for {algorithm:?}")),
    }
}

fn pkcs1(der: &[u8]) -> Result<DecodingKey, String> {
    match RSAPublicKey::from_der(der) {
        Ok(([], key)) => rsa_key(key.modulus, key.exponent),
        Ok(_) | Err(_) => Err("it is no RSA key".to_owned()),
    }
}
