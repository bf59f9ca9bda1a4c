use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::*;
use crate::auth::testing::{Pair, at, both};
use crate::domain::Caller;

fn app() -> Subject {
    Subject::Application {
        app: AppInstanceId::parse("app one").unwrap(),
        credential: Uuid::from_bytes([7; 16]),
    }
}

fn operator() -> Subject {
    Subject::Operator {
        name: "alice".to_owned(),
    }
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn verify(issuer: &Issuer, token: &str) -> Result<Verified, InvalidToken> {
    let token = Token::parse(token).unwrap();
    assert!(issuer.is_named_by(&token));
    issuer.verify(&token)
}

#[test]
fn the_key_is_made_once_and_private() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("auth");
    assert!(Issuer::open_existing(&directory).unwrap().is_none());
    assert!(!directory.exists());
    let first = Issuer::open(&directory).unwrap();
    let path = Issuer::file(&directory);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&path)), (0o700, 0o600));
    let second = Issuer::open(&directory).unwrap();
    assert_eq!(first.kid, second.kid);
    let issued = first.issue(&app(), 60, at(1000)).unwrap();
    assert_eq!(issued.expires_in_s, 60);
    verify(&second, &issued.token)
        .unwrap()
        .judge(at(1059))
        .unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = Issuer::open(&directory).unwrap_err().to_string();
    assert!(
        refused.contains("0640") && refused.contains("chmod 600"),
        "{refused}"
    );
}

#[test]
fn many_that_make_the_key_at_once_have_the_same() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("auth");
    std::thread::scope(|scope| {
        let open = || Issuer::open(&directory).unwrap();
        let made: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        let made: Vec<_> = made.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(made.iter().all(|one| one.kid == made[0].kid));
    });
}

#[test]
fn a_key_of_openssls_is_taken_and_what_is_none_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let path = Issuer::file(temporary.path());
    // Without the public half.
    let openssl = "-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEIFdq0G4oJRVGIb0f2OEmW2MtirwkEdF3gdn7NldJhFC9\n\
                   -----END PRIVATE KEY-----\n";
    place::write(&path, openssl.as_bytes()).unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let issued = issuer.issue(&operator(), 60, at(1000)).unwrap();
    assert!(verify(&issuer, &issued.token).is_ok());
    for bad in [
        String::new(),
        openssl.replace("PRIVATE", "PUBLIC"),
        openssl.replace("MC4C", "MC4D"),
        openssl.replace("MC4C", "*"),
        format!("{openssl}{openssl}"),
    ] {
        place::write(&path, bad.as_bytes()).unwrap();
        let refused = Issuer::open(temporary.path()).unwrap_err().to_string();
        assert!(refused.contains("signing-key.pem"), "{refused}");
    }
}

#[test]
fn an_applications_token_lives_by_steady_time() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let issued = issuer.issue(&app(), 60, both(500, 1000)).unwrap();
    let said = claims(&issued.token);
    assert_eq!(said["iss"], "mepulse");
    assert_eq!(said["aud"], "mepulse");
    assert_eq!(said["sub"], "app one");
    assert_eq!((&said["iat"], &said["exp"]), (&json!(1000), &json!(1060)));
    assert_eq!(said["exp_steady_ms"], 560_000);
    assert!(said["jti"].is_string() && said.get("scope").is_none());
    let verified = verify(&issuer, &issued.token).unwrap();
    let (app, credential) = verified.credential.clone().unwrap();
    assert_eq!(app.as_str(), "app one");
    assert_eq!(credential, Uuid::from_bytes([7; 16]));
    assert_eq!(verified.caller, Caller::application(app));
    // Whatever the wall clock says.
    for wall in [0, 1000, 1_000_000_000] {
        assert_eq!(verified.judge(both(559, wall)), Ok(()));
        assert_eq!(verified.judge(both(560, wall)), Err(InvalidToken::Expired));
    }
}

#[test]
fn an_operators_token_and_one_made_offline_live_by_the_wall_clock() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let offline = issuer.issue_offline(&app(), 60, at(1000).wall).unwrap();
    let operators = issuer.issue(&operator(), 60, at(1000)).unwrap();
    for token in [&offline.token, &operators.token] {
        assert!(claims(token).get("exp_steady_ms").is_none());
        let verified = verify(&issuer, token).unwrap();
        assert_eq!(verified.judge(both(9_999_999, 1059)), Ok(()));
        assert_eq!(verified.judge(both(0, 1060)), Err(InvalidToken::Expired));
    }
    let verified = verify(&issuer, &operators.token).unwrap();
    assert_eq!(verified.caller, Caller::Operator);
    assert!(verified.credential.is_none());
    assert!(
        verify(&issuer, &offline.token)
            .unwrap()
            .credential
            .is_some()
    );
}

#[test]
fn nobody_else_signs_under_our_name() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let said = claims(&issuer.issue(&app(), 60, at(1000)).unwrap().token);
    for pair in crate::auth::testing::pairs() {
        let header = json!({"alg": pair.alg(), "kid": issuer.kid});
        let refused = verify(&issuer, &pair.token(&header, &said)).unwrap_err();
        let expected = match pair {
            Pair::Ed(_) => InvalidToken::Signature,
            _ => InvalidToken::Algorithm,
        };
        assert_eq!(refused, expected);
    }
}

#[test]
fn nothing_secret_is_in_what_is_printed() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let issued = issuer.issue(&app(), 60, at(1000)).unwrap();
    assert_eq!(format!("{issued:?}"), "a token for 60 s");
    assert_eq!(format!("{issuer:?}"), format!("issuer {}", issuer.kid));
}

#[test]
fn a_token_of_time_that_was_lost_is_not_good_again() {
    let temporary = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(temporary.path()).unwrap();
    let issued = issuer.issue(&app(), 60, at(1000)).unwrap();
    let verified = verify(&issuer, &issued.token).unwrap();
    for (steady, expected) in [
        (0, Err(InvalidToken::NotYetValid)),
        (900, Err(InvalidToken::NotYetValid)),
        (998, Err(InvalidToken::NotYetValid)),
        // Whose clock was read a little earlier.
        (999, Ok(())),
        (1000, Ok(())),
        (1059, Ok(())),
        (1060, Err(InvalidToken::Expired)),
    ] {
        // The wall clock does not matter.
        for wall in [0, 1000, 1_000_000] {
            assert_eq!(verified.judge(both(steady, wall)), expected, "{steady}");
        }
    }
}
