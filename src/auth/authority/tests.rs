use std::fs;
use std::net::IpAddr;

use serde_json::json;
use zeroize::Zeroizing;

use super::grant::{NOBODYS_SECRET_KEY, WRONG_CLIENT, WRONG_SIGNATURE};
use super::*;
use crate::auth::issuer::{Issued, Subject};
use crate::auth::sdk_hmac;
use crate::auth::testing::{Pair, at, both};
use crate::config::{KeyAlgorithm, VerificationKey};

struct Fixture {
    keep: tempfile::TempDir,
    auth: Auth,
    edgegallery: EdgeGallery,
}

impl Fixture {
    fn new() -> Self {
        Self {
            keep: tempfile::tempdir().unwrap(),
            auth: Auth {
                mode: AuthMode::Jwt,
                ..Auth::default()
            },
            edgegallery: EdgeGallery {
                enabled: true,
                ..EdgeGallery::default()
            },
        }
    }

    fn open(&self) -> Authority {
        Authority::open(&self.auth, &self.edgegallery, self.keep.path()).unwrap()
    }

    fn admin(&self) -> Credentials {
        Credentials::new(self.keep.path(), &self.edgegallery)
    }

    fn paths(&self) -> Paths {
        Paths::new(self.keep.path(), &self.edgegallery)
    }

    fn add(&self, id: &str) -> Zeroizing<String> {
        let added = self.admin().add(&app(id), true, at(0).wall).unwrap();
        added.unwrap()
    }

    /// An identity server whose public key is configured.
    fn trust(&mut self, kid: &str) -> Pair {
        let pair = Pair::ed25519();
        let file = self.keep.path().join("trusted.pem");
        fs::write(&file, pair.public_pem()).unwrap();
        self.auth.keys = vec![VerificationKey {
            algorithm: KeyAlgorithm::EdDSA,
            file,
            kid: kid.to_owned(),
        }];
        pair
    }
}

fn app(id: &str) -> AppInstanceId {
    AppInstanceId::parse(id).unwrap()
}

fn caller(id: &str) -> Result<Caller, InvalidToken> {
    Ok(Caller::application(app(id)))
}

const DATE: &str = "20261123T060656Z";
const DATE_S: u64 = 1_795_414_016;

/// Signs a request with these headers and asks for a token.
fn sdk(
    authority: &Authority,
    access_key: &str,
    secret_key: &str,
    date: &str,
    now: Moment,
) -> Result<Issued, Refused> {
    sdk_from(None, authority, access_key, secret_key, date, now)
}

/// The same from an address.
fn sdk_from(
    from: Option<IpAddr>,
    authority: &Authority,
    access_key: &str,
    secret_key: &str,
    date: &str,
    now: Moment,
) -> Result<Issued, Refused> {
    let headers = [("host", "mep"), ("x-sdk-date", date)];
    let request = sdk_hmac::Request {
        method: "POST",
        path: "/mep/token",
        query: "",
        headers: &headers,
        body: b"",
    };
    let signed = sdk_hmac::sign(access_key, secret_key.as_bytes(), date, &request);
    let authorization = sdk_hmac::Authorization::parse(&signed).unwrap();
    authority.sdk_hmac(from, &authorization, date, &request, now)
}

#[test]
fn a_secret_gets_a_token_that_speaks_for_its_application_alone() {
    let f = Fixture::new();
    let secret = f.add("one");
    f.add("two");
    let authority = f.open();
    let issued = authority
        .client_credentials(None, "one", &secret, at(100))
        .unwrap();
    assert_eq!(issued.expires_in_s, 900);
    for _ in 0..2 {
        assert_eq!(authority.verify(&issued.token, at(999)), caller("one"));
        let expired = authority.verify(&issued.token, at(1000));
        assert_eq!(expired, Err(InvalidToken::Expired));
    }
    f.admin().add(&app("three"), false, at(0).wall).unwrap();
    assert!(authority.refresh().is_empty());
    let denied = Err(Refused::Denied(WRONG_CLIENT.to_owned()));
    for (id, secret) in [
        ("two", secret.as_str()),
        ("one", &secret[1..]),
        ("one", ""),
        ("nobody", &secret),
        ("no/id", &secret),
        ("three", &secret),
        ("", ""),
    ] {
        let refused = authority.client_credentials(None, id, secret, at(100));
        assert_eq!(refused, denied, "{id:?}");
    }
}

