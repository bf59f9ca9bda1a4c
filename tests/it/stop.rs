//! Signals that ask for a stop: under load, and against clients that hold on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use crate::support::load::{Books, check, until_signal};
use crate::support::{Server, data_dir, get, liveness_of, self_of, service};

/// Bounds that are not reached: whatever ends in these tests, the stop has ended it.
const PATIENT: [&str; 6] = [
    "--set",
    "server.header_timeout_ms=600000",
    "--set",
    "server.body_timeout_ms=600000",
    "--set",
    "server.idle_timeout_ms=600000",
];

fn check_stop_under_load(signal: &str) {
    let (_keep, dir) = data_dir();
    let books = Mutex::new(Books::new());
    for round in 0..2 {
        let server = Server::start(&dir, &[]);
        until_signal(&server, signal, 300, round, &books);
        let log = server.log();
        server.ends_well();
        assert!(!log.contains("panicked"), "{log}");
        let store = std::fs::read_to_string(dir.join("STORE")).unwrap();
        assert!(store.contains("[sealed_log]"), "{store}");
        check(&dir, &books.lock().unwrap());
    }
    let server = Server::start(&dir, &[]);
    check(&dir, &books.lock().unwrap());
    assert!(!server.log().contains("cause down"), "{}", server.log());
    server.stop();
}

#[test]
fn sigterm_under_load_loses_nothing_and_brings_nothing_back() {
    check_stop_under_load("TERM");
}

#[test]
fn sigint_under_load_does_neither() {
    check_stop_under_load("INT");
}

#[test]
fn clients_that_hold_on_do_not_hold_up_the_stop() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &PATIENT);
    let info = server.register("app", &service("cam", Some(3600)));
    let (own, beat) = (self_of(&server, &info), liveness_of(&server, &info));
    let path = |uri: &str| uri.strip_prefix(&server.url).unwrap().to_owned();
    let half_body = |method: &str, uri: &str| {
        let head = format!("{method} {} HTTP/1.1\r\nhost: x\r\n", path(uri));
        format!("{head}content-length: 100\r\n\r\n{{\"state\":\"ACT")
    };
    let held: Vec<TcpStream> = [
        String::new(),
        "GET /heal".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: x\r\n".to_owned(),
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        half_body("PATCH", &beat),
        half_body("PUT", &own),
        half_body("POST", &format!("{}/services", server.app("other"))),
    ]
    .iter()
    .map(|bytes| {
        let mut stream = server.connect();
        stream.write_all(bytes.as_bytes()).unwrap();
        stream
    })
    .collect();
    // One that never takes its answers.
    let mut deaf = server.connect();
    let asks = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2000);
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write(asks.as_bytes()).unwrap();
    // Everything sent has been received once a later connection was answered and all are open.
    while server.metric("mepulse_connections") < held.len() as u64 + 2 {
        assert_eq!(get(&format!("{}/healthz", server.url)).status, 200);
    }
    server.signal("TERM");
    server.ends_well();
    for mut stream in held {
        let mut rest = Vec::new();
        // An answer or none: but the connection is over.
        let _ = stream.read_to_end(&mut rest);
    }

    let server = Server::start(&dir, &[]);
    let all = get(&format!("{}/services", server.root())).json();
    assert_eq!(all, serde_json::json!([info]), "half a request did nothing");
    server.stop();
}
