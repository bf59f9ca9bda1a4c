//! Servers that fail, stall, cannot keep up or want to know who is calling.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{BRIEF, bench, report};
use crate::support::data_dir;
use crate::support::stub::{Reply, Request, Stub};

/// A mepulse as far as registrations go; what becomes of a heartbeat is for the test to say.
fn platform(beat: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Stub {
    let registered = AtomicUsize::new(0);
    Stub::start(move |request| match request.method.as_str() {
        "GET" => Reply::json(200, &json!({"version": "9.9.9", "durability": "none"})),
        "POST" => {
            let number = registered.fetch_add(1, Ordering::SeqCst);
            Reply::json(201, &json!({"serInstanceId": format!("{number:036}")}))
        }
        "DELETE" => Reply::empty(204),
        _ => beat(request),
    })
}

fn bench_at(stub: &Stub, more: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let mut args = [&["beats", "--url", &stub.url][..], &BRIEF].concat();
    // An option that is typed twice would be refused.
    for pair in more.chunks(2) {
        match args.iter().position(|arg| *arg == pair[0]) {
            Some(at) => args[at + 1] = pair[1],
            None => args.extend(pair),
        }
    }
    bench(directory.path(), &args)
}

#[test]
fn a_server_that_fails_is_not_measured_but_told_of() {
    let text = |text: &str| Reply::Bytes(text.as_bytes().to_vec());
    for (reply, kind) in [
        (
            Reply::json(500, &json!({"detail": "the disk is gone"})),
            "status 500",
        ),
        (Reply::json(200, &json!([])), "none"),
        (text("SSH-2.0-OpenSSH_9\r\n"), "malformed answer"),
        (
            text("HTTP/1.1 204 No Content\r\n\r\nand more"),
            "malformed answer",
        ),
        (text("HTTP/1.1 204 No Con"), "connection closed"),
        (Reply::Close, "connection closed"),
    ] {
        let stub = platform(move |_| reply.clone());
        let output = bench_at(&stub, &[]);
        let report = report(&output);
        if kind == "none" {
            assert_eq!(output.status.code(), Some(0), "{report}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{report}");
        assert_eq!(report["failures"]["share"], 1.0, "{report}");
        assert!(
            report["failures"]["by_kind"][kind]["count"]
                .as_u64()
                .unwrap()
                > 0,
            "{report}"
        );
        let loud = String::from_utf8(output.stderr).unwrap();
        assert!(
            loud.contains("100.0 % of all requests FAILED") && loud.contains(kind),
            "{loud}"
        );
        assert_eq!(stub.count("DELETE"), 1, "it cleans up all the same");
    }
    // What everything else rests on: no report at all, but a sentence.
    let stub = Stub::start(|request| match request.method.as_str() {
        "GET" => Reply::json(200, &json!({"version": "1", "durability": "x"})),
        _ => Reply::json(429, &json!({"detail": "enough"})),
    });
    let output = bench_at(&stub, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(
        said.contains("registering a service failed: the server answered 429: enough"),
        "{said}"
    );
}

#[test]
fn an_open_loop_does_not_hide_a_stall() {
    let beats = AtomicUsize::new(0);
    let stalled = std::sync::Mutex::new(());
    let stub = platform(move |_| {
        let held = stalled.lock().unwrap();
        if beats.fetch_add(1, Ordering::SeqCst) == 50 {
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(held);
        Reply::empty(204)
    });
    let output = bench_at(&stub, &["--rate", "100", "--duration", "1s"]);
    let report = report(&output);
    let latency = &report["result"]["latency"];
    assert_eq!(report["failures"]["total"], 0, "{report}");
    assert_eq!(latency["count"], 100);
    // Some thirty requests were due while nobody answered, although four at the most were under way.
    for name in ["p90_us", "p99_us", "max_us"] {
        assert!(
            latency[name].as_u64().unwrap() > 150_000,
            "{name}: {report}"
        );
    }
}

#[test]
fn a_rate_that_cannot_be_kept_is_told() {
    let stub = platform(|_| {
        std::thread::sleep(Duration::from_millis(400));
        Reply::empty(204)
    });
    let output = bench_at(&stub, &["--rate", "1000"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(
        report["failures"]["by_kind"]["not sent"]["count"]
            .as_u64()
            .unwrap()
            > 50,
        "{report}"
    );
}

#[test]
fn tokens_and_certificates_are_used() {
    let stub = platform(|request| match request.header("authorization") {
        Some("Bearer s3cret") => Reply::empty(204),
        _ => Reply::empty(401),
    });
    let (keep, _) = data_dir();
    let token = keep.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let token = token.to_str().unwrap();
    assert_eq!(bench_at(&stub, &[]).status.code(), Some(1));
    let output = bench_at(&stub, &["--token-file", token]);
    assert_eq!(report(&output)["failures"]["total"], 0);

    let (url, ca) = tls_in_front_of(&stub.url, keep.path());
    let output = bench_at(&stub, &["--token-file", token, "--url", &url]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no connection: invalid peer certificate"),
        "{said}"
    );
    let ca = ca.to_str().unwrap();
    let more = ["--token-file", token, "--url", &url, "--ca-file", ca];
    let output = bench_at(&stub, &more);
    assert_eq!(report(&output)["failures"]["total"], 0);
}

/// TLS that ends in front of a server: its URL, and the certificate to trust.
fn tls_in_front_of(url: &str, dir: &Path) -> (String, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let ca = dir.join("ca.pem");
    std::fs::write(&ca, certificate.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let behind = url.strip_prefix("http://").unwrap().to_owned();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap().port()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, behind) = (acceptor.clone(), behind.clone());
                tokio::spawn(async move {
                    let Ok(mut tls) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut plain = TcpStream::connect(behind).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
    });
    (
        format!("https://localhost:{}", receiver.recv().unwrap()),
        ca,
    )
}
