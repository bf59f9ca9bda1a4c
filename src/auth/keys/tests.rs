use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::auth::testing::{self, Pair, RSA_PUBLIC, RSA_PUBLIC_PKCS1, RSA_SHORT};
use crate::config::VerificationKey;

/// On a curve that is not taken.
const P384_PUBLIC: &str = "\
-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEGgmRHYs4K8HTF7I/r1DCW6ANlDZYtjBn
iu57Ol4rbLfy9QNYtBckFlaCxeWVkYZLYkfBYUtoVF2MbJDpWJcITkKbc8Hrgwyk
5+BRK/pC7YTE+O85PvJ87+SNbUFb2/yA
-----END PUBLIC KEY-----
";

fn from_pem(text: &str, algorithm: KeyAlgorithm) -> Result<KeySet, AuthError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    KeySet::load(&Auth {
        keys: vec![VerificationKey {
            algorithm,
            file: file.path().to_owned(),
            kid: String::new(),
        }],
        ..Auth::default()
    })
}

fn from_jwks(text: &str) -> Result<KeySet, AuthError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    KeySet::load(&Auth {
        jwks_file: file.path().to_owned(),
        ..Auth::default()
    })
}

fn with(mut jwk: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        jwk[name] = value.clone();
    }
    jwk
}

/// The pinned algorithms and names.
fn pinned(set: &KeySet) -> Vec<(KeyAlgorithm, Option<&str>)> {
    let keys = set.keys.iter();
    keys.map(|key| (key.algorithm, key.kid.as_deref()))
        .collect()
}

/// Whether the one key of the set verifies what the pair signs.
fn verifies(set: &KeySet, pair: &Pair) -> bool {
    let [key] = set.keys.as_slice() else {
        panic!("{set:?}")
    };
    let signature = pair.sign(b"m");
    jsonwebtoken::crypto::verify(&signature, b"m", &key.key, library_name(key.algorithm)).unwrap()
}

#[test]
fn public_keys_are_read_for_their_algorithm_alone() {
    for pair in testing::pairs() {
        let algorithm = algorithm_named(&pair.alg()).unwrap();
        let set = from_pem(&pair.public_pem(), algorithm).unwrap();
        assert!(verifies(&set, &pair), "{algorithm:?}");
        for other in [
            KeyAlgorithm::RS256,
            KeyAlgorithm::ES256,
            KeyAlgorithm::EdDSA,
        ] {
            let same_kind = library_name(other).family() == library_name(algorithm).family();
            let read = from_pem(&pair.public_pem(), other);
            assert_eq!(read.is_ok(), same_kind, "{algorithm:?} as {other:?}");
        }
    }
    let set = from_pem(RSA_PUBLIC_PKCS1, KeyAlgorithm::RS512).unwrap();
    assert!(verifies(&set, &Pair::rsa(Algorithm::RS512)));
    assert!(from_pem(RSA_PUBLIC_PKCS1, KeyAlgorithm::ES256).is_err());
}

#[test]
fn what_is_no_public_key_is_refused_with_the_reason() {
    let der = testing::der(RSA_PUBLIC);
    let longer = testing::pem("PUBLIC KEY", &[der.as_slice(), &[5, 0]].concat());
    let shorter = testing::pem("PUBLIC KEY", &der[..der.len() - 1]);
    for (text, named) in [
        ("", "no PEM"),
        ("not a key", "PEM"),
        (&testing::pem("PRIVATE KEY", &der), "private"),
        (&testing::pem("RSA PRIVATE KEY", &der), "private"),
        (&testing::pem("CERTIFICATE", &der), "openssl x509"),
        (&testing::pem("SECRET", &der), "SECRET"),
        (&format!("{RSA_PUBLIC}{RSA_PUBLIC}"), "more than one"),
        (RSA_SHORT, "1024 bits"),
        (&longer, "follows"),
        (&shorter, "SPKI"),
        (P384_PUBLIC, "no key for RS256"),
    ] {
        let refused = from_pem(text, KeyAlgorithm::RS256).unwrap_err().to_string();
        assert!(refused.contains(named), "{text}: {refused}");
        assert!(refused.contains("/"), "{refused}");
    }
    let p384 = from_pem(P384_PUBLIC, KeyAlgorithm::ES256);
    assert!(p384.unwrap_err().to_string().contains("no key for ES256"));
    let missing = KeySet::load(&Auth {
        jwks_file: "/no/such/file".into(),
        ..Auth::default()
    });
    let refused = missing.unwrap_err().to_string();
    assert!(refused.contains("/no/such/file"), "{refused}");
}

#[test]
fn a_key_set_pins_what_it_says_and_the_usual_where_it_does_not() {
    let (rsa, p256, ed) = (Pair::rsa(Algorithm::RS384), Pair::p256(), Pair::ed25519());
    let set = json!({"keys": [
        with(rsa.jwk(), json!({"kid": "a", "alg": "RS384", "use": "sig"})),
        with(rsa.jwk(), json!({"kid": "b"})),
        with(p256.jwk(), json!({"kid": "c", "key_ops": ["verify"]})),
        ed.jwk(),
    ]});
    let set = from_jwks(&set.to_string()).unwrap();
    assert_eq!(
        pinned(&set),
        [
            (KeyAlgorithm::RS384, Some("a")),
            (KeyAlgorithm::RS256, Some("b")),
            (KeyAlgorithm::ES256, Some("c")),
            (KeyAlgorithm::EdDSA, None),
        ]
    );
    for pair in [rsa, p256, ed] {
        let jwk = with(pair.jwk(), json!({"alg": pair.alg()}));
        let set = from_jwks(&json!({"keys": [jwk]}).to_string()).unwrap();
        assert!(verifies(&set, &pair));
    }
}

