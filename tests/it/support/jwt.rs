//! An identity server for tests: it signs whatever it is told to.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::KeyPair;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

/// Signs with ES256.
pub(crate) struct Idp {
    key: KeyPair,
    /// The public key, a PEM file.
    pub(crate) file: PathBuf,
}

impl Idp {
    pub(crate) fn new(dir: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let file = dir.join(format!("{name}.pem"));
        fs::write(&file, key.public_key_pem()).unwrap();
        Self { key, file }
    }

    /// What a server is started with to accept its tokens.
    pub(crate) fn settings(&self) -> Vec<String> {
        let keys = format!(
            r#"auth.keys=[{{ algorithm = "ES256", file = "{}" }}]"#,
            self.file.display()
        );
        ["--set", "auth.mode=jwt", "--set", &keys]
            .map(str::to_owned)
            .to_vec()
    }

    /// Its key as a JWK with this id.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = self.key.public_key_raw();
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": part(&point[1..33]), "y": part(&point[33..])
        })
    }

    /// A token for an application, good for an hour.
    pub(crate) fn token(&self, app: &str) -> String {
        self.sign(&json!({"sub": app, "exp": now_s() + 3600}))
    }

    /// A token that may act for all.
    pub(crate) fn operator(&self) -> String {
        let scope = "read mepulse.operator";
        self.sign(&json!({"sub": "ops", "scope": scope, "exp": now_s() + 3600}))
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({"alg": "ES256", "typ": "JWT"}), claims)
    }

    pub(crate) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let pkcs8 = self.key.serialize_der();
        let random = SystemRandom::new();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &random).unwrap();
        let signature = key.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// The classic forgery: the public key as the secret of an HMAC.
    pub(crate) fn forged(&self, claims: &Value) -> String {
        let message = message(&json!({"alg": "HS256", "typ": "JWT"}), claims);
        let secret = fs::read(&self.file).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let tag = hmac::sign(&key, message.as_bytes());
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag))
    }
}

/// Header and claims, as they are signed.
pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub(crate) fn now_s() -> u64 {
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    epoch.elapsed().unwrap().as_secs()
}

/// `Authorization` for a token.
pub(crate) fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
