use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::auth::testing::{self, Pair, at, both};
use crate::config::VerificationKey;

/// A key set of this pair's key alone.
fn keys(pair: &Pair, kid: &str) -> KeySet {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), pair.public_pem()).unwrap();
    KeySet::load(&Auth {
        keys: vec![VerificationKey {
            algorithm: algorithm_named(&pair.alg()).unwrap(),
            file: file.path().to_owned(),
            kid: kid.to_owned(),
        }],
        ..Auth::default()
    })
    .unwrap()
}

fn rules() -> Auth {
    Auth {
        leeway_s: 10,
        ..Auth::default()
    }
}

fn verify(token: &str, keys: &KeySet, rules: &Auth, now: Moment) -> Result<Caller, InvalidToken> {
    let verified = Token::parse(token)?.verify(keys, rules)?;
    verified.judge(now).map(|()| verified.caller)
}

fn app(id: &str) -> Caller {
    Caller::application(AppInstanceId::parse(id).unwrap())
}

#[test]
fn a_token_of_each_algorithm_names_its_application() {
    for pair in testing::pairs() {
        let keys = keys(&pair, "k");
        let header = json!({"alg": pair.alg(), "kid": "k", "typ": "JWT"});
        let token = pair.token(&header, &json!({"sub": "app one", "exp": 100}));
        assert_eq!(verify(&token, &keys, &rules(), at(50)), Ok(app("app one")));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = json!({"sub": "app two", "exp": 100});
        let other = pair.token(&header, &other);
        let (other, _) = other.rsplit_once('.').unwrap();
        for forged in [
            format!("{other}.{signature}"),
            format!("{message}."),
            format!("{message}.*"),
            format!("{message}.{}", &signature[..signature.len() - 4]),
        ] {
            let refused = verify(&forged, &keys, &rules(), at(50));
            assert_eq!(refused, Err(InvalidToken::Signature), "{forged}");
        }
    }
}

#[test]
fn a_key_is_never_used_for_another_algorithm() {
    let rsa = Pair::rsa(jsonwebtoken::Algorithm::RS512);
    let claims = json!({"sub": "a", "exp": 100});
    let keys = keys(&Pair::rsa(jsonwebtoken::Algorithm::RS256), "k");
    // Rightly signed with that very key, but by another algorithm than the one it is for.
    let token = rsa.token(&json!({"alg": "RS512", "kid": "k"}), &claims);
    let refused = verify(&token, &keys, &rules(), at(50));
    assert_eq!(refused, Err(InvalidToken::Algorithm));
    let token = rsa.token(&json!({"alg": "RS256", "kid": "k"}), &claims);
    let refused = verify(&token, &keys, &rules(), at(50));
    assert_eq!(refused, Err(InvalidToken::Signature));
}

#[test]
fn the_public_key_is_no_secret_and_none_is_no_algorithm() {
    let pair = Pair::rsa(jsonwebtoken::Algorithm::RS256);
    let keys = keys(&pair, "");
    let claims = URL_SAFE_NO_PAD.encode(json!({"sub": "a", "exp": 100}).to_string());
    for alg in ["HS256", "HS384", "HS512"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        let message = format!("{header}.{claims}");
        for secret in [
            pair.public_pem().as_bytes(),
            &testing::der(&pair.public_pem()),
        ] {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes()));
            let refused = verify(&format!("{message}.{tag}"), &keys, &rules(), at(50));
            assert_eq!(refused, Err(InvalidToken::Unsupported));
        }
    }
    for alg in ["none", "None", "", "PS256", "ES384", "rs256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        for signature in ["", "AA"] {
            let token = format!("{header}.{claims}.{signature}");
            let refused = verify(&token, &keys, &rules(), at(50));
            assert_eq!(refused, Err(InvalidToken::Unsupported), "{alg}");
        }
    }
}

