//! TLS 1.2 or later with ring: of the connections that we open, and of those that we accept.

mod client;
mod names;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use self::client::client_config;
pub use self::names::{names, not_after_s};
pub use self::server::{Authorities, ServerFiles, ServerTls};

/// A file of the operator's, and the key of the configuration that names it.
#[derive(Debug, Clone, Copy)]
pub struct PemFile<'a> {
    /// For messages: `notify.ca_file`.
    pub key: &'static str,
    /// Where it is.
    pub path: &'a Path,
}

/// What somebody shows of himself.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its certificate, and those that lead to its authority.
    pub certificates: PemFile<'a>,
    /// The certificate's private key.
    pub private_key: PemFile<'a>,
}

/// TLS could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key} {path} cannot be read: {source}", path = .path.display())]
    Unreadable {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// It is no PEM, or holds what it should not.
    #[error("{key} {path} is no PEM file of {what}: {reason}", path = .path.display())]
    Malformed {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What was expected in it.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It holds no certificate.
    #[error("{key} {path} holds no certificate", path = .path.display())]
    NoCertificate {
        /// The key of the configuration.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate and a key that are not usable together.
    #[error(
        "server.tls_cert_file {certificates} and server.tls_key_file {private_key} cannot be used: \
         {reason}", certificates = .certificates.display(), private_key = .private_key.display()
    )]
    Pair {
        /// The certificates.
        certificates: PathBuf,
        /// The key.
        private_key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The TLS library does not take its own defaults, or a key does not belong to its certificate.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// All certificates of a file, at least one.
fn certificates(file: PemFile<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| no_certificates(file, &error))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate {
            key: file.key,
            path: file.path.to_owned(),
        });
    }
    Ok(found)
}

/// The first private key of a file.
fn private_key(file: PemFile<'_>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Malformed {
        key: file.key,
        path: file.path.to_owned(),
        what: "a private key",
        reason: error.to_string(),
    })
}

/// Trusts all certificates of a file, and says which.
fn add_authorities(
    roots: &mut RootCertStore,
    file: PemFile<'_>,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let authorities = certificates(file)?;
    for certificate in &authorities {
        roots
            .add(certificate.clone())
            .map_err(|error| no_certificates(file, &error))?;
    }
    Ok(authorities)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn read(PemFile { key, path }: PemFile<'_>) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable {
        key,
        path: path.to_owned(),
        source,
    })
}

fn no_certificates(file: PemFile<'_>, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Malformed {
        key: file.key,
        path: file.path.to_owned(),
        what: "certificates",
        reason: error.to_string(),
    }
}
