//! `ServiceLivenessUpdate`, `ServiceLivenessInfo` and the batch heartbeat.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.5 and 8.1.2.6. The batch and `retryInterval` are our extensions.

use std::collections::HashSet;

use serde::Serialize;

use super::member::{Malformed, Members, wrong};
use crate::domain::{Heartbeat, Monitored, Phase, RetryPromise, ServiceId, ServiceState, Wall};

/// Ids in one batch heartbeat at the most: bounds the size of a commit.
pub const BATCH_IDS_MAX: usize = 1000;

/// A heartbeat as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Update {
    /// What it says.
    pub heartbeat: Heartbeat,
    /// Whether it came wrapped in `ServiceLivenessUpdate`, as the requirement writes it.
    pub wrapped: bool,
}

/// Reads a heartbeat: bare `{"state":"ACTIVE"}` or wrapped `{"ServiceLivenessUpdate":{…}}`.
///
/// # Errors
/// [`Malformed`]; also when both forms come at once.
pub fn parse_update(body: &[u8]) -> Result<Update, Malformed> {
    let mut members = Members::parse(body)?;
    match members.optional_object("ServiceLivenessUpdate")? {
        None => Ok(Update {
            heartbeat: heartbeat(&mut members)?,
            wrapped: false,
        }),
        Some(_) if members.has("state") => Err(Malformed::new(
            "state stands both bare and in ServiceLivenessUpdate; send one of the two",
        )),
        Some(mut inner) => Ok(Update {
            heartbeat: heartbeat(&mut inner)?,
            wrapped: true,
        }),
    }
}

/// `state` shall be ACTIVE. Source: GS MEC 011 V2.2.1, 8.1.2.6.
fn heartbeat(members: &mut Members) -> Result<Heartbeat, Malformed> {
    members.word("state", &[("ACTIVE", ())])?;
    let expected = "a whole number of seconds, 1 or more,";
    let path = members.path_of("retryInterval");
    let promise = match members.optional_whole("retryInterval", expected)? {
        None => None,
        // Longer than any interval there can be: the registry refuses it by the interval.
        Some(secs) => Some(
            RetryPromise::from_secs(u32::try_from(secs).unwrap_or(u32::MAX))
                .ok_or_else(|| wrong(&path, expected, &secs.into()))?,
        ),
    };
    Ok(Heartbeat { promise })
}

/// An id of a batch heartbeat. What is no UUID cannot be one of ours, and is answered as unknown.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BatchId {
    /// It may be ours.
    Service(ServiceId),
    /// It cannot.
    Other(String),
}

/// A batch heartbeat as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct BatchUpdate {
    /// What it says.
    pub heartbeat: Heartbeat,
    /// For whom, repeats dropped; `None`: for every service that agreed on heartbeats.
    pub ids: Option<Vec<BatchId>>,
}

/// Reads a batch heartbeat: `{"state":"ACTIVE","serviceIds":[…]}`.
///
/// # Errors
/// [`Malformed`]; also for more than [`BATCH_IDS_MAX`] ids.
pub fn parse_batch(body: &[u8]) -> Result<BatchUpdate, Malformed> {
    let mut members = Members::parse(body)?;
    let heartbeat = heartbeat(&mut members)?;
    let ids: Option<Vec<BatchId>> = members.optional_strings("serviceIds")?.map(|texts| {
        let mut seen = HashSet::new();
        let ids = texts.into_iter().map(|text| match ServiceId::parse(&text) {
            Some(id) => BatchId::Service(id),
            None => BatchId::Other(text),
        });
        ids.filter(|id| seen.insert(id.clone())).collect()
    });
    if let Some(count) = ids.as_ref().map(Vec::len).filter(|n| *n > BATCH_IDS_MAX) {
        return Err(Malformed::new(format!(
            "serviceIds names {count} services; at most {BATCH_IDS_MAX} are taken at once"
        )));
    }
    Ok(BatchUpdate { heartbeat, ids })
}

/// What a batch heartbeat did to one service.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchResult {
    /// Which service, as it was asked for.
    pub ser_instance_id: String,
    /// As the single heartbeat would have answered.
    pub status: u16,
    /// The new interval in seconds, with status 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
}

/// Unix time in two numbers. Source: GS MEC 011 V2.2.1, 8.1.2.5.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeStamp {
    seconds: u32,
    nano_seconds: u32,
}

impl From<Wall> for TimeStamp {
    /// The standard's `seconds` end in 2106; later times stay there.
    fn from(wall: Wall) -> Self {
        let (seconds, nano_seconds) = wall.split();
        Self {
            seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            nano_seconds,
        }
    }
}

/// `ServiceLivenessInfo`. Source: GS MEC 011 V2.2.1, 8.1.2.5.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLivenessInfo {
    state: &'static str,
    time_stamp: TimeStamp,
    interval: u32,
}

