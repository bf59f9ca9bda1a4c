//! The typed identifiers: parsed once at the edge, then trusted.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use uuid::Uuid;

/// `appInstanceId`: names one instance of a MEC application.
///
/// Allocated outside Mp1 (by the MEC platform manager), so its form is not ours to choose: 1 to
/// [`AppInstanceId::MAX_BYTES`] printable ASCII bytes without `/`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppInstanceId(Arc<str>);

/// Why a text is no [`AppInstanceId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("appInstanceId must be 1 to 128 printable ASCII characters without '/'")]
pub struct InvalidAppInstanceId;

impl AppInstanceId {
    /// The longest id in bytes; one length byte in the store's keys must hold it.
    pub const MAX_BYTES: usize = 128;

    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`InvalidAppInstanceId`] when it is empty, too long, or has a byte that is not printable
    /// ASCII, or `/`; also for `.` and `..`, which every client takes out of a path.
    pub fn parse(text: &str) -> Result<Self, InvalidAppInstanceId> {
        let printable = |b: u8| (b' '..=b'~').contains(&b) && b != b'/';
        let is_id = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(printable)
            && !matches!(text, "." | "..");
        if is_id {
            Ok(Self(Arc::from(text)))
        } else {
            Err(InvalidAppInstanceId)
        }
    }

    /// A fresh random id, for an application that brings none. Source: GS MEC 011 V3.1.1, 7.1.2.6.
    #[must_use]
    pub fn random() -> Self {
        Self(Arc::from(Uuid::new_v4().to_string()))
    }

    /// The id as it stands on the wire (before percent-encoding).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppInstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppInstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app {}", self.0)
    }
}

/// An id that we allocate: a random UUID.
macro_rules! allocated_id {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh random id.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// Reads the hyphenated form or 32 hex digits, in either case; nothing else is one of
            /// ours.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                match text.len() {
                    32 | 36 => Uuid::try_parse(text).ok().map(Self),
                    _ => None,
                }
            }

            /// From the 16 bytes of a key.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes that stand in keys.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self)
            }
        }
    };
}

allocated_id! {
    /// `serInstanceId`: names one registered service.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.1.2.2 (a UUID is the recommended form).
    ServiceId, "service"
}

allocated_id! {
    /// `subscriptionId`: names one subscription.
    SubscriptionId, "subscription"
}

/// A service within its application: how every tree is keyed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The owning application.
    pub app: AppInstanceId,
    /// The service.
    pub service: ServiceId,
}

/// Something of each service. The ids are random, and made by us: a part of them is as good a hash
/// as any.
pub type ByService<T> = HashMap<ServiceId, T, BuildHasherDefault<AsItIs>>;

/// See [`ByService`].
#[derive(Debug, Default, Clone)]
pub struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_ids_are_printable_and_bounded() {
        for good in [
            "a",
            "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f",
            "urn:x y~",
            &"x".repeat(128),
        ] {
            assert!(AppInstanceId::parse(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "a/b",
            "tab\there",
            "é",
            "\u{7f}",
            "nul\0",
            &"x".repeat(129),
        ] {
            assert!(AppInstanceId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn service_ids_are_hyphenated_or_bare_hex() {
        let id = ServiceId::random();
        let hyphenated = id.to_string();
        let bare = hyphenated.replace('-', "");
        assert_eq!(ServiceId::parse(&hyphenated), Some(id));
        assert_eq!(ServiceId::parse(&bare), Some(id));
        assert_eq!(ServiceId::parse(&bare.to_uppercase()), Some(id));
        for bad in [
            "",
            "x",
            &format!("{{{hyphenated}}}"),
            &format!("urn:uuid:{hyphenated}"),
            &bare[1..],
        ] {
            assert_eq!(ServiceId::parse(bad), None, "{bad:?}");
        }
    }
}
