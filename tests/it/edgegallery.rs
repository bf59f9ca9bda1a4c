//! EdgeGallery's own clients: what their agent sends, byte for byte, and what the same path takes
//! besides.
//!
//! `cargo test --test it edgegallery -- --nocapture` prints the sequence as it went over the wire.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use mepulse::auth::sdk_hmac;
use serde_json::{Value, json};

use crate::support::clients::wait_until;
use crate::support::pki::Pki;
use crate::support::{Answer, Server, data_dir, get, mepulse, patch, put, send, service};

/// EdgeGallery's public sample key.
const AK: &str = "QVUJMSUMgS0VZLS0tLS0";
const SK: &str = "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc";
const APP: &str = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f";
const OTHER: &str = "0d2a1f65-9c52-4f0c-8a68-3a9a3f6a7b11";
const ROOT: &str = "/mep/mec_service_mgmt/v1";

/// The request for a token that was recorded from their agent; its signature holds for this key.
const TOKEN_REQUEST: &str = "POST /mep/token HTTP/1.1\r\n\
    Host: 127.0.0.1:8000\r\n\
    User-Agent: Go-http-client/1.1\r\n\
    Transfer-Encoding: chunked\r\n\
    Authorization: SDK-HMAC-SHA256 Access=QVUJMSUMgS0VZLS0tLS0, \
    SignedHeaders=content-type;host;x-sdk-date, \
    Signature=ca7e49073e377f2c442c8fd2824a9e0967963e6f6c5986500a13b49b159be9c4\r\n\
    Content-Type: application/json\r\n\
    X-Sdk-Date: 20261123T060656Z\r\n\
    Accept-Encoding: gzip\r\n\
    \r\n\
    0\r\n\r\n";

/// What their agent registers: every member that it knows, set or not.
const SERVICE: &str = concat!(
    r#"{"serInstanceId":"","serName":"face-recognition","serCategory":{"href":"/example/catalogue1","#,
    r#""id":"id12345","name":"RNI","version":"v1.1"},"version":"v1","state":"ACTIVE","transportId":"","#,
    r#""transportInfo":{"id":"abc-123","name":"REST","description":"","type":"REST_HTTP","#,
    r#""protocol":"HTTP","version":"2.0","endpoint":{"uris":null,"addresses":[{"host":"10.0.0.7","#,
    r#""port":9999}],"alternative":null},"security":{"oAuth2Info":{"grantTypes":null,"#,
    r#""tokenEndpoint":""}},"implSpecificInfo":{}},"serializer":"JSON","scopeOfLocality":"MEC_HOST","#,
    r#""consumedLocalOnly":false,"isLocal":true,"livenessInterval":60,"#,
    r#""_links":{"self":{"liveness":""}}}"#
);

fn server(dir: &Path, more: &[&str]) -> Server {
    add(dir, APP, AK, SK);
    let mut args = vec!["--set", "edgegallery.enabled=true"];
    args.extend(more);
    Server::start(dir, &args)
}

const JWT: [&str; 2] = ["--set", "auth.mode=jwt"];

/// Gives an application an access key.
fn add(dir: &Path, app: &str, access_key: &str, secret_key: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret_key).unwrap();
    let output = mepulse()
        .args(["admin", "app", "add", app, "--no-secret", "--data-dir"])
        .arg(dir)
        .args(["--access-key", access_key, "--secret-key-file"])
        .arg(file.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Sends bytes over a connection of their own, as their agent does, and reads one answer.
fn exchange(address: &str, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut read = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stream.read(&mut part).unwrap();
        assert!(length > 0, "closed: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&part[..length]);
        let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(read[..at].to_vec()).unwrap();
        let headers: Vec<(String, String)> = head
            .lines()
            .skip(1)
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let body = read[at + 4..].to_vec();
        let answer = Answer {
            status,
            headers,
            body,
        };
        let length = answer.header("content-length").unwrap_or("0");
        if answer.body.len() >= length.parse().unwrap() {
            show(request, &answer);
            return answer;
        }
    }
}

fn show(request: &str, answer: &Answer) {
    for line in request.lines() {
        println!("> {line}");
    }
    println!("< {} {}\n", answer.status, answer.text());
}

fn address(server: &Server) -> &str {
    server.url.strip_prefix("http://").unwrap()
}

fn token_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    let token = answer.json();
    assert_eq!(token["token_type"], "Bearer");
    assert_eq!(token["expires_in"], 3600);
    token["access_token"].as_str().unwrap().to_owned()
}

