//! Whom a certificate names.

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How a UUID is written as a URI. Source: RFC 9562, 4.
const URN_UUID: &str = "urn:uuid:";

/// The subject's common names and the alternative names (DNS and URI) of a certificate. A
/// `urn:uuid:` names its UUID.
#[must_use]
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = certificate.subject().iter_common_name();
    let mut names: Vec<_> = common
        .filter_map(|name| Some(name.as_str().ok()?.to_owned()))
        .collect();
    let alternative = certificate.subject_alternative_name().ok().flatten();
    for name in alternative
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::URI(uri) => {
                names.push(uri.strip_prefix(URN_UUID).unwrap_or(uri).to_owned());
            }
            _ => {}
        }
    }
    names.sort();
    names.dedup();
    names
}

/// The end of a certificate's time, in seconds since the epoch.
#[must_use]
pub fn not_after_s(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn subject_and_alternative_names_count() {
        let mut params = CertificateParams::new(vec!["cam.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "cam");
        let uri = "urn:uuid:5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f";
        let uri = SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names.push(uri);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert_eq!(
            names(certificate.der()),
            ["5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f", "cam", "cam.example"]
        );
        assert!(names(&CertificateDer::from(vec![1, 2, 3])).is_empty());
    }
}
