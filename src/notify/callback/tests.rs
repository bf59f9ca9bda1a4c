//! Peers that answer well, badly and not at all.

mod peer;

use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::peer::{Peer, Then};
use super::*;
use crate::clock::Stopwatch;

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// Also such as are not taken any more.
fn callback(text: &str) -> CallbackUri {
    CallbackUri::stored(text.to_owned())
}

/// May call this machine.
fn caller(timeout: Duration) -> Caller {
    caller_trusting(None, timeout)
}

fn caller_trusting(ca_file: Option<&Path>, timeout: Duration) -> Caller {
    let loopback = ["127.0.0.0/8", "::1/128"].map(|net| net.parse().unwrap());
    Caller::new(Guard::new(&loopback), ca_file, timeout).unwrap()
}

async fn post(caller: &Caller, to: &CallbackUri) -> Result<(), Failure> {
    caller.post(to, Bytes::from_static(b"{}"), 7).await
}

async fn refused(caller: &Caller, to: &CallbackUri) -> String {
    post(caller, to).await.unwrap_err().reason
}

fn no_content(_: usize) -> (Vec<u8>, Then) {
    (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), Then::Next)
}

fn with_body(status: &str, length: usize, sent: usize, then: Then) -> (Vec<u8>, Then) {
    let mut answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + sent, b'x');
    (answer, then)
}

#[tokio::test]
async fn a_notification_arrives_as_it_was_sent() {
    let peer = Peer::start(no_content).await;
    post(&caller(LONG), &peer.callback()).await.unwrap();
    let requests = peer.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /notify?a=b HTTP/1.1\r\n"), "{head}");
    for line in [
        format!("host: {}", peer.address),
        "content-type: application/json".to_owned(),
        "idempotency-key: 7".to_owned(),
        format!("user-agent: mepulse/{}", env!("CARGO_PKG_VERSION")),
        "content-length: 2".to_owned(),
    ] {
        assert!(head.lines().any(|it| it == line), "{line} in {head}");
    }
    assert_eq!(body, "{}");
}

