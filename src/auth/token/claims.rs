//! The claims of a token, as strictly as it matters.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::Duration;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::InvalidToken;
use crate::domain::AppInstanceId;

/// A JSON object without two members of one name: readers would not agree on which of them counts.
#[derive(Debug)]
pub(super) struct Claims(HashMap<String, Value>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Claims, M::Error> {
        let mut claims = HashMap::new();
        while let Some((name, value)) = members.next_entry::<String, Value>()? {
            match claims.entry(name) {
                Entry::Vacant(free) => free.insert(value),
                Entry::Occupied(_) => return Err(M::Error::custom("a claim is there twice")),
            };
        }
        Ok(Claims(claims))
    }
}

impl Claims {
    /// A claim that is a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// Whether a claim is this string, or an array with it.
    pub(super) fn is_among(&self, name: &str, wanted: &str) -> bool {
        match self.0.get(name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(wanted)),
            _ => false,
        }
    }

    /// Whether a claim is words with spaces between them, or an array of words, and this is one.
    pub(super) fn has_word(&self, name: &str, wanted: &str) -> bool {
        match self.0.get(name) {
            Some(Value::String(text)) => text.split(' ').any(|word| word == wanted),
            _ => self.is_among(name, wanted),
        }
    }

    /// The application that a claim names.
    ///
    /// # Errors
    /// [`InvalidToken::NoApplication`].
    pub(super) fn app(&self, name: &str) -> Result<AppInstanceId, InvalidToken> {
        self.text(name)
            .and_then(|text| AppInstanceId::parse(text).ok())
            .ok_or(InvalidToken::NoApplication)
    }

    /// `exp` in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`]; also when it is not there: tokens that never expire are none.
    pub(super) fn expiry_ms(&self) -> Result<u64, InvalidToken> {
        self.ms("exp")?.ok_or(InvalidToken::Malformed(
            "it does not say when it expires (exp)",
        ))
    }

    /// `iat` in milliseconds since the epoch.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`]; also when it is not there.
    pub(super) fn issued_ms(&self) -> Result<u64, InvalidToken> {
        self.ms("iat")?.ok_or(InvalidToken::Malformed(
            "it does not say when it was issued (iat)",
        ))
    }

    /// A time in seconds, as milliseconds since the epoch. What is before the epoch or beyond all
    /// bounds becomes the bound.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`] when it is there and no number.
    pub(super) fn ms(&self, name: &str) -> Result<Option<u64>, InvalidToken> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        if let Some(seconds) = value.as_u64() {
            return Ok(Some(seconds.saturating_mul(1000)));
        }
        let seconds = value
            .as_f64()
            .ok_or(InvalidToken::Malformed("one of its times is no number"))?;
        if seconds < 0.0 {
            return Ok(Some(0));
        }
        let ms = Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| u64::try_from(since.as_millis()).ok());
        Ok(Some(ms.unwrap_or(u64::MAX)))
    }

    /// A claim that is a whole number, not negative.
    ///
    /// # Errors
    /// [`InvalidToken::Malformed`] when it is there and something else.
    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, InvalidToken> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or(InvalidToken::Malformed("one of its numbers is none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(text: &str) -> Claims {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn two_claims_of_one_name_are_no_claims() {
        for bad in [
            r#"{"sub":"a","sub":"b"}"#,
            r#"{"sub":"a","s\u0075b":"b"}"#,
            "[]",
            "null",
            "",
            "{} {}",
            r#"{"exp":1e999}"#,
            &format!("{{\"a\":{}", "[".repeat(100_000)),
        ] {
            assert!(serde_json::from_str::<Claims>(bad).is_err());
        }
    }

    #[test]
    fn times_are_clamped_and_never_overflow() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("-5", 0),
            ("-1e300", 0),
            ("1.5", 1500),
            ("1e3", 1_000_000),
            ("1e300", u64::MAX),
            ("18446744073709551615", u64::MAX),
            ("18446744073709551616", u64::MAX),
            ("-9223372036854775809", 0),
        ] {
            let claims = claims(&format!("{{\"exp\":{text}}}"));
            assert_eq!(claims.expiry_ms(), Ok(expected), "{text}");
        }
        for bad in ["\"5\"", "null", "[5]", "true", "{}"] {
            let claims = claims(&format!("{{\"exp\":{bad}}}"));
            assert!(claims.expiry_ms().is_err(), "{bad}");
        }
        assert!(claims("{}").expiry_ms().is_err());
        assert_eq!(claims("{}").ms("nbf"), Ok(None));
        assert!(claims(r#"{"n":1.5}"#).whole("n").is_err());
    }

    #[test]
    fn words_are_whole_words() {
        for (text, found) in [
            (r#"{"scope":"a b.c d"}"#, true),
            (r#"{"scope":"b.c"}"#, true),
            (r#"{"scope":["a","b.c"]}"#, true),
            (r#"{"scope":["a b.c"]}"#, false),
            (r#"{"scope":"b.cd xb.c"}"#, false),
            (r#"{"scope":{"b.c":true}}"#, false),
            (r#"{"scope":5}"#, false),
            ("{}", false),
        ] {
            assert_eq!(claims(text).has_word("scope", "b.c"), found, "{text}");
        }
    }
}