/// Token, registration, heartbeats: what their agent does, in its words.
fn their_sequence(address: &str) -> (String, Value) {
    let token = token_of(&exchange(address, TOKEN_REQUEST));
    let request = format!(
        "POST {ROOT}/applications/{APP}/services HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\
         User-Agent: Go-http-client/1.1\r\nContent-Length: {}\r\nAuthorization: Bearer {token}\r\n\
         Accept-Encoding: gzip\r\n\r\n{SERVICE}",
        SERVICE.len()
    );
    let registered = exchange(address, &request);
    assert_eq!(registered.status, 201, "{registered:?}");
    let info = registered.json();
    assert_eq!(info["livenessInterval"], 60);
    let link = info["_links"]["self"]["liveness"].as_str().unwrap();
    assert!(link.starts_with(&format!("{ROOT}/applications/{APP}/services/")));
    let body = r#"{"state":"ACTIVE"}"#;
    let beat = format!(
        "PUT {link} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: Go-http-client/1.1\r\n\
         Content-Length: {}\r\nAuthorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..3 {
        let beaten = exchange(address, &beat);
        assert_eq!((beaten.status, beaten.body.len()), (204, 0), "{beaten:?}");
    }
    (token, info)
}

#[test]
fn their_agent_gets_its_token_registers_and_beats() {
    for mode in [&JWT[..], &[]] {
        let (_keep, dir) = data_dir();
        let server = server(&dir, mode);
        let (token, info) = their_sequence(address(&server));
        let bearer = format!("Bearer {token}");
        let bearer = [("authorization", bearer.as_str())];
        let link = info["_links"]["self"]["liveness"].as_str().unwrap();
        let info = send("GET", &format!("{}{link}", server.url), &bearer, b"");
        assert_eq!(info.status, 200, "{info:?}");
        let liveness = info.json();
        assert_eq!(liveness["state"], "ACTIVE");
        assert!(liveness["timeStamp"]["nanoSeconds"].is_number());
        server.stop();
    }
}

#[test]
fn the_legal_forms_of_a_beat_are_taken_beside_theirs() {
    let (_keep, dir) = data_dir();
    let server = server(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    let id = info["serInstanceId"].as_str().unwrap();
    let bare_id = id.replace('-', "");
    let bare = json!({"state": "ACTIVE"});
    let wrapped = json!({"ServiceLivenessUpdate": {"state": "ACTIVE"}});
    for root in ["/mec_service_mgmt/v1", ROOT, "", "/mep"] {
        for id in [id, &bare_id] {
            let kinds: &[&str] = match root {
                "" | "/mep" => &["service"],
                _ => &["service", "services"],
            };
            for kind in kinds {
                let url = format!("{}{root}/applications/app/{kind}/{id}/liveness", server.url);
                assert_eq!(put(&url, &bare).status, 204, "{url}");
                assert_eq!(patch(&url, &bare).status, 204, "{url}");
                assert_eq!(put(&url, &wrapped).status, 200, "{url}");
                assert_eq!(patch(&url, &wrapped).status, 200, "{url}");
                assert_eq!(get(&url).status, 200, "{url}");
                put(&url, &json!({"state": "SUSPENDED"})).problem(400);
                put(&url, &json!({})).problem(400);
                let wrong = send("DELETE", &url, &[], b"");
                wrong.problem(405);
                assert_eq!(wrong.header("allow"), Some("GET, HEAD, PATCH, PUT"));
            }
        }
    }
    let both = &info["_links"];
    assert!(both["liveness"]["href"].is_string() && both["self"]["href"].is_string());
    assert_eq!(get(&format!("{}/health", server.url)).text(), "ok");
}

#[test]
fn their_names_of_query_parameters_are_understood() {
    let (_keep, dir) = data_dir();
    let server = server(&dir, &[]);
    let info = server.register("app", &service("cam", None));
    server.register("app", &service("mic", None));
    let id = info["serInstanceId"].as_str().unwrap();
    let bare = id.replace('-', "");
    let found = |query: &str| {
        let list = get(&format!("{}{ROOT}/services?{query}", server.url));
        list.json().as_array().unwrap().len()
    };
    assert_eq!(found(&format!("instance_id={id}")), 1);
    assert_eq!(found(&format!("instance_id={bare}")), 1);
    assert_eq!(found("ser_name=mic&version=1.0"), 1);
    assert_eq!(found("ser_name=mic&version=2"), 0);
    assert_eq!(
        found("ser_name=mic&is_local=true&consumed_local_only=true"),
        1
    );
}

#[test]
fn an_interval_of_zero_is_no_heartbeat_to_them() {
    let (_keep, dir) = data_dir();
    let server = server(&dir, &[]);
    let info = server.register("app", &service("cam", Some(0)));
    assert!(info["livenessInterval"].is_null(), "{info}");
    let both = (
        &info["_links"]["liveness"],
        &info["_links"]["self"]["liveness"],
    );
    assert_eq!(both, (&Value::Null, &Value::Null), "{info}");
}

#[test]
fn without_the_mode_none_of_it_is_there() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    assert!(info["_links"]["self"]["liveness"].is_null(), "{info}");
    let own = format!(
        "{}/services/{}",
        server.app("app"),
        info["serInstanceId"].as_str().unwrap()
    );
    put(&format!("{own}/liveness"), &json!({"state": "ACTIVE"})).problem(405);
    get(&format!("{}{ROOT}/services", server.url)).problem(404);
    get(&format!("{}/services?instance_id=x", server.root())).problem(400);
    exchange(address(&server), TOKEN_REQUEST).problem(404);
}

