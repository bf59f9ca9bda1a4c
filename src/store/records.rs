//! The frozen record types and their way to and from the domain.
//!
//! A released struct never changes: not a field, not the order. What must change gets a `V2`
//! beside it, a new version byte and a migration step.

use serde::{Deserialize, Serialize};

use uuid::Uuid;

use super::AppRecord;
use super::codec::{self, DecodeError};
use crate::domain::liveness::Running;
use crate::domain::{
    Agreement, BlindCause, BlindSpot, BootId, Liveness, LivenessInterval, Mark, Monitored, Phase,
    Policy, ProducerState, Reading, RetryPromise, Steady, Wall,
};

/// A tag or number that no value of ours has.
pub(super) fn unknown(what: &str, value: impl std::fmt::Display) -> DecodeError {
    DecodeError::Payload(format!("{what} {value} is unknown"))
}

#[derive(Serialize, Deserialize)]
struct AppV1 {
    created_ns: u64,
}

/// Without what it says of itself, which stands in a tree of its own.
pub(super) fn encode_app(app: &AppRecord) -> Vec<u8> {
    codec::encode(
        1,
        &AppV1 {
            created_ns: app.created.as_ns(),
        },
    )
}

pub(super) fn decode_app(bytes: &[u8]) -> Result<AppRecord, DecodeError> {
    let AppV1 { created_ns } = codec::decode_v1(bytes)?;
    Ok(AppRecord {
        created: Wall::from_ns(created_ns),
        info: None,
    })
}

/// The hot row: 38 bytes of payload, 43 with the envelope.
#[derive(Serialize, Deserialize)]
struct LivenessV1 {
    /// 0, 1: no agreement, ACTIVE, INACTIVE. 2, 3, 4: agreement, ACTIVE, INACTIVE, SUSPENDED.
    state: u8,
    /// 0 settled, 1 announced, 2 told.
    agreement: u8,
    time_stamp_ns: u64,
    /// ACTIVE: base of the timer. SUSPENDED: since when.
    steady_ms: u64,
    interval_s: u32,
    /// 0 unless announced or told.
    next_interval_s: u32,
    /// 0: no promise.
    retry_s: u32,
    beats: u64,
}

pub(super) fn encode_liveness(liveness: &Liveness) -> Vec<u8> {
    let record = match liveness {
        Liveness::Unmonitored(state) => LivenessV1 {
            state: match state {
                ProducerState::Active => 0,
                ProducerState::Inactive => 1,
            },
            agreement: 0,
            time_stamp_ns: 0,
            steady_ms: 0,
            interval_s: 0,
            next_interval_s: 0,
            retry_s: 0,
            beats: 0,
        },
        Liveness::Monitored(Monitored {
            phase,
            agreement,
            time_stamp,
            beats,
        }) => {
            let (state, steady_ms, promise) = match phase {
                Phase::Running(Running { base, promise }) => (2, base.as_ms(), *promise),
                Phase::Inactive => (3, 0, None),
                Phase::Suspended { since } => (4, since.as_ms(), None),
            };
            let (agreement, interval, next) = match *agreement {
                Agreement::Settled(interval) => (0, interval, None),
                Agreement::Announced { from, to } => (1, from, Some(to)),
                Agreement::Told { from, to } => (2, from, Some(to)),
                Agreement::Followed { from, to } => (3, from, Some(to)),
            };
            LivenessV1 {
                state,
                agreement,
                time_stamp_ns: time_stamp.as_ns(),
                steady_ms,
                interval_s: interval.as_secs(),
                next_interval_s: next.map_or(0, LivenessInterval::as_secs),
                retry_s: promise.map_or(0, RetryPromise::as_secs),
                beats: *beats,
            }
        }
    };
    codec::encode(1, &record)
}

pub(super) fn decode_liveness(bytes: &[u8]) -> Result<Liveness, DecodeError> {
    let record: LivenessV1 = codec::decode_v1(bytes)?;
    let steady = Steady::from_ms(record.steady_ms);
    let phase = match record.state {
        0 => return Ok(Liveness::Unmonitored(ProducerState::Active)),
        1 => return Ok(Liveness::Unmonitored(ProducerState::Inactive)),
        2 => Phase::Running(Running {
            base: steady,
            promise: RetryPromise::from_secs(record.retry_s),
        }),
        3 => Phase::Inactive,
        4 => Phase::Suspended { since: steady },
        state => return Err(unknown("state", state)),
    };
    let interval = |secs| LivenessInterval::from_secs(secs).ok_or_else(|| unknown("interval", 0));
    let from = interval(record.interval_s)?;
    let agreement = match record.agreement {
        0 => Agreement::Settled(from),
        1 => Agreement::Announced {
            from,
            to: interval(record.next_interval_s)?,
        },
        2 => Agreement::Told {
            from,
            to: interval(record.next_interval_s)?,
        },
        3 => Agreement::Followed {
            from,
            to: interval(record.next_interval_s)?,
        },
        tag => return Err(unknown("agreement", tag)),
    };
    Ok(Liveness::Monitored(Monitored {
        phase,
        agreement,
        time_stamp: Wall::from_ns(record.time_stamp_ns),
        beats: record.beats,
    }))
}

#[derive(Serialize, Deserialize)]
struct BlindSpotV1 {
    end_ms: u64,
    cause: u8,
    length_known: bool,
}

