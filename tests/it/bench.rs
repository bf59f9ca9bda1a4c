//! `mepulse bench`: reports say what they promise, hide nothing, and nothing stays behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::agent::until_true;
use crate::support::load::stored;
use crate::support::stub::{Reply, Request, Stub};
use crate::support::{Server, data_dir, mepulse};

/// A short load with few services.
const BRIEF: [&str; 10] = [
    "--services",
    "20",
    "--connections",
    "4",
    "--warm-up",
    "50ms",
    "--duration",
    "200ms",
    "--timeout",
    "2s",
];

fn bench(dir: &Path, args: &[&str]) -> Output {
    let mut command = mepulse();
    command.arg("bench").args(args).arg("--json");
    command.arg("--data-dir").arg(dir).output().unwrap()
}

/// The report of a run; it must be whole whatever came of the run.
fn report(output: &Output) -> Value {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(report["mepulse_version"], env!("CARGO_PKG_VERSION"));
    assert!(["debug", "release"].contains(&report["build"].as_str().unwrap()));
    for (part, names) in [
        ("machine", &["kernel", "cpu_model"][..]),
        ("disk", &["directory", "filesystem"]),
        ("server", &["url", "version", "durability"]),
    ] {
        for name in names {
            assert!(report[part][name].is_string(), "{part}.{name}: {report}");
        }
    }
    for (part, name) in [
        ("machine", "cores"),
        ("machine", "ram_bytes"),
        ("disk", "fsyncs"),
        ("disk", "fsync_p50_us"),
        ("disk", "fsync_p99_us"),
    ] {
        assert!(report[part][name].as_u64().unwrap() > 0, "{part}.{name}");
    }
    report
}

/// A run without any failure on a server of its own, of which nothing is left.
fn fine(args: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let output = bench(directory.path(), args);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(report["failures"]["total"], 0, "{report}");
    assert_eq!(report["server"]["own"], true);
    assert_eq!(report["server"]["durability"], "power-loss");
    let left = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "{report}");
    report["result"].clone()
}

fn positive(result: &Value, names: &[&str]) {
    for name in names {
        assert!(result[name].as_f64().unwrap() > 0.0, "{name}: {result}");
    }
}

fn latency(latency: &Value) {
    let at = |name: &str| latency[name].as_u64().unwrap();
    positive(latency, &["count", "mean_us"]);
    let order = ["p50_us", "p90_us", "p99_us", "p99_9_us", "max_us"].map(at);
    assert!(order.is_sorted(), "{latency}");
}

#[test]
fn every_load_reports_what_it_promises() {
    for (kind, more) in [
        ("beats", &[][..]),
        ("beats", &["--rate", "200", "--threads", "2"]),
        ("batch", &["--per-request", "7", "--apps", "2"]),
        ("mixed", &["--seed", "7"]),
    ] {
        let result = fine(&[&[kind][..], &BRIEF, more].concat());
        positive(&result, &["answers", "answers_per_s", "entries_per_s"]);
        latency(&result["latency"]);
        let open = more.contains(&"--rate");
        assert_eq!(result["loop"], if open { "open" } else { "closed" });
        assert_eq!(result["services"], 20);
        let used = &result["resources"];
        positive(used, &["rss_bytes", "store_bytes"]);
        assert!(used["cpu_per_answer_us"].is_number() && used["written_bytes"].is_number());
        if open {
            assert_eq!(
                (&result["asked_per_s"], &result["answers"]),
                (&json!(200), &json!(40))
            );
        }
        if kind == "batch" {
            assert_eq!(
                (&result["per_request"], &result["applications"]),
                (&json!(7), &json!(2))
            );
        }
        if kind == "mixed" {
            assert_eq!(result["seed"], 7);
            assert!(
                result["answers_by_kind"].as_object().unwrap().len() > 1,
                "{result}"
            );
        }
    }
    let result = fine(&[
        "register",
        "--warm-up",
        "0",
        "--duration",
        "200ms",
        "--connections",
        "4",
    ]);
    positive(&result, &["answers_per_s"]);
    assert!(result["answers_by_kind"]["register"].as_u64().unwrap() > 0);
}

