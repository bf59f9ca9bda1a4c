//! What a run leaves behind: nothing, whatever becomes of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{BRIEF, bench, report};
use crate::support::agent::until_true;
use crate::support::load::stored;
use crate::support::{Server, data_dir, mepulse};

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

/// A run that would last.
fn long_run(dir: &Path, more: &[&str]) -> Child {
    mepulse()
        .args(["bench", "beats", "--duration", "10m", "--services", "20"])
        .arg("--data-dir")
        .arg(dir)
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ends it with a signal; it must say so.
fn interrupt(mut child: Child, signal: &str) {
    let killed = Command::new("kill")
        .args([format!("-{signal}"), child.id().to_string()])
        .status();
    assert!(killed.unwrap().success());
    until_true("it ends", || child.try_wait().unwrap().is_some());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert!(output.stdout.is_empty());
}

/// The server that a run has started.
fn server_of(child: &Child) -> PathBuf {
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let server = threads.flatten().find_map(|thread| {
        let children = std::fs::read_to_string(thread.path().join("children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    });
    PathBuf::from("/proc").join(server.unwrap())
}

#[test]
fn an_interruption_leaves_nothing_behind() {
    for signal in ["INT", "TERM"] {
        let directory = tempfile::tempdir().unwrap();
        let child = long_run(directory.path(), &[]);
        until_true("its server runs", || {
            let mut found = std::fs::read_dir(directory.path()).unwrap().flatten();
            found.any(|it| it.path().join("data/STORE").exists())
        });
        let server = server_of(&child);
        assert!(server.exists());
        interrupt(child, signal);
        assert!(!server.exists(), "the server is still there");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
    // On a foreign server, too, and whatever was to be kept.
    let (keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let child = long_run(keep.path(), &["--keep", "--url", &server.url]);
    until_true("all are registered", || stored(&dir).len() == 20);
    interrupt(child, "INT");
    assert_eq!(stored(&dir).len(), 0);
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