#[test]
fn a_token_ends_with_its_credential_even_if_it_is_known() {
    let f = Fixture::new();
    let secrets = [f.add("one"), f.add("two")];
    let authority = f.open();
    let tokens: Vec<_> = ["one", "two"]
        .iter()
        .zip(&secrets)
        .map(|(id, secret)| {
            authority
                .client_credentials(None, id, secret, at(0))
                .unwrap()
                .token
        })
        .collect();
    for (token, id) in tokens.iter().zip(["one", "two"]) {
        assert_eq!(authority.verify(token, at(1)), caller(id));
    }
    let fresh = f.admin().rotate(&app("one"), at(0).wall).unwrap();
    f.admin().remove(&app("two")).unwrap();
    assert!(authority.refresh().is_empty());
    for token in &tokens {
        assert_eq!(authority.verify(token, at(1)), Err(InvalidToken::Revoked));
        // And if it is looked at for the first time.
        assert_eq!(f.open().verify(token, at(1)), Err(InvalidToken::Revoked));
    }
    let issued = authority
        .client_credentials(None, "one", &fresh, at(0))
        .unwrap();
    assert_eq!(authority.verify(&issued.token, at(1)), caller("one"));
    assert_eq!(authority.applications(), [app("one")]);
    assert_eq!(authority.removed(), [app("two")]);
    authority.forget_removed(&app("two")).unwrap();
    assert!(authority.removed().is_empty() && f.open().removed().is_empty());
}

#[test]
fn the_wall_clock_is_no_matter_to_an_applications_token() {
    let f = Fixture::new();
    let secret = f.add("one");
    let authority = f.open();
    let now = both(100, 5_000);
    let issued = authority
        .client_credentials(None, "one", &secret, now)
        .unwrap();
    for wall in [0, 5_000, 5_000_000] {
        assert_eq!(
            authority.verify(&issued.token, both(999, wall)),
            caller("one")
        );
        let expired = authority.verify(&issued.token, both(1000, wall));
        assert_eq!(expired, Err(InvalidToken::Expired));
    }
}

#[test]
fn a_signed_request_gets_a_token_once() {
    let mut f = Fixture::new();
    f.edgegallery.max_skew_s = 300;
    f.admin().add(&app("one"), false, at(0).wall).unwrap();
    f.admin()
        .add_access_key(&app("one"), "AK", "the secret key")
        .unwrap();
    let authority = f.open();
    let now = both(50, DATE_S + 300);
    let denied = Err(Refused::Denied(WRONG_SIGNATURE.to_owned()));
    assert_eq!(sdk(&authority, "AK", "another", DATE, now), denied);
    assert_eq!(sdk(&authority, "KA", "the secret key", DATE, now), denied);
    let nobodys = String::from_utf8(NOBODYS_SECRET_KEY.to_vec()).unwrap();
    assert_eq!(sdk(&authority, "KA", &nobodys, DATE, now), denied);

    let issued = sdk(&authority, "AK", "the secret key", DATE, now).unwrap();
    assert_eq!(issued.expires_in_s, 3600);
    assert_eq!(authority.verify(&issued.token, now), caller("one"));
    let again = sdk(&authority, "AK", "the secret key", DATE, now).unwrap_err();
    assert!(again.to_string().contains("used already"), "{again}");
    let later = sdk(&authority, "AK", "the secret key", "20261123T060657Z", now);
    assert!(later.is_ok());
    for wall in [DATE_S - 301, DATE_S + 301] {
        let late = sdk(&authority, "AK", "the secret key", DATE, both(50, wall));
        assert!(matches!(late, Err(Refused::Denied(why)) if why.contains("300 s")));
    }
    for bad in ["", "yesterday", "20261323T060656Z"] {
        let refused = sdk(&authority, "AK", "the secret key", bad, now);
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{bad:?}");
    }
    // A new secret for the client leaves access keys alone; a new secret key ends their tokens.
    f.admin().rotate(&app("one"), at(0).wall).unwrap();
    assert!(authority.refresh().is_empty());
    assert_eq!(authority.verify(&issued.token, now), caller("one"));
    f.admin()
        .add_access_key(&app("one"), "AK", "another")
        .unwrap();
    assert!(authority.refresh().is_empty());
    assert_eq!(
        authority.verify(&issued.token, now),
        Err(InvalidToken::Revoked)
    );
    f.admin().remove(&app("one")).unwrap();
    assert!(authority.refresh().is_empty());
    let gone = sdk(&authority, "AK", "another", "20261123T060658Z", now);
    assert_eq!(gone, denied);
}

#[test]
fn the_date_is_looked_at_only_if_it_is_asked_for() {
    let f = Fixture::new();
    f.admin().add(&app("one"), false, at(0).wall).unwrap();
    f.admin()
        .add_access_key(&app("one"), "AK", "the secret key")
        .unwrap();
    let authority = f.open();
    let long_ago = both(50, 0);
    assert!(sdk(&authority, "AK", "the secret key", DATE, long_ago).is_ok());
    let again = sdk(&authority, "AK", "the secret key", DATE, both(949, 0));
    assert!(matches!(again, Err(Refused::Denied(_))));
    assert!(sdk(&authority, "AK", "the secret key", DATE, both(950, 0)).is_ok());
}

