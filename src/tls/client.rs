//! TLS of the connections that we open: whom we trust, and who we are.
//!
//! Callbacks, the agent and the bench use it. There is no way to turn the verification off.

use log::warn;
use rustls::{ClientConfig, RootCertStore};

use super::{Identity, PemFile, TlsError, add_authorities, certificates, private_key, provider};

/// Trusts the system's certificate authorities and those in `ca_file`; shows `identity` to servers
/// that ask for one.
///
/// # Errors
/// [`TlsError`], naming the file.
pub fn client_config(
    ca_file: Option<PemFile<'_>>,
    identity: Option<Identity<'_>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_file)?);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(identity.certificates)?;
    Ok(builder.with_client_auth_cert(chain, private_key(identity.private_key)?)?)
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
        add_authorities(&mut roots, file)?;
    }
    Ok(roots)
}
