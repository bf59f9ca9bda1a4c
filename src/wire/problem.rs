//! `ProblemDetails` (RFC 7807).

use serde::Serialize;
use serde_json::Value;

/// So much of a text that is not ours is kept for people: it can be anything.
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

/// What a refusal says of itself, for people: the problem's detail or title, where there is one.
#[must_use]
pub fn said(body: &[u8]) -> Option<String> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    let member = |name| problem.get(name).and_then(Value::as_str);
    member("detail").or(member("title")).map(tame)
}

/// The same as a sentence, with the status.
#[must_use]
pub fn refusal(status: u16, body: &[u8]) -> String {
    match said(body) {
        Some(said) => format!("the server answered {status}: {said}"),
        None => format!("the server answered {status}"),
    }
}

/// A text of somebody else's, fit for one line of a log or a terminal.
#[must_use]
pub fn tame(text: &str) -> String {
    let printable = text.chars().filter(|c| !c.is_control());
    printable.take(SAID_CHARS_MAX).collect()
}
