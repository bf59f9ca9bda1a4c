//! Heartbeats stand in the journal before the engine has them: whatever happens to either, nothing
//! that was acknowledged is missing, or the store is refused untouched.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mepulse::domain::liveness::Running;
use mepulse::domain::{
    Agreement, AppInstanceId, BootId, Liveness, LivenessInterval, Mark, Monitored, Phase, Reading,
    ServiceId, ServiceKey, Steady, Wall,
};
use mepulse::store::memory::MemoryStore;
use mepulse::store::migrate::STEPS;
use mepulse::store::{Armed, Batch, Change, Durability, OpenMode, OpenOptions, SledStore, Store};

use crate::damage::damage;
use crate::support::clients::wait_until;
use crate::support::random::Random;
use crate::support::{
    Server, beat, contents, copy, data_dir, get, liveness_of, once_unlocked, open_engine, service,
    start_on,
};

const SERVICES: usize = 40;
/// Few clients alone need not wait for company.
const ARGS: [&str; 2] = ["--set", "store.commit_linger_ms=0"];

fn open(dir: &Path, durability: Durability) -> SledStore {
    let options = OpenOptions {
        data_dir: dir,
        mode: OpenMode::Serve,
        cache_mb: 8,
        durability,
        steps: STEPS,
        boot_id: BootId([7; 16]),
    };
    once_unlocked(|| SledStore::open(&options)).unwrap()
}

/// Everything in a store, in an order of its own.
fn everything(store: &mut dyn Store) -> Vec<String> {
    let mut rows = Vec::new();
    let loaded = store
        .load(&mut |row| rows.push(format!("{row:?}")))
        .unwrap();
    rows.push(format!("{:?} {:?}", loaded.mark, loaded.skipped));
    rows.sort();
    rows
}

fn heard(at: u64) -> Liveness {
    Liveness::Monitored(Monitored {
        phase: Phase::Running(Running {
            base: Steady::from_ms(at),
            promise: None,
        }),
        agreement: Agreement::Settled(LivenessInterval::from_secs(60).unwrap()),
        time_stamp: Wall::from_ns(at),
        beats: at,
    })
}

/// What the services are, for a store that must say the same.
struct Model {
    services: Vec<(ServiceKey, Liveness)>,
    now: u64,
    /// Once in so many batches a service comes, and one goes.
    turnover: usize,
}

impl Model {
    fn new(turnover: usize) -> Self {
        Self {
            services: Vec::new(),
            now: 0,
            turnover,
        }
    }

    /// So many services at once.
    fn register(&mut self, count: usize, random: &mut Random) -> Batch {
        self.now += 1;
        let mut batch = Batch::default();
        for _ in 0..count {
            let id = [random.next().to_be_bytes(), random.next().to_be_bytes()].concat();
            let key = ServiceKey {
                app: AppInstanceId::parse("app").unwrap(),
                service: ServiceId::from_bytes(id.try_into().unwrap()),
            };
            let at = Steady::from_ms(self.now);
            let new = heard(self.now);
            batch.arm.push(Armed {
                at,
                key: key.clone(),
            });
            let change = Change {
                old: None,
                new: Some(new),
            };
            batch.liveness.push((key.clone(), change));
            self.services.push((key, new));
        }
        batch
    }

    /// Mostly heartbeats of some; now and then a mark, a service that comes, one that goes.
    fn batch(&mut self, random: &mut Random) -> Batch {
        let kind = random.below(self.turnover);
        let mut batch = if kind == 0 || self.services.is_empty() {
            self.register(1, random)
        } else {
            self.now += 1;
            Batch::default()
        };
        if kind == 1 {
            let gone = random.below(self.services.len());
            let (key, old) = self.services.swap_remove(gone);
            batch.liveness.push((
                key,
                Change {
                    old: Some(old),
                    new: None,
                },
            ));
        }
        if kind != 1 {
            let beats = random.below(self.services.len().min(300) + 1);
            let first = random.below(self.services.len() - beats + 1);
            for (key, liveness) in self.services.iter_mut().skip(first).take(beats) {
                let new = heard(self.now);
                let old = std::mem::replace(liveness, new);
                // One that has just come is in this batch already.
                if batch.liveness.iter().all(|(known, _)| known != key) {
                    let change = Change {
                        old: Some(old),
                        new: Some(new),
                    };
                    batch.liveness.push((key.clone(), change));
                }
            }
        }
        if random.once_in(3) {
            batch.mark = Some(Mark {
                steady: Steady::from_ms(self.now),
                reading: Reading {
                    boot_ms: self.now,
                    boot_id: BootId([7; 16]),
                    wall: Wall::from_ns(self.now),
                },
                clean_stop: false,
            });
        }
        batch
    }
}

