//! What was proved once can end: what is open then ends with it, and nothing comes back.

use std::io::{Read, Write};
use std::path::Path;

use super::{JWT, admin, secret, start};
use crate::support::clients::wait_until;
use crate::support::events::Watch;
use crate::support::jwt::{Idp, bearer, now_s};
use crate::support::{Server, data_dir, send, service};

use serde_json::json;

/// A token for an application that is added for it.
fn token(server: &Server, dir: &Path, name: &str) -> String {
    let secret = secret(dir, "add", name);
    let body = format!("grant_type=client_credentials&client_id={name}&client_secret={secret}");
    let url = format!("{}/oauth2/token", server.url);
    let answer = send("POST", &url, &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

fn register(server: &Server, token: &str, app: &str) -> u16 {
    let bearer = bearer(token);
    let url = format!("{}/services", server.app(app));
    let body = service("cam", Some(3600)).to_string();
    send("POST", &url, &[("authorization", &bearer)], body.as_bytes()).status
}

#[test]
fn a_stream_ends_with_the_credential_that_opened_it() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    let [watcher, other] = ["watcher", "other"].map(|name| token(&server, &dir, name));
    let mut removed = Watch::open_as(&server, &watcher);
    let mut kept = Watch::open_as(&server, &other);
    assert_eq!(register(&server, &other, "other"), 201);
    assert_eq!(removed.event().tells().1, "ADDED");
    assert_eq!(kept.event().tells().1, "ADDED");
    admin(&dir, &["remove", "watcher"]);
    assert_eq!(register(&server, &other, "other"), 201);
    assert_eq!(removed.next(), None, "it is told of nothing more");
    assert_eq!(kept.event().tells().1, "ADDED");
}

#[test]
fn a_stream_ends_with_its_token() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let more = [
        "--set",
        "auth.leeway_s=0",
        "--set",
        "server.idle_timeout_ms=300",
    ];
    let server = start(&dir, &idp, &more);
    let token = idp.sign(&json!({"sub": "a", "exp": now_s() + 8}));
    // Signs of life come, and then it ends.
    let mut watch = Watch::open_as(&server, &token);
    let signs = (0..300).take_while(|_| watch.sign_or_end()).count();
    assert!(signs < 300, "it does not end");
    let bearer = bearer(&token);
    let url = format!("{}/services", server.root());
    send("GET", &url, &[("authorization", &bearer)], b"").problem(401);
}

#[test]
fn a_body_that_comes_after_the_end_is_not_taken() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    let token = token(&server, &dir, "app");
    let body = service("cam", None).to_string();
    let (first, rest) = body.split_at(20);
    let head = format!(
        "POST /mec_service_mgmt/v1/applications/app/services HTTP/1.1\r\nhost: x\r\n\
         authorization: Bearer {token}\r\nconnection: close\r\nexpect: 100-continue\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = server.connect();
    stream.write_all(head.as_bytes()).unwrap();
    // The body is waited for: the caller has been let in.
    let mut go_ahead = [0; 25];
    stream.read_exact(&mut go_ahead).unwrap();
    assert_eq!(&go_ahead, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(first.as_bytes()).unwrap();
    admin(&dir, &["remove", "app"]);
    stream.write_all(rest.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(server.metric("mepulse_apps"), 0);
}

#[test]
fn an_application_with_credentials_stays_known_when_it_deregisters() {
    let (_keep, dir) = data_dir();
    let closed = ["--set", "auth.mode=jwt", "--set", "apps.auto_accept=false"];
    let server = Server::start(&dir, &closed);
    let token = token(&server, &dir, "app");
    assert_eq!(register(&server, &token, "app"), 201);
    let bearer = bearer(&token);
    let url = format!("{}/mec_app_support/v1/registrations/app", server.url);
    let gone = send("DELETE", &url, &[("authorization", &bearer)], b"");
    assert_eq!(gone.status, 204, "{gone:?}");
    wait_until("the operator's word holds", || {
        register(&server, &token, "app") == 201
    });
}

#[test]
fn credentials_that_cannot_be_taken_over_are_no_success() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &JWT);
    let token = token(&server, &dir, "app");
    let file = dir.join("auth").join("clients.json");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, "{").unwrap();
    wait_until("it says so", || server.log().contains("clients.json"));
    // What was before holds, and nobody is told that it does not.
    assert_eq!(register(&server, &token, "app"), 201);
    let socket = std::os::unix::net::UnixStream::connect(dir.join("admin.sock"));
    let mut socket = socket.unwrap();
    let request = "POST /admin/credentials HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                   content-length: 0\r\n\r\n";
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("clients.json"), "{answer}");
    std::fs::write(&file, good).unwrap();
    admin(&dir, &["remove", "app"]);
    assert_eq!(register(&server, &token, "app"), 401);
}
