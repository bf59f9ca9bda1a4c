//! An empty store is never mistaken for a new one, and what cannot be opened is left untouched.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{
    Server, beat, contents, data_dir, get, liveness_of, long_service, mepulse, service, start_on,
};

/// A store with 300 services; `graceful`: stopped in good order, else killed.
fn filled(dir: &Path, graceful: bool) {
    let server = Server::start(dir, &[]);
    for number in 0..300 {
        let name = format!("service-{number}");
        let info = server.register("app", &long_service(&name, Some(3600), 2000));
        assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
    }
    if graceful {
        server.stop();
    } else {
        server.kill();
    }
}

fn registered(server: &Server) -> usize {
    let list = get(&format!("{}/services", server.app("app"))).json();
    list.as_array().unwrap().len()
}

/// Damages the store, then expects a refusal with exit code 1 that says so and writes nothing.
fn check(what: &str, graceful: bool, damage: impl FnOnce(&Path)) {
    let (_keep, dir) = data_dir();
    filled(&dir, graceful);
    damage(&dir.join("sled"));
    let before = contents(&dir);
    // A server that starts all the same would never end: its start-up line is the failure.
    let (mut child, line) = start_on(&dir);
    if !line.is_empty() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        line.is_empty(),
        "{what}: it must not say that it listens: {message}"
    );
    assert_eq!(output.status.code(), Some(1), "{what}: {message}");
    let last = message.lines().last().unwrap();
    assert!(
        last.starts_with("mepulse: ") && last.contains("Restore the data directory"),
        "{what}: {message}"
    );
    assert!(contents(&dir) == before, "{what}: something was written");
}

fn log_of(sled: &Path) -> PathBuf {
    sled.join("db")
}

fn truncate_to_half(sled: &Path) {
    let file = fs::File::options().write(true).open(log_of(sled)).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// Overwrites the log between two percentages of its length with bytes that are no pattern.
fn garble(sled: &Path, from: usize, to: usize) {
    let mut bytes = fs::read(log_of(sled)).unwrap();
    let at = |percent: usize| bytes.len() * percent / 100;
    let (from, to) = (at(from), at(to));
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for byte in &mut bytes[from..to] {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[0];
    }
    fs::write(log_of(sled), bytes).unwrap();
}

#[test]
fn a_deleted_log_is_refused() {
    for graceful in [true, false] {
        check("deleted", graceful, |sled| {
            fs::remove_file(log_of(sled)).unwrap()
        });
        check("deleted with its directory", graceful, |sled| {
            fs::remove_dir_all(sled).unwrap()
        });
        check("emptied", graceful, |sled| {
            fs::write(log_of(sled), "").unwrap()
        });
    }
}

#[test]
fn a_truncated_log_is_refused() {
    for graceful in [true, false] {
        check("cut in half", graceful, truncate_to_half);
    }
}

#[test]
fn a_garbled_log_is_refused() {
    for graceful in [true, false] {
        check("garbled wholly", graceful, |sled| garble(sled, 0, 100));
    }
    // Of a killed server these may be parts that were dead already: see `damage`.
    check("garbled at its head", true, |sled| garble(sled, 0, 10));
    check("garbled in the middle", true, |sled| garble(sled, 40, 50));
}

#[test]
fn another_store_in_its_place_is_refused() {
    let (_keep, other) = data_dir();
    filled(&other, true);
    check("replaced", true, |sled| {
        fs::copy(log_of(&other.join("sled")), log_of(sled)).unwrap();
    });
}

#[test]
fn a_newer_store_is_refused_before_the_engine_is_opened() {
    for command in [
        vec!["serve", "--listen", "127.0.0.1:0"],
        vec!["admin", "status"],
    ] {
        let (_keep, dir) = data_dir();
        filled(&dir, true);
        let store = dir.join("STORE");
        let ours = fs::read_to_string(&store).unwrap();
        let newer = ours.replace("schema = 3", "schema = 99");
        assert_ne!(ours, newer);
        fs::write(&store, newer).unwrap();
        let before = contents(&dir);
        let output = mepulse()
            .args(&command)
            .arg("--data-dir")
            .arg(&dir)
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("schema 99"), "{message}");
        assert!(contents(&dir) == before, "something was written");
    }
}

#[test]
fn stray_and_damaged_snapshots_are_repaired_loudly() {
    let (_keep, dir) = data_dir();
    filled(&dir, true);
    // A second start writes a snapshot.
    Server::start(&dir, &[]).kill();
    let sled = dir.join("sled");
    fs::write(sled.join("snap.00000000000003E8.generating"), "half").unwrap();
    let snapshots: Vec<_> = fs::read_dir(&sled)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.to_string_lossy().contains("snap.") && path.extension().unwrap() != "generating"
        })
        .collect();
    assert!(!snapshots.is_empty(), "this test needs a snapshot");
    for snapshot in snapshots {
        fs::write(snapshot, "damaged").unwrap();
    }
    let server = Server::start(&dir, &[]);
    assert_eq!(registered(&server), 300);
    assert!(
        server.log().contains("rebuilding from the log"),
        "{}",
        server.log()
    );
    assert!(
        server.log().contains("it was being written"),
        "{}",
        server.log()
    );
}

#[test]
fn a_lost_store_file_is_written_anew() {
    let (_keep, dir) = data_dir();
    filled(&dir, true);
    fs::remove_file(dir.join("STORE")).unwrap();
    let server = Server::start(&dir, &[]);
    assert_eq!(registered(&server), 300);
    assert!(
        server.log().contains("STORE is missing"),
        "{}",
        server.log()
    );
    assert!(dir.join("STORE").exists());
}

#[test]
fn no_row_is_longer_than_two_kilobytes_and_no_blob_is_written() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let mut long = service("long", Some(3600));
    long["transportInfo"]["implSpecificInfo"] = serde_json::json!("y".repeat(60_000));
    let info = server.register("app", &long);
    let own = format!(
        "{}{}",
        server.url,
        info["_links"]["self"]["href"].as_str().unwrap()
    );
    // A shorter registration must not leave parts of the longer one behind.
    server.register("app", &long);
    assert_eq!(
        crate::support::put(&own, &service("short", None)).status,
        200
    );
    server.stop();
    assert_eq!(fs::read_dir(dir.join("sled/blobs")).unwrap().count(), 0);
    {
        let db = crate::support::open_engine(&dir);
        for tree in db.tree_names() {
            for row in db.open_tree(tree).unwrap().iter() {
                assert!(row.unwrap().1.len() <= 2048);
            }
        }
        let parts = db.open_tree("services").unwrap().len();
        assert_eq!(parts, 1 + 30, "one short registration, one long one");
    }
}

#[test]
fn the_data_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_keep, dir) = data_dir();
    Server::start(&dir, &[]).stop();
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
}
