//! `ProblemDetails` (RFC 7807).

use serde::Serialize;
use serde_json::Value;

/// So much of what another server says is kept for people: it can say anything.
const SAID_CHARS_MAX: usize = 300;

/// The body of every refusal.
#[derive(Debug, Serialize)]
pub struct ProblemDetails<'a> {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong with what, and what to do next.
    pub detail: &'a str,
    /// The request's path.
    pub instance: &'a str,
    /// Reasons one by one, where there can be several.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub reasons: &'a [String],
}

/// What a refusal says of itself, as a sentence for people: the status, and the problem's detail or
/// title where there is one.
#[must_use]
pub fn refusal(status: u16, body: &[u8]) -> String {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let said = problem.as_ref().and_then(|problem| {
        let member = |name| problem.get(name).and_then(Value::as_str);
        member("detail").or(member("title"))
    });
    match said {
        Some(said) => format!("the server answered {status}: {}", tame(said)),
        None => format!("the server answered {status}"),
    }
}

/// A text of somebody else's, fit for one line of a log or a terminal.
#[must_use]
pub fn tame(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(SAID_CHARS_MAX).collect()
}
