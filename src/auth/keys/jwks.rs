//! Key sets (RFC 7517). A set may hold keys for purposes that are not ours: they are skipped.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::Value;

use super::{Key, algorithm_named, ed25519_key, p256_key, rsa_key};
use crate::config::KeyAlgorithm;

/// What is to be said of a set that is used.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// Keys that are not used, and why.
    pub(super) skipped: Vec<String>,
    /// Keys that do not say what they are for.
    pub(super) assumed: Vec<String>,
}

impl Remarks {
    /// Why a set has no usable key.
    pub(super) fn why_none(&self) -> String {
        match self.skipped.is_empty() {
            true => "it holds no keys".to_owned(),
            false => format!("none of its keys can be used: {}", self.skipped.join("; ")),
        }
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The members that matter to us. Source: RFC 7517, 4; RFC 7518, 6; RFC 8037, 2.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// The private half.
    d: Option<Value>,
}

/// The usable keys of a set, of which there may be none.
///
/// # Errors
/// Why it is no key set.
pub(super) fn keys(text: &[u8]) -> Result<(Vec<Key>, Remarks), String> {
    let set: Set = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let mut remarks = Remarks::default();
    let mut keys = Vec::new();
    for (at, value) in set.keys.into_iter().enumerate() {
        let name = match value.get("kid").and_then(Value::as_str) {
            Some(kid) => format!("the key {kid:?}"),
            None => format!("key number {} (without kid)", at + 1),
        };
        let jwk = match serde_json::from_value::<Jwk>(value) {
            Ok(jwk) => jwk,
            // The reason may quote the value.
            Err(_) => {
                let remark = format!("{name} is skipped: a member is missing or of the wrong type");
                remarks.skipped.push(remark);
                continue;
            }
        };
        match usable(&jwk) {
            Ok((algorithm, key)) => {
                if jwk.alg.is_none() {
                    let remark = format!("{name} has no alg and is taken for {algorithm:?}");
                    remarks.assumed.push(remark);
                }
                keys.push(Key {
                    algorithm,
                    kid: jwk.kid.filter(|kid| !kid.is_empty()),
                    key,
                });
            }
            Err(reason) => remarks.skipped.push(format!("{name} is skipped: {reason}")),
        }
    }
    Ok((keys, remarks))
}

fn usable(jwk: &Jwk) -> Result<(KeyAlgorithm, DecodingKey), String> {
    if jwk
        .purpose
        .as_deref()
        .is_some_and(|purpose| purpose != "sig")
    {
        return Err("its use is not \"sig\"".to_owned());
    }
    let verifies = |operations: &Vec<String>| operations.iter().any(|one| one == "verify");
    if !jwk.key_ops.as_ref().is_none_or(verifies) {
        return Err("its key_ops do not hold \"verify\"".to_owned());
    }
    if jwk.kty == "oct" {
        return Err("it is a shared secret, and those are not taken".to_owned());
    }
    if jwk.d.is_some() {
        return Err("it is a private key, which has no business here; replace it".to_owned());
    }
    let kind = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Kind::Rsa,
        ("EC", Some("P-256")) => Kind::P256,
        ("OKP", Some("Ed25519")) => Kind::Ed25519,
        (kty, None) => return Err(format!("its type {kty:?} is not taken")),
        (kty, Some(crv)) => return Err(format!("its type {kty:?} with {crv:?} is not taken")),
    };
    let algorithm = match &jwk.alg {
        None => kind.usual(),
        Some(alg) => algorithm_named(alg)
            .filter(|algorithm| kind.is_for(*algorithm))
            .ok_or_else(|| format!("its alg {alg:?} is not taken, or not with this type"))?,
    };
    let key = match kind {
        Kind::Rsa => rsa_key(&bytes(&jwk.n, "n")?, &bytes(&jwk.e, "e")?)?,
        Kind::P256 => {
            let (x, y) = (bytes(&jwk.x, "x")?, bytes(&jwk.y, "y")?);
            if x.len() != 32 {
                return Err("its x is no coordinate on P-256".to_owned());
            }
            p256_key(&[&[4], x.as_slice(), &y].concat())?
        }
        Kind::Ed25519 => ed25519_key(&bytes(&jwk.x, "x")?)?,
    };
    Ok((algorithm, key))
}

#[derive(Clone, Copy)]
enum Kind {
    Rsa,
    P256,
    Ed25519,
}

impl Kind {
    /// What a key is for that does not say it.
    fn usual(self) -> KeyAlgorithm {
        match self {
            Self::Rsa => KeyAlgorithm::RS256,
            Self::P256 => KeyAlgorithm::ES256,
            Self::Ed25519 => KeyAlgorithm::EdDSA,
        }
    }

    fn is_for(self, algorithm: KeyAlgorithm) -> bool {
        match algorithm {
            KeyAlgorithm::RS256 | KeyAlgorithm::RS384 | KeyAlgorithm::RS512 => {
                matches!(self, Self::Rsa)
            }
            KeyAlgorithm::ES256 => matches!(self, Self::P256),
            KeyAlgorithm::EdDSA => matches!(self, Self::Ed25519),
        }
    }
}

fn bytes(member: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let text = member
        .as_ref()
        .ok_or_else(|| format!("its {name} is missing"))?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| format!("its {name} is not base64url"))
}
