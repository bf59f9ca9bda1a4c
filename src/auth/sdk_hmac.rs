//! SDK-HMAC-SHA256: how EdgeGallery's applications sign their request for a token with an access key
//! (AK) and its secret key (SK).
//!
//! Both sides are here, so that one canonical form is behind them.

use std::fmt::Write;

use ring::{digest, hmac};

const SCHEME: &str = "SDK-HMAC-SHA256";

/// The header with the date of the signature.
pub const DATE_HEADER: &str = "x-sdk-date";

/// Headers that a signature must cover: without the date it would be good for ever, without the host
/// for every platform.
const COVERED: [&str; 2] = ["host", DATE_HEADER];

/// Longest access key in bytes; EdgeGallery's have 20.
pub const ACCESS_KEY_BYTES_MAX: usize = 128;

/// Headers that one signature covers at the most; EdgeGallery's cover three.
const HEADERS_MAX: usize = 16;

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// In capitals.
    pub method: &'a str,
    /// As it was sent.
    pub path: &'a str,
    /// As it was sent, without the `?`.
    pub query: &'a str,
    /// The signed headers in the order of `SignedHeaders`, names in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
}

/// Why an `Authorization` is no signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// `Authorization`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Whose signature it is (AK).
    pub access_key: String,
    /// Names of the signed headers, in lower case and in the order of signing.
    pub signed_headers: Vec<String>,
    /// The signature.
    pub signature: [u8; 32],
}

impl Authorization {
    /// Reads `SDK-HMAC-SHA256 Access=…, SignedHeaders=a;b, Signature=<64 hex digits>`.
    ///
    /// # Errors
    /// [`Malformed`], naming the field.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let wrong = |sentence: &str| Malformed(format!("Authorization: {sentence}"));
        let (scheme, fields) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme != SCHEME {
            return Err(wrong(
                "expected SDK-HMAC-SHA256 Access=…, SignedHeaders=…, Signature=…",
            ));
        }
        let (mut access, mut headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=').unwrap_or((field.trim(), ""));
            let place = match name {
                "Access" => &mut access,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => {
                    return Err(wrong(
                        "a field is none of Access, SignedHeaders and Signature",
                    ));
                }
            };
            if place.replace(value).is_some() {
                return Err(wrong(&format!("{name} is there twice")));
            }
        }
        let access_key = access.unwrap_or_default();
        let printable = access_key.bytes().all(|byte| byte.is_ascii_graphic());
        if access_key.is_empty() || access_key.len() > ACCESS_KEY_BYTES_MAX || !printable {
            return Err(wrong(
                "Access is missing, too long or not printable; an access key was expected",
            ));
        }
        let signed_headers: Vec<_> = headers
            .unwrap_or_default()
            .split(';')
            .map(str::to_ascii_lowercase)
            .collect();
        if signed_headers.len() > HEADERS_MAX {
            return Err(wrong(&format!(
                "SignedHeaders names more than {HEADERS_MAX} headers"
            )));
        }
        for name in COVERED {
            if !signed_headers.iter().any(|signed| signed == name) {
                return Err(wrong(&format!(
                    "SignedHeaders does not name {name}, which must be signed"
                )));
            }
        }
        let signature = signature.and_then(from_hex).ok_or_else(|| {
            wrong("Signature is missing or malformed; 64 hexadecimal digits were expected")
        })?;
        Ok(Self {
            access_key: access_key.to_owned(),
            signed_headers,
            signature,
        })
    }
}

/// Signs a request: the value of its `Authorization`. `date` is that of [`DATE_HEADER`].
#[must_use]
pub fn sign(access_key: &str, secret_key: &[u8], date: &str, request: &Request<'_>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key);
    let tag = hmac::sign(&key, text_to_sign(date, request).as_bytes());
    format!(
        "{SCHEME} Access={access_key}, SignedHeaders={}, Signature={}",
        names(request),
        hex(tag.as_ref())
    )
}

/// Whether this is the request's signature; takes the same time whatever the answer.
#[must_use]
pub fn verify(secret_key: &[u8], date: &str, request: &Request<'_>, signature: &[u8; 32]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret_key);
    hmac::verify(&key, text_to_sign(date, request).as_bytes(), signature).is_ok()
}

/// Seconds since the epoch of a date like `20261123T060656Z`.
#[must_use]
pub fn seconds_of(date: &str) -> Option<u64> {
    // Its parser is generous with signs and spaces.
    let is_shaped = date.len() == 16
        && date.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            _ => byte.is_ascii_digit(),
        });
    if !is_shaped {
        return None;
    }
    let date = chrono::NaiveDateTime::parse_from_str(date, "%Y%m%dT%H%M%SZ").ok()?;
    u64::try_from(date.and_utc().timestamp()).ok()
}

