//! Stop, start: nothing acknowledged is lost, and nobody is expired unfairly.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Server, beat, data_dir, get, liveness_of, patch, send, service, try_send};

/// What a client knows for certain about one service.
#[derive(Debug, Clone, Default)]
struct Known {
    liveness: String,
    own: String,
    app: String,
    /// Acknowledged beats; one more may have been under way.
    beats: u64,
    beat_under_way: bool,
    removed: bool,
    remove_under_way: bool,
}

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
    // A long linger, and no pulse that would end it: the beat waits in the queue.
    let server = Server::start(
        &dir,
        &[
            "--set",
            "store.commit_linger_ms=1000",
            "--set",
            "truth.tick_ms=60000",
            "--set",
            "truth.stall_ms=120000",
            "--set",
            "liveness.grace_min_ms=300000",
        ],
    );
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

/// Registers, beats and removes from several threads until told to stop or the server is gone.
fn load(server: &Server, thread: usize, stop: &AtomicBool, known: &Mutex<BTreeMap<String, Known>>) {
    let app = format!("app-{thread}");
    let mut mine: Vec<String> = Vec::new();
    let mut turn = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        if mine.len() < 20 || turn.is_multiple_of(7) {
            let name = "x".repeat(turn * 97 % 6000 + 1);
            let body = service(&name, Some(3600)).to_string();
            let uri = format!("{}/services", server.app(&app));
            let Ok(answer) = try_send("POST", &uri, &[], body.as_bytes()) else {
                return;
            };
            if answer.status == 503 {
                return;
            }
            assert_eq!(answer.status, 201, "{answer:?}");
            let info = answer.json();
            let id = info["serInstanceId"].as_str().unwrap().to_owned();
            let path = |link: &str| info["_links"][link]["href"].as_str().unwrap().to_owned();
            let service = Known {
                liveness: path("liveness"),
                own: path("self"),
                app: app.clone(),
                ..Known::default()
            };
            known.lock().unwrap().insert(id.clone(), service);
            mine.push(id);
            continue;
        }
        let id = mine[turn * 13 % mine.len()].clone();
        let remove = turn.is_multiple_of(31);
        let paths = {
            let mut known = known.lock().unwrap();
            let service = known.get_mut(&id).unwrap();
            service.beat_under_way = !remove;
            service.remove_under_way = remove;
            (service.liveness.clone(), service.own.clone())
        };
        let answer = if remove {
            try_send("DELETE", &format!("{}{}", server.url, paths.1), &[], b"")
        } else {
            let uri = format!("{}{}", server.url, paths.0);
            try_send("PATCH", &uri, &[], br#"{"state":"ACTIVE"}"#)
        };
        let Ok(answer) = answer else { return };
        if answer.status == 503 {
            return;
        }
        assert_eq!(answer.status, 204, "{answer:?}");
        let mut known = known.lock().unwrap();
        let service = known.get_mut(&id).unwrap();
        if remove {
            service.removed = true;
            service.remove_under_way = false;
            mine.retain(|other| *other != id);
        } else {
            service.beats += 1;
            service.beat_under_way = false;
        }
    }
}

/// All services as the store has them, the server being down.
fn stored(data_dir: &std::path::Path) -> Vec<Value> {
    let output = crate::support::mepulse()
        .args(["admin", "services", "--json", "--data-dir"])
        .arg(data_dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Compares the restarted registry with what clients know.
fn check(data_dir: &std::path::Path, known: &BTreeMap<String, Known>) {
    let found = stored(data_dir);
    let found: BTreeMap<_, _> = found
        .iter()
        .map(|report| (report["serInstanceId"].as_str().unwrap(), report))
        .collect();
    for (id, service) in known {
        let Some(report) = found.get(id.as_str()) else {
            assert!(
                service.removed || service.remove_under_way,
                "{id} is lost: {service:?}"
            );
            continue;
        };
        assert!(
            !service.removed,
            "{id} was removed, acknowledged, and is back"
        );
        assert_eq!(report["appInstanceId"], service.app);
        assert_eq!(report["state"], "ACTIVE");
        let beats = report["beats"].as_u64().unwrap();
        let most = service.beats + u64::from(service.beat_under_way);
        assert!(
            (service.beats..=most).contains(&beats),
            "{id} has {beats} beats, acknowledged {service:?}"
        );
    }
}

/// ≥ 5 rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
#[test]
fn everything_acknowledged_survives_kill_nine_under_load() {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(5, |rounds| rounds.parse().unwrap());
    let (_keep, dir) = data_dir();
    let known = Mutex::new(BTreeMap::new());
    for round in 0..rounds {
        let server = Server::start(&dir, &[]);
        let stop = AtomicBool::new(false);
        let kill_after = 200 + 150 * (round % 4);
        let beats_before: u64 = known
            .lock()
            .unwrap()
            .values()
            .map(|k: &Known| k.beats)
            .sum();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (server, stop, known) = (&server, &stop, &known);
                scope.spawn(move || load(server, thread + 8 * round, stop, known));
            }
            let acknowledged = || known.lock().unwrap().values().map(|k| k.beats).sum::<u64>();
            while acknowledged() < beats_before + kill_after as u64 {
                std::thread::yield_now();
            }
            server.signal("KILL");
            stop.store(true, Ordering::Relaxed);
        });
        let log = server.log();
        drop(server);
        assert!(
            !log.contains("are not those that were committed"),
            "the census and the rows must agree: {log}"
        );
        let mut known = known.lock().unwrap();
        check(&dir, &known);
        // What was in doubt is settled by what is found now.
        settle(&dir, &mut known);
    }
    assert!(known.into_inner().unwrap().len() > 100);
}

fn settle(dir: &std::path::Path, known: &mut BTreeMap<String, Known>) {
    let server = Server::start(dir, &[]);
    for service in known.values_mut() {
        if service.remove_under_way {
            service.removed = get(&format!("{}{}", server.url, service.own)).status == 404;
            service.remove_under_way = false;
        }
    }
    server.kill();
    // Beats in doubt: take over what is there.
    let found = stored(dir);
    for report in found {
        // A registration whose answer was lost is not known to its client.
        if let Some(service) = known.get_mut(report["serInstanceId"].as_str().unwrap()) {
            service.beats = report["beats"].as_u64().unwrap();
            service.beat_under_way = false;
        }
    }
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
