//! A damaged, stale, foreign or stray snapshot of the engine costs nothing: either the store opens
//! with everything in it, and says what it mended, or it is refused and left as it was. Never does
//! it open with less.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    Server, beat, contents, data_dir, get, liveness_of, long_service, mepulse, service,
};

const SERVICES: usize = 100;
/// One client alone need not wait for company.
const ARGS: [&str; 2] = ["--set", "store.commit_linger_ms=0"];

fn changed(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<PathBuf> {
    let mut changed: Vec<_> = before.keys().chain(after.keys()).cloned().collect();
    changed.retain(|path| before.get(path) != after.get(path));
    changed.dedup();
    changed
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for (path, bytes) in contents(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
    // The engine misses it if it is gone.
    fs::create_dir_all(to.join("sled/blobs")).unwrap();
}

fn snapshots(sled: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sled)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.to_string_lossy().contains("/snap.");
    entries.filter(named).collect()
}

/// What must not change: registrations, and when each was heard of last.
fn everything(server: &Server) -> Vec<(Value, Value)> {
    let list = get(&format!("{}/services", server.app("app"))).json();
    let mut all: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|info| {
            let stamp = get(&liveness_of(server, info)).json()["timeStamp"].clone();
            (info.clone(), stamp)
        })
        .collect();
    all.sort_by_key(|(info, _)| info["serInstanceId"].to_string());
    all
}

/// A store whose last opening had written a snapshot, and what is in it.
struct Original {
    _keep: tempfile::TempDir,
    dir: PathBuf,
    content: Vec<(Value, Value)>,
    /// A snapshot of an earlier opening.
    stale: (PathBuf, Vec<u8>),
}

impl Original {
    /// `sealed`: stopped in good order at last, else killed.
    fn new(sealed: bool) -> Self {
        let (keep, dir) = data_dir();
        let server = Server::start(&dir, &ARGS);
        for number in 0..SERVICES {
            let name = format!("service-{number}");
            server.register("app", &long_service(&name, Some(3600), 6000));
        }
        server.stop();
        let server = Server::start(&dir, &ARGS);
        let earlier = &snapshots(&dir.join("sled"))[0];
        let stale = (
            PathBuf::from(earlier.file_name().unwrap()),
            fs::read(earlier).unwrap(),
        );
        let all = everything(&server);
        for (info, _) in &all {
            assert_eq!(beat(&liveness_of(&server, info)).status, 204);
        }
        server.kill();
        let server = Server::start(&dir, &ARGS);
        for (info, _) in all.iter().take(SERVICES / 2) {
            assert_eq!(beat(&liveness_of(&server, info)).status, 204);
        }
        let content = everything(&server);
        if sealed {
            server.stop();
        } else {
            server.kill();
        }
        assert_eq!(content.len(), SERVICES);
        assert!(!snapshots(&dir.join("sled")).is_empty());
        Self {
            _keep: keep,
            dir,
            content,
            stale,
        }
    }

    /// Starts on a damaged copy. `true`: it opened, with everything in it; `false`: it was refused
    /// and nothing was written.
    fn survives(&self, what: &str, damage: impl FnOnce(&Path)) -> (bool, String) {
        let (keep, dir) = data_dir();
        copy(&self.dir, &dir);
        damage(&dir.join("sled"));
        let before = contents(&dir);
        let log = keep.path().join("log");
        match Server::try_start(mepulse(), &dir, &log, &[]) {
            Ok(server) => {
                let found = everything(&server);
                let log = server.log();
                assert!(
                    found == self.content,
                    "{what}: {} of {SERVICES} services, or other content: {log}",
                    found.len()
                );
                (true, log)
            }
            Err(code) => {
                let log = fs::read_to_string(&log).unwrap();
                assert_eq!(code, Some(1), "{what}: {log}");
                assert!(log.contains("Restore the data directory"), "{what}: {log}");
                let changed = changed(&before, &contents(&dir));
                assert!(changed.is_empty(), "{what}: {changed:?} written: {log}");
                (false, log)
            }
        }
    }
}

