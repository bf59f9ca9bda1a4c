//! Start and stop: what is refused, the status server, TLS.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::QUICK;
use crate::support::agent::{Agent, Config, until, until_true};
use crate::support::{Server, data_dir, get, mepulse, send};

fn agent_on(dir: &Path, path: &Path) -> Output {
    mepulse()
        .args(["agent", "--config"])
        .arg(path)
        .current_dir(dir)
        .output()
        .unwrap()
}

#[test]
fn a_bad_configuration_is_refused_with_a_sentence() {
    let (keep, _) = data_dir();
    let dir = keep.path();
    std::fs::write(dir.join("bad"), "no pem").unwrap();
    let good = || Config::new("http://127.0.0.1:1");
    for (config, part) in [
        (
            good().service("cam", 0, ""),
            "`interval_s` must be 1 or more",
        ),
        (
            good().service("cam", 1, "intervall = 2"),
            "did you mean `interval_s`?",
        ),
        (
            good().service("cam", 1, "").service("cam", 1, ""),
            "two [[services]]",
        ),
        (
            good().server("ca_file = \"bad\"").service("cam", 1, ""),
            "server.ca_file bad holds no certificate",
        ),
        (
            good()
                .server("client_cert_file = \"bad\"\nclient_key_file = \"bad\"")
                .service("cam", 1, ""),
            "server.client_cert_file bad holds no certificate",
        ),
        (
            good()
                .server("token_file = \"nowhere\"")
                .service("cam", 1, ""),
            "`server.token_file` nowhere",
        ),
    ] {
        let output = agent_on(dir, &config.write(dir));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(part), "{text}");
        assert!(output.stdout.is_empty());
    }
    let output = agent_on(dir, Path::new("nowhere.toml"));
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn two_agents_do_not_share_a_state_file() {
    let (keep, _) = data_dir();
    let config = Config::new("http://127.0.0.1:1").service("cam", 1, "");
    let _first = Agent::start(keep.path(), &config);
    let output = agent_on(keep.path(), &keep.path().join("agent.toml"));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("in use by another agent"), "{text}");
}

#[test]
fn an_agent_stops_in_time_although_its_server_is_away() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let config = Config::new(&server.url)
        .stop_timeout_ms(300)
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    server.kill();
    until_true("it notices", || agent.status()["reached"] == false);
    agent.signal("TERM");
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stop_timeout_ms"), "{log}");
}

#[test]
fn services_that_are_left_stay() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let config = Config::new(&server.url)
        .agent("on_stop = \"leave\"")
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    agent.beating("cam");
    agent.stop();
    assert_eq!(super::services(&server).len(), 1);
}

#[test]
fn the_status_server_tells_what_there_is_and_refuses_the_rest() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let agent = Agent::start(keep.path(), &Config::new(&server.url).service("cam", 2, ""));
    agent.beating("cam");
    let status = agent.status();
    assert_eq!(status["server"], *server.url);
    assert_eq!(status["appInstanceId"], "app");
    let service = agent.service("cam");
    assert_eq!(
        (&service["probe"], &service["interval"]),
        (&"none".into(), &2.into())
    );
    let place = agent.place();
    assert_eq!(get(&format!("{place}/healthz")).json()["status"], "ok");
    let metrics = get(&format!("{place}/metrics"));
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(
        metrics
            .text()
            .contains("mepulse_agent_services{state=\"beating\"} 1")
    );
    assert_eq!(get(&format!("{place}/nothing")).status, 404);
    assert_eq!(
        send("POST", &format!("{place}/status"), &[], b"").status,
        404
    );
}

#[test]
fn the_status_server_listens_on_a_socket_and_replaces_a_stale_one() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &QUICK);
    let socket = keep.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let listen = format!("unix:{}", socket.display());
    let config = Config::new(&server.url)
        .listen(&listen)
        .service("cam", 2, "");
    let agent = Agent::start(keep.path(), &config);
    let text = until("it answers", || {
        let mut stream = UnixStream::connect(&socket).ok()?;
        stream
            .write_all(b"GET /status HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    });
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("\"cam\""),
        "{text}"
    );
    agent.stop();
    assert!(!socket.exists());
}

/// An authority, and certificates that it has signed.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (
            params.signed_by(&key, &self.0).unwrap().pem(),
            key.serialize_pem(),
        )
    }
}

/// Answers one request per connection over TLS, always the same. Its certificate is for `name`; a
/// client may have to show one of the same authority.
pub(super) fn tls_server(authority: &Authority, name: &str, clients_shown: bool) -> u16 {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = match clients_shown {
        true => verifier,
        false => verifier.allow_unauthenticated(),
    };
    let (certificate, key) = authority.sign(name);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust us, or shows nothing, gets no further.
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                let refusal = b"HTTP/1.1 418 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(refusal);
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    port
}

#[test]
fn tls_is_verified_on_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = tls_server(&authority, "127.0.0.1", true);
    let url = format!("https://127.0.0.1:{port}");
    let (keep, _) = data_dir();
    let write = |name: &str, text: &str| std::fs::write(keep.path().join(name), text).unwrap();
    let (certificate, key) = authority.sign("agent");
    write("cert.pem", &certificate);
    write("key.pem", &key);
    write("ca.pem", &authority.pem());
    write("stranger.pem", &stranger.pem());
    let identity = "client_cert_file = \"cert.pem\"\nclient_key_file = \"key.pem\"";
    for (lines, part) in [
        (
            format!("ca_file = \"ca.pem\"\n{identity}"),
            "the server answered 418",
        ),
        ("ca_file = \"ca.pem\"".to_owned(), "CertificateRequired"),
        (
            format!("ca_file = \"stranger.pem\"\n{identity}"),
            "invalid peer certificate",
        ),
    ] {
        let config = Config::new(&url).server(&lines).service("cam", 2, "");
        let agent = Agent::start(keep.path(), &config);
        until_true(part, || {
            let error = agent.service("cam")["lastError"].clone();
            let error = error.as_str().unwrap_or_default();
            error.to_lowercase().contains(&part.to_lowercase())
        });
    }
}