#[test]
fn what_is_malformed_is_refused_without_a_panic() {
    let pair = Pair::ed25519();
    let keys = keys(&pair, "");
    let fine = r#"{"sub":"a","exp":100}"#;
    let signed = |header: &str, claims: &str| pair.raw_token(header, claims);
    let nested = format!("{{\"alg\":{}", "[".repeat(4000));
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        "a.b".to_owned(),
        "é.é.é".to_owned(),
        format!("{}.x", signed(r#"{"alg":"EdDSA"}"#, fine)),
        signed("", fine),
        signed("{}", fine),
        signed("[]", fine),
        signed(r#"{"alg":5}"#, fine),
        signed(r#"{"alg":"EdDSA","alg":"EdDSA"}"#, fine),
        signed(r#"{"alg":"EdDSA","kid":"a","kid":"b"}"#, fine),
        signed(r#"{"alg":"EdDSA","kid":5}"#, fine),
        signed(r#"{"alg":"EdDSA","crit":["b64"],"b64":false}"#, fine),
        signed(r#"{"alg":"EdDSA","crit":[]}"#, fine),
        signed(r#"{"alg":"EdDSA","crit":null}"#, fine),
        signed(&nested, fine),
        signed(r#"{"alg":"EdDSA"}"#, ""),
        signed(r#"{"alg":"EdDSA"}"#, "[]"),
        signed(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a","exp":100,"sub":"b"}"#),
        signed(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a"}"#),
        signed(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a","exp":"100"}"#),
        signed(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a","exp":100,"nbf":"0"}"#),
        signed(r#"{"alg":"EdDSA"}"#, r#"{"sub":"a","exp":1e999}"#),
    ] {
        let refused = verify(&bad, &keys, &rules(), at(50));
        assert!(
            matches!(refused, Err(InvalidToken::Malformed(_))),
            "{bad}: {refused:?}"
        );
    }
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    let refused = verify(&long, &keys, &rules(), at(50));
    assert_eq!(refused, Err(InvalidToken::TooLong));
}

#[test]
fn times_are_judged_with_leeway_on_both_sides() {
    let pair = Pair::ed25519();
    let keys = keys(&pair, "");
    for (claims, when, expected) in [
        (json!({"exp": 100}), 109, Ok(())),
        (json!({"exp": 100}), 110, Err(InvalidToken::Expired)),
        (json!({"exp": 100.5}), 110, Ok(())),
        (json!({"exp": 100.5}), 111, Err(InvalidToken::Expired)),
        (json!({"exp": -1}), 10, Err(InvalidToken::Expired)),
        (json!({"exp": 1e300}), 110, Ok(())),
        (json!({"exp": u64::MAX}), 110, Ok(())),
        (json!({"exp": 200, "nbf": 100}), 90, Ok(())),
        (
            json!({"exp": 200, "nbf": 100}),
            89,
            Err(InvalidToken::NotYetValid),
        ),
        (
            json!({"exp": 200, "nbf": u64::MAX}),
            89,
            Err(InvalidToken::NotYetValid),
        ),
        (json!({"exp": 200, "nbf": -1e300}), 89, Ok(())),
        (json!({"exp": 100, "iat": "x"}), 50, Ok(())),
    ] {
        let mut claims = claims;
        claims["sub"] = "a".into();
        let token = pair.token(&json!({"alg": "EdDSA"}), &claims);
        // Steady time is no matter of theirs.
        let judged = verify(&token, &keys, &rules(), both(1_000_000, when));
        assert_eq!(judged.map(|_| ()), expected, "{claims} at {when}");
    }
}

#[test]
fn issuer_and_audience_are_asked_for_only_if_they_are_set() {
    let pair = Pair::ed25519();
    let keys = keys(&pair, "");
    let strict = Auth {
        issuer: "https://id".to_owned(),
        audience: "mec".to_owned(),
        ..rules()
    };
    let (other_issuer, other_audience) = (Err(InvalidToken::Issuer), Err(InvalidToken::Audience));
    for (claims, expected) in [
        (json!({"iss": "https://id", "aud": "mec"}), Ok(())),
        (json!({"iss": "https://id", "aud": ["x", 5, "mec"]}), Ok(())),
        (json!({"aud": "mec"}), other_issuer),
        (json!({"iss": "https://id/", "aud": "mec"}), other_issuer),
        (json!({"iss": ["https://id"], "aud": "mec"}), other_issuer),
        (json!({"iss": "https://id"}), other_audience),
        (json!({"iss": "https://id", "aud": "x mec"}), other_audience),
        (json!({"iss": "https://id", "aud": []}), other_audience),
    ] {
        let mut claims = claims;
        claims["sub"] = "a".into();
        claims["exp"] = 100.into();
        let token = pair.token(&json!({"alg": "EdDSA"}), &claims);
        let judged = verify(&token, &keys, &strict, at(50));
        assert_eq!(judged.map(|_| ()), expected, "{claims}");
        assert_eq!(verify(&token, &keys, &rules(), at(50)), Ok(app("a")));
    }
}

#[test]
fn an_operator_needs_no_application_and_nobody_else_does_without() {
    let pair = Pair::ed25519();
    let keys = keys(&pair, "");
    let rules = Auth {
        app_claim: "app_id".to_owned(),
        operator_scope: "boss".to_owned(),
        ..rules()
    };
    let nobody = Err(InvalidToken::NoApplication);
    for (claims, expected) in [
        (json!({"app_id": "a"}), Ok(app("a"))),
        (json!({"app_id": "a", "scope": "x bosses"}), Ok(app("a"))),
        (
            json!({"app_id": "a", "scope": "x boss"}),
            Ok(Caller::Operator),
        ),
        (json!({"app_id": 5, "scp": ["boss"]}), Ok(Caller::Operator)),
        (json!({"scp": "boss"}), Ok(Caller::Operator)),
        (json!({"sub": "a"}), nobody.clone()),
        (json!({"app_id": ["a"]}), nobody.clone()),
        (json!({"app_id": "a/b"}), nobody.clone()),
        (json!({"app_id": ""}), nobody.clone()),
        (json!({"scope": OWN_OPERATOR_SCOPE}), nobody),
    ] {
        let mut claims: Value = claims;
        claims["exp"] = 100.into();
        let token = pair.token(&json!({"alg": "EdDSA"}), &claims);
        assert_eq!(verify(&token, &keys, &rules, at(50)), expected, "{claims}");
    }
}

#[test]
fn messages_tell_nothing_of_the_token() {
    let pair = Pair::ed25519();
    let token = pair.token(
        &json!({"alg": "EdDSA"}),
        &json!({"sub": "secret", "exp": "x"}),
    );
    let refused = verify(&token, &keys(&pair, ""), &rules(), at(50)).unwrap_err();
    let text = refused.to_string();
    assert!(
        !text.contains("secret") && text.contains("malformed"),
        "{text}"
    );
}
