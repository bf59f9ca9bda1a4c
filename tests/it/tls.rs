//! TLS: what is spoken, certificates that change or are no good, clients that prove who they are by
//! theirs, and clients that never finish.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::handshake;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::SanType;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::support::clients::wait_until;
use crate::support::pki::{Connection, Pki, TlsClient};
use crate::support::{Answer, Server, data_dir, mepulse, service};

/// Starts a server with TLS; `more` come behind.
fn start(dir: &std::path::Path, tls: &[String], more: &[&str]) -> Server {
    let mut args: Vec<&str> = tls.iter().map(String::as_str).collect();
    args.extend(more);
    Server::start(dir, &args)
}

const JWT: [&str; 2] = ["--set", "auth.mode=jwt"];

fn services_of(app: &str) -> String {
    format!("/mec_service_mgmt/v1/applications/{app}/services")
}

fn register(connection: &mut Connection, app: &str) -> std::io::Result<Answer> {
    let body = service("cam", Some(3600)).to_string();
    connection.send("POST", &services_of(app), "", &body)
}

#[test]
fn https_is_served_with_tls_1_2_and_1_3() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.settings(), &[]);
    assert!(
        server.url.starts_with("https://127.0.0.1:"),
        "{}",
        server.url
    );
    const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
    const TLS13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
    for versions in [TLS12, TLS13] {
        let client = TlsClient {
            versions,
            ..pki.trusting()
        };
        let mut connection = client.connect(&server).unwrap();
        let spoken = connection.stream.conn.protocol_version().unwrap();
        assert_eq!(spoken, versions[0].version);
        assert_eq!(
            connection.stream.conn.alpn_protocol(),
            Some(&b"http/1.1"[..])
        );
        for _ in 0..3 {
            assert_eq!(register(&mut connection, "app").unwrap().status, 201);
        }
    }
    server.stop();
}

#[tokio::test]
async fn http2_is_served_to_whoever_offers_it() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.settings(), &[]);
    let client = TlsClient {
        protocols: &[b"http/1.1", b"h2"],
        ..pki.trusting()
    };
    let address = server.url.strip_prefix("https://").unwrap();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(client.config()));
    let stream = connector.connect(name, tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = TokioIo::new(stream);
    let (mut sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = Full::new(Bytes::from(service("cam", Some(3600)).to_string()));
    let request = Request::post(format!("https://localhost{}", services_of("app")))
        .body(body)
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        (answer.version(), answer.status()),
        (Version::HTTP_2, StatusCode::CREATED)
    );
    let info = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&info).contains("livenessBatch"));
}

#[test]
fn a_certificate_is_renewed_under_load_and_no_connection_is_dropped() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.settings(), &[]);
    let (stop, beats) = (AtomicBool::new(false), AtomicU64::new(0));
    let connected = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (pki, server, stop, beats) = (&pki, &server, &stop, &beats);
            let connected = &connected;
            scope.spawn(move || {
                let mut connection = pki.trusting().connect(server).unwrap();
                connected.fetch_add(1, Ordering::SeqCst);
                let app = format!("app-{thread}");
                let info = register(&mut connection, &app).unwrap().json();
                let link = info["_links"]["liveness"]["href"].as_str().unwrap();
                while !stop.load(Ordering::SeqCst) {
                    let answer = connection.send("PATCH", link, "", r#"{"state":"ACTIVE"}"#);
                    assert_eq!(answer.unwrap().status, 204);
                    beats.fetch_add(1, Ordering::SeqCst);
                }
                // The one that it came with.
                assert_eq!(connection.serial(), [1]);
            });
        }
        let _stop = StopOnDrop(&stop);
        wait_until("all are there", || connected.load(Ordering::SeqCst) == 4);
        for serial in 2..5 {
            let seen = beats.load(Ordering::SeqCst);
            pki.put_server(&pki.server(serial));
            wait_until("the new certificate is served", || {
                let fresh = pki.trusting().connect(&server).unwrap();
                u64::from(fresh.serial()[0]) == serial
            });
            wait_until("beats go on", || beats.load(Ordering::SeqCst) > seen + 20);
        }
    });
    assert!(server.log().contains("was read again"), "{}", server.log());
    server.stop();
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn files_that_vanish_break_or_do_not_match_leave_the_old_certificate_in_force() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.settings(), &[]);
    let said = |what: &str| {
        wait_until(what, || server.log().contains(what));
        assert_eq!(pki.trusting().connect(&server).unwrap().serial(), [1]);
    };
    fs::remove_file(pki.path("server.pem")).unwrap();
    said("server.tls_cert_file");
    fs::write(pki.path("server.pem"), "no PEM").unwrap();
    said("holds no certificate");
    // The certificate of another key.
    fs::write(pki.path("server.pem"), pki.server(7).certificate).unwrap();
    said("cannot be used");
    // A failure that lasts is told once.
    let lines = server.log().matches("cannot be used").count();
    assert_eq!(lines, 1, "{}", server.log());
    pki.put_server(&pki.server(9));
    wait_until("the next good one is taken", || {
        pki.trusting().connect(&server).unwrap().serial() == [9]
    });
    server.stop();
}

