//! The answer to a request for a token.
//!
//! Source: RFC 6749, 5.1; EdgeGallery's is the same.

use serde::Serialize;

/// A token on its way to the client.
#[derive(Debug, Serialize)]
pub struct TokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
}

impl<'a> TokenResponse<'a> {
    /// A bearer token that is good for so many seconds.
    #[must_use]
    pub fn new(token: &'a str, expires_in_s: u64) -> Self {
        Self {
            access_token: token,
            token_type: "Bearer",
            expires_in: expires_in_s,
        }
    }
}
