use super::super::journal::{BYTES, JournalRow, compose};
use super::*;

const OURS: Uuid = Uuid::from_bytes([1; 16]);
const ANOTHER: Uuid = Uuid::from_bytes([2; 16]);

/// What a journal with these commits says, a sector each; 0: nothing that can be read.
fn tail_of(commits: &[(Uuid, u64)], store_id: Option<Uuid>) -> Tail {
    let mut bytes = vec![0; BYTES];
    for (sector, (store_id, commit_seq)) in bytes.chunks_mut(512).zip(commits) {
        let row = JournalRow {
            tree: RowOf::Liveness,
            key: b"key".to_vec(),
            value: commit_seq.to_be_bytes().to_vec(),
        };
        compose(sector, *store_id, *commit_seq, [row].into_iter()).unwrap();
        if *commit_seq == 0 {
            sector[20] ^= 1;
        }
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Tail::read(file.path(), store_id).unwrap().unwrap()
}

fn tail(commits: &[u64]) -> Tail {
    let ours: Vec<_> = commits.iter().map(|commit| (OURS, *commit)).collect();
    tail_of(&ours, Some(OURS))
}

fn commits(tail: &Tail) -> Vec<u64> {
    tail.records.iter().map(|r| r.commit_seq).collect()
}

#[test]
fn the_tail_is_the_unbroken_row_that_ends_with_the_newest() {
    for (journal, expected) in [
        (&[][..], &[][..]),
        (&[5], &[5]),
        (&[5, 6, 7], &[5, 6, 7]),
        // What an earlier round left, and what the engine wrote by itself in between.
        (&[9, 10, 5, 6, 7], &[9, 10]),
        // The newer half comes first, or overwrites the older.
        (&[7, 8, 5, 6], &[5, 6, 7, 8]),
        (&[9, 10, 0, 6, 7, 8], &[6, 7, 8, 9, 10]),
        (&[0, 6, 7, 8], &[6, 7, 8]),
        // Damage in the middle.
        (&[5, 0, 7, 8], &[7, 8]),
        (&[5, 6, 0, 8, 2, 3], &[8]),
    ] {
        assert_eq!(commits(&tail(journal)), expected, "{journal:?}");
    }
}

#[test]
fn the_engine_needs_what_is_not_in_here() {
    assert_eq!(tail(&[]).engine_floor(6), 6);
    // All that must be there is there, from commit 5 on.
    assert_eq!(tail(&[5, 6, 7]).engine_floor(6), 4);
    assert_eq!(tail(&[5, 6, 7]).engine_floor(7), 4);
    // A newer commit is known of: the engine has it, or it is lost.
    assert_eq!(tail(&[5, 6, 7]).engine_floor(8), 8);
    // A hole: the engine must reach up to it.
    assert_eq!(tail(&[5, 0, 7, 8]).engine_floor(8), 6);
    assert_eq!(tail(&[0]).engine_floor(0), 0);
}

#[test]
fn another_stores_records_count_for_nothing() {
    let mixed = [(OURS, 5), (ANOTHER, 90), (ANOTHER, 91)];
    assert_eq!(commits(&tail_of(&mixed, Some(OURS))), [5]);
    // Where it is not known whose they should be, the engine's id decides when it is open.
    let unknown = tail_of(&mixed, None);
    assert_eq!(commits(&unknown), [90, 91]);
    let (_keep, db) = engine();
    let mut census = census(4, None);
    unknown.replay(&db, &mut census).unwrap();
    assert_eq!(census.commit_seq, 4);
}

fn engine() -> (tempfile::TempDir, sled::Db) {
    let keep = tempfile::tempdir().unwrap();
    let db = sled::open(keep.path()).unwrap();
    (keep, db)
}

fn census(commit_seq: u64, fingerprint: Option<u64>) -> Census {
    Census {
        store_id: OURS,
        commit_seq,
        fingerprint,
    }
}

#[test]
fn the_engine_gets_what_it_does_not_have_and_the_fingerprint_follows() {
    let (_keep, db) = engine();
    let liveness = db.open_tree(tree::LIVENESS).unwrap();
    let (old, new) = (6_u64.to_be_bytes(), 8_u64.to_be_bytes());
    liveness.insert(b"key", &old).unwrap();
    let mut sum = Fingerprint::default();
    sum.toggle(Counted::Liveness, b"key", &old);
    let mut found = census(6, Some(sum.0));

    tail(&[5, 6, 7, 8]).replay(&db, &mut found).unwrap();
    sum.toggle(Counted::Liveness, b"key", &old);
    sum.toggle(Counted::Liveness, b"key", &new);
    assert_eq!(found, census(8, Some(sum.0)));
    assert_eq!(liveness.get(b"key").unwrap().unwrap(), new);
    let written = liveness.get(CENSUS_KEY).unwrap().unwrap();
    assert_eq!(records::decode_census(&written), Ok(found));

    // Again, and with what is older: nothing changes.
    for older in [&[5, 6, 7, 8][..], &[3, 4]] {
        tail(older).replay(&db, &mut found).unwrap();
        assert_eq!(found, census(8, Some(sum.0)));
        assert_eq!(liveness.get(b"key").unwrap().unwrap(), new);
    }
}