impl From<&Monitored> for ServiceLivenessInfo {
    fn from(monitored: &Monitored) -> Self {
        let state = match monitored.phase {
            Phase::Running(_) => ServiceState::Active,
            Phase::Inactive => ServiceState::Inactive,
            Phase::Suspended { .. } => ServiceState::Suspended,
        };
        Self {
            state: state.as_str(),
            time_stamp: monitored.time_stamp.into(),
            interval: monitored.agreement.shown().as_secs(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<(Option<u32>, bool), &str>) {
        let parsed = parse_update(body.as_bytes())
            .map(|update| {
                (
                    update.heartbeat.promise.map(RetryPromise::as_secs),
                    update.wrapped,
                )
            })
            .map_err(|error| error.to_string());
        match (parsed, expected) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{body}: {error}"),
            (parsed, expected) => assert_eq!(parsed, expected.map_err(str::to_owned), "{body}"),
        }
    }

    #[test]
    fn bare_and_wrapped_are_heartbeats() {
        check(r#"{"state":"ACTIVE"}"#, Ok((None, false)));
        check(r#" {"state":"ACTIVE","other":[1]} "#, Ok((None, false)));
        check(
            r#"{"ServiceLivenessUpdate":{"state":"ACTIVE"}}"#,
            Ok((None, true)),
        );
        check(
            r#"{"state":"ACTIVE","retryInterval":2}"#,
            Ok((Some(2), false)),
        );
        check(
            r#"{"state":"ACTIVE","retryInterval":null}"#,
            Ok((None, false)),
        );
        check(
            r#"{"state":"ACTIVE","ServiceLivenessUpdate":null}"#,
            Ok((None, false)),
        );
        check(
            r#"{"ServiceLivenessUpdate":{"state":"ACTIVE","retryInterval":3}}"#,
            Ok((Some(3), true)),
        );
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for (body, part) in [
            ("", "empty"),
            ("  \n", "empty"),
            ("{", "not valid JSON"),
            ("{\"state\":\"ACTIVE\"} x", "not valid JSON"),
            (r#"["ACTIVE"]"#, "an array"),
            (r#""ACTIVE""#, "a JSON object was expected"),
            ("{}", "state is missing"),
            (r#"{"state":null}"#, "state is missing"),
            (r#"{"state":"active"}"#, "\"ACTIVE\" was expected"),
            (r#"{"state":"INACTIVE"}"#, "state is \"INACTIVE\""),
            (r#"{"state":"SUSPENDED"}"#, "state is \"SUSPENDED\""),
            (r#"{"state":1}"#, "state is 1"),
            (r#"{"state":["ACTIVE"]}"#, "state is an array"),
            (
                r#"{"ServiceLivenessUpdate":["ACTIVE"]}"#,
                "ServiceLivenessUpdate is an array",
            ),
            (
                r#"{"ServiceLivenessUpdate":{}}"#,
                "ServiceLivenessUpdate.state is missing",
            ),
            (
                r#"{"state":"ACTIVE","ServiceLivenessUpdate":{"state":"ACTIVE"}}"#,
                "one of the two",
            ),
            (
                r#"{"state":"ACTIVE","retryInterval":0}"#,
                "retryInterval is 0",
            ),
            (
                r#"{"state":"ACTIVE","retryInterval":-1}"#,
                "retryInterval is -1",
            ),
            (
                r#"{"state":"ACTIVE","retryInterval":1.5}"#,
                "retryInterval is 1.5",
            ),
            (
                r#"{"state":"ACTIVE","retryInterval":"2"}"#,
                "retryInterval is \"2\"",
            ),
        ] {
            check(body, Err(part));
        }
        assert!(parse_update(b"{\"state\":\"\xff\"}").is_err());
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        check(&deep, Err("not valid JSON"));
    }

    #[test]
    fn batches_drop_repeats_and_keep_order() {
        let id = ServiceId::random();
        let bare = id.to_string().replace('-', "");
        let body = format!(r#"{{"state":"ACTIVE","serviceIds":["{id}","x","{bare}","x"]}}"#);
        let batch = parse_batch(body.as_bytes()).unwrap();
        assert_eq!(
            batch.ids,
            Some(vec![BatchId::Service(id), BatchId::Other("x".into())])
        );
        assert_eq!(parse_batch(br#"{"state":"ACTIVE"}"#).unwrap().ids, None);
        let ids = vec!["x"; BATCH_IDS_MAX + 1];
        let body = serde_json::json!({"state": "ACTIVE", "serviceIds": ids}).to_string();
        assert_eq!(parse_batch(body.as_bytes()).unwrap().ids.unwrap().len(), 1);
        let ids: Vec<_> = (0..=BATCH_IDS_MAX).map(|n| n.to_string()).collect();
        let body = serde_json::json!({"state": "ACTIVE", "serviceIds": ids}).to_string();
        assert!(parse_batch(body.as_bytes()).is_err());
        assert!(parse_batch(br#"{"state":"ACTIVE","serviceIds":[1]}"#).is_err());
    }
}
