//! Reads the stream of events as far as verdicts go. Source: HTML Living Standard, 9.2.6.

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;

use super::BenchError;
use super::fleet::Id;
use super::link::{Endless, Link, Target};
use crate::clock::Stopwatch;
use crate::wire::links;

/// A longer event is none.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A service was declared SUSPENDED, and when we heard of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) id: Id,
    pub(super) heard: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    service_references: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    ser_instance_id: String,
    state: String,
}

/// Follows the stream; the channel ends with it. It is open when this returns.
pub(super) async fn follow(
    target: &Target,
    clock: Stopwatch,
) -> Result<mpsc::UnboundedReceiver<Result<Verdict, String>>, BenchError> {
    let what = "following the events";
    let request = target.request("GET", &format!("{}/services/events", links::ROOT), b"");
    let opening = async { Link::open(target).await?.follow(&request).await };
    let opened = tokio::time::timeout(target.timeout(), opening)
        .await
        .map_err(|_| BenchError::refused(what, "no answer in time"))?
        .map_err(|lost| BenchError::refused(what, lost.to_string()))?;
    let stream = opened
        .map_err(|status| BenchError::refused(what, format!("the server answered {status}")))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(read(stream, clock, sender));
    Ok(receiver)
}

async fn read(
    mut stream: Endless,
    clock: Stopwatch,
    sender: mpsc::UnboundedSender<Result<Verdict, String>>,
) {
    let mut text = Vec::new();
    loop {
        let more = stream.more(&mut text).await;
        let heard = clock.elapsed();
        let taken = match more {
            Ok(true) => take(&mut text, heard, |verdict| {
                // Whoever asked may have heard enough.
                let _ = sender.send(Ok(verdict));
            }),
            Ok(false) => Err("the stream of events ended".to_owned()),
            Err(lost) => Err(lost.to_string()),
        };
        if let Err(reason) = taken {
            let _ = sender.send(Err(reason));
            return;
        }
        if sender.is_closed() {
            return;
        }
    }
}

/// Takes all complete events out of what has come.
fn take(text: &mut Vec<u8>, heard: Duration, mut tell: impl FnMut(Verdict)) -> Result<(), String> {
    while let Some(end) = memchr::memmem::find(text, b"\n\n") {
        let (mut gap, mut data) = (false, Vec::new());
        for line in text[..end].split(|byte| *byte == b'\n') {
            gap |= line == b"event: gap";
            if let Some(part) = line.strip_prefix(b"data: ") {
                data.extend_from_slice(part);
            }
        }
        if gap {
            return Err("events were missed: the stream has a gap".to_owned());
        }
        if !data.is_empty() {
            let told: Notification = serde_json::from_slice(&data)
                .map_err(|error| format!("an event is no notification: {error}"))?;
            for reference in told.service_references {
                let id = Id::try_from(reference.ser_instance_id.as_bytes());
                if let (Ok(id), "SUSPENDED") = (id, reference.state.as_str()) {
                    tell(Verdict { id, heard });
                }
            }
        }
        text.drain(..end + 2);
    }
    match text.len() > EVENT_BYTES_MAX {
        true => Err("an event is too long".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_found_wherever_the_stream_is_cut() {
        let reference = |n: u8, state: &str| serde_json::json!({"serInstanceId": char::from(n).to_string().repeat(36), "state": state});
        let one = serde_json::json!({"serviceReferences": [reference(b'a', "SUSPENDED")]});
        let two = serde_json::json!({
            "serviceReferences": [reference(b'b', "ACTIVE"), reference(b'c', "SUSPENDED")]
        });
        let text = format!(
            "retry: 1000\nid: 3\n\nid: 4\nevent: SerAvailabilityNotification\ndata: {one}\n\n:\nid: 5\n\n\
             id: 6\nevent: SerAvailabilityNotification\ndata: {two}\n\n"
        );
        for piece in 1..text.len() {
            let (mut came, mut found) = (Vec::new(), Vec::new());
            for piece in text.as_bytes().chunks(piece) {
                came.extend_from_slice(piece);
                take(&mut came, Duration::ZERO, |verdict| found.push(verdict.id)).unwrap();
            }
            assert_eq!(found, [[b'a'; 36], [b'c'; 36]]);
            assert!(came.is_empty());
        }
    }

    #[test]
    fn gaps_and_garbage_are_no_verdicts() {
        for text in ["event: gap\ndata: {\"from\":1}\n\n", "data: nonsense\n\n"] {
            assert!(take(&mut text.into(), Duration::ZERO, |_| ()).is_err());
        }
    }
}
