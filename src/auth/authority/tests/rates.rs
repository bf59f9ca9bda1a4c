//! Who has to wait for a token, and who never has.

use super::*;

/// Behind a proxy, or on the platform itself: all applications have it.
const SHARED: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

fn is_later(answer: &Result<Issued, Refused>) -> bool {
    matches!(answer, Err(Refused::Later(_)))
}

#[test]
fn one_client_does_not_take_the_allowance_of_others_at_its_address() {
    let mut f = Fixture::new();
    f.auth.token_requests_per_min = 2;
    let (one, two) = (f.add("one"), f.add("two"));
    let authority = f.open();
    let ask = |id: &str, secret: &str| authority.client_credentials(SHARED, id, secret, at(0));
    let denied = Err(Refused::Denied(WRONG_CLIENT.to_owned()));
    assert!(ask("one", &one).is_ok());
    for _ in 0..2 {
        assert_eq!(ask("two", "wrong"), denied);
        assert_eq!(ask("nobody", "wrong"), denied);
    }
    // Both allowances are used up, that of all who are unknown in any name.
    assert_eq!(
        ask("two", "wrong"),
        Err(Refused::Later(Duration::from_secs(30)))
    );
    assert!(is_later(&ask("somebody", "wrong")) && is_later(&ask("no/id", "wrong")));
    assert!(is_later(&ask("two", &two)));
    // Elsewhere it is whole.
    let elsewhere = Some(IpAddr::from([10, 0, 0, 1]));
    let there = authority.client_credentials(elsewhere, "two", &two, at(0));
    assert!(there.is_ok());
    // A right secret that is known by now needs none, whatever else is going on.
    for _ in 0..10 {
        assert!(ask("one", &one).is_ok() && ask("two", &two).is_ok());
    }
    assert_eq!(ask("one", "wrong"), denied);
    assert!(is_later(&ask("one", "wrong")));
    assert!(ask("one", &one).is_ok());
}

#[test]
fn a_remembered_secret_is_forgotten_with_its_credential() {
    let mut f = Fixture::new();
    f.auth.token_requests_per_min = 1;
    let old = f.add("one");
    let authority = f.open();
    let ask = |secret: &str| authority.client_credentials(SHARED, "one", secret, at(0));
    assert!(ask(&old).is_ok() && ask(&old).is_ok());
    let new = f.admin().rotate(&app("one"), at(0).wall).unwrap();
    assert!(authority.refresh().is_empty());
    // The new credential has an allowance of its own.
    assert_eq!(ask(&old), Err(Refused::Denied(WRONG_CLIENT.to_owned())));
    assert!(is_later(&ask(&old)) && is_later(&ask(&new)));
    let later = |secret: &str| authority.client_credentials(SHARED, "one", secret, at(60));
    assert!(later(&new).is_ok() && later(&new).is_ok());
    assert_eq!(
        format!("{:?}", authority.remembered),
        "1 remembered secrets"
    );
    f.admin().remove(&app("one")).unwrap();
    assert!(authority.refresh().is_empty());
    assert_eq!(
        format!("{:?}", authority.remembered),
        "0 remembered secrets"
    );
}

#[test]
fn a_signature_that_verifies_is_never_refused_for_the_rate() {
    let mut f = Fixture::new();
    f.auth.token_requests_per_min = 2;
    f.admin().add(&app("one"), false, at(0).wall).unwrap();
    f.admin()
        .add_access_key(&app("one"), "AK", "the key")
        .unwrap();
    let authority = f.open();
    let ask = |second: u32, access_key: &str, secret_key: &str| {
        let date = format!("20261123T0606{second:02}Z");
        sdk_from(SHARED, &authority, access_key, secret_key, &date, at(0))
    };
    for second in 0..5 {
        assert!(ask(second, "AK", "the key").is_ok(), "{second}");
    }
    let denied = Err(Refused::Denied(WRONG_SIGNATURE.to_owned()));
    assert_eq!(ask(5, "AK", "wrong"), denied);
    assert_eq!(ask(5, "KA", "the key"), denied);
    assert!(is_later(&ask(5, "AK", "wrong")) && is_later(&ask(5, "KA", "the key")));
    assert!(ask(6, "AK", "the key").is_ok());
}