#[test]
fn unusable_keys_are_skipped_and_a_set_of_them_is_refused() {
    let (rsa, p256, ed) = (
        Pair::rsa(Algorithm::RS256).jwk(),
        Pair::p256().jwk(),
        Pair::ed25519().jwk(),
    );
    let good = with(ed.clone(), json!({"kid": "good"}));
    for (bad, named) in [
        (json!({"kty": "oct", "k": "c2VjcmV0"}), "shared secret"),
        (
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            "shared secret",
        ),
        (with(rsa.clone(), json!({"use": "enc"})), "use"),
        (
            with(rsa.clone(), json!({"key_ops": ["encrypt"]})),
            "key_ops",
        ),
        (with(rsa.clone(), json!({"alg": "HS256"})), "HS256"),
        (with(rsa.clone(), json!({"alg": "PS256"})), "PS256"),
        (with(rsa.clone(), json!({"alg": "ES256"})), "ES256"),
        (with(rsa.clone(), json!({"alg": 5})), "wrong type"),
        (with(rsa.clone(), json!({"d": "AA"})), "private"),
        (with(rsa.clone(), json!({"n": "AQAB"})), "17 bits"),
        (with(rsa.clone(), json!({"e": "AQ"})), "exponent"),
        (with(rsa.clone(), json!({"e": ""})), "exponent"),
        (with(rsa.clone(), json!({"n": null})), "n is missing"),
        (with(rsa, json!({"n": "="})), "base64url"),
        (with(p256.clone(), json!({"crv": "P-384"})), "P-384"),
        (with(p256.clone(), json!({"x": "AA"})), "coordinate"),
        (with(p256, json!({"y": "AA"})), "P-256"),
        (with(ed.clone(), json!({"crv": "X25519"})), "X25519"),
        (with(ed, json!({"x": "AA"})), "32 bytes"),
        (json!({"kty": "AKP"}), "AKP"),
        (json!({}), "missing"),
        (json!("key"), "missing"),
    ] {
        let alone = from_jwks(&json!({"keys": [bad]}).to_string());
        let refused = alone.unwrap_err().to_string();
        assert!(refused.contains(named), "{bad}: {refused}");
        let set = from_jwks(&json!({"keys": [bad, good]}).to_string()).unwrap();
        assert_eq!(pinned(&set), [(KeyAlgorithm::EdDSA, Some("good"))]);
    }
    for bad in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]}"#, "{"] {
        assert!(from_jwks(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_number_of_keys_is_bounded() {
    let of = |count| json!({"keys": vec![Pair::ed25519().jwk(); count]}).to_string();
    assert_eq!(from_jwks(&of(KEYS_MAX)).unwrap().len(), KEYS_MAX);
    let refused = from_jwks(&of(KEYS_MAX + 1)).unwrap_err().to_string();
    assert!(refused.contains("65 keys"), "{refused}");
}

#[test]
fn a_key_is_chosen_by_its_name_and_never_for_another_algorithm() {
    let rsa = Pair::rsa(Algorithm::RS256).jwk();
    let jwks = json!({"keys": [
        with(rsa.clone(), json!({"kid": "a", "alg": "RS256"})),
        with(rsa.clone(), json!({"kid": "a", "alg": "RS512"})),
        with(rsa.clone(), json!({"kid": "b", "alg": "RS384"})),
        with(Pair::p256().jwk(), json!({})),
        with(Pair::p256().jwk(), json!({})),
    ]});
    let set = from_jwks(&jwks.to_string()).unwrap();
    let count = |kid, algorithm| set.candidates(kid, algorithm).map(Iterator::count);
    assert_eq!(count(Some("a"), KeyAlgorithm::RS256), Ok(1));
    assert_eq!(count(Some("a"), KeyAlgorithm::RS512), Ok(1));
    assert_eq!(
        count(Some("a"), KeyAlgorithm::RS384),
        Err(InvalidToken::Algorithm)
    );
    assert_eq!(count(Some("b"), KeyAlgorithm::RS384), Ok(1));
    for kid in [None, Some("a"), Some("c")] {
        assert_eq!(count(kid, KeyAlgorithm::ES256), Ok(2));
        assert_eq!(
            count(kid, KeyAlgorithm::EdDSA),
            Err(InvalidToken::Algorithm)
        );
    }
    let named = json!({"keys": [with(rsa, json!({"kid": "a"}))]});
    let named = from_jwks(&named.to_string()).unwrap();
    for kid in [None, Some("c")] {
        let refused = named
            .candidates(kid, KeyAlgorithm::RS256)
            .map(Iterator::count);
        assert_eq!(refused, Err(InvalidToken::UnknownKey));
    }
    let none = KeySet::default();
    let refused = none
        .candidates(None, KeyAlgorithm::RS256)
        .map(Iterator::count);
    assert_eq!(refused, Err(InvalidToken::UnknownKey));
}
