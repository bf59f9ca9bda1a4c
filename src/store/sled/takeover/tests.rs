use std::fs::File;
use std::path::Path;

use super::*;
use crate::domain::liveness::Running;
use crate::domain::{
    Agreement, AppInstanceId, BootId, Liveness, LivenessInterval, Monitored, Phase, ServiceId,
    ServiceKey, Steady, Wall,
};
use crate::store::migrate::STEPS;
use crate::store::{Batch, Change, Durability, OpenError, OpenMode, OpenOptions, Row, Store};

/// More than may wait for long.
const SERVICES: u128 = 12_300;

fn open(dir: &Path) -> SledStore {
    let options = OpenOptions {
        data_dir: dir,
        mode: OpenMode::Serve,
        cache_mb: 8,
        durability: Durability::PowerLoss,
        steps: STEPS,
        boot_id: BootId([7; 16]),
    };
    // A process that another test is just starting may hold the locks for a moment.
    for _ in 0..500 {
        match SledStore::open(&options) {
            Err(OpenError::InUse { .. } | OpenError::Engine { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    SledStore::open(&options).unwrap()
}

fn heard(beats: u64) -> Liveness {
    Liveness::Monitored(Monitored {
        phase: Phase::Running(Running {
            base: Steady::from_ms(beats),
            promise: None,
        }),
        agreement: Agreement::Settled(LivenessInterval::from_secs(60).unwrap()),
        time_stamp: Wall::from_ns(beats),
        beats,
    })
}

/// These services, heard for the n-th time; 0: registered.
fn batch(services: impl Iterator<Item = u128>, beats: u64) -> Batch {
    let row = |number: u128| {
        let key = ServiceKey {
            app: AppInstanceId::parse("app").unwrap(),
            service: ServiceId::from_bytes(number.to_be_bytes()),
        };
        let old = beats.checked_sub(1).map(heard);
        let new = Some(heard(beats));
        (key, Change { old, new })
    };
    Batch {
        liveness: services.map(row).collect(),
        ..Batch::default()
    }
}

/// How many services were heard for the n-th time, by n; and whether the fingerprint is right.
fn beats(store: &mut SledStore) -> Vec<usize> {
    let mut counts = vec![0; 4];
    let loaded = store.load(&mut |row| {
        if let Row::Liveness(_, Liveness::Monitored(found)) = row {
            counts[usize::try_from(found.beats).unwrap()] += 1;
        }
    });
    assert!(!loaded.unwrap().altered);
    counts
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn the_engine_takes_over_once_and_heartbeats_go_on() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    store.commit(&batch(0..10_000, 1)).unwrap();
    assert!(store.takeover.is_none(), "nothing would be spared yet");
    store.commit(&batch(10_000..SERVICES, 1)).unwrap();
    assert!(store.takeover.is_some());
    assert!(store.waiting.is_empty());
    store.commit(&batch(0..10, 2)).unwrap();
    assert!(!store.waiting.is_empty(), "it has to be in the journal");
    // A store that is asked for everything has everything.
    assert_eq!(beats(&mut store), [0, 12_290, 10, 0]);
    assert!(store.takeover.is_none() && store.waiting.is_empty());
    store.seal().unwrap();
    assert_eq!(beats(&mut open(keep.path())), [0, 12_290, 10, 0]);
}

#[test]
fn what_is_written_over_again_and_again_is_taken_over_early() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    for beats in 1..=3 {
        store.commit(&batch(0..2100, beats)).unwrap();
        assert!(store.takeover.is_none(), "{beats} times are too few");
    }
    let again = batch(0..2100, 3);
    store.commit(&again).unwrap();
    assert!(store.takeover.is_some() && store.direct_rows == 0);
    assert_eq!(beats(&mut store), [10_200, 0, 0, 2100]);
}

#[test]
fn small_commits_are_taken_over_early() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    let mut begun_at = None;
    for first in (0..2100).step_by(10) {
        store.commit(&batch(first..first + 10, 1)).unwrap();
        // It may end at any time.
        begun_at = begun_at.or(store.takeover.is_some().then_some(first));
    }
    assert_eq!((begun_at, store.direct_rows), (Some(2040), 0));
}

#[test]
fn a_takeover_that_did_not_pay_sends_large_commits_past_the_journal() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    store.commit(&batch(0..SERVICES, 1)).unwrap();
    assert!(store.takeover.is_some() && store.direct_rows > 0);
    store.commit(&batch(0..100, 2)).unwrap();
    assert!(store.takeover.is_none() && store.waiting.is_empty());
    store.commit(&batch(0..10, 3)).unwrap();
    assert!(!store.waiting.is_empty(), "a small one is for the journal");
    assert_eq!(beats(&mut store), [0, 12_200, 90, 10]);
}

#[test]
fn a_commit_without_rows_is_a_commit() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    store.commit(&Batch::default()).unwrap();
    store.seal().unwrap();
    open(keep.path());
}

#[test]
fn a_takeover_that_fails_ends_commits_and_costs_nothing() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    // What cannot be synced: a pipe.
    let (_reader, pipe) = std::io::pipe().unwrap();
    let engine = Arc::get_mut(&mut store.engine).unwrap();
    engine.log = File::from(std::os::fd::OwnedFd::from(pipe));
    store.commit(&batch(0..SERVICES, 1)).unwrap();
    let takeover = store.takeover.take().unwrap();
    while !takeover.has_ended() {
        std::thread::yield_now();
    }
    let witness = store.data_dir.read_witness().unwrap();
    assert!(witness.in_doubt);
    store.takeover = Some(takeover);
    // Small enough for the journal: that one is on the disk, and still nobody is told so.
    assert!(store.commit(&batch(0..10, 2)).is_err());
    let crashed = tempfile::tempdir().unwrap();
    copy(keep.path(), crashed.path());
    Box::new(store).abandon();
    assert_eq!(beats(&mut open(crashed.path())), [0, 12_290, 10, 0]);
}

#[test]
fn what_is_taken_over_is_synced_before_it_counts() {
    let keep = tempfile::tempdir().unwrap();
    let mut store = open(keep.path());
    store.commit(&batch(0..SERVICES, 0)).unwrap();
    store.commit(&batch(0..SERVICES, 1)).unwrap();
    let (_reader, pipe) = std::io::pipe().unwrap();
    store.finish_takeover().unwrap();
    let engine = Arc::get_mut(&mut store.engine).unwrap();
    engine.log = File::from(std::os::fd::OwnedFd::from(pipe));
    store.direct_rows = 0;
    store.commit(&batch(0..SERVICES, 2)).unwrap();
    assert!(store.finish_takeover().is_err());
    Box::new(store).abandon();
}
