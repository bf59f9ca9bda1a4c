//! TLS of the connections that we accept. Its files are read again when they change: who connects
//! from then on sees the new ones, who is connected stays.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::names::not_after_s;
use super::{Identity, PemFile, TlsError, add_authorities, certificates, private_key, provider};
use crate::files::Watched;

/// What may be spoken above TLS, in the order of our liking. Source: RFC 7301.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The operator's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFiles {
    /// The server's certificate and those that lead to its authority.
    pub certificates: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
    /// The authorities of client certificates; without it none is asked for.
    pub client_authorities: Option<PathBuf>,
}

impl ServerFiles {
    fn identity(&self) -> Identity<'_> {
        Identity {
            certificates: PemFile {
                key: "server.tls_cert_file",
                path: &self.certificates,
            },
            private_key: PemFile {
                key: "server.tls_key_file",
                path: &self.private_key,
            },
        }
    }

    fn client_authorities(&self) -> Option<PemFile<'_>> {
        let path = self.client_authorities.as_deref()?;
        Some(PemFile {
            key: "server.tls_client_ca_file",
            path,
        })
    }

    /// All that is read.
    fn all(&self) -> Vec<PathBuf> {
        let both = [self.certificates.clone(), self.private_key.clone()];
        both.into_iter()
            .chain(self.client_authorities.clone())
            .collect()
    }
}

/// The server's side of TLS, as its files have it.
#[derive(Debug)]
pub struct ServerTls {
    files: ServerFiles,
    current: Watched<Current>,
}

/// The certificates of the authorities of clients. Another one whenever they have changed: what was
/// verified before counts no more.
pub type Authorities = Arc<Vec<CertificateDer<'static>>>;

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    authorities: Authorities,
    not_after_s: Option<i64>,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn open(files: ServerFiles) -> Result<Self, TlsError> {
        let current = Watched::open(files.all(), || Current::read(&files))?;
        Ok(Self { files, current })
    }

    /// For the next connection.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.current.get().config.clone()
    }

    /// Those whose certificates are good now.
    #[must_use]
    pub fn authorities(&self) -> Authorities {
        self.current.get().authorities.clone()
    }

    /// When the certificate's time ends, in seconds since the epoch.
    #[must_use]
    pub fn not_after_s(&self) -> Option<i64> {
        self.current.get().not_after_s
    }

    /// Reads the files again if they have changed; whether there is something new. A certificate
    /// and its key are replaced one after the other, so what does not fit yet is tried again.
    ///
    /// # Errors
    /// [`TlsError`], the first time that something new is no good. What was good stays in force.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        self.current.refresh(|| {
            let mut new = Current::read(&self.files)?;
            let authorities = self.authorities();
            if new.authorities == authorities {
                new.authorities = authorities;
            }
            Ok(new)
        })
    }
}

impl Current {
    fn read(files: &ServerFiles) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let mut authorities = Vec::new();
        let builder = match files.client_authorities() {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                authorities = add_authorities(&mut roots, file)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
                        .allow_unauthenticated()
                        .build()
                        .map_err(|error| TlsError::Malformed {
                            key: file.key,
                            path: file.path.to_owned(),
                            what: "certificate authorities",
                            reason: error.to_string(),
                        })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let identity = files.identity();
        let chain = certificates(identity.certificates)?;
        let not_after_s = chain.first().and_then(not_after_s);
        let key = private_key(identity.private_key)?;
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| TlsError::Pair {
                certificates: files.certificates.clone(),
                private_key: files.private_key.clone(),
                reason: error.to_string(),
            })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if files.client_authorities.is_some() {
            // Nothing is taken up again: whoever was let in once may have run out of time since.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            // Producers that connect for every beat need not prove everything again.
            config.ticketer = Ticketer::new()?;
        }
        Ok(Self {
            config: Arc::new(config),
            authorities: Arc::new(authorities),
            not_after_s,
        })
    }
}
