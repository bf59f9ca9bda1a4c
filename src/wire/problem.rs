//! `ProblemDetails` (RFC 7807).

use serde::Serialize;

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
