//! Golden bytes: what stands here was released and must decode for ever.

use super::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn secs(s: u32) -> LivenessInterval {
    LivenessInterval::from_secs(s).unwrap()
}

#[test]
fn golden_app() {
    let app = AppRecord {
        created: Wall::from_ns(0x0102_0304_0506_0708),
        info: None,
    };
    assert_eq!(hex(&encode_app(&app)), GOLDEN_APP);
    assert_eq!(decode_app(&encode_app(&app)), Ok(app));
}

#[test]
fn golden_liveness() {
    let liveness = Liveness::Monitored(Monitored {
        phase: Phase::Running(Running {
            base: Steady::from_ms(1_700_000_000_123),
            promise: RetryPromise::from_secs(2),
        }),
        agreement: Agreement::Told {
            from: secs(10),
            to: secs(20),
        },
        time_stamp: Wall::from_ns(1_700_000_000_123_456_789),
        beats: 3,
    });
    let bytes = encode_liveness(&liveness);
    assert_eq!(hex(&bytes), GOLDEN_LIVENESS);
    assert_eq!(decode_liveness(&bytes), Ok(liveness));
    assert!(bytes.len() <= 48, "the hot row is {} bytes", bytes.len());
}

#[test]
fn golden_blind_spot_mark_and_policy() {
    let spot = BlindSpot {
        start: Steady::from_ms(5),
        end: Steady::from_ms(9),
        cause: BlindCause::PlannedStop,
        length_known: true,
    };
    assert_eq!(hex(&encode_blind_spot(&spot)), GOLDEN_BLIND_SPOT);
    assert_eq!(
        decode_blind_spot(spot.start, &encode_blind_spot(&spot)),
        Ok(spot)
    );

    let reading = Reading {
        boot_ms: 7,
        boot_id: BootId([9; 16]),
        wall: Wall::from_ns(11),
    };
    let mark = Mark {
        steady: Steady::from_ms(3),
        reading,
        clean_stop: true,
    };
    assert_eq!(hex(&encode_mark(&mark)), GOLDEN_MARK);
    assert_eq!(decode_mark(&encode_mark(&mark)), Ok(mark));

    let policy = Policy {
        default_interval: secs(30),
        min_interval: secs(5),
        max_interval: secs(86_400),
        grace_percent: 20,
        grace_min_ms: 2_000,
        blind_cap: 10,
        remove_after_ms: Some(3_600_000),
    };
    assert_eq!(hex(&encode_policy(&policy)), GOLDEN_POLICY);
    assert_eq!(decode_policy(&encode_policy(&policy)), Ok(policy));
}

#[test]
fn every_phase_and_agreement_round_trips() {
    let phases = [
        Phase::Running(Running {
            base: Steady::from_ms(u64::MAX),
            promise: None,
        }),
        Phase::Inactive,
        Phase::Suspended {
            since: Steady::from_ms(1),
        },
    ];
    let agreements = [
        Agreement::Settled(secs(1)),
        Agreement::Announced {
            from: secs(1),
            to: secs(u32::MAX),
        },
        Agreement::Told {
            from: secs(2),
            to: secs(1),
        },
    ];
    for phase in phases {
        for agreement in agreements {
            let liveness = Liveness::Monitored(Monitored {
                phase,
                agreement,
                time_stamp: Wall::from_ns(1),
                beats: u64::MAX,
            });
            assert_eq!(decode_liveness(&encode_liveness(&liveness)), Ok(liveness));
        }
    }
    for state in [ProducerState::Active, ProducerState::Inactive] {
        let liveness = Liveness::Unmonitored(state);
        assert_eq!(decode_liveness(&encode_liveness(&liveness)), Ok(liveness));
    }
}

#[test]
fn impossible_values_are_refused_not_invented() {
    let record = |state, agreement, interval_s| LivenessV1 {
        state,
        agreement,
        time_stamp_ns: 0,
        steady_ms: 0,
        interval_s,
        next_interval_s: 0,
        retry_s: 0,
        beats: 0,
    };
    for bad in [
        record(5, 0, 1),
        record(2, 3, 1),
        record(2, 0, 0),
        record(2, 1, 1),
    ] {
        assert!(decode_liveness(&codec::encode(1, &bad)).is_err());
    }
}

proptest! {
    /// What the fuzzer of the decoder would try first.
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, cut in 0usize..200, flip in 0usize..200) {
        let mut near_miss = encode_liveness(&Liveness::Unmonitored(ProducerState::Active));
        let index = flip % near_miss.len();
        near_miss[index] ^= 1;
        near_miss.truncate(near_miss.len().saturating_sub(cut));
        for bytes in [bytes, near_miss] {
            let _ = decode_app(&bytes);
            let _ = decode_liveness(&bytes);
            let _ = decode_blind_spot(Steady::from_ms(0), &bytes);
            let _ = decode_mark(&bytes);
            let _ = decode_census(&bytes);
            let _ = newest_census_in(&bytes, Uuid::from_bytes([7; 16]));
            let _ = decode_policy(&bytes);
            // The same behind a valid envelope: the payload itself is hostile.
            let mut sealed = vec![1];
            sealed.extend_from_slice(&bytes);
            sealed.extend_from_slice(&crc32fast::hash(&sealed).to_le_bytes());
            let _ = decode_liveness(&sealed);
        }
    }
}

const GOLDEN_APP: &str = "010807060504030201a1329c31";
const GOLDEN_LIVENESS: &str =
    "01020215cd853dfe9c97177b68e5cf8b0100000a00000014000000020000000300000000000000b6f28c55";
const GOLDEN_BLIND_SPOT: &str = "010900000000000000010131440038";
const GOLDEN_MARK: &str =
    "0103000000000000000700000000000000090909090909090909090909090909090b00000000000000010153c0a1";
const GOLDEN_POLICY: &str =
    "011e000000050000008051010014000000d0070000000000000a00000080ee3600000000001415c409";

#[test]
fn a_census_is_found_in_the_middle_of_anything() {
    let store_id = Uuid::from_bytes([7; 16]);
    let census = |commit_seq| {
        encode_census(&Census {
            store_id,
            commit_seq,
            fingerprint: Some(5),
        })
    };
    assert_eq!(
        decode_census(&census(9)),
        Ok(Census {
            store_id,
            commit_seq: 9,
            fingerprint: Some(5)
        })
    );
    let mut log = [b"junk", &census(9)[..], b"more", &census(8)[..], &[7; 30]].concat();
    assert_eq!(newest_census_in(&log, store_id), Some(9));
    assert_eq!(newest_census_in(&log, Uuid::from_bytes([8; 16])), None);
    // A damaged one does not count.
    log[10] ^= 1;
    assert_eq!(newest_census_in(&log, store_id), Some(8));
}