/// Signs a request for a token as their agent does.
fn signed(access_key: &str, secret_key: &str, date: &str) -> String {
    let host = "127.0.0.1:8000";
    let authorization = sdk_hmac::sign(
        access_key,
        secret_key.as_bytes(),
        date,
        &sdk_hmac::Request {
            method: "POST",
            path: "/mep/token",
            query: "",
            headers: &[
                ("content-type", "application/json"),
                ("host", host),
                ("x-sdk-date", date),
            ],
            body: b"",
        },
    );
    format!(
        "POST /mep/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         X-Sdk-Date: {date}\r\nAuthorization: {authorization}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn a_request_for_a_token_cannot_be_played_again() {
    let (_keep, dir) = data_dir();
    let server = server(&dir, &JWT);
    token_of(&exchange(address(&server), TOKEN_REQUEST));
    for _ in 0..3 {
        let detail = exchange(address(&server), TOKEN_REQUEST).problem(401);
        assert!(detail.contains("already"), "{detail}");
    }
    // The next second's is another one.
    token_of(&exchange(
        address(&server),
        &signed(AK, SK, "20261123T060657Z"),
    ));
    assert_eq!(server.metric("mepulse_tokens_issued_total"), 2);
    assert_eq!(server.metric("mepulse_tokens_refused_total"), 3);
}

#[test]
fn every_malformed_field_of_a_request_for_a_token_is_refused() {
    let (_keep, dir) = data_dir();
    let more = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.token_requests_per_min=10000",
    ];
    let server = server(&dir, &more);
    let fine = signed(AK, SK, "20261123T060656Z");
    let signature = "ca7e49073e377f2c442c8fd2824a9e0967963e6f6c5986500a13b49b159be9c4";
    let replaced = |from: &str, to: &str| {
        assert!(fine.contains(from), "{from}");
        fine.replacen(from, to, 1)
    };
    for (request, status) in [
        (replaced("SDK-HMAC-SHA256", "SDK-HMAC-SHA1"), 400),
        (replaced("Access=", "Acces="), 400),
        (replaced(&format!("Access={AK}"), "Access="), 400),
        (replaced(AK, &"A".repeat(2000)), 400),
        (replaced(AK, "QVUJMSUMgS0VZLS0tLS1"), 401),
        (replaced(";host", ""), 400),
        (
            replaced("content-type;host", "content-type;x-missing;host"),
            400,
        ),
        (replaced("content-type;host", "host;content-type"), 401),
        (replaced(signature, &signature[1..]), 400),
        (replaced(signature, &signature.replace('c', "g")), 400),
        (replaced(signature, &signature.replace('c', "d")), 401),
        (
            replaced("X-Sdk-Date: 20261123", "X-Sdk-Date: 20261124"),
            401,
        ),
        (
            replaced("X-Sdk-Date: 20261123T", "X-Sdk-Date: 20261123 "),
            400,
        ),
        (replaced("X-Sdk-Date: 20261123T060656Z\r\n", ""), 400),
        (replaced("X-Sdk-Date", "X-Sdk-Date: 1\r\nX-Sdk-Date"), 400),
        (
            replaced("Host: 127.0.0.1:8000", "Host: 127.0.0.1:8001"),
            401,
        ),
        (replaced("application/json", "text/plain"), 401),
        (replaced("/mep/token HTTP", "/mep/token?a=b HTTP"), 401),
        (
            replaced("Content-Length: 0\r\n\r\n", "Content-Length: 1\r\n\r\nx"),
            401,
        ),
        (replaced("Authorization", "X-Authorization"), 400),
        (replaced("POST", "PUT"), 405),
    ] {
        exchange(address(&server), &request).problem(status);
    }
    // None of them has spent the good one.
    token_of(&exchange(address(&server), &fine));
}