#[test]
fn a_server_does_not_start_with_files_that_do_not_work() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let failed = |args: &[String]| {
        let output = mepulse()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&dir)
            .args(args)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!dir.join("sled").exists(), "nothing is opened before");
        String::from_utf8(output.stderr).unwrap()
    };
    let only_one = failed(&pki.settings()[..2]);
    assert!(only_one.contains("go together"), "{only_one}");
    let ca_alone = failed(&pki.mutual()[4..]);
    assert!(ca_alone.contains("server.tls_client_ca_file"), "{ca_alone}");
    fs::write(pki.path("server.pem"), pki.server(2).certificate).unwrap();
    let mismatch = failed(&pki.settings());
    assert!(
        mismatch.contains("server.key") && mismatch.contains("server.pem"),
        "{mismatch}"
    );
    fs::write(pki.path("server.key"), "no PEM").unwrap();
    let no_key = failed(&pki.settings());
    assert!(no_key.contains("server.tls_key_file"), "{no_key}");
    fs::remove_file(pki.path("server.key")).unwrap();
    let missing = failed(&pki.settings());
    assert!(missing.contains("cannot be read"), "{missing}");
}

#[test]
fn an_expired_certificate_is_told_of_and_served() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    pki.put_server(&pki.expired_server());
    let server = start(&dir, &pki.settings(), &[]);
    wait_until("it says so", || server.log().contains("has run out"));
    // It is the clients who judge it.
    let refused = pki.trusting().connect(&server).err().unwrap();
    assert!(refused.to_string().contains("xpired"), "{refused}");
    pki.put_server(&pki.server(3));
    wait_until("the new one is served", || {
        pki.trusting().connect(&server).is_ok()
    });
    let mut connection = pki.trusting().connect(&server).unwrap();
    wait_until("its end is told", || {
        let metrics = connection.send("GET", "/metrics", "", "").unwrap().text();
        let end = metrics
            .lines()
            .find_map(|line| line.strip_prefix("mepulse_tls_certificate_end_seconds "));
        end.unwrap().parse::<u64>().unwrap() > 2_000_000_000
    });
}

#[test]
fn a_client_that_never_finishes_its_handshake_is_let_go_and_disturbs_nobody() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let short = ["--set", "server.header_timeout_ms=3000"];
    let server = start(&dir, &pki.settings(), &short);
    let address = server.url.strip_prefix("https://").unwrap().to_owned();
    let mut hello = Vec::new();
    let name = ServerName::try_from("localhost").unwrap();
    let config = std::sync::Arc::new(pki.trusting().config());
    let mut tls = rustls::ClientConnection::new(config, name).unwrap();
    tls.write_tls(&mut hello).unwrap();
    let plain = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let half = &hello[..hello.len() / 2];
    let sent: [&[u8]; 5] = [b"", &hello[..1], half, &hello, plain];
    let held: Vec<_> = (0..40)
        .map(|n| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(sent[n % sent.len()]).unwrap();
            stream
        })
        .collect();
    let mut connection = pki.trusting().connect(&server).unwrap();
    assert_eq!(register(&mut connection, "app").unwrap().status, 201);
    for mut stream in held {
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut read = Vec::new();
        // Closed, by an alert, an end or a reset; not by our own patience.
        if let Err(error) = stream.read_to_end(&mut read) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    // Counted when the server is done with them, which may be a moment later.
    for line in [
        "mepulse_tls_handshakes_failed_total 40\n",
        "mepulse_connections 1\n",
    ] {
        wait_until(line, || {
            let metrics = connection.send("GET", "/metrics", "", "").unwrap();
            metrics.text().contains(line)
        });
    }
}