fn each_snapshot(sled: &Path, mut damage: impl FnMut(&mut Vec<u8>)) {
    for path in snapshots(sled) {
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes);
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_damaged_snapshot_is_set_aside_and_everything_found_in_the_log() {
    for sealed in [false, true] {
        mend_damaged(&Original::new(sealed));
    }
}

fn mend_damaged(original: &Original) {
    let mended = |what: &str, damage: &dyn Fn(&mut Vec<u8>)| {
        let (opened, log) = original.survives(what, |sled| each_snapshot(sled, damage));
        assert!(opened, "{what}: refused: {log}");
        assert!(log.contains("rebuilding from the log"), "{what}: {log}");
    };
    mended("emptied", &Vec::clear);
    mended("cut in half", &|bytes| bytes.truncate(bytes.len() / 2));
    mended("cut by a byte", &|bytes| bytes.truncate(bytes.len() - 1));
    mended("longer", &|bytes| bytes.extend([0; 100]));
    mended("zeroed", &|bytes| bytes.fill(0));
    mended("a flipped bit", &|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
}

#[test]
fn a_stray_snapshot_costs_nothing() {
    for sealed in [false, true] {
        open_beside_strays(&Original::new(sealed));
    }
}

fn open_beside_strays(original: &Original) {
    let (name, stale) = &original.stale;
    let opens = |what: &str, damage: &dyn Fn(&Path)| {
        let (opened, log) = original.survives(what, damage);
        assert!(opened, "{what}: refused: {log}");
        log
    };
    let log = opens("being written", &|sled| {
        fs::write(sled.join("snap.00000000000003E8.generating"), stale).unwrap();
    });
    assert!(log.contains("it was being written"), "{log}");
    opens("no snapshot at all", &|sled| {
        for path in snapshots(sled) {
            fs::remove_file(path).unwrap();
        }
    });
    opens("an older one beside the newest", &|sled| {
        fs::write(sled.join(name), stale).unwrap();
    });
    opens("an older one instead of the newest", &|sled| {
        for path in snapshots(sled) {
            fs::remove_file(path).unwrap();
        }
        fs::write(sled.join(name), stale).unwrap();
    });
    opens("an older one under a newer name", &|sled| {
        fs::write(sled.join("snap.7FFFFFFFFFFFFFFF"), stale).unwrap();
    });
    opens("a name that is no number", &|sled| {
        fs::write(sled.join("snap.backup"), stale).unwrap();
    });
}

#[test]
fn a_snapshot_of_another_store_does_no_harm() {
    let original = Original::new(false);
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &ARGS);
    for number in 0..20 {
        server.register("other", &service(&format!("other-{number}"), None));
    }
    server.stop();
    Server::start(&dir, &ARGS).kill();
    let foreign = fs::read(&snapshots(&dir.join("sled"))[0]).unwrap();
    for name in [None, Some("snap.7FFFFFFFFFFFFFFF")] {
        // Opened with everything or refused untouched: both are fine.
        original.survives("foreign", |sled| {
            let at = name.map_or_else(|| snapshots(sled).remove(0), |name| sled.join(name));
            fs::write(at, &foreign).unwrap();
        });
    }
}

#[test]
fn a_damaged_snapshot_beside_a_damaged_log_is_refused_untouched() {
    let original = Original::new(false);
    let mut refused = 0;
    for from in [1, 4, 7] {
        let (opened, _) = original.survives("both", |sled| {
            fs::write(sled.join("snap.00000000000003E8.generating"), "half").unwrap();
            each_snapshot(sled, |bytes| bytes.truncate(bytes.len() / 2));
            let path = sled.join("db");
            let mut bytes = fs::read(&path).unwrap();
            let tenth = bytes.len() / 10;
            for (at, byte) in (0u8..=255).cycle().zip(&mut bytes[from * tenth..][..tenth]) {
                *byte ^= at | 1;
            }
            fs::write(path, bytes).unwrap();
        });
        // What fell on dead content may be opened, but then with everything.
        refused += usize::from(!opened);
    }
    assert!(refused > 0, "the damage fell on nothing that counts");
}
