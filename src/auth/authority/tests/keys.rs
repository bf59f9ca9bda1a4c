//! The keys of an identity server, and how they change.

use super::*;

#[test]
fn an_empty_key_set_revokes_and_a_broken_file_does_not() {
    let mut f = Fixture::new();
    let pair = Pair::ed25519();
    let file = f.keep.path().join("keys.jwks");
    let full = json!({"keys": [pair.jwk()]}).to_string();
    fs::write(&file, &full).unwrap();
    f.auth.jwks_file = file.clone();
    let authority = f.open();
    let token = pair.token(&json!({"alg": "EdDSA"}), &json!({"sub": "one", "exp": 100}));
    assert_eq!(authority.verify(&token, at(50)), caller("one"));
    for broken in ["", "{}", "{", r#"{"keys":{}}"#] {
        fs::write(&file, broken).unwrap();
        let _ = authority.refresh();
        assert_eq!(authority.standing().len(), 1, "{broken}");
        assert_eq!(authority.verify(&token, at(50)), caller("one"), "{broken}");
    }
    fs::remove_file(&file).unwrap();
    let _ = authority.refresh();
    assert_eq!(authority.verify(&token, at(50)), caller("one"));
    for empty in [r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AA"}]}"#] {
        fs::write(&file, &full).unwrap();
        assert!(authority.refresh().is_empty());
        assert_eq!(authority.verify(&token, at(50)), caller("one"));
        fs::write(&file, empty).unwrap();
        assert!(authority.refresh().is_empty() && authority.standing().is_empty());
        let refused = authority.verify(&token, at(50));
        assert_eq!(refused, Err(InvalidToken::UnknownKey), "{empty}");
        // Who starts with it has configured it wrongly.
        assert!(Authority::open(&f.auth, &f.edgegallery, f.keep.path()).is_err());
    }
}

#[test]
fn tokens_of_others_are_verified_by_their_keys_until_those_change() {
    let mut f = Fixture::new();
    let pair = f.trust("");
    let authority = f.open();
    let header = json!({"alg": "EdDSA", "kid": "theirs"});
    let token = pair.token(&header, &json!({"sub": "not listed here", "exp": 100}));
    for _ in 0..2 {
        assert_eq!(authority.verify(&token, at(50)), caller("not listed here"));
    }
    // Known by now, and still judged.
    let expired = authority.verify(&token, at(1000));
    assert_eq!(expired, Err(InvalidToken::Expired));
    let file = &f.auth.keys[0].file;
    fs::write(file, "rubbish").unwrap();
    let errors = authority.refresh();
    assert!(
        errors.len() == 1 && errors[0].to_string().contains("trusted.pem"),
        "{errors:?}"
    );
    assert!(authority.refresh().is_empty());
    assert_eq!(authority.verify(&token, at(50)), caller("not listed here"));
    fs::write(file, Pair::ed25519().public_pem()).unwrap();
    assert!(authority.refresh().is_empty());
    let refused = authority.verify(&token, at(50));
    assert_eq!(refused, Err(InvalidToken::Signature));
}
