//! A row that makes no sense, in any tree, costs nobody but itself: skipped, counted, reported.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Server, beat, data_dir, get, id_of, liveness_of, mepulse, self_of, service};

/// What a row is poisoned with: too short, no checksum, an unknown version, a torn payload.
fn poisons() -> [Vec<u8>; 4] {
    let with_crc = |body: &[u8]| [body, &crc32fast::hash(body).to_le_bytes()].concat();
    [
        vec![1],
        vec![0xff; 60],
        with_crc(&[99, 1, 2, 3]),
        with_crc(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
    ]
}

/// Opens the engine behind the server's back. The seal goes: this is no orderly stop.
fn tamper(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let store = fs::read_to_string(dir.join("STORE")).unwrap();
    let unsealed = store.split("[sealed_log]").next().unwrap();
    fs::write(dir.join("STORE"), unsealed).unwrap();
    let db = crate::support::open_engine(dir);
    change(&db);
    db.flush().unwrap();
}

fn key_of(app: &str, info: &Value) -> Vec<u8> {
    let id: uuid::Uuid = id_of(info).parse().unwrap();
    [
        &[u8::try_from(app.len()).unwrap()],
        app.as_bytes(),
        id.as_bytes(),
    ]
    .concat()
}

fn row_starting_with(tree: &sled::Tree, prefix: &[u8]) -> sled::IVec {
    tree.scan_prefix(prefix).keys().next().unwrap().unwrap()
}

const ARGS: [&str; 4] = [
    "--set",
    "liveness.min_interval_s=1",
    "--set",
    "liveness.grace_min_ms=1300",
];

#[test]
fn a_poisoned_row_in_any_tree_costs_nobody_but_itself() {
    for poison in poisons() {
        let (_keep, dir) = data_dir();
        let server = Server::start(&dir, &ARGS);
        let register = |name: &str, app: &str, interval| {
            let info = server.register(app, &service(name, Some(interval)));
            assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
            info
        };
        let healthy = register("healthy", "app", 3600);
        let dying = register("dying", "app", 1);
        let no_registration = register("no-registration", "app", 3600);
        let no_liveness = register("no-liveness", "app", 3600);
        let no_app = register("no-app", "lost", 3600);
        server.stop();
        tamper(&dir, |db| {
            let tree = |name: &str| db.open_tree(name).unwrap();
            let services = tree("services");
            let row = row_starting_with(&services, &key_of("app", &no_registration));
            services.insert(row, poison.clone()).unwrap();
            tree("liveness")
                .insert(key_of("app", &no_liveness), poison.clone())
                .unwrap();
            tree("apps").insert(b"\x04lost", poison.clone()).unwrap();
            tree("blind_spots")
                .insert([0, 0, 0, 0, 0, 0, 0, 9], poison.clone())
                .unwrap();
            tree("meta").insert("policy", poison.clone()).unwrap();
            tree("meta").insert("mark", poison.clone()).unwrap();
            let event = tree("events").first().unwrap().unwrap().0;
            tree("events").insert(event, poison.clone()).unwrap();
            for name in [
                "apps",
                "services",
                "liveness",
                "expiry",
                "blind_spots",
                "events",
                "history",
            ] {
                tree(name)
                    .insert(b"\xff no key of ours", poison.clone())
                    .unwrap();
            }
        });

        let server = Server::start(&dir, &ARGS);
        for alive in [&healthy, &no_app] {
            assert_eq!(get(&self_of(&server, alive)).status, 200);
            assert_eq!(beat(&liveness_of(&server, alive)).status, 204);
        }
        for poisoned in [&no_registration, &no_liveness] {
            assert_eq!(get(&self_of(&server, poisoned)).status, 404);
        }
        // Detection goes on.
        while get(&self_of(&server, &dying)).json()["state"] != "SUSPENDED" {
            assert_eq!(beat(&liveness_of(&server, &healthy)).status, 204);
        }
        server.register("app", &service("new", Some(60)));
        let skipped = server.metric("mepulse_undecodable_rows");
        // Six rows with keys of ours, five trees with a strange key read at start.
        assert_eq!(skipped, 6 + 5, "{}", server.log());
        let log = server.log();
        for tree in [
            "apps",
            "services",
            "liveness",
            "expiry",
            "blind_spots",
            "meta",
        ] {
            assert!(
                log.contains(&format!("skipped a row of {tree}")),
                "{tree}: {log}"
            );
        }
        let why = mepulse()
            .args(["admin", "why", id_of(&healthy), "--data-dir"])
            .arg(&dir)
            .output()
            .unwrap();
        assert_eq!(why.status.code(), Some(0), "{why:?}");
        let status = mepulse()
            .args(["admin", "status", "--json", "--data-dir"])
            .arg(&dir)
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!(status["undecodableRows"], 11);
        server.stop();
    }
}