#[test]
fn clocks_are_compared_where_the_operator_wants_it() {
    let (_keep, dir) = data_dir();
    let more = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "edgegallery.max_skew_s=300",
    ];
    let server = server(&dir, &more);
    let at = |secs: i64| {
        let now = i64::try_from(crate::support::jwt::now_s()).unwrap();
        let at = chrono::DateTime::from_timestamp(now + secs, 0).unwrap();
        signed(AK, SK, &at.format("%Y%m%dT%H%M%SZ").to_string())
    };
    token_of(&exchange(address(&server), &at(-240)));
    token_of(&exchange(address(&server), &at(240)));
    for secs in [-8 * 3600, -400, 400, 8 * 3600] {
        exchange(address(&server), &at(secs)).problem(401);
    }
}

#[test]
fn an_access_key_speaks_for_its_application_alone_and_ends_with_it() {
    let (_keep, dir) = data_dir();
    let server = server(&dir, &JWT);
    let other = "QVUJMSUMgS0VZLS0tLS1";
    add(&dir, OTHER, other, &"k".repeat(64));
    let (token, info) = their_sequence(address(&server));
    let theirs = token_of(&exchange(
        address(&server),
        &signed(other, &"k".repeat(64), "20261123T060656Z"),
    ));
    let link = format!(
        "{}{}",
        server.url,
        info["_links"]["self"]["liveness"].as_str().unwrap()
    );
    let beat = |token: &str, more: &[(&str, &str)]| {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(more);
        send("PUT", &link, &headers, br#"{"state":"ACTIVE"}"#)
    };
    assert_eq!(beat(&token, &[]).status, 204);
    beat(&theirs, &[]).problem(403);
    // Their gateway's header proves nothing here, for and against.
    beat(&theirs, &[("x-appinstanceid", APP)]).problem(403);
    assert_eq!(beat(&token, &[("x-appinstanceid", OTHER)]).status, 204);
    let removed = mepulse()
        .args(["admin", "app", "remove", APP, "--data-dir"])
        .arg(&dir)
        .output()
        .unwrap();
    assert!(removed.status.success(), "{removed:?}");
    beat(&token, &[]).problem(401);
    exchange(address(&server), &signed(AK, SK, "20261123T070000Z")).problem(401);
}

#[test]
fn a_gateway_that_is_trusted_says_who_calls() {
    let (_keep, dir) = data_dir();
    let more = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.trusted_proxies=127.0.0.0/8",
    ];
    let server = server(&dir, &more);
    let url = format!("{}{ROOT}/applications/{APP}/services", server.url);
    let named = |app: &str| {
        send(
            "POST",
            &url,
            &[("x-appinstanceid", app)],
            SERVICE.as_bytes(),
        )
    };
    assert_eq!(named(APP).status, 201);
    named(OTHER).problem(403);
    named("a/b").problem(400);
    send("POST", &url, &[], SERVICE.as_bytes()).problem(401);
    let elsewhere = [
        "--set",
        "auth.mode=jwt",
        "--set",
        "auth.trusted_proxies=10.0.0.0/8",
    ];
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &elsewhere);
    let url = format!("{}/services", server.app(APP));
    send(
        "POST",
        &url,
        &[("x-appinstanceid", APP)],
        SERVICE.as_bytes(),
    )
    .problem(401);
}

#[test]
fn a_second_listener_serves_agents_without_tls() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let settings = pki.settings();
    let mut more: Vec<&str> = settings.iter().map(String::as_str).collect();
    more.extend(JWT);
    more.extend(["--set", "edgegallery.plain_listen=127.0.0.1:0"]);
    let server = server(&dir, &more);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let mut address = String::new();
    wait_until("the log says where", || {
        let log = server.log();
        let Some((_, rest)) = log.split_once("without TLS are served on http://") else {
            return false;
        };
        address = rest.lines().next().unwrap().to_owned();
        true
    });
    their_sequence(&address);
    // The same routes, and the same limits.
    let mut connection = pki.trusting().connect(&server).unwrap();
    let health = connection.send("GET", "/health", "", "").unwrap();
    assert_eq!(health.text(), "ok");
    server.stop();
}

#[test]
fn what_others_could_read_is_not_taken() {
    let (_keep, dir) = data_dir();
    let open = ["--set", "auth.mode=jwt", "--listen", "0.0.0.0:0"];
    let server = server(&dir, &open);
    assert!(server.log().contains("tls_in_front"), "{}", server.log());
    let detail = exchange(address(&server), TOKEN_REQUEST).problem(403);
    assert!(detail.contains("TLS"), "{detail}");
    let bearer = [("authorization", "Bearer x")];
    send("GET", &format!("{}/services", server.root()), &bearer, b"").problem(403);
    let body = b"grant_type=client_credentials&client_id=a&client_secret=b";
    send("POST", &format!("{}/oauth2/token", server.url), &[], body).problem(403);
    server.stop();
    let in_front = [&open[..], &["--set", "server.tls_in_front=true"]].concat();
    let server = self::server(&dir, &in_front);
    their_sequence(address(&server));
}
