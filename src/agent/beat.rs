//! One round of beats: for all services at once where the server can, else one by one.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};

use super::client::{Answer, Client};
use super::info;
use super::settle::{Trouble, trouble};

/// Single beats under way at once.
pub(super) const SINGLES_AT_ONCE: usize = 4;

/// Who beats where.
#[derive(Debug, Clone, Default)]
pub(super) struct Plan {
    /// The batch heartbeat, for these ids.
    pub(super) batch: Option<(String, Vec<Single>)>,
    /// Those who have none.
    pub(super) singles: Vec<Single>,
    /// In seconds; `None`: the server takes no promises.
    pub(super) promise_s: Option<u32>,
}

/// One service's own beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Single {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) put: bool,
}

/// What the server said to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It is alive; the interval in seconds where it was told.
    Heard(Option<u32>),
    /// 404: there is no such service.
    Gone,
    /// 409: it is INACTIVE.
    Inactive,
    /// Something else.
    Refused(String),
}

/// What came of a round.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// By id.
    pub(super) said: Vec<(String, Said)>,
    /// Not everybody was heard.
    pub(super) missed: Option<Missed>,
    /// The server answers 400 to a promise, and takes the same beat without.
    pub(super) promise_refused: bool,
    /// It offers a batch heartbeat that it does not have.
    pub(super) batch_refused: bool,
    /// These take PUT, not PATCH.
    pub(super) put: Vec<String>,
    pub(super) requests: u64,
}

/// The server was not reached, or does not want to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) reason: String,
    /// How long it asks to be left alone.
    pub(super) pause: Option<Duration>,
}

impl From<Trouble> for Missed {
    fn from(trouble: Trouble) -> Self {
        let pause = match &trouble {
            Trouble::Busy { pause, .. } => Some(*pause),
            Trouble::Lost(_) | Trouble::Failed(_) | Trouble::Refused(_) => None,
        };
        Self {
            reason: trouble.to_string(),
            pause,
        }
    }
}

/// Sends a round, and ends it with the first answer that does not come.
pub(super) async fn round(client: &Client, plan: Plan) -> Report {
    let mut report = Report::default();
    let mut promise_s = plan.promise_s;
    let mut singles = plan.singles;
    if let Some((url, members)) = plan.batch {
        match batch(client, &url, &members, &mut promise_s, &mut report).await {
            Ok(unanswered) => singles.extend(unanswered),
            Err(missed) => {
                report.missed = Some(missed);
                return report;
            }
        }
    }
    let mut beats = stream::iter(singles)
        .map(|single| async move {
            let beaten = one(client, &single, promise_s).await;
            (single.id, beaten)
        })
        .buffer_unordered(SINGLES_AT_ONCE);
    while let Some((id, beaten)) = beats.next().await {
        match beaten {
            Ok(beaten) => {
                report.requests += beaten.requests;
                report.promise_refused |= beaten.promise_refused;
                if beaten.put {
                    report.put.push(id.clone());
                }
                // One that cannot be heard must not cost the others their beats.
                report.missed = report.missed.or(beaten.missed);
                report.said.push((id, beaten.said));
            }
            Err(missed) => {
                report.requests += 1;
                report.missed = Some(missed);
                break;
            }
        }
    }
    report
}

fn active(promise_s: Option<u32>) -> Value {
    match promise_s {
        None => json!({"state": "ACTIVE"}),
        Some(secs) => json!({"state": "ACTIVE", "retryInterval": secs}),
    }
}

/// Beats for all at once; gives back those of whom the answer says nothing.
async fn batch(
    client: &Client,
    url: &str,
    members: &[Single],
    promise_s: &mut Option<u32>,
    report: &mut Report,
) -> Result<Vec<Single>, Missed> {
    let ids: Vec<_> = members.iter().map(|member| &member.id).collect();
    let mut body = active(*promise_s);
    body["serviceIds"] = json!(ids);
    report.requests += 1;
    let mut answer = send(client, Method::PATCH, url, &body).await?;
    if answer.status == 400 && promise_s.is_some() {
        let mut body = active(None);
        body["serviceIds"] = json!(ids);
        report.requests += 1;
        answer = send(client, Method::PATCH, url, &body).await?;
        if answer.is_success() {
            report.promise_refused = true;
            *promise_s = None;
        }
    }
    match answer.status {
        200..300 => {
            let Some(Value::Array(results)) = answer.json() else {
                report.batch_refused = true;
                return Ok(members.to_vec());
            };
            let asked: HashSet<&str> = ids.iter().map(|id| id.as_str()).collect();
            let mut answered = HashSet::new();
            for result in &results {
                let id = result.get("serInstanceId").and_then(Value::as_str);
                let status = result.get("status").and_then(Value::as_u64);
                let (Some(id), Some(status)) = (id, status) else {
                    continue;
                };
                if asked.contains(id) && answered.insert(id) {
                    let said = match status {
                        200..300 => Said::Heard(info::interval(result.get("interval"))),
                        404 | 410 => Said::Gone,
                        409 => Said::Inactive,
                        _ => Said::Refused(format!("the server answered {status} in a batch")),
                    };
                    report.said.push((id.to_owned(), said));
                }
            }
            let unanswered = members
                .iter()
                .filter(|member| !answered.contains(member.id.as_str()));
            Ok(unanswered.cloned().collect())
        }
        401 | 429 | 500.. if answer.status != 501 => Err(trouble(&answer).into()),
        // Here, or for this application, there is none.
        _ => {
            report.batch_refused = true;
            Ok(members.to_vec())
        }
    }
}

/// What came of a single beat.
struct Beaten {
    said: Said,
    promise_refused: bool,
    put: bool,
    /// The server could not do it, for this one.
    missed: Option<Missed>,
    requests: u64,
}

async fn one(client: &Client, single: &Single, promise_s: Option<u32>) -> Result<Beaten, Missed> {
    let mut beaten = Beaten {
        said: Said::Heard(None),
        promise_refused: false,
        put: false,
        missed: None,
        requests: 1,
    };
    let url = &single.url;
    let mut answer = if single.put {
        send(client, Method::PUT, url, &active(None)).await?
    } else {
        let mut answer = send(client, Method::PATCH, url, &active(promise_s)).await?;
        if answer.status == 400 && promise_s.is_some() {
            beaten.requests += 1;
            answer = send(client, Method::PATCH, url, &active(None)).await?;
            beaten.promise_refused = answer.is_success();
        }
        answer
    };
    if matches!(answer.status, 405 | 501) && !single.put {
        beaten.requests += 1;
        answer = send(client, Method::PUT, url, &active(None)).await?;
        beaten.put = answer.is_success();
    }
    beaten.said = match answer.status {
        200..300 => {
            let info = answer.json();
            Said::Heard(info::interval(
                info.as_ref().and_then(|i| i.get("interval")),
            ))
        }
        404 | 410 => Said::Gone,
        409 => Said::Inactive,
        401 | 429 | 503 => return Err(trouble(&answer).into()),
        500.. => {
            beaten.missed = Some(trouble(&answer).into());
            Said::Refused(answer.refusal())
        }
        _ => Said::Refused(answer.refusal()),
    };
    Ok(beaten)
}

async fn send(client: &Client, method: Method, url: &str, body: &Value) -> Result<Answer, Missed> {
    let answer = client.send(method, url, Some(body)).await;
    answer.map_err(|lost| Trouble::from(lost).into())
}
