//! Tokens of our own: credentials from the operator, tokens from `/oauth2/token`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::{JWT, admin, secret};
use crate::support::jwt::bearer;
use crate::support::{Answer, Server, data_dir, mepulse, send, service};

fn ask(server: &Server, headers: &[(&str, &str)], body: &str) -> Answer {
    let url = format!("{}/oauth2/token", server.url);
    let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
    all.extend(headers);
    send("POST", &url, &all, body.as_bytes())
}

fn form(id: &str, secret: &str) -> String {
    format!("grant_type=client_credentials&client_id={id}&client_secret={secret}")
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let token = answer.json();
    assert_eq!(
        (&token["token_type"], &token["expires_in"]),
        (&json!("Bearer"), &json!(900))
    );
    token["access_token"].as_str().unwrap().to_owned()
}

fn list(server: &Server, token: &str, app: &str) -> Answer {
    let bearer = bearer(token);
    let url = format!("{}/services", server.app(app));
    send("GET", &url, &[("authorization", &bearer)], b"")
}

#[test]
fn an_application_that_was_added_gets_tokens_and_is_known() {
    let (_keep, dir) = data_dir();
    // Before the first start, and while the server runs.
    let first = secret(&dir, "add", "app-a");
    let server = Server::start(&dir, &JWT);
    let second = secret(&dir, "add", "app-b");
    for (app, secret) in [("app-a", &first), ("app-b", &second)] {
        let token = token_of(&ask(&server, &[], &form(app, secret)));
        let known = list(&server, &token, app);
        assert_eq!((known.status, known.text()), (200, "[]".to_owned()));
        let bearer = bearer(&token);
        let url = format!("{}/services", server.app(app));
        let body = service("cam", Some(3600)).to_string();
        let made = send("POST", &url, &[("authorization", &bearer)], body.as_bytes());
        assert_eq!(made.status, 201, "{made:?}");
        let header = basic(app, secret);
        token_of(&ask(
            &server,
            &[("authorization", &header)],
            "grant_type=client_credentials",
        ));
    }
    list(
        &server,
        &token_of(&ask(&server, &[], &form("app-a", &first))),
        "app-b",
    )
    .problem(403);
    server.stop();
    // Tokens outlive the server that issued them.
    let server = Server::start(&dir, &JWT);
    let token = token_of(&ask(&server, &[], &form("app-a", &first)));
    server.stop();
    let server = Server::start(&dir, &JWT);
    assert_eq!(list(&server, &token, "app-a").status, 200);
}

#[test]
fn a_new_secret_ends_the_old_one_and_its_tokens() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    let old = secret(&dir, "add", "app-a");
    let token = token_of(&ask(&server, &[], &form("app-a", &old)));
    assert_eq!(list(&server, &token, "app-a").status, 200);
    let new = secret(&dir, "rotate", "app-a");
    assert_eq!(ask(&server, &[], &form("app-a", &old)).status, 401);
    list(&server, &token, "app-a").problem(401);
    let token = token_of(&ask(&server, &[], &form("app-a", &new)));
    assert_eq!(list(&server, &token, "app-a").status, 200);
    // With the application go its services.
    let bearer = bearer(&token);
    let url = format!("{}/services", server.app("app-a"));
    let body = service("cam", Some(3600)).to_string();
    let made = send("POST", &url, &[("authorization", &bearer)], body.as_bytes());
    assert_eq!(made.status, 201, "{made:?}");
    admin(&dir, &["remove", "app-a"]);
    list(&server, &token, "app-a").problem(401);
    assert_eq!(ask(&server, &[], &form("app-a", &new)).status, 401);
    assert_eq!(server.metric("mepulse_apps"), 0);
    assert_eq!(server.metric("mepulse_deregistrations_total"), 1);
    server.stop();
}

#[test]
fn what_was_removed_while_the_server_was_away_is_gone_when_it_is_back() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    secret(&dir, "add", "app-a");
    secret(&dir, "add", "app-b");
    assert_eq!(server.metric("mepulse_apps"), 2);
    server.stop();
    admin(&dir, &["remove", "app-a"]);
    let server = Server::start(&dir, &JWT);
    assert_eq!(server.metric("mepulse_apps"), 1);
    server.stop();
}

#[test]
fn who_is_added_again_while_the_server_was_away_starts_without_the_old_services() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    let old = secret(&dir, "add", "app-a");
    let token = token_of(&ask(&server, &[], &form("app-a", &old)));
    let header = bearer(&token);
    let url = format!("{}/services", server.app("app-a"));
    let body = service("cam", Some(3600)).to_string();
    let made = send("POST", &url, &[("authorization", &header)], body.as_bytes());
    assert_eq!(made.status, 201, "{made:?}");
    server.stop();
    admin(&dir, &["remove", "app-a"]);
    let new = secret(&dir, "add", "app-a");
    let server = Server::start(&dir, &JWT);
    list(&server, &token, "app-a").problem(401);
    let token = token_of(&ask(&server, &[], &form("app-a", &new)));
    let known = list(&server, &token, "app-a");
    assert_eq!((known.status, known.text()), (200, "[]".to_owned()));
    server.stop();
}

