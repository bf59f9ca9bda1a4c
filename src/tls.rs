//! TLS of the connections that we open: whom we trust, and who we are.
//!
//! Callbacks and the agent use it. ring and TLS 1.2 or later; there is no way to turn the
//! verification off.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::warn;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A file of the operator's, and the key of the configuration that names it.
#[derive(Debug, Clone, Copy)]
pub struct PemFile<'a> {
    /// For messages: `notify.ca_file`.
    pub key: &'static str,
    /// Where it is.
    pub path: &'a Path,
}

/// What a client shows of itself.
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
    /// The TLS library does not take its own defaults, or a key does not belong to its certificate.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// Trusts the system's certificate authorities and those in `ca_file`; shows `identity` to servers
/// that ask for one.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn client_config(
    ca_file: Option<PemFile<'_>>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_file)?);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(identity.certificates)?;
    let PemFile { key, path } = identity.private_key;
    let pem = read(identity.private_key)?;
    let private_key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Malformed {
        key,
        path: path.to_owned(),
        what: "a private key",
        reason: error.to_string(),
    })?;
    Ok(builder.with_client_auth_cert(chain, private_key)?)
}

/// The system's certificate authorities and those in the file. A system without any is no error:
/// small images have none, and need none for http.
fn roots(ca_file: Option<PemFile<'_>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        warn!("not all of the system's certificate authorities can be read: {error}");
    }
    let (_, ignored) = roots.add_parsable_certificates(system.certs);
    if ignored > 0 {
        warn!("{ignored} of the system's certificate authorities cannot be used");
    }
    if let Some(file) = ca_file {
        for certificate in certificates(file)? {
            roots
                .add(certificate)
                .map_err(|error| no_certificates(file, &error))?;
        }
    }
    Ok(roots)
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