#[test]
fn verdicts_restarts_ratios_and_sizes_are_reported() {
    let result = fine(&[
        "expire",
        "--services",
        "10",
        "--probes",
        "5",
        "--at-once",
        "10",
        "--interval",
        "1",
        "--grace-percent",
        "0",
        "--grace-min-ms",
        "300",
        "--server-set",
        "liveness.min_interval_s=1",
        "--server-set",
        "truth.tick_ms=20",
        "--server-set",
        "truth.stall_ms=200",
    ]);
    assert_eq!(result["due_from"], "server-timestamp");
    assert_eq!(result["lag"]["count"], 5);
    assert_eq!(result["at_once_lag"]["count"], 10);
    latency(&result["lag"]);

    let result = fine(&[
        "recover",
        "--services",
        "20",
        "--rounds",
        "2",
        "--duration",
        "100ms",
    ]);
    assert_eq!(result["first_beat_ms"].as_array().unwrap().len(), 2);
    positive(
        &result,
        &[
            "beats",
            "first_beat_median_ms",
            "first_beat_max_ms",
            "store_bytes",
        ],
    );

    let result = fine(&[
        "ratio",
        "--services",
        "20",
        "--rounds",
        "2",
        "--connections",
        "2,4",
        "--warm-up",
        "0",
        "--duration",
        "100ms",
    ]);
    let rows = result["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[1]["connections"]), (2, &json!(4)));
    for row in rows {
        assert_eq!(row["mepulse_per_s"].as_array().unwrap().len(), 2);
        positive(
            row,
            &["mepulse_median_per_s", "baseline_median_per_s", "ratio"],
        );
    }

    let result = fine(&[
        "size",
        "--services",
        "100000",
        "--interval",
        "60",
        "--measure",
        "20,40",
        "--duration",
        "100ms",
    ]);
    positive(
        &result["measured"][1],
        &["beats_per_s", "batch_beats_per_s", "rss_bytes", "start_ms"],
    );
    positive(
        &result["extrapolated"],
        &[
            "beats_per_s",
            "share",
            "batch_share",
            "rss_bytes",
            "start_ms",
        ],
    );
}

#[test]
fn on_a_foreign_server_nothing_stays_unless_it_is_wanted() {
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let at = |kind: &str, more: &[&str]| {
        let args = [&[kind, "--url", &server.url][..], &BRIEF, more].concat();
        let output = bench(keep.path(), &args);
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert_eq!(report["server"]["own"], false);
        assert!(report["result"]["resources"].is_null());
        report
    };
    at("beats", &[]);
    at("mixed", &[]);
    assert_eq!(stored(&dir).len(), 0);
    let report = at("batch", &["--keep"]);
    assert_eq!(report["result"]["kept"].as_array().unwrap().len(), 1);
    assert_eq!(stored(&dir).len(), 20);
    server.stop();
}

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

#[test]
fn an_interruption_leaves_nothing_behind() {
    for signal in ["INT", "TERM"] {
        let directory = tempfile::tempdir().unwrap();
        let mut child = mepulse()
            .args([
                "bench",
                "beats",
                "--duration",
                "10m",
                "--services",
                "20",
                "--data-dir",
            ])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let threads = format!("/proc/{}/task", child.id());
        let server = || {
            let mut threads = std::fs::read_dir(&threads).unwrap().flatten();
            threads.find_map(|thread| {
                let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
                children.split_whitespace().next().map(str::to_owned)
            })
        };
        until_true("its server runs", || {
            // A store that is open has its lock; the load begins soon after.
            let mut found = std::fs::read_dir(directory.path()).unwrap().flatten();
            found.any(|it| it.path().join("data/STORE").exists())
        });
        let server = PathBuf::from("/proc").join(server().unwrap());
        assert!(server.exists());
        let killed = Command::new("kill")
            .args([format!("-{signal}"), child.id().to_string()])
            .status();
        assert!(killed.unwrap().success());
        until_true("it ends", || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        assert!(!server.exists(), "the server is still there");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (args, part) in [
        (
            &["beats", "--connections", "10001"][..],
            "10001 is not in 1..=10000",
        ),
        (&["beats", "--services", "2000001"], "is not in 1..=2000000"),
        (&["beats", "--duration", "2h"], "longer than an hour"),
        (&["beats", "--duration", "0s"], "shorter than 10 ms"),
        (&["beats", "--rate", "0"], "0 is not in"),
        (
            &["beats", "--services", "3000", "--apps", "2"],
            "need 3 to 3000 applications",
        ),
        (&["beats", "--url", "ftp://x"], "http or https is expected"),
        (&["beats", "--url", "nonsense"], "--url"),
        (
            &["beats", "--url", "http://x", "--server-set", "a.b=c"],
            "cannot be used with",
        ),
        (
            &[
                "size",
                "--services",
                "1",
                "--interval",
                "1",
                "--measure",
                "2,1",
            ],
            "the smaller one first",
        ),
        (
            &["expire", "--server-set", "liveness.grace_min_ms=1"],
            "use --grace-percent",
        ),
        (
            &["recover", "--url", "http://x"],
            "unexpected argument '--url'",
        ),
    ] {
        let output = bench(directory.path(), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(output.stdout.is_empty());
    }
    let output = bench(
        directory.path(),
        &["beats", "--server-set", "store.nonsense=1"],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("unknown key `store.nonsense`"),
        "the server's own words: {said}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