fn text_to_sign(date: &str, request: &Request<'_>) -> String {
    let slash = if request.path.ends_with('/') { "" } else { "/" };
    let mut canonical = format!(
        "{}\n{}{slash}\n{}\n",
        request.method, request.path, request.query
    );
    for (name, value) in request.headers {
        // Writing to a string cannot fail.
        let _ = writeln!(canonical, "{name}:{}", value.trim());
    }
    let _ = write!(
        canonical,
        "\n{}\n{}",
        names(request),
        sha256_hex(request.body)
    );
    format!("{SCHEME}\n{date}\n{}", sha256_hex(canonical.as_bytes()))
}

fn names(request: &Request<'_>) -> String {
    let names: Vec<_> = request.headers.iter().map(|(name, _)| *name).collect();
    names.join(";")
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EdgeGallery's public sample key, and a request of its agent.
    const AK: &str = "QVUJMSUMgS0VZLS0tLS0";
    const SK: &[u8] = b"DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc";
    const DATE: &str = "20261123T060656Z";
    const SIGNATURE: &str = "ca7e49073e377f2c442c8fd2824a9e0967963e6f6c5986500a13b49b159be9c4";

    fn request() -> Request<'static> {
        Request {
            method: "POST",
            path: "/mep/token",
            query: "",
            headers: &[
                ("content-type", "application/json"),
                ("host", "127.0.0.1:8000"),
                ("x-sdk-date", DATE),
            ],
            body: b"",
        }
    }

    #[test]
    fn the_known_vector_is_signed_and_verified() {
        let text = sign(AK, SK, DATE, &request());
        assert_eq!(
            text,
            format!(
                "SDK-HMAC-SHA256 Access={AK}, SignedHeaders=content-type;host;x-sdk-date, \
                 Signature={SIGNATURE}"
            )
        );
        let read = Authorization::parse(&text).unwrap();
        assert_eq!(read.access_key, AK);
        assert!(verify(SK, DATE, &request(), &read.signature));
        let mut other = read.signature;
        other[31] ^= 1;
        assert!(!verify(SK, DATE, &request(), &other));
        assert!(!verify(b"another", DATE, &request(), &read.signature));
        let body = Request {
            body: b"x",
            ..request()
        };
        assert!(!verify(SK, DATE, &body, &read.signature));
    }

    #[test]
    fn what_is_malformed_is_refused_by_name() {
        let fine = format!(
            "SDK-HMAC-SHA256 Access={AK}, SignedHeaders=content-type;host;x-sdk-date, Signature={SIGNATURE}"
        );
        assert!(Authorization::parse(&fine).is_ok());
        for (bad, named) in [
            (String::new(), "expected"),
            ("Bearer abc".to_owned(), "expected"),
            (fine.replace(&format!("Access={AK}"), "Access="), "Access"),
            (
                fine.replace(AK, &"A".repeat(ACCESS_KEY_BYTES_MAX + 1)),
                "Access",
            ),
            (fine.replace(AK, "\u{e9}"), "Access"),
            (fine.replace("Access=", "Acces="), "none of"),
            (fine.replace(";host", ""), "host"),
            (fine.replace(";x-sdk-date", ""), "x-sdk-date"),
            (
                fine.replace("content-type", &"a;".repeat(HEADERS_MAX)),
                "more than",
            ),
            (fine.replace(SIGNATURE, &SIGNATURE[1..]), "Signature"),
            (
                fine.replace(SIGNATURE, &format!("+{}", &SIGNATURE[1..])),
                "Signature",
            ),
            (format!("{fine}, Signature={SIGNATURE}"), "twice"),
        ] {
            let refused = Authorization::parse(&bad).unwrap_err().to_string();
            assert!(refused.contains(named), "{bad:?}: {refused}");
        }
    }

    #[test]
    fn dates_are_read_strictly() {
        assert_eq!(seconds_of("19700101T000001Z"), Some(1));
        assert_eq!(seconds_of(DATE), Some(1_795_414_016));
        for bad in [
            "",
            "20261123T060656",
            "20261123 060656Z",
            "20261323T060656Z",
            "20261123T0606 6Z",
            "99999999T999999Z",
            "2026-11-23T06:06",
            "\u{e9}0261123T06065Z",
        ] {
            assert_eq!(seconds_of(bad), None, "{bad:?}");
        }
    }
}
