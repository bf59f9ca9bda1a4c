//! Every tree and key layout. Keys are hand-built big-endian bytes, so that byte order is the
//! order we walk in.
//!
//! | tree | key | value | since |
//! |---|---|---|---|
//! | `meta` | name | see [`meta`] | 1 |
//! | `apps` | app | when first seen | 1 |
//! | `services` | app · service · part u16 | registration, in parts of at most [`PART_BYTES_MAX`] | 1 |
//! | `liveness` | app · service | state, timer, agreement: the hot row | 1 |
//! | `liveness` | [`CENSUS_KEY`] | commit sequence, fingerprint of all rows | 1 |
//! | `expiry` | steady deadline u64 · app · service | empty | 1 |
//! | `blind_spots` | start steady u64 | end, cause, length known? | 1 |
//! | `events` | sequence u64 | one transition with its evidence | 1 |
//! | `history` | service · sequence u64 | empty: the events of one service | 1 |
//! | `app_info` | app · part u16 | what the application says of itself, in parts | 2 |
//! | `subscriptions` | app · subscription · part u16 | callback and filter, in parts | 2 |
//! | `cursors` | subscription | how far it has been told, and what goes wrong | 2 |
//! | `dead_letters` | subscription · sequence u64 | why an event was not delivered | 2 |
//!
//! `app` is `[length u8][bytes]`, `service` and `subscription` the 16 bytes of the UUID.

use super::codec::DecodeError;
use crate::domain::{AppInstanceId, ServiceId, ServiceKey, Steady, SubscriptionId};

/// Names of the trees.
pub mod tree {
    /// Facts about the store itself.
    pub const META: &str = "meta";
    /// Known applications.
    pub const APPS: &str = "apps";
    /// Registrations.
    pub const SERVICES: &str = "services";
    /// The hot rows.
    pub const LIVENESS: &str = "liveness";
    /// The expiry index.
    pub const EXPIRY: &str = "expiry";
    /// When we did not watch.
    pub const BLIND_SPOTS: &str = "blind_spots";
    /// What happened, in order.
    pub const EVENTS: &str = "events";
    /// The events of each service.
    pub const HISTORY: &str = "history";
    /// What applications say of themselves.
    pub const APP_INFO: &str = "app_info";
    /// Who wants to be told what.
    pub const SUBSCRIPTIONS: &str = "subscriptions";
    /// How far each subscription has been told.
    pub const CURSORS: &str = "cursors";
    /// What could not be delivered.
    pub const DEAD_LETTERS: &str = "dead_letters";
    /// All of them.
    pub const ALL: [&str; 12] = [
        META,
        APPS,
        SERVICES,
        LIVENESS,
        EXPIRY,
        BLIND_SPOTS,
        EVENTS,
        HISTORY,
        APP_INFO,
        SUBSCRIPTIONS,
        CURSORS,
        DEAD_LETTERS,
    ];
}

/// Keys of the `meta` tree.
pub mod meta {
    /// The schema version whose step has completed.
    pub const SCHEMA: &str = "schema";
    /// The store's id: 16 bytes.
    pub const STORE_ID: &str = "store-id";
    /// The steady mark with the commit sequence and the clean-stop flag.
    pub const MARK: &str = "mark";
    /// The policy of the last run.
    pub const POLICY: &str = "policy";
    /// How far a migration step has got.
    pub const MIGRATION_CURSOR: &str = "migration-cursor";
}

/// The longest value of a row. sled moves values from about 8 kB on to files that it never syncs;
/// 2 KiB is far from that.
pub const PART_BYTES_MAX: usize = 2048;

/// The schema that brought the journal: a store of it has one, unless it was stopped in good order.
pub const JOURNAL_SINCE: u32 = 3;

/// The one key in `liveness` that names no service (no application id is empty): it stands there
/// and not in `meta`, so that a commit of heartbeats stays within one tree.
pub const CENSUS_KEY: &[u8] = &[0];

