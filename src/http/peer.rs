//! Who is at the other end of a connection, as far as the connection tells.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;

use crate::domain::{AppInstanceId, Caller};
use crate::tls;

/// Travels with every request of the connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Where it comes from; none on the admin's socket.
    pub(super) address: Option<IpAddr>,
    /// It came in on the admin's socket.
    pub(super) is_private: bool,
    /// Others may listen in.
    pub(super) is_exposed: bool,
    /// Whom its certificate names.
    pub(super) certified: Option<Caller>,
}

impl Peer {
    pub(super) fn private() -> Self {
        Self {
            is_private: true,
            ..Self::plain(None, false)
        }
    }

    pub(super) fn plain(address: Option<IpAddr>, is_exposed: bool) -> Self {
        Self {
            address,
            is_private: false,
            is_exposed,
            certified: None,
        }
    }

    /// With the certificate that it has shown, if it has.
    pub(super) fn tls(address: Option<IpAddr>, certificate: Option<&CertificateDer<'_>>) -> Self {
        let names = certificate.map(tls::names).unwrap_or_default();
        let apps: Vec<_> = names
            .iter()
            .filter_map(|name| AppInstanceId::parse(name).ok())
            .collect();
        Self {
            certified: (!apps.is_empty()).then(|| Caller::Applications(apps.into())),
            ..Self::plain(address, false)
        }
    }
}
