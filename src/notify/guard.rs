//! Which addresses are never called.
//!
//! A `callbackReference` is whatever a subscriber wrote, and the call comes from this machine:
//! unguarded, it would reach what listens only to this machine, and the cloud's metadata service
//! with its credentials. Private networks are fine, because MEC applications live there.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use url::Url;

use crate::domain::subscription::CallbackUri;

/// Metadata services of clouds outside the link-local networks.
const METADATA_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(169, 254, 169, 254), // nearly all
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
];

/// The same over IPv6, in networks that otherwise are private.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), // Amazon
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),  // Google
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),   // Scaleway
];

/// Says which addresses may be called. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Guard {
    /// `notify.allow`.
    allow: Arc<[IpNet]>,
}

/// An address that is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// For what it is.
    #[error("{address} is {kind}, which is called only if notify.allow lists it")]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is.
        kind: Kind,
    },
    /// For the IPv4 address in it.
    #[error("{address} carries {carried}, {kind}, which is called only if notify.allow lists it")]
    Carried {
        /// The address.
        address: Ipv6Addr,
        /// The address in it.
        carried: Ipv4Addr,
        /// What that is.
        kind: Kind,
    },
    /// A name that means this machine, whoever resolves it.
    #[error(
        "localhost is {}, which is called only if notify.allow lists 127.0.0.1 or ::1",
        Kind::Loopback
    )]
    Localhost,
}

/// What a refused address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// This machine.
    Loopback,
    /// No address; most systems take it for this machine.
    Unspecified,
    /// Nearer than any application should be.
    LinkLocal,
    /// Gives away the machine's credentials.
    Metadata,
    /// Many machines.
    Multicast,
    /// All machines.
    Broadcast,
    /// Nobody's.
    Reserved,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loopback => "a loopback address",
            Self::Unspecified => "an unspecified address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the metadata service of a cloud",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Reserved => "a reserved address",
        })
    }
}

impl Guard {
    /// A guard that admits these networks, whatever is in them.
    #[must_use]
    pub fn new(allow: &[IpNet]) -> Self {
        Self {
            allow: allow.into(),
        }
    }

    /// Looks at an address that is about to be called. An IPv4 address within an IPv6 one must be
    /// fine as well: a gateway, or this machine itself, would go there.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let own = match address {
            IpAddr::V4(address) => kind_v4(address),
            IpAddr::V6(address) => kind_v6(address),
        };
        if let Some(kind) = own
            && !self.allows(address, 0)
        {
            return Err(Forbidden::Address { address, kind });
        }
        if let IpAddr::V6(address) = address
            && let Some((carried, prefix)) = carried(address)
            && let Some(kind) = kind_v4(carried)
            && !self.allows(carried.into(), 0)
            // Who wrote `::/0` had IPv6 in mind, not what hides in it.
            && !self.allows(address.into(), prefix)
        {
            return Err(Forbidden::Carried {
                address,
                carried,
                kind,
            });
        }
        Ok(())
    }

    /// Looks at a callback when a subscription is created, so that its author is told at once. It
    /// says nothing about other names: what they resolve to is checked whenever it is called.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check_host(&self, callback: &CallbackUri) -> Result<(), Forbidden> {
        if let Some(address) = callback.literal_address() {
            return self.check(address);
        }
        let allowed = || {
            self.allows(Ipv4Addr::LOCALHOST.into(), 0) || self.allows(Ipv6Addr::LOCALHOST.into(), 0)
        };
        match callback.url().and_then(Url::host_str) {
            Some(host) if is_localhost(host) && !allowed() => Err(Forbidden::Localhost),
            _ => Ok(()),
        }
    }

    /// Whether a network of at least so long a prefix is allowed.
    fn allows(&self, address: IpAddr, prefix_min: u8) -> bool {
        let admits = |net: &IpNet| net.prefix_len() >= prefix_min && net.contains(&address);
        self.allow.iter().any(admits)
    }
}

/// RFC 6761, 6.3: such names are loopback. A dot at the end changes nothing.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let top = host.rsplit('.').next().unwrap_or(host);
    top.eq_ignore_ascii_case("localhost")
}

fn kind_v4(address: Ipv4Addr) -> Option<Kind> {
    let [first, ..] = address.octets();
    match first {
        _ if METADATA_V4.contains(&address) => Some(Kind::Metadata),
        _ if address.is_link_local() => Some(Kind::LinkLocal),
        _ if address.is_broadcast() => Some(Kind::Broadcast),
        0 => Some(Kind::Unspecified),
        127 => Some(Kind::Loopback),
        224..=239 => Some(Kind::Multicast),
        240..=255 => Some(Kind::Reserved),
        _ => None,
    }
}

fn kind_v6(address: Ipv6Addr) -> Option<Kind> {
    match address {
        _ if METADATA_V6.contains(&address) => Some(Kind::Metadata),
        _ if address.is_loopback() => Some(Kind::Loopback),
        _ if address.is_unspecified() => Some(Kind::Unspecified),
        _ if address.is_unicast_link_local() => Some(Kind::LinkLocal),
        _ if address.is_multicast() => Some(Kind::Multicast),
        _ => None,
    }
}

/// The IPv4 address within, and the prefix length of such addresses.
fn carried(address: Ipv6Addr) -> Option<(Ipv4Addr, u8)> {
    let last = |octets: [u8; 16]| {
        let [.., a, b, c, d] = octets;
        Ipv4Addr::new(a, b, c, d)
    };
    let octets = address.octets();
    match address.segments() {
        // Not compatible forms of 0.0.0.0 and 0.0.0.1.
        _ if address.is_unspecified() || address.is_loopback() => None,
        // Compatible, mapped, translated (RFC 2765) and NAT64 (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0, 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some((last(octets), 96)),
        [0x64, 0xff9b, 1, ..] => Some((last(octets), 48)),
        // 6to4.
        [0x2002, ..] => {
            let [_, _, a, b, c, d, ..] = octets;
            Some((Ipv4Addr::new(a, b, c, d), 16))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
