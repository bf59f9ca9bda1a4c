use super::*;

const STORE: Uuid = Uuid::from_bytes([7; 16]);

fn row<'a>(key: &'a [u8], value: &'a [u8]) -> JournalRow<&'a [u8]> {
    JournalRow {
        tree: RowOf::Liveness,
        key,
        value,
    }
}

fn journal() -> (tempfile::TempDir, std::path::PathBuf, Journal) {
    let keep = tempfile::tempdir().unwrap();
    let path = keep.path().join("journal");
    create(&path).unwrap();
    let journal = Journal::open(&path).unwrap();
    (keep, path, journal)
}

fn found(path: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    Record::each_in(&File::open(path).unwrap(), |r| found.push(r.commit_seq)).unwrap();
    found
}

fn parse(bytes: &[u8]) -> Option<Record> {
    let (head, rest) = bytes.split_first_chunk()?;
    let (crc, length) = parse_head(head)?;
    Record::parse_body(rest.get(..length)?, crc)
}

#[test]
fn a_record_is_these_very_bytes() {
    let mut buffer = [0; 512];
    let rows = [
        row(b"ab", b"cde"),
        JournalRow {
            tree: RowOf::Meta,
            key: b"m",
            value: b"",
        },
    ];
    let length = compose(&mut buffer, STORE, 0x0102, rows.into_iter()).unwrap();
    let body = [
        &[7; 16][..],
        &[2, 1, 0, 0, 0, 0, 0, 0],
        &[0, 2, 3, b'a', b'b', b'c', b'd', b'e'],
        &[1, 1, 0, b'm'],
    ]
    .concat();
    let head = [
        &b"\xF0mpj"[..],
        &crc32fast::hash(&body).to_le_bytes(),
        &[36, 0, 0, 0],
    ]
    .concat();
    assert_eq!(buffer[..length], [head, body].concat());
    let record = parse(&buffer).unwrap();
    assert_eq!((record.store_id, record.commit_seq), (STORE, 0x0102));
    assert_eq!(record.rows().collect::<Vec<_>>(), rows);
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let mut buffer = [0; 128];
    let rows = [row(b"key", b"value")].into_iter();
    let length = compose(&mut buffer, STORE, 3, rows).unwrap();
    for bit in 0..length * 8 {
        let mut damaged = buffer;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse(&damaged), None, "bit {bit}");
    }
}

#[test]
fn a_record_whose_rows_make_no_sense_is_none() {
    let identity = [7; 16 + 8];
    assert!(Record::parse_body(&identity, crc32fast::hash(&identity)).is_some());
    for rows in [&[9, 0, 0][..], &[0, 1], &[0, 2, 2, 1], &[0, 1, 3, 5, 5]] {
        let body = [&identity[..], rows].concat();
        let record = Record::parse_body(&body, crc32fast::hash(&body));
        assert_eq!(record, None, "{rows:?}");
    }
}

#[test]
fn on_a_disk_of_long_sectors_each_record_has_its_own() {
    let (_keep, path, mut journal) = journal();
    journal.sector = 4096;
    for commit_seq in 1..=3 {
        let rows = [row(b"key", b"value")].into_iter();
        assert!(journal.append(STORE, commit_seq, rows).unwrap());
    }
    assert_eq!(journal.end, 3 * 4096);
    assert_eq!(found(&path), [1, 2, 3]);
}

#[test]
fn what_was_added_is_found_in_order_and_after_a_restart_the_new_comes_before_the_old() {
    let (_keep, path, mut journal) = journal();
    assert_eq!(found(&path), [0; 0]);
    let value = [1; 200];
    for commit_seq in 1..=5 {
        // Of one sector, and of several.
        let rows = (0..commit_seq).map(|_| row(b"key", &value));
        assert!(journal.append(STORE, commit_seq, rows).unwrap());
        journal.sync().unwrap();
    }
    assert_eq!(found(&path), [1, 2, 3, 4, 5]);
    journal.restart();
    assert!(
        journal
            .append(STORE, 7, std::iter::empty::<JournalRow<&[u8]>>())
            .unwrap()
    );
    assert_eq!(found(&path)[0], 7);
    assert!(found(&path)[1..].iter().all(|commit_seq| *commit_seq <= 5));
}

#[test]
fn a_full_half_takes_no_more_and_the_other_one_goes_on() {
    let (_keep, path, mut journal) = journal();
    let value = [1; 200];
    let rows = |count| (0..count).map(|_| row(b"key", &value));
    // Nor does an empty one take a record beyond all measure.
    assert!(!journal.append(STORE, 1, rows(6000)).unwrap());
    let mut added = 0;
    let mut fill = |journal: &mut Journal| {
        let before = added;
        while journal.append(STORE, added + 1, rows(5000)).unwrap() {
            added += 1;
            assert_eq!(journal.is_ripe(), added - before > 6);
            assert_eq!(journal.is_full(), added - before > 7);
        }
        assert_eq!(added - before, 8, "of some 1.03 MB each");
    };
    fill(&mut journal);
    assert_eq!(found(&path), [1, 2, 3, 4, 5, 6, 7, 8]);
    journal.turn();
    fill(&mut journal);
    // What is short still finds room.
    assert!(journal.append(STORE, 17, rows(1)).unwrap());
    assert_eq!(found(&path), (1..=17).collect::<Vec<_>>());
    // A row that a length of one byte cannot tell is for the engine.
    let long = [1; 256];
    assert!(
        !journal
            .append(STORE, 18, [row(&long, b"")].into_iter())
            .unwrap()
    );
    journal.turn();
    assert!(journal.append(STORE, 18, rows(1)).unwrap());
    let begun_anew = [18].into_iter().chain(2..=17);
    assert_eq!(found(&path), begun_anew.collect::<Vec<_>>());
}
