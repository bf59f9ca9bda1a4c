//! Who is at the other end of a connection, as far as the connection tells.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::domain::{AppInstanceId, Caller, Moment};
use crate::tls::{self, Authorities, ServerTls};

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
    pub(super) certified: Option<Certified>,
}

/// What a client's certificate proves, and until when.
#[derive(Debug, Clone)]
pub(super) struct Certified {
    pub(super) caller: Caller,
    until_s: i64,
    tls: Arc<ServerTls>,
    /// The authorities that it was verified with.
    authorities: Authorities,
}

impl Certified {
    /// Whether it would still be let in.
    pub(super) fn stands(&self, now: Moment) -> bool {
        let (now_s, _) = now.wall.split();
        i64::try_from(now_s).is_ok_and(|now_s| now_s <= self.until_s)
            && Arc::ptr_eq(&self.tls.authorities(), &self.authorities)
    }
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

    /// With the certificate that it has shown, if it has. `authorities` are those from before the
    /// handshake.
    pub(super) fn tls(
        address: Option<IpAddr>,
        certificate: Option<&CertificateDer<'_>>,
        tls: &Arc<ServerTls>,
        authorities: Authorities,
    ) -> Self {
        let certified = certificate.and_then(|certificate| {
            let names = tls::names(certificate).into_iter();
            let apps: Vec<_> = names
                .filter_map(|name| AppInstanceId::parse(&name).ok())
                .collect();
            let until_s = tls::not_after_s(certificate)?;
            (!apps.is_empty()).then(|| Certified {
                caller: Caller::Applications(apps.into()),
                until_s,
                tls: tls.clone(),
                authorities,
            })
        });
        Self {
            certified,
            ..Self::plain(address, false)
        }
    }
}
