//! Stop, start: nothing acknowledged is lost, and nobody is expired unfairly.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::support::load::{self, stored};
use crate::support::{
    LINGERING, Server, beat, data_dir, get, liveness_of, patch, send, service, try_send,
};

#[test]
fn an_orderly_stop_loses_nothing_and_seals_the_store() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
    let before = get(&liveness_of(&server, &info)).json();
    server.stop();
    let store = std::fs::read_to_string(dir.join("STORE")).unwrap();
    assert!(store.contains("[sealed_log]"), "{store}");

    let server = Server::start(&dir, &[]);
    assert_eq!(get(&liveness_of(&server, &info)).json(), before);
    assert!(
        server.log().contains("cause planned-stop"),
        "{}",
        server.log()
    );
    let store = std::fs::read_to_string(dir.join("STORE")).unwrap();
    assert!(
        !store.contains("[sealed_log]"),
        "a running server's log is not sealed: {store}"
    );
}

#[test]
fn requests_under_way_are_finished_by_a_stop() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &LINGERING);
    let info = server.register("app", &service("cam", Some(3600)));
    let uri = liveness_of(&server, &info);
    let beating = std::thread::spawn(move || beat(&uri).status);
    let waits = || {
        get(&format!("{}/metrics", server.url))
            .text()
            .contains("queue_depth 1")
    };
    while !beating.is_finished() && !waits() {}
    assert!(
        !beating.is_finished(),
        "the beat was to be caught in the queue"
    );
    server.stop();
    assert_eq!(beating.join().unwrap(), 204);
}

/// Twenty rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
#[test]
fn everything_acknowledged_survives_kill_nine_under_load() {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(20, |rounds| rounds.parse().unwrap());
    load::survives_kill_nine(&[], rounds);
}

#[test]
fn process_crash_durability_survives_kill_nine_too() {
    load::survives_kill_nine(&["--set", "store.durability=process-crash"], 3);
}

#[test]
fn a_batch_is_there_wholly_or_not_at_all_after_kill_nine() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    for number in 0..50 {
        server.register("app", &service(&format!("s{number}"), Some(3600)));
    }
    let batch = format!("{}/liveness", server.app("app"));
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Ok(answer) = try_send("PATCH", &batch, &[], br#"{"state":"ACTIVE"}"#) {
                assert_eq!(answer.status, 200);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
        });
        while acknowledged.load(Ordering::SeqCst) < 50 {
            std::thread::yield_now();
        }
        server.signal("KILL");
    });
    drop(server);
    let server = Server::start(&dir, &[]);
    drop(server);
    let found = stored(&dir);
    let beats: std::collections::BTreeSet<u64> = found
        .iter()
        .map(|report| report["beats"].as_u64().unwrap())
        .collect();
    assert_eq!(
        (found.len(), beats.len()),
        (50, 1),
        "all services of a batch beat together: {beats:?}"
    );
    let acknowledged = acknowledged.load(Ordering::SeqCst);
    assert!((acknowledged..=acknowledged + 1).contains(beats.first().unwrap()));
}

#[test]
fn a_second_process_on_the_same_directory_is_turned_away() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let output = crate::support::mepulse()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("is in use by another process (pid "),
        "{message}"
    );
    assert_eq!(get(&format!("{}/readyz", server.url)).status, 200);
}

#[test]
fn a_reload_takes_over_what_it_can_and_says_what_it_cannot() {
    let (keep, dir) = data_dir();
    let config = keep.path().join("mepulse.toml");
    std::fs::write(&config, "[liveness]\nmax_interval_s = 100\n").unwrap();
    let server = Server::start(&dir, &["--config", config.to_str().unwrap()]);
    assert_eq!(
        server.register("app", &service("a", Some(500)))["livenessInterval"],
        100
    );
    std::fs::write(
        &config,
        "[liveness]\nmax_interval_s = 50\n[server]\nqueue_max = 9\n",
    )
    .unwrap();
    server.signal("HUP");
    while !server.log().contains("changed: liveness.max_interval_s") {
        std::thread::yield_now();
    }
    assert!(
        server.log().contains("`server.queue_max` has changed"),
        "{}",
        server.log()
    );
    // The first beat is told the new interval, by 200; the second is plain again.
    let mut told = None;
    while told.is_none() {
        let uri = format!("{}/services", server.app("app"));
        let liveness = liveness_of(&server, &get(&uri).json()[0]);
        let answer = patch(&liveness, &json!({"state": "ACTIVE"}));
        told = (answer.status == 200).then(|| answer.json()["interval"].clone());
    }
    assert_eq!(told, Some(json!(50)));
    std::fs::write(&config, "nonsense").unwrap();
    server.signal("HUP");
    while !server.log().contains("Everything stays as it was") {
        std::thread::yield_now();
    }
    assert_eq!(
        send("HEAD", &format!("{}/healthz", server.url), &[], b"").status,
        200
    );
}