#[tokio::test]
async fn a_large_notification_arrives() {
    let peer = Peer::start(no_content).await;
    let body = Bytes::from(vec![b'x'; 1_000_000]);
    let caller = caller(LONG);
    caller.post(&peer.callback(), body, 1).await.unwrap();
    assert!(peer.requests()[0].ends_with("xxx"));
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_body() {
    let peer = Peer::start(|_| with_body("200 OK", 65_536, 65_536, Then::Next)).await;
    let caller = caller(LONG);
    for _ in 0..3 {
        post(&caller.clone(), &peer.callback()).await.unwrap();
    }
    assert_eq!((peer.connections(), peer.requests().len()), (1, 3));
}

#[tokio::test]
async fn a_failure_leaves_the_connection_usable() {
    let peer = Peer::start(|_| with_body("500 No", 10, 10, Then::Next)).await;
    let caller = caller(LONG);
    for _ in 0..2 {
        assert_eq!(refused(&caller, &peer.callback()).await, "answered 500");
    }
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn every_success_counts() {
    let peer = Peer::start(|n| {
        let status = ["200 OK", "201 Created", "202 Accepted", "299 Whatever"][n];
        with_body(status, 0, 0, Then::Next)
    })
    .await;
    let caller = caller(LONG);
    for _ in 0..4 {
        post(&caller, &peer.callback()).await.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    static TARGET: Mutex<String> = Mutex::new(String::new());
    let target = Peer::start(no_content).await;
    *TARGET.lock().unwrap() = target.address.to_string();
    let peer = Peer::start(|n| {
        let status = ["301", "302", "303", "307", "308"][n];
        let target = TARGET.lock().unwrap();
        let head = format!("HTTP/1.1 {status} X\r\nlocation: http://{target}/\r\n");
        let head = head + "content-length: 0\r\n\r\n";
        (head.into_bytes(), Then::Next)
    })
    .await;
    let caller = caller(LONG);
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(
            refused(&caller, &peer.callback()).await,
            format!("answered {status}, a redirect to 127.0.0.1, which is not followed")
        );
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_huge_answer_is_not_read() {
    let peer = Peer::start(|n| {
        let length = 10_000_000;
        if n == 0 {
            with_body("200 OK", length, length, Then::Next)
        } else {
            let mut answer = b"HTTP/1.1 200 OK\r\n\
                transfer-encoding: chunked\r\n\r\n\
                989680\r\n"
                .to_vec();
            answer.resize(answer.len() + length, b'x');
            (answer, Then::Next)
        }
    })
    .await;
    let caller = caller(LONG);
    for connections in 1..=3 {
        post(&caller, &peer.callback()).await.unwrap();
        assert_eq!(peer.connections(), connections);
    }
}

#[tokio::test]
async fn an_endless_head_is_no_answer() {
    let peer = Peer::start(|_| {
        let mut answer = b"HTTP/1.1 200 OK\r\nx-long: ".to_vec();
        answer.resize(10_000_000, b'x');
        (answer, Then::Hang)
    })
    .await;
    let reason = refused(&caller(LONG), &peer.callback()).await;
    assert!(
        reason.starts_with("the answer is not HTTP/1.1: "),
        "{reason}"
    );
}

#[tokio::test]
async fn something_else_is_no_answer() {
    let peer = Peer::start(|_| (b"220 smtp.example ESMTP\r\n".to_vec(), Then::Hang)).await;
    let reason = refused(&caller(LONG), &peer.callback()).await;
    assert!(
        reason.starts_with("the answer is not HTTP/1.1: "),
        "{reason}"
    );
}

#[tokio::test]
async fn silence_ends_at_the_timeout() {
    let peer = Peer::start(|_| (Vec::new(), Then::Hang)).await;
    let reason = refused(&caller(SHORT), &peer.callback()).await;
    assert_eq!(reason, "timed out after 200 ms");
}

#[tokio::test]
async fn a_tls_handshake_ends_at_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let to = callback(&format!("https://{address}/"));
    assert_eq!(refused(&caller(SHORT), &to).await, "timed out after 200 ms");
}

#[tokio::test]
async fn a_body_that_hangs_changes_nothing() {
    let peer = Peer::start(|n| match n {
        0 => with_body("200 OK", 100, 50, Then::Hang),
        _ => with_body("503 Busy", 100, 50, Then::Hang),
    })
    .await;
    let caller = caller(SHORT);
    let watch = Stopwatch::start();
    post(&caller, &peer.callback()).await.unwrap();
    assert_eq!(refused(&caller, &peer.callback()).await, "answered 503");
    assert!(watch.elapsed() >= SHORT * 2 && watch.elapsed() < LONG);
    assert_eq!(peer.connections(), 2);
}

/// How much a peer gets that answers so, and takes nothing until the caller has given up.
async fn taken_too_late(answer: &'static [u8], body_bytes: usize) -> usize {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = callback(&format!("http://{}/", listener.local_addr().unwrap()));
    let caller = caller(SHORT);
    let posting = caller.post(&to, Bytes::from(vec![b'x'; body_bytes]), 1);
    let peer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(answer).await.unwrap();
        tokio::time::sleep(SHORT * 10).await;
        let mut bytes = 0;
        while let Ok(length @ 1..) = stream.read(&mut [0; 65_536]).await {
            bytes += length;
        }
        bytes
    };
    let (_, bytes) = tokio::join!(posting, tokio::time::timeout(LONG, peer));
    bytes.expect("the connection is closed")
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_closed() {
    let early = b"HTTP/1.1 413 Enough\r\ncontent-length: 0\r\n\r\n";
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nxx";
    let large = 20_000_000;
    let (_, _, silent, early, half) = tokio::join!(
        taken_too_late(b"", 2),
        taken_too_late(half, 2),
        taken_too_late(b"", large),
        taken_too_late(early, large),
        taken_too_late(half, large),
    );
    // Not even where it was full.
    assert!(silent < large && early < large && half < large);
}

#[tokio::test]
async fn a_body_that_ends_early_changes_nothing() {
    let peer = Peer::start(|_| with_body("200 OK", 100, 50, Then::Close)).await;
    post(&caller(LONG), &peer.callback()).await.unwrap();
}

#[tokio::test]
async fn a_connection_that_closes_half_way_is_a_failure() {
    let peer = Peer::start(|n| {
        let sent: &[u8] = if n == 0 { b"" } else { b"HTTP/1.1 20" };
        (sent.to_vec(), Then::Close)
    })
    .await;
    for requests in 1..=2 {
        assert_eq!(
            refused(&caller(LONG), &peer.callback()).await,
            "the connection was closed before an answer"
        );
        assert_eq!(peer.requests().len(), requests);
    }
}

#[tokio::test]
async fn a_stale_connection_is_no_failure() {
    let peer = Peer::start(|n| match n {
        // Closes an idle connection.
        0 => (no_content(0).0, Then::Close),
        // Closes one while the next request is on its way.
        2 => (Vec::new(), Then::Close),
        n => no_content(n),
    })
    .await;
    let caller = caller(LONG);
    for _ in 0..3 {
        post(&caller, &peer.callback()).await.unwrap();
    }
    assert_eq!((peer.connections(), peer.requests().len()), (3, 4));
}

#[tokio::test]
async fn a_pause_is_taken_from_any_refusal() {
    let peer = Peer::start(|n| {
        let head = [
            "429 Slow\r\nretry-after: 120",
            "503 Busy\r\nretry-after: 99999999999999999999",
            "404 Gone\r\nretry-after: Thu, 01 Jan 1970 00:00:00 GMT",
            "500 No\r\nretry-after: soon",
        ][n];
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
        (answer.into_bytes(), Then::Next)
    })
    .await;
    let caller = caller(LONG);
    for expected in [Some(120), Some(3600), Some(0), None] {
        let failure = post(&caller, &peer.callback()).await.unwrap_err();
        assert_eq!(failure.retry_after, expected.map(Duration::from_secs));
    }
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = Wall::from_ns(1_780_000_000_500_000_000);
    for (value, expected_ms) in [
        ("0", Some(0)),
        (" 17 ", Some(17_000)),
        ("3600", Some(3_600_000)),
        ("3601", Some(3_600_000)),
        ("Thu, 28 May 2026 20:27:40 GMT", Some(59_500)),
        ("Thursday, 28-May-26 20:27:40 GMT", Some(59_500)),
        ("Thu May 28 20:27:40 2026", Some(59_500)),
        ("Thu, 28 May 2026 20:26:40 GMT", Some(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", Some(3_600_000)),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("tomorrow", None),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        let expected = expected_ms.map(Duration::from_millis);
        assert_eq!(retry_after(&headers, now), expected, "{value}");
    }
}

#[tokio::test]
async fn what_the_guard_refuses_is_not_connected_to() {
    let peer = Peer::start(no_content).await;
    let port = peer.address.port();
    let caller = Caller::new(Guard::new(&[]), None, LONG).unwrap();
    for host in ["localhost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let to = callback(&format!("http://{host}:{port}/"));
        let reason = refused(&caller, &to).await;
        let start = "the callback's address is refused: ";
        assert!(reason.starts_with(start), "{reason}");
        assert!(reason.contains("a loopback address"), "{reason}");
        assert!(reason.contains("notify.allow"), "{reason}");
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn a_name_is_called_at_its_admitted_address() {
    let peer = Peer::start(no_content).await;
    let to = callback(&format!("http://localhost:{}/", peer.address.port()));
    let only_v4 = Guard::new(&["127.0.0.1/32".parse().unwrap()]);
    let caller = Caller::new(only_v4, None, LONG).unwrap();
    post(&caller, &to).await.unwrap();
}

#[tokio::test]
async fn an_ipv6_literal_is_called() {
    // Some containers have no IPv6.
    if TcpListener::bind("[::1]:0").await.is_err() {
        return;
    }
    let peer = Peer::start_on("[::1]:0", None, no_content).await;
    post(&caller(LONG), &peer.callback()).await.unwrap();
    assert!(peer.requests()[0].contains(&format!("host: {}", peer.address)));
}

#[tokio::test]
async fn what_went_wrong_is_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let caller = caller(LONG);
    let reason = refused(&caller, &callback(&format!("http://{address}/"))).await;
    let start = format!("could not connect to {address}: Connection refused");
    assert!(reason.starts_with(&start), "{reason}");

    // A label that is too long to be asked for.
    let nowhere = format!("http://{}.example/", "x".repeat(64));
    let reason = refused(&caller, &callback(&nowhere)).await;
    let start = "could not resolve the callback's host: ";
    assert!(reason.starts_with(start), "{reason}");

    // Fine for a URL, but not for the request.
    let reason = refused(&caller, &callback("http://mec{example}/")).await;
    assert_eq!(reason, "callbackReference cannot be called");

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = callback(&format!("https://{}/", plain.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await
    });
    let reason = refused(&caller, &to).await;
    assert!(reason.starts_with("TLS failed: "), "{reason}");
}

/// A certificate authority's PEM, and a server's side of TLS with a certificate by it.
fn authority() -> (String, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let params = CertificateParams::new(names).unwrap();
    let certificate: CertificateDer<'static> = params.signed_by(&key, &ca).unwrap().into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn https_needs_a_certificate_by_an_authority_in_the_file() {
    let (pem, tls) = authority();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    // Among others, and beside a key, which is nothing to trust.
    let key = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&ca_file, format!("A comment\n{}{key}{pem}", authority().0)).unwrap();
    let peer = Peer::start_on("127.0.0.1:0", Some(tls), no_content).await;
    let port = peer.address.port();
    let trusting = caller_trusting(Some(&ca_file), LONG);
    for host in ["localhost", "127.0.0.1"] {
        let to = callback(&format!("https://{host}:{port}/"));
        for _ in 0..2 {
            post(&trusting, &to).await.unwrap();
        }
        let reason = refused(&caller(LONG), &to).await;
        let start = "TLS failed: invalid peer certificate";
        assert!(reason.starts_with(start), "{reason}");
    }
    // One for each host, and two that were given up.
    assert_eq!((peer.connections(), peer.requests().len()), (4, 4));

    let reason = refused(&trusting, &callback(&format!("https://127.0.0.2:{port}/"))).await;
    assert!(
        reason.starts_with("could not connect to 127.0.0.2"),
        "{reason}"
    );
}

#[test]
fn a_file_without_authorities_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let failed = || {
        let error = Caller::new(Guard::new(&[]), Some(&path), LONG).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()));
        error
    };
    assert!(matches!(failed(), TlsError::Unreadable { .. }));
    let key = KeyPair::generate().unwrap().serialize_pem();
    for text in ["", "nothing\n", key.as_str()] {
        std::fs::write(&path, text).unwrap();
        assert!(matches!(failed(), TlsError::NoCertificate { .. }));
    }
    let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    for text in [
        format!("{begin}\n!!!!\n{end}\n"),
        format!("{begin}\nAAAA\n{end}\n"),
        format!("{begin}\nAAAA\n"),
    ] {
        std::fs::write(&path, &text).unwrap();
        assert!(matches!(failed(), TlsError::Malformed { .. }), "{text}");
    }
}

#[test]
fn a_reason_is_one_line_and_not_too_long() {
    assert_eq!(
        one_line("a\r\nb\u{85}\u{7f}\0é"),
        "a\\r\\nb\\u{85}\\u{7f}\\u{0}é"
    );
    let max = Failing::ERROR_BYTES_MAX;
    assert_eq!(one_line(&"x".repeat(max + 1)), "x".repeat(max));
    assert_eq!(one_line(&("x".repeat(max - 1) + "é")), "x".repeat(max - 1));
    assert_eq!(one_line(&("x".repeat(max - 1) + "\n")), "x".repeat(max - 1));
    assert_eq!(one_line(&"é".repeat(max)).len(), max);
}