/// `[length u8][bytes]`.
#[must_use]
pub fn app_key(app: &AppInstanceId) -> Vec<u8> {
    let bytes = app.as_str().as_bytes();
    let mut key = Vec::with_capacity(1 + bytes.len() + 16);
    // An id is at most 128 bytes long.
    key.push(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    key.extend_from_slice(bytes);
    key
}

/// `app · service`.
#[must_use]
pub fn service_key(key: &ServiceKey) -> Vec<u8> {
    let mut bytes = app_key(&key.app);
    bytes.extend_from_slice(key.service.as_bytes());
    bytes
}

/// `app · service · part`.
#[must_use]
pub fn service_part_key(key: &ServiceKey, part: u16) -> Vec<u8> {
    let mut bytes = service_key(key);
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// `app · part`.
#[must_use]
pub fn app_part_key(app: &AppInstanceId, part: u16) -> Vec<u8> {
    let mut bytes = app_key(app);
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// `app · subscription · part`.
#[must_use]
pub fn subscription_part_key(app: &AppInstanceId, id: SubscriptionId, part: u16) -> Vec<u8> {
    let mut bytes = app_key(app);
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

/// `subscription · sequence`.
#[must_use]
pub fn dead_letter_key(id: SubscriptionId, sequence: u64) -> [u8; 24] {
    id_and_sequence(id.as_bytes(), sequence)
}

fn id_and_sequence(id: &[u8; 16], sequence: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(id);
    key[16..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// `deadline · app · service`.
#[must_use]
pub fn expiry_key(at: Steady, key: &ServiceKey) -> Vec<u8> {
    [&steady_key(at)[..], &service_key(key)].concat()
}

/// The key of a blind spot; also the lower part of an expiry key.
#[must_use]
pub fn steady_key(at: Steady) -> [u8; 8] {
    at.as_ms().to_be_bytes()
}

/// `service · sequence`: without the application, so that the history of a service that is gone is
/// found by its id alone.
#[must_use]
pub fn history_key(service: ServiceId, sequence: u64) -> [u8; 24] {
    id_and_sequence(service.as_bytes(), sequence)
}

/// Reads the sequence of a [`history_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_history_key(bytes: &[u8]) -> Result<u64, DecodeError> {
    let key: [u8; 24] = bytes.try_into().map_err(|_| DecodeError::Key)?;
    parse_sequence_key(&key[16..])
}

/// Reads the key of an event: its sequence, big-endian.
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_sequence_key(bytes: &[u8]) -> Result<u64, DecodeError> {
    let key = bytes.try_into().map_err(|_| DecodeError::Key)?;
    Ok(u64::from_be_bytes(key))
}

/// Reads [`app_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_app_key(bytes: &[u8]) -> Result<AppInstanceId, DecodeError> {
    let (app, rest) = split_app(bytes)?;
    end(rest)?;
    Ok(app)
}

/// Reads [`service_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_service_key(bytes: &[u8]) -> Result<ServiceKey, DecodeError> {
    let (key, rest) = split_service(bytes)?;
    end(rest)?;
    Ok(key)
}

/// Reads [`service_part_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_service_part_key(bytes: &[u8]) -> Result<(ServiceKey, u16), DecodeError> {
    let (key, rest) = split_service(bytes)?;
    Ok((key, part(rest)?))
}

/// Reads [`app_part_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_app_part_key(bytes: &[u8]) -> Result<(AppInstanceId, u16), DecodeError> {
    let (app, rest) = split_app(bytes)?;
    Ok((app, part(rest)?))
}

/// Reads [`subscription_part_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_subscription_part_key(
    bytes: &[u8],
) -> Result<((AppInstanceId, SubscriptionId), u16), DecodeError> {
    let (app, rest) = split_app(bytes)?;
    let (id, rest) = rest.split_first_chunk::<16>().ok_or(DecodeError::Key)?;
    Ok(((app, SubscriptionId::from_bytes(*id)), part(rest)?))
}

/// Reads the key of a cursor.
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_subscription_id(bytes: &[u8]) -> Result<SubscriptionId, DecodeError> {
    let id = bytes.try_into().map_err(|_| DecodeError::Key)?;
    Ok(SubscriptionId::from_bytes(id))
}

/// Reads [`dead_letter_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_dead_letter_key(bytes: &[u8]) -> Result<(SubscriptionId, u64), DecodeError> {
    let (id, rest) = bytes.split_first_chunk::<16>().ok_or(DecodeError::Key)?;
    Ok((SubscriptionId::from_bytes(*id), parse_sequence_key(rest)?))
}

