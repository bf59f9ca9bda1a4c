//! The record of an event.

use serde::{Deserialize, Serialize};

use super::super::codec::{self, DecodeError};
use super::{cause_number, cause_of, unknown};
use crate::domain::silence::{Credit, Timer};
use crate::domain::{
    AppInstanceId, Attributes, BlindSpot, Event, Evidence, Happening, LivenessInterval, Moment,
    ServiceId, ServiceKey, ServiceState, Steady, Subject, Wall,
};

/// Schema 2: consumers can be told.
#[derive(Serialize, Deserialize)]
struct EventV2 {
    event: EventV1,
    subject: SubjectV2,
    attributes: AttributesV2,
}

#[derive(Serialize, Deserialize)]
struct SubjectV2 {
    name: String,
    category_id: Option<String>,
}

/// Of `Replaced` only. bincode writes the variant's number: append only.
#[derive(Serialize, Deserialize)]
enum AttributesV2 {
    Same,
    Changed,
    Renamed(SubjectV2),
}

#[derive(Serialize, Deserialize)]
struct EventV1 {
    steady_ms: u64,
    wall_ns: u64,
    app: String,
    service: [u8; 16],
    what: HappeningV1,
}

/// bincode writes the variant's number: append only.
#[derive(Serialize, Deserialize)]
enum HappeningV1 {
    /// 0: no heartbeat agreed on.
    Registered {
        state: u8,
        interval_s: u32,
    },
    Suspended(EvidenceV1),
    Revived {
        since_ms: u64,
    },
    Replaced {
        from: u8,
        to: u8,
        interval_s: u32,
    },
    Removed {
        state: u8,
    },
    Forgotten {
        since_ms: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct EvidenceV1 {
    base_ms: u64,
    interval_ms: u64,
    grace_ms: u64,
    retry_ms: u64,
    blind_cap: u32,
    promised: bool,
    last_heard_ns: u64,
    beats: u64,
    deadline_ms: u64,
    earlier_credits: u64,
    credits: Vec<CreditV1>,
}

#[derive(Serialize, Deserialize)]
struct CreditV1 {
    start_ms: u64,
    end_ms: u64,
    cause: u8,
    length_known: bool,
    deadline_ms: u64,
}

pub(super) fn state_number(state: ServiceState) -> u8 {
    match state {
        ServiceState::Active => 0,
        ServiceState::Inactive => 1,
        ServiceState::Suspended => 2,
    }
}

pub(super) fn state_of(number: u8) -> Result<ServiceState, DecodeError> {
    match number {
        0 => Ok(ServiceState::Active),
        1 => Ok(ServiceState::Inactive),
        2 => Ok(ServiceState::Suspended),
        number => Err(unknown("state", number)),
    }
}

/// The sequence is the key.
pub(in crate::store) fn encode_event(event: &Event) -> Vec<u8> {
    let secs = |interval: &Option<LivenessInterval>| interval.map_or(0, LivenessInterval::as_secs);
    let what = match &event.what {
        Happening::Registered { state, interval } => HappeningV1::Registered {
            state: state_number(*state),
            interval_s: secs(interval),
        },
        Happening::Suspended(evidence) => HappeningV1::Suspended(encode_evidence(evidence)),
        Happening::Revived { since } => HappeningV1::Revived {
            since_ms: since.as_ms(),
        },
        Happening::Replaced {
            from,
            to,
            interval,
            attributes: _,
        } => HappeningV1::Replaced {
            from: state_number(*from),
            to: state_number(*to),
            interval_s: secs(interval),
        },
        Happening::Removed { state } => HappeningV1::Removed {
            state: state_number(*state),
        },
        Happening::Forgotten { since } => HappeningV1::Forgotten {
            since_ms: since.as_ms(),
        },
    };
    let record = EventV1 {
        steady_ms: event.at.steady.as_ms(),
        wall_ns: event.at.wall.as_ns(),
        app: event.key.app.to_string(),
        service: *event.key.service.as_bytes(),
        what,
    };
    let Some(subject) = &event.subject else {
        return codec::encode(1, &record);
    };
    let attributes = match &event.what {
        Happening::Replaced { attributes, .. } => match attributes {
            Attributes::Same => AttributesV2::Same,
            Attributes::Changed => AttributesV2::Changed,
            Attributes::Renamed(former) => AttributesV2::Renamed(encode_subject(former)),
        },
        _ => AttributesV2::Same,
    };
    let record = EventV2 {
        event: record,
        subject: encode_subject(subject),
        attributes,
    };
    codec::encode(2, &record)
}

fn encode_subject(subject: &Subject) -> SubjectV2 {
    SubjectV2 {
        name: subject.name.clone(),
        category_id: subject.category_id.clone(),
    }
}

fn decode_subject(SubjectV2 { name, category_id }: SubjectV2) -> Subject {
    Subject { name, category_id }
}

fn encode_evidence(evidence: &Evidence) -> EvidenceV1 {
    let Timer {
        base,
        interval_ms,
        grace_ms,
        retry_ms,
        blind_cap,
    } = evidence.timer;
    let credit = |credit: &Credit| CreditV1 {
        start_ms: credit.spot.start.as_ms(),
        end_ms: credit.spot.end.as_ms(),
        cause: cause_number(credit.spot.cause),
        length_known: credit.spot.length_known,
        deadline_ms: credit.deadline.as_ms(),
    };
    EvidenceV1 {
        base_ms: base.as_ms(),
        interval_ms,
        grace_ms,
        retry_ms,
        blind_cap,
        promised: evidence.promised,
        last_heard_ns: evidence.last_heard.as_ns(),
        beats: evidence.beats,
        deadline_ms: evidence.deadline.as_ms(),
        earlier_credits: evidence.earlier_credits,
        credits: evidence.credits.iter().map(credit).collect(),
    }
}

pub(in crate::store) fn decode_event(sequence: u64, bytes: &[u8]) -> Result<Event, DecodeError> {
    let (record, subject, attributes): (EventV1, _, _) = match codec::open(bytes)? {
        // Nobody could subscribe to these.
        (1, bytes) => (codec::payload(bytes)?, None, AttributesV2::Same),
        (2, bytes) => {
            let record: EventV2 = codec::payload(bytes)?;
            (record.event, Some(record.subject), record.attributes)
        }
        (version, _) => return Err(DecodeError::Version(version)),
    };
    let app = AppInstanceId::parse(&record.app)
        .map_err(|error| DecodeError::Payload(error.to_string()))?;
    let what = match record.what {
        HappeningV1::Registered { state, interval_s } => Happening::Registered {
            state: state_of(state)?,
            interval: LivenessInterval::from_secs(interval_s),
        },
        HappeningV1::Suspended(evidence) => {
            Happening::Suspended(Box::new(decode_evidence(evidence)?))
        }
        HappeningV1::Revived { since_ms } => Happening::Revived {
            since: Steady::from_ms(since_ms),
        },
        HappeningV1::Replaced {
            from,
            to,
            interval_s,
        } => Happening::Replaced {
            from: state_of(from)?,
            to: state_of(to)?,
            interval: LivenessInterval::from_secs(interval_s),
            attributes: match attributes {
                AttributesV2::Same => Attributes::Same,
                AttributesV2::Changed => Attributes::Changed,
                AttributesV2::Renamed(former) => {
                    Attributes::Renamed(Box::new(decode_subject(former)))
                }
            },
        },
        HappeningV1::Removed { state } => Happening::Removed {
            state: state_of(state)?,
        },
        HappeningV1::Forgotten { since_ms } => Happening::Forgotten {
            since: Steady::from_ms(since_ms),
        },
    };
    Ok(Event {
        sequence,
        at: Moment {
            steady: Steady::from_ms(record.steady_ms),
            wall: Wall::from_ns(record.wall_ns),
        },
        key: ServiceKey {
            app,
            service: ServiceId::from_bytes(record.service),
        },
        subject: subject.map(decode_subject),
        what,
    })
}

fn decode_evidence(record: EvidenceV1) -> Result<Evidence, DecodeError> {
    let credit = |credit: CreditV1| {
        Ok(Credit {
            spot: BlindSpot {
                start: Steady::from_ms(credit.start_ms),
                end: Steady::from_ms(credit.end_ms),
                cause: cause_of(credit.cause)?,
                length_known: credit.length_known,
            },
            deadline: Steady::from_ms(credit.deadline_ms),
        })
    };
    let credits: Result<Vec<_>, DecodeError> = record.credits.into_iter().map(credit).collect();
    Ok(Evidence {
        timer: Timer {
            base: Steady::from_ms(record.base_ms),
            interval_ms: record.interval_ms,
            grace_ms: record.grace_ms,
            retry_ms: record.retry_ms,
            blind_cap: record.blind_cap,
        },
        promised: record.promised,
        last_heard: Wall::from_ns(record.last_heard_ns),
        beats: record.beats,
        deadline: Steady::from_ms(record.deadline_ms),
        credits: credits?,
        earlier_credits: record.earlier_credits,
    })
}