#[test]
fn refusals_are_those_of_oauth() {
    let (_keep, dir) = data_dir();
    let more = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.token_requests_per_min=10000",
    ];
    let server = Server::start(&dir, &more);
    let secret = secret(&dir, "add", "app");
    let good = basic("app", &secret);
    let wrong = basic("app", "wrong");
    let unknown = basic("who", &secret);
    let grant = "grant_type=client_credentials";
    for (headers, body, status, error) in [
        (None, form("app", "wrong"), 401, "invalid_client"),
        (None, form("who", &secret), 401, "invalid_client"),
        (None, form("", ""), 401, "invalid_client"),
        (None, form("a/b", &secret), 401, "invalid_client"),
        (
            None,
            form("app", &"x".repeat(10_000)),
            401,
            "invalid_client",
        ),
        (None, grant.to_owned(), 401, "invalid_client"),
        (
            None,
            format!("{grant}&client_id=app"),
            401,
            "invalid_client",
        ),
        (None, String::new(), 400, "invalid_request"),
        (
            None,
            "grant_type=password".to_owned(),
            400,
            "unsupported_grant_type",
        ),
        (None, format!("{grant}&{grant}"), 400, "invalid_request"),
        (Some(&wrong), grant.to_owned(), 401, "invalid_client"),
        (Some(&unknown), grant.to_owned(), 401, "invalid_client"),
        (Some(&good), form("app", &secret), 400, "invalid_request"),
        (
            Some(&good),
            format!("{grant}&client_id=other"),
            401,
            "invalid_client",
        ),
    ] {
        let headers: Vec<_> = headers
            .map(|value: &String| ("authorization", value.as_str()))
            .into_iter()
            .collect();
        let answer = ask(&server, &headers, &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(answer.json()["error"], error, "{body}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge.is_some(), status == 401, "{body}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for value in ["Basic", "Basic ***", "Basic YQ=="] {
        assert_eq!(ask(&server, &[("authorization", value)], grant).status, 401);
    }
    let again = format!("{grant}&client_id=app&scope=anything");
    token_of(&ask(&server, &[("authorization", &good)], &again));
    let url = format!("{}/oauth2/token", server.url);
    let wrong_method = send("GET", &url, &[], b"");
    wrong_method.problem(405);
    assert_eq!(wrong_method.header("allow"), Some("POST"));
    send("POST", &url, &[], &vec![b'x'; 100_000]).problem(413);
    // In each other's place.
    assert_eq!(ask(&server, &[], &form(&secret, "app")).status, 401);
    assert!(!server.log().contains(&secret), "no secret in the log");
}

#[test]
fn whoever_asks_too_often_has_to_wait() {
    let (_keep, dir) = data_dir();
    let more = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.token_requests_per_min=5",
    ];
    let server = Server::start(&dir, &more);
    let secret = secret(&dir, "add", "app");
    let known = || ask(&server, &[], &form("app", &secret)).status;
    assert_eq!(known(), 200);
    let statuses: Vec<u16> = (0..8)
        .map(|_| ask(&server, &[], &form("app", "wrong")).status)
        .collect();
    assert_eq!(statuses[..4], [401; 4], "{statuses:?}");
    let late = ask(&server, &[], &form("app", "wrong"));
    assert_eq!(late.status, 429, "{late:?}");
    let wait: u32 = late.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(late.json()["error"], "temporarily_unavailable");
    // Who has shown the right secret before does not wait for others.
    for _ in 0..8 {
        assert_eq!(known(), 200);
    }
}

#[test]
fn without_authentication_or_the_endpoint_there_are_no_tokens() {
    for args in [
        &[][..],
        &[
            "--set",
            "auth.mode=jwt",
            "--set",
            "auth.token_endpoint=false",
        ],
    ] {
        let (_keep, dir) = data_dir();
        let server = Server::start(&dir, args);
        ask(&server, &[], &form("app", "secret")).problem(404);
    }
}

#[test]
fn the_operator_mints_tokens_at_the_machine() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    secret(&dir, "add", "app");
    let mint = |args: &[&str]| {
        let output = mepulse()
            .args(["admin", "token"])
            .args(args)
            .arg("--data-dir")
            .arg(&dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let operator = mint(&["--operator"]);
    assert_eq!(list(&server, &operator, "app").status, 200);
    let own = mint(&["--app", "app"]);
    assert_eq!(list(&server, &own, "app").status, 200);
    secret(&dir, "add", "other");
    list(&server, &own, "other").problem(403);
    assert_eq!(list(&server, &operator, "other").status, 200);
}