/// The place in [`BlindCause::ALL`]: append only.
fn cause_number(cause: BlindCause) -> u8 {
    let place = BlindCause::ALL.iter().position(|known| *known == cause);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn cause_of(number: u8) -> Result<BlindCause, DecodeError> {
    let cause = BlindCause::ALL.get(usize::from(number)).copied();
    cause.ok_or_else(|| unknown("cause", number))
}

pub(super) fn encode_blind_spot(spot: &BlindSpot) -> Vec<u8> {
    let cause = cause_number(spot.cause);
    let (end_ms, length_known) = (spot.end.as_ms(), spot.length_known);
    codec::encode(
        1,
        &BlindSpotV1 {
            end_ms,
            cause,
            length_known,
        },
    )
}

pub(super) fn decode_blind_spot(start: Steady, bytes: &[u8]) -> Result<BlindSpot, DecodeError> {
    let BlindSpotV1 {
        end_ms,
        cause,
        length_known,
    } = codec::decode_v1(bytes)?;
    let cause = cause_of(cause)?;
    Ok(BlindSpot {
        start,
        end: Steady::from_ms(end_ms),
        cause,
        length_known,
    })
}

#[derive(Serialize, Deserialize)]
struct MarkV1 {
    steady_ms: u64,
    boot_ms: u64,
    boot_id: [u8; 16],
    wall_ns: u64,
    clean_stop: bool,
}

pub(super) fn encode_mark(mark: &Mark) -> Vec<u8> {
    let record = MarkV1 {
        steady_ms: mark.steady.as_ms(),
        boot_ms: mark.reading.boot_ms,
        boot_id: mark.reading.boot_id.0,
        wall_ns: mark.reading.wall.as_ns(),
        clean_stop: mark.clean_stop,
    };
    codec::encode(1, &record)
}

pub(super) fn decode_mark(bytes: &[u8]) -> Result<Mark, DecodeError> {
    let record: MarkV1 = codec::decode_v1(bytes)?;
    Ok(Mark {
        steady: Steady::from_ms(record.steady_ms),
        reading: Reading {
            boot_ms: record.boot_ms,
            boot_id: BootId(record.boot_id),
            wall: Wall::from_ns(record.wall_ns),
        },
        clean_stop: record.clean_stop,
    })
}

/// What the store holds, in the store's own words; renewed with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Census {
    /// Whose words these are.
    pub(super) store_id: Uuid,
    /// How many commits the store has seen.
    pub(super) commit_seq: u64,
    /// The sum over all rows of `services`, `liveness` and `subscriptions`; `None` while a migration rewrites them.
    pub(super) fingerprint: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct CensusV1 {
    store_id: [u8; 16],
    commit_seq: u64,
    is_counted: bool,
    fingerprint: u64,
}

pub(super) fn encode_census(census: &Census) -> Vec<u8> {
    let record = CensusV1 {
        store_id: census.store_id.into_bytes(),
        commit_seq: census.commit_seq,
        is_counted: census.fingerprint.is_some(),
        fingerprint: census.fingerprint.unwrap_or(0),
    };
    codec::encode(1, &record)
}

pub(super) fn decode_census(bytes: &[u8]) -> Result<Census, DecodeError> {
    let record: CensusV1 = codec::decode_v1(bytes)?;
    Ok(Census {
        store_id: Uuid::from_bytes(record.store_id),
        commit_seq: record.commit_seq,
        fingerprint: record.is_counted.then_some(record.fingerprint),
    })
}

/// The newest census of a store that stands anywhere in raw bytes: its commit sequence.
pub(super) fn newest_census_in(bytes: &[u8], store_id: Uuid) -> Option<u64> {
    // The version stands before the store id; see [`CensusV1`].
    const BEFORE: usize = 1;
    const LENGTH: usize = BEFORE + 16 + 8 + 1 + 8 + 4;
    let found = memchr::memmem::find_iter(bytes, store_id.as_bytes()).filter_map(|at| {
        let start = at.checked_sub(BEFORE)?;
        let census = decode_census(bytes.get(start..start + LENGTH)?).ok()?;
        Some(census.commit_seq)
    });
    found.max()
}

#[derive(Serialize, Deserialize)]
struct PolicyV1 {
    default_interval_s: u32,
    min_interval_s: u32,
    max_interval_s: u32,
    grace_percent: u32,
    grace_min_ms: u64,
    blind_cap: u32,
    /// 0: never.
    remove_after_ms: u64,
}

pub(super) fn encode_policy(policy: &Policy) -> Vec<u8> {
    let record = PolicyV1 {
        default_interval_s: policy.default_interval.as_secs(),
        min_interval_s: policy.min_interval.as_secs(),
        max_interval_s: policy.max_interval.as_secs(),
        grace_percent: policy.grace_percent,
        grace_min_ms: policy.grace_min_ms,
        blind_cap: policy.blind_cap,
        remove_after_ms: policy.remove_after_ms.unwrap_or(0),
    };
    codec::encode(1, &record)
}

pub(super) fn decode_policy(bytes: &[u8]) -> Result<Policy, DecodeError> {
    let record: PolicyV1 = codec::decode_v1(bytes)?;
    let interval = |secs| LivenessInterval::from_secs(secs).ok_or_else(|| unknown("interval", 0));
    Ok(Policy {
        default_interval: interval(record.default_interval_s)?,
        min_interval: interval(record.min_interval_s)?,
        max_interval: interval(record.max_interval_s)?,
        grace_percent: record.grace_percent,
        grace_min_ms: record.grace_min_ms,
        blind_cap: record.blind_cap,
        remove_after_ms: (record.remove_after_ms > 0).then_some(record.remove_after_ms),
    })
}

mod event;
mod subscription;
#[cfg(test)]
mod tests;

pub(super) use self::event::{decode_event, encode_event};
pub(super) use self::subscription::{
    decode_app_info, decode_cursor, decode_dead_letter, decode_subscription, encode_app_info,
    encode_cursor, encode_dead_letter, encode_subscription,
};