#[test]
fn a_request_with_other_headers_than_those_signed_is_malformed() {
    let f = Fixture::new();
    let authority = f.open();
    let headers = [("host", "mep"), ("x-sdk-date", DATE)];
    let signed = sdk_hmac::Request {
        method: "POST",
        path: "/mep/token",
        query: "",
        headers: &headers,
        body: b"",
    };
    let text = sdk_hmac::sign("AK", b"SK", DATE, &signed);
    let authorization = sdk_hmac::Authorization::parse(&text).unwrap();
    for headers in [
        &headers[1..],
        &[headers[1], headers[0]],
        &[headers[0], ("x-sdk-date", "20261123T060657Z")],
    ] {
        let request = sdk_hmac::Request { headers, ..signed };
        let refused = authority.sdk_hmac(None, &authorization, DATE, &request, at(0));
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{headers:?}");
    }
}

#[test]
fn our_name_is_our_keys_alone_and_our_tokens_need_no_foreign_rules() {
    let mut f = Fixture::new();
    let own = Issuer::open(&f.paths().directory).unwrap();
    let operator = Subject::Operator {
        name: "alice".to_owned(),
    };
    let issued = own.issue(&operator, 60, at(100)).unwrap();
    let parsed = Token::parse(&issued.token).unwrap();
    let kid = parsed.kid().unwrap().to_owned();
    // Even if somebody configures a key under our name.
    let pair = f.trust(&kid);
    f.auth.issuer = "https://id".to_owned();
    f.auth.audience = "mec".to_owned();
    let authority = f.open();
    assert_eq!(
        authority.verify(&issued.token, at(100)),
        Ok(Caller::Operator)
    );
    let claims = json!({"iss": "https://id", "aud": "mec", "sub": "a", "exp": 200});
    let forged = pair.token(&json!({"alg": "EdDSA", "kid": kid}), &claims);
    let refused = authority.verify(&forged, at(100));
    assert_eq!(refused, Err(InvalidToken::Signature));
}

#[test]
fn the_signing_key_is_made_only_if_it_is_needed_and_honoured_if_it_is_there() {
    let mut f = Fixture::new();
    f.edgegallery.enabled = false;
    f.auth.token_endpoint = false;
    let authority = f.open();
    assert!(!f.paths().directory.exists());
    let secret = f.add("one");
    assert!(authority.refresh().is_empty());
    let refused = authority.client_credentials(None, "one", &secret, at(0));
    assert!(matches!(refused, Err(Refused::Failed(_))), "{refused:?}");
    // An administrator makes one.
    let subject = Subject::Application {
        app: app("one"),
        credential: f.admin().credential_of(&app("one")).unwrap(),
    };
    let issuer = Issuer::open(f.admin().directory()).unwrap();
    let issued = issuer.issue_offline(&subject, 60, at(100).wall).unwrap();
    let unknown = authority.verify(&issued.token, at(100));
    assert_eq!(unknown, Err(InvalidToken::UnknownKey));
    assert!(authority.refresh().is_empty());
    assert_eq!(authority.verify(&issued.token, at(100)), caller("one"));
    // And takes it away, which ends all of its tokens.
    fs::remove_file(Issuer::file(f.admin().directory())).unwrap();
    assert!(authority.refresh().is_empty());
    let unknown = authority.verify(&issued.token, at(100));
    assert_eq!(unknown, Err(InvalidToken::UnknownKey));

    f.auth.token_endpoint = true;
    let authority = f.open();
    assert!(Issuer::file(f.admin().directory()).exists());
    assert!(
        authority
            .client_credentials(None, "one", &secret, at(0))
            .is_ok()
    );
}

#[test]
fn broken_files_keep_the_old_credentials_and_are_named() {
    let f = Fixture::new();
    let secret = f.add("one");
    f.admin().new_access_key(&app("one")).unwrap();
    let authority = f.open();
    let token = authority
        .client_credentials(None, "one", &secret, at(0))
        .unwrap()
        .token;
    let paths = f.paths();
    for path in [&paths.clients, &paths.access_keys, &paths.cipher_key] {
        let fine = fs::read(path).unwrap();
        fs::write(path, "rubbish").unwrap();
        let errors = authority.refresh();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(
            errors.len() == 1 && errors[0].to_string().contains(name),
            "{errors:?}"
        );
        assert!(authority.refresh().is_empty());
        let standing = authority.standing();
        assert!(
            standing.len() == 1 && standing[0].contains(name),
            "{standing:?}"
        );
        assert_eq!(authority.verify(&token, at(1)), caller("one"));
        let refused = Authority::open(&f.auth, &f.edgegallery, f.keep.path()).unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        fs::write(path, fine).unwrap();
        assert!(authority.refresh().is_empty() && authority.standing().is_empty());
    }
}

#[test]
fn long_tokens_are_refused() {
    let authority = Fixture::new().open();
    let long = "a".repeat(TOKEN_BYTES_MAX + 1);
    assert_eq!(authority.verify(&long, at(0)), Err(InvalidToken::TooLong));
}

mod keys;
mod rates;