fn part(rest: &[u8]) -> Result<u16, DecodeError> {
    let part = rest.try_into().map_err(|_| DecodeError::Key)?;
    Ok(u16::from_be_bytes(part))
}

/// Reads [`expiry_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_expiry_key(bytes: &[u8]) -> Result<(Steady, ServiceKey), DecodeError> {
    let (at, rest) = bytes.split_first_chunk::<8>().ok_or(DecodeError::Key)?;
    Ok((
        Steady::from_ms(u64::from_be_bytes(*at)),
        parse_service_key(rest)?,
    ))
}

/// Reads [`steady_key`].
///
/// # Errors
/// When the bytes are no such key.
pub fn parse_steady_key(bytes: &[u8]) -> Result<Steady, DecodeError> {
    let at = bytes.try_into().map_err(|_| DecodeError::Key)?;
    Ok(Steady::from_ms(u64::from_be_bytes(at)))
}

fn split_app(bytes: &[u8]) -> Result<(AppInstanceId, &[u8]), DecodeError> {
    let (&length, rest) = bytes.split_first().ok_or(DecodeError::Key)?;
    let (app, rest) = rest
        .split_at_checked(usize::from(length))
        .ok_or(DecodeError::Key)?;
    let text = std::str::from_utf8(app).map_err(|_| DecodeError::Key)?;
    Ok((
        AppInstanceId::parse(text).map_err(|_| DecodeError::Key)?,
        rest,
    ))
}

fn split_service(bytes: &[u8]) -> Result<(ServiceKey, &[u8]), DecodeError> {
    let (app, rest) = split_app(bytes)?;
    let (service, rest) = rest.split_first_chunk::<16>().ok_or(DecodeError::Key)?;
    Ok((
        ServiceKey {
            app,
            service: ServiceId::from_bytes(*service),
        },
        rest,
    ))
}

fn end(rest: &[u8]) -> Result<(), DecodeError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(app: &str) -> ServiceKey {
        ServiceKey {
            app: AppInstanceId::parse(app).unwrap(),
            service: ServiceId::from_bytes([7; 16]),
        }
    }

    #[test]
    fn keys_are_these_very_bytes() {
        let key = key("ab");
        let service = [7; 16];
        assert_eq!(app_key(&key.app), b"\x02ab");
        assert_eq!(service_key(&key), [b"\x02ab", &service[..]].concat());
        assert_eq!(
            service_part_key(&key, 258),
            [b"\x02ab", &service[..], &[1, 2]].concat()
        );
        assert_eq!(
            expiry_key(Steady::from_ms(0x0102), &key),
            [&[0, 0, 0, 0, 0, 0, 1, 2], &b"\x02ab"[..], &service[..]].concat()
        );
    }

    #[test]
    fn byte_order_is_time_order() {
        let early = expiry_key(Steady::from_ms(255), &key("zzz"));
        let late = expiry_key(Steady::from_ms(256), &key("a"));
        assert!(early < late);
    }

    proptest! {
        #[test]
        fn keys_round_trip(app in "[ -.0-~]{1,128}", id: [u8; 16], at: u64, part: u16) {
            prop_assume!(!matches!(app.as_str(), "." | ".."));
            let key = ServiceKey {
                app: AppInstanceId::parse(&app).unwrap(),
                service: ServiceId::from_bytes(id),
            };
            let at = Steady::from_ms(at);
            prop_assert_eq!(parse_app_key(&app_key(&key.app)).unwrap(), key.app.clone());
            prop_assert_eq!(parse_service_key(&service_key(&key)).unwrap(), key.clone());
            prop_assert_eq!(parse_service_part_key(&service_part_key(&key, part)).unwrap(), (key.clone(), part));
            prop_assert_eq!(parse_expiry_key(&expiry_key(at, &key)).unwrap(), (at, key.clone()));
            prop_assert_eq!(parse_steady_key(&steady_key(at)).unwrap(), at);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = parse_app_key(&bytes);
            let _ = parse_service_key(&bytes);
            let _ = parse_service_part_key(&bytes);
            let _ = parse_expiry_key(&bytes);
            let _ = parse_steady_key(&bytes);
            let _ = parse_history_key(&bytes);
            let _ = parse_sequence_key(&bytes);
        }
    }
}