#[test]
fn a_client_certificate_names_the_applications_that_it_may_act_for() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.mutual(), &JWT);
    let uuid = "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f";
    let sans = vec![
        SanType::DnsName("cam.example".try_into().unwrap()),
        SanType::URI(format!("urn:uuid:{uuid}").try_into().unwrap()),
    ];
    let pair = pki.client("cam", sans);
    let client = TlsClient {
        identity: Some(&pair),
        ..pki.trusting()
    };
    let mut connection = client.connect(&server).unwrap();
    for app in ["cam", "cam.example", uuid] {
        assert_eq!(register(&mut connection, app).unwrap().status, 201, "{app}");
    }
    for app in ["other", "example", "urn%3Auuid%3Ax"] {
        register(&mut connection, app).unwrap().problem(403);
    }
    // Without one, a token is asked for.
    let mut nobody = pki.trusting().connect(&server).unwrap();
    let refused = register(&mut nobody, "cam").unwrap();
    refused.problem(401);
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Bearer realm=\"mepulse\"")
    );
}

#[test]
fn an_open_connection_proves_no_more_than_its_certificate_does() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.mutual(), &JWT);
    let pair = pki.client("cam", Vec::new());
    let brief = pki.client_until("brief", 10);
    let connect = |pair| {
        let client = TlsClient {
            identity: Some(pair),
            ..pki.trusting()
        };
        client.connect(&server).unwrap()
    };
    let (mut ending, mut lasting) = (connect(&brief), connect(&pair));
    let get = |connection: &mut Connection, app: &str| {
        let answer = connection.send("GET", &services_of(app), "", "");
        answer.unwrap().status
    };
    wait_until("its time is over", || get(&mut ending, "brief") == 401);
    assert_eq!(register(&mut lasting, "cam").unwrap().status, 201);
    // Its authority is not trusted any more.
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Pki::new(elsewhere.path());
    let fresh = pki.path("fresh.pem");
    fs::copy(other.path("ca.pem"), &fresh).unwrap();
    fs::copy(pki.path("ca.pem"), pki.path("old.pem")).unwrap();
    fs::rename(fresh, pki.path("ca.pem")).unwrap();
    wait_until("it is let in no more", || get(&mut lasting, "cam") == 401);
}

#[test]
fn half_a_handshake_does_not_hold_up_the_stop() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let patient = ["--set", "server.header_timeout_ms=600000"];
    let server = start(&dir, &pki.settings(), &patient);
    let address = server.url.strip_prefix("https://").unwrap();
    let held = TcpStream::connect(address).unwrap();
    let mut connection = pki.trusting().connect(&server).unwrap();
    wait_until("it is there", || {
        let metrics = connection.send("GET", "/metrics", "", "").unwrap();
        metrics.text().contains("mepulse_connections 2\n")
    });
    server.signal("TERM");
    wait_until("it stops", || {
        server.log().contains("stopped in good order")
    });
    let log = server.log();
    assert!(!log.contains("did not finish in time"), "{log}");
    drop(held);
    server.ends_well();
}

#[test]
fn certificates_that_nobody_would_ask_for_are_a_mistake() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let output = mepulse()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir)
        .args(pki.mutual())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("auth.mode"), "{said}");
}

#[test]
fn client_certificates_of_others_or_out_of_time_are_refused() {
    let (keep, dir) = data_dir();
    let pki = Pki::new(keep.path());
    let server = start(&dir, &pki.mutual(), &JWT);
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Pki::new(elsewhere.path()).client("cam", Vec::new());
    for pair in [stranger, pki.expired_client("cam")] {
        let client = TlsClient {
            identity: Some(&pair),
            ..pki.trusting()
        };
        // With TLS 1.3 a client learns that it is refused when it reads.
        let outcome = client
            .connect(&server)
            .and_then(|mut connection| register(&mut connection, "cam"));
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
