//! The envelope of a value: `[version u8][bincode payload][crc32 u32 LE]`.
//!
//! The checksum covers version and payload. The payload is bincode 1.3 with fixed-width
//! little-endian integers and no trailing bytes; it does not describe itself, so a record type is
//! frozen once released and a changed one gets a new version.

use bincode::Options;
use serde::{Deserialize, Serialize};

/// No record is longer; a length that says otherwise is damage.
const RECORD_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Why bytes are no record of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The key does not have the tree's layout.
    #[error("the key does not have this tree's layout")]
    Key,
    /// Shorter than the envelope.
    #[error("the value is too short to be a record")]
    TooShort,
    /// Damaged, or a part is missing.
    #[error("the checksum does not match: the record is damaged or incomplete")]
    Checksum,
    /// A version this binary does not know.
    #[error("the record has version {0}, which this mepulse does not know")]
    Version(u8),
    /// The payload is not what the version promises.
    #[error("the record's content is malformed: {0}")]
    Payload(String),
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(RECORD_BYTES_MAX)
        .reject_trailing_bytes()
}

/// Wraps a record of the given version.
///
/// # Panics
/// Never for our record types: they hold only plain values, and requests are bounded far below
/// the limit.
#[must_use]
pub fn encode<T: Serialize>(version: u8, record: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    bytes.push(version);
    #[expect(clippy::expect_used, reason = "plain values always encode, see above")]
    options()
        .serialize_into(&mut bytes, record)
        .expect("a record of plain values");
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Opens the envelope: the version and the payload, checksum verified.
///
/// # Errors
/// [`DecodeError::TooShort`] or [`DecodeError::Checksum`].
pub fn open(bytes: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::TooShort)?;
    let (&version, payload) = body.split_first().ok_or(DecodeError::TooShort)?;
    if crc32fast::hash(body) == u32::from_le_bytes(*crc) {
        Ok((version, payload))
    } else {
        Err(DecodeError::Checksum)
    }
}

/// Reads the payload of a known version.
///
/// # Errors
/// [`DecodeError::Payload`].
pub fn payload<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    options()
        .deserialize(bytes)
        .map_err(|error| DecodeError::Payload(error.to_string()))
}

/// Reads how the payload of a record begins, in place. The record was decoded before: no checksum is
/// looked at.
///
/// # Errors
/// [`DecodeError::TooShort`] or [`DecodeError::Payload`].
pub fn beginning<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    let (_, payload) = bytes.split_first().ok_or(DecodeError::TooShort)?;
    options()
        .allow_trailing_bytes()
        .deserialize(payload)
        .map_err(|error| DecodeError::Payload(error.to_string()))
}

/// Opens a record of which only version 1 exists.
///
/// # Errors
/// Any [`DecodeError`] but [`DecodeError::Key`].
pub fn decode_v1<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match open(bytes)? {
        (1, bytes) => payload(bytes),
        (version, _) => Err(DecodeError::Version(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_envelope_is_these_very_bytes() {
        let bytes = encode(1, &(0x0102_0304_u32, "hi", Some(true)));
        assert_eq!(
            bytes[..bytes.len() - 4],
            [1, 4, 3, 2, 1, 2, 0, 0, 0, 0, 0, 0, 0, b'h', b'i', 1, 1]
        );
        assert_eq!(
            bytes[bytes.len() - 4..],
            crc32fast::hash(&bytes[..17]).to_le_bytes()
        );
        assert_eq!(
            decode_v1(&bytes),
            Ok((0x0102_0304_u32, "hi".to_owned(), Some(true)))
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(1, &(7_u64, "text"));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&damaged).is_err(), "bit {bit}");
        }
        assert_eq!(open(&bytes[..4]), Err(DecodeError::TooShort));
        assert_eq!(
            decode_v1::<u8>(&encode(2, &1_u8)),
            Err(DecodeError::Version(2))
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = decode_v1::<(u64, String, Vec<u16>)>(&bytes);
            let _ = payload::<(u64, String, Vec<u16>)>(&bytes);
        }
    }
}
