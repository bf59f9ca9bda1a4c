//! Steps between schemas: idempotent, resumable in parts, refused where they must not run.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mepulse::domain::BootId;
use mepulse::store::migrate::{Progress, STEPS, Step, StepError, newest_schema};
use mepulse::store::{Durability, OpenError, OpenMode, OpenOptions, Row, SledStore, Store};

use crate::support::{Server, copy, data_dir, mepulse, once_unlocked, service};

/// A further, real step: copies every application row to a tree of its own, ten rows at a time. The
/// first byte of a copy counts how often the step came by its row.
const COPY_APPS: Step = Step {
    to: 4,
    name: "copies applications",
    run: copy_apps,
};

fn copy_apps(db: &sled::Db, cursor: Option<&[u8]>) -> Result<Progress, StepError> {
    let (apps, copies) = (db.open_tree("apps")?, db.open_tree("apps_copied")?);
    let rows = match cursor {
        Some(after) => {
            apps.range::<&[u8], _>((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
        }
        None => apps.iter(),
    };
    let mut last = None;
    for row in rows.take(10) {
        let (key, value) = row?;
        let runs = copies.get(&key)?.map_or(0, |copy| copy[0]);
        copies.insert(&key, [&[runs + 1], &value[..]].concat())?;
        last = Some(key.to_vec());
    }
    if let Ok(reached) = std::env::var("MEPULSE_TEST_STEP_REACHED")
        && copies.len() == 30
    {
        // Only in the child that is to be killed here: the third part is written, its cursor not.
        db.flush()?;
        std::fs::write(reached, "").unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
    Ok(last.map_or(Progress::Done, |cursor| Progress::More { cursor }))
}

fn one_more_step() -> Vec<Step> {
    STEPS.iter().copied().chain([COPY_APPS]).collect()
}

fn open(dir: &Path, mode: OpenMode, steps: &[Step]) -> Result<SledStore, OpenError> {
    let options = OpenOptions {
        data_dir: dir,
        mode,
        cache_mb: 8,
        durability: Durability::PowerLoss,
        steps,
        boot_id: BootId([7; 16]),
    };
    once_unlocked(|| SledStore::open(&options))
}

/// A store of the current release with so many applications, a service each.
fn store_with_apps(dir: &Path, count: usize) {
    let server = Server::start(dir, &["--set", "store.commit_linger_ms=0"]);
    for number in 0..count {
        server.register(&format!("app-{number:03}"), &service("cam", Some(3600)));
    }
    server.stop();
}

fn rows(dir: &Path, tree: &str) -> usize {
    crate::support::open_engine(dir)
        .open_tree(tree)
        .unwrap()
        .len()
}

fn services(store: &mut SledStore) -> usize {
    let mut services = 0;
    store
        .load(&mut |row| services += usize::from(matches!(row, Row::Service(..))))
        .unwrap();
    services
}

#[test]
fn a_store_of_this_release_is_opened_after_a_further_step() {
    let (_keep, dir) = data_dir();
    store_with_apps(&dir, 25);
    let mut store = open(&dir, OpenMode::Serve, &one_more_step()).unwrap();
    assert_eq!((store.schema(), services(&mut store)), (4, 25));
    store.seal().unwrap();
    assert_eq!(rows(&dir, "apps_copied"), 25);
}

#[test]
fn a_frozen_store_of_each_earlier_schema_is_opened() {
    // The first was stopped in good order, the second killed.
    for name in ["store-v1", "store-v2"] {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures");
        let (_keep, dir) = data_dir();
        copy(&fixtures.join(name), &dir);
        let mut store = open(&dir, OpenMode::Serve, STEPS).unwrap();
        assert_eq!(services(&mut store), 3, "{name}");
        store.seal().unwrap();
        let mut store = open(&dir, OpenMode::Serve, &one_more_step()).unwrap();
        assert_eq!((store.schema(), services(&mut store)), (4, 3), "{name}");
        store.seal().unwrap();
    }
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn child_that_migrates_slowly() {
    if let Ok(dir) = std::env::var("MEPULSE_TEST_MIGRATE_DIR") {
        open(Path::new(&dir), OpenMode::Serve, &one_more_step()).unwrap();
    }
}

#[test]
fn a_migration_killed_in_the_middle_goes_on_where_it_was() {
    let (keep, dir) = data_dir();
    store_with_apps(&dir, 45);
    let reached = keep.path().join("reached");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "migrations::child_that_migrates_slowly"])
        .env("MEPULSE_TEST_MIGRATE_DIR", &dir)
        .env("MEPULSE_TEST_STEP_REACHED", &reached)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !reached.exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it was to be caught");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();

    // Half-way, this release refuses it already: it is not its own any more.
    let output = mepulse()
        .args(["serve", "--data-dir"])
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("has schema 4"));

    let mut store = open(&dir, OpenMode::Serve, &one_more_step()).unwrap();
    assert_eq!((store.schema(), services(&mut store)), (4, 45));
    store.seal().unwrap();
    assert_eq!(rows(&dir, "apps_copied"), 45);

    // The part whose cursor was lost ran twice, all others once: also those before the kill.
    let runs: Vec<u8> = (crate::support::open_engine(&dir).open_tree("apps_copied"))
        .unwrap()
        .iter()
        .values()
        .map(|copy| copy.unwrap()[0])
        .collect();
    let expected: Vec<u8> = (0..45)
        .map(|row| if (20..30).contains(&row) { 2 } else { 1 })
        .collect();
    assert_eq!(runs, expected);
}

#[test]
fn an_offline_look_never_migrates() {
    let (_keep, dir) = data_dir();
    store_with_apps(&dir, 1);
    let error = open(&dir, OpenMode::Inspect, &one_more_step())
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("run `mepulse serve` once"), "{error}");
    assert_eq!(newest_schema(STEPS), 3);
    open(&dir, OpenMode::Inspect, STEPS)
        .unwrap()
        .seal()
        .unwrap();
}