/// What a killed process leaves behind is a single instant. A copy takes longer, and the engine may
/// move things meanwhile.
fn copy_at_rest(from: &Path, to: &Path) {
    for _ in 0..100 {
        copy(from, to);
        let same = |(path, bytes): (PathBuf, Vec<u8>)| {
            let copied = to.join(path.strip_prefix(from).unwrap());
            fs::read(copied).is_ok_and(|copied| copied == bytes)
        };
        if contents(from).into_iter().all(same) {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
    panic!("{} is never at rest", from.display());
}

/// Ten rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
#[test]
fn whatever_is_committed_is_there_after_a_crash_and_after_a_stop() {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap());
    let mut random = Random::from_env("journal");
    let (_keep, dir) = data_dir();
    let (mut model, mut memory) = (Model::new(12), MemoryStore::default());
    for _ in 0..rounds {
        let durability = match random.below(4) {
            0 => Durability::ProcessCrash,
            _ => Durability::PowerLoss,
        };
        let mut store = open(&dir, durability);
        for _ in 0..=random.below(400) {
            let batch = model.batch(&mut random);
            store.commit(&batch).unwrap();
            memory.commit(&batch).unwrap();
            // What the process would leave behind, if it died here.
            if random.once_in(100) {
                let (_keep, crashed) = data_dir();
                copy_at_rest(&dir, &crashed);
                let mut crashed = open(&crashed, Durability::PowerLoss);
                assert_eq!(everything(&mut crashed), everything(&mut memory));
            }
        }
        store.seal().unwrap();
        let mut again = open(&dir, Durability::PowerLoss);
        assert_eq!(everything(&mut again), everything(&mut memory));
        again.seal().unwrap();
    }
}

/// So many that heartbeats go into the engine beside the journal.
const MANY: usize = 3000;

/// The same model in the process that is killed and in the one that kills it.
fn begin_with_many(random: &mut Random) -> (Model, Batch) {
    let mut model = Model::new(200);
    let first = model.register(MANY, random);
    (model, first)
}

/// Not a test of its own: the process that the next test kills. It says how many commits are done.
#[test]
fn child_that_commits() {
    let Ok(dir) = std::env::var("MEPULSE_TEST_JOURNAL_DIR") else {
        return;
    };
    let done = fs::File::create(std::env::var("MEPULSE_TEST_JOURNAL_DONE").unwrap()).unwrap();
    let mut random = Random::from_env("journal child");
    let (mut model, mut batch) = begin_with_many(&mut random);
    let mut store = open(Path::new(&dir), Durability::PowerLoss);
    // Bounded, should nobody kill it.
    for commit in 1_u64..20_000 {
        store.commit(&batch).unwrap();
        done.write_all_at(&commit.to_le_bytes(), 0).unwrap();
        batch = model.batch(&mut random);
    }
}

/// Four rounds here; `MEPULSE_CRASH_ROUNDS` makes it a soak.
#[test]
fn a_process_killed_while_the_engine_takes_over_has_every_commit_it_has_done() {
    let rounds = std::env::var("MEPULSE_CRASH_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let mut random = Random::from_env("journal kill");
    for _ in 0..rounds {
        let (keep, dir) = data_dir();
        let done = keep.path().join("done");
        let seed = random.next();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::child_that_commits"])
            .env("MEPULSE_TEST_JOURNAL_DIR", &dir)
            .env("MEPULSE_TEST_JOURNAL_DONE", &done)
            .env("MEPULSE_SEED", seed.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commits = || {
            let bytes = fs::read(&done).unwrap_or_default();
            bytes.try_into().map_or(0, u64::from_le_bytes)
        };
        let target = 100 + u64::try_from(random.below(400)).unwrap();
        wait_until("commits", || {
            assert_eq!(child.try_wait().unwrap(), None, "it was to be caught");
            commits() >= target
        });
        child.kill().unwrap();
        child.wait().unwrap();

        let found = everything(&mut open(&dir, Durability::PowerLoss));
        let mut same = Random::from_seed(seed);
        let (mut model, mut batch) = begin_with_many(&mut same);
        let mut memory = MemoryStore::default();
        for _ in 0..commits() {
            memory.commit(&batch).unwrap();
            batch = model.batch(&mut same);
        }
        // The one that was under way may be there or not, but wholly.
        if found != everything(&mut memory) {
            memory.commit(&batch).unwrap();
            assert!(
                found == everything(&mut memory),
                "seed {seed}, {} commits",
                commits()
            );
        }
    }
}

/// A server that was killed after a round of heartbeats that only the journal has; when each service
/// was heard of last.
fn killed(dir: &Path) -> Vec<(String, String)> {
    let server = Server::start(dir, &ARGS);
    let services: Vec<_> = (0..SERVICES)
        .map(|number| server.register("app", &service(&format!("s-{number}"), Some(3600))))
        .collect();
    for _ in 0..2 {
        for info in &services {
            assert_eq!(beat(&liveness_of(&server, info)).status, 204);
        }
    }
    let heard = heard_of(&server.url);
    server.kill();
    heard
}

fn heard_of(url: &str) -> Vec<(String, String)> {
    let list = get(&format!(
        "{url}/mec_service_mgmt/v1/applications/app/services"
    ))
    .json();
    let mut heard: Vec<_> = (list.as_array().unwrap().iter())
        .map(|info| {
            info["_links"]["liveness"]["href"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .map(|path| {
            let stamp = get(&format!("{url}{path}")).json()["timeStamp"].to_string();
            (path, stamp)
        })
        .collect();
    heard.sort();
    heard
}

fn liveness_rows(dir: &Path) -> Vec<(sled::IVec, sled::IVec)> {
    let tree = open_engine(dir).open_tree("liveness").unwrap();
    tree.iter().map(Result::unwrap).collect()
}

#[test]
fn heartbeats_of_a_killed_server_come_from_the_journal() {
    let (_keep, dir) = data_dir();
    let before = killed(&dir);
    // The engine alone does not have them.
    let (_keep, alone) = data_dir();
    copy(&dir, &alone);
    let engine = liveness_rows(&alone);
    let server = Server::start(&dir, &ARGS);
    assert_eq!(heard_of(&server.url), before);
    let log = server.log();
    assert!(log.contains("were in the journal only"), "{log}");
    assert!(!log.contains("are not those that were committed"), "{log}");
    server.stop();
    let settled = liveness_rows(&dir);
    let newer = engine
        .iter()
        .zip(&settled)
        .filter(|(a, b)| a.0 == b.0 && a.1 != b.1);
    assert!(newer.count() > SERVICES / 2, "the journal was not used");
}

/// Starts on a damaged copy. What was heard of whom, or why it was refused, untouched.
fn start_damaged(
    original: &Path,
    what: &str,
    damage: impl FnOnce(&Path),
) -> Result<Vec<(String, String)>, String> {
    let (_keep, dir) = data_dir();
    copy(original, &dir);
    damage(&dir);
    let before = contents(&dir);
    let (mut child, line) = start_on(&dir);
    let found = (line.trim().strip_prefix("mepulse listening on ")).map(heard_of);
    if found.is_some() {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    match found {
        Some(found) => {
            let lost = "are not those that were committed";
            assert!(!message.contains(lost), "{what}: {message}");
            Ok(found)
        }
        None => {
            assert_eq!(output.status.code(), Some(1), "{what}: {message}");
            assert!(contents(&dir) == before, "{what}: something was written");
            Err(message)
        }
    }
}

#[test]
fn a_damaged_journal_is_refused_untouched_or_has_lost_nothing() {
    let (_keep, original) = data_dir();
    let heard = killed(&original);
    let mut random = Random::from_env("journal damage");
    let rounds = std::env::var("MEPULSE_DAMAGE_ROUNDS").map_or(24, |n| n.parse().unwrap());
    let mut refused = 0;
    for round in 0..rounds {
        let mut what = String::new();
        let found = start_damaged(&original, "journal", |dir| {
            let journal = dir.join("journal");
            let mut bytes = fs::read(&journal).unwrap();
            // Most of the file was never written to: every other damage goes where records are.
            if round % 2 == 0 {
                let mut records = bytes[..SERVICES * 2 * 512].to_vec();
                what = damage(&mut records, &mut random);
                records.resize(SERVICES * 2 * 512, 0);
                bytes[..records.len()].copy_from_slice(&records);
            } else {
                what = damage(&mut bytes, &mut random);
            }
            fs::write(&journal, bytes).unwrap();
        });
        match found {
            Ok(found) => assert_eq!(found, heard, "{what}"),
            Err(message) => {
                refused += 1;
                assert!(
                    message.contains("Restore the data directory"),
                    "{what}: {message}"
                );
            }
        }
    }
    assert!(refused > rounds / 8, "no damage was noticed");
}

#[test]
fn a_missing_shortened_or_foreign_journal_is_refused_after_a_kill() {
    let (_keep, original) = data_dir();
    killed(&original);
    let (_keep, other) = data_dir();
    killed(&other);
    let journal = |dir: &Path| dir.join("journal");
    for witnessed in [true, false] {
        let refused = |what: &str, damage: &dyn Fn(&Path)| {
            let found = start_damaged(&original, what, |dir| {
                if !witnessed {
                    fs::remove_file(dir.join("WITNESS")).unwrap();
                }
                damage(dir);
            });
            let message = found.expect_err(what);
            let last = message.lines().last().unwrap();
            assert!(
                last.contains("Restore the data directory"),
                "{what}: {message}"
            );
        };
        refused("missing", &|dir| fs::remove_file(journal(dir)).unwrap());
        refused("shortened", &|dir| {
            let file = fs::File::options().write(true).open(journal(dir)).unwrap();
            file.set_len(4096).unwrap();
        });
        // Without a witness nobody can tell that there was ever more in it: nothing was heard of
        // since the floor in STORE.
        if witnessed {
            refused("emptied", &|dir| {
                fs::write(journal(dir), vec![0; 16 << 20]).unwrap()
            });
            refused("foreign", &|dir| {
                fs::copy(journal(&other), journal(dir)).unwrap();
            });
        }
        refused("of a later time than the engine", &|dir| {
            let engine = dir.join("sled");
            fs::remove_dir_all(&engine).unwrap();
            copy(&other.join("sled"), &engine);
        });
    }
}

#[test]
fn after_a_stop_in_good_order_the_journal_is_not_needed() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &ARGS);
    let info = server.register("app", &service("s", Some(3600)));
    for _ in 0..3 {
        assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
    }
    let before = heard_of(&server.url);
    server.stop();
    for damage in [
        (|journal| fs::remove_file(journal).unwrap()) as fn(&Path),
        |journal| fs::write(journal, "short").unwrap(),
        |journal| fs::write(journal, vec![0xF0; 16 << 20]).unwrap(),
    ] {
        damage(&dir.join("journal"));
        let server = Server::start(&dir, &ARGS);
        assert_eq!(heard_of(&server.url), before);
        server.stop();
    }
}

#[test]
fn a_sealed_backup_is_opened_beside_what_a_later_run_has_left_in_the_journal() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &ARGS);
    let info = server.register("app", &service("s", Some(3600)));
    let before = heard_of(&server.url);
    server.stop();
    let (_keep, backup) = data_dir();
    copy(&dir, &backup);
    for file in ["journal", "WITNESS"] {
        fs::remove_file(backup.join(file)).unwrap();
    }
    let server = Server::start(&dir, &ARGS);
    for _ in 0..3 {
        assert_eq!(beat(&liveness_of(&server, &info)).status, 204);
    }
    server.kill();

    fs::copy(dir.join("journal"), backup.join("journal")).unwrap();
    for _ in 0..2 {
        let server = Server::start(&backup, &ARGS);
        assert_eq!(heard_of(&server.url), before);
        server.kill();
    }
}
