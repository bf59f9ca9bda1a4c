//! A certificate authority for tests, and a client that speaks TLS.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::{Answer, Server};

/// An authority whose files are in a directory.
pub(crate) struct Pki {
    dir: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Pki {
    /// Makes the authority and a certificate for a server on loopback.
    pub(crate) fn new(dir: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self {
            dir: dir.to_owned(),
            ca,
        };
        fs::write(pki.path("ca.pem"), pki.ca.pem()).unwrap();
        pki.put_server(&pki.server(1));
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A server's certificate with this serial.
    pub(crate) fn server(&self, serial: u64) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        self.sign(params)
    }

    /// The same, but its time is over.
    pub(crate) fn expired_server(&self) -> Pair {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(expired(CertificateParams::new(names).unwrap()))
    }

    /// A client's certificate.
    pub(crate) fn client(&self, common_name: &str, sans: Vec<SanType>) -> Pair {
        self.sign(Self::client_params(common_name, sans))
    }

    /// The same, but its time is over.
    pub(crate) fn expired_client(&self, common_name: &str) -> Pair {
        self.sign(expired(Self::client_params(common_name, Vec::new())))
    }

    /// The same, good for so many seconds from now.
    pub(crate) fn client_until(&self, common_name: &str, secs: u64) -> Pair {
        let mut params = Self::client_params(common_name, Vec::new());
        let until = Duration::from_secs(super::jwt::now_s() + secs);
        params.not_after = date_time_ymd(1970, 1, 1) + until;
        self.sign(params)
    }

    fn client_params(common_name: &str, sans: Vec<SanType>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = sans;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.ca).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Puts a pair where the server looks for it: one file after the other, each as a whole.
    pub(crate) fn put_server(&self, pair: &Pair) {
        for (name, text) in [("server.pem", &pair.certificate), ("server.key", &pair.key)] {
            let new = self.path("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }
    }

    /// What a server with TLS is started with.
    pub(crate) fn settings(&self) -> Vec<String> {
        let set = |key: &str, name: &str| format!("server.{key}={}", self.path(name).display());
        [
            "--set",
            &set("tls_cert_file", "server.pem"),
            "--set",
            &set("tls_key_file", "server.key"),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// And asks for client certificates.
    pub(crate) fn mutual(&self) -> Vec<String> {
        let mut settings = self.settings();
        let ca = self.path("ca.pem");
        settings.extend([
            "--set".to_owned(),
            format!("server.tls_client_ca_file={}", ca.display()),
        ]);
        settings
    }

    /// A client that trusts this authority.
    pub(crate) fn trusting(&self) -> TlsClient<'_> {
        TlsClient {
            pki: self,
            identity: None,
            versions: rustls::ALL_VERSIONS,
            protocols: &[b"http/1.1"],
        }
    }
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2020, 2, 1);
    params
}

/// How a client connects.
#[derive(Clone)]
pub(crate) struct TlsClient<'a> {
    pub(crate) pki: &'a Pki,
    pub(crate) identity: Option<&'a Pair>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) protocols: &'static [&'static [u8]],
}

impl TlsClient<'_> {
    pub(crate) fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.pki.path("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(chain.map(Result::unwrap).collect(), key)
                    .unwrap()
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        config
    }

    /// A connection, with the handshake done.
    pub(crate) fn connect(&self, server: &Server) -> std::io::Result<Connection> {
        let tcp = TcpStream::connect(server.url.strip_prefix("https://").unwrap())?;
        let patience = Some(Duration::from_secs(30));
        tcp.set_read_timeout(patience)?;
        tcp.set_write_timeout(patience)?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(Arc::new(self.config()), name).unwrap();
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Connection { stream })
    }
}

/// One connection with HTTP/1.1 above TLS.
pub(crate) struct Connection {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Connection {
    /// The serial of the server's certificate.
    pub(crate) fn serial(&self) -> Vec<u8> {
        let chain = self.stream.conn.peer_certificates().unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        certificate.raw_serial().to_vec()
    }

    /// One exchange.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &str,
    ) -> std::io::Result<Answer> {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes())?;
        self.stream.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> std::io::Result<Answer> {
        let mut read = Vec::new();
        let head_end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            self.more(&mut read)?;
        };
        let head = String::from_utf8(read[..head_end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| {
                let (name, value) = line.split_once(':').unwrap();
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        let mut answer = Answer {
            status: status.parse().unwrap(),
            headers,
            body: read.split_off(head_end + 4),
        };
        let length = answer
            .header("content-length")
            .map_or(0, |n| n.parse().unwrap());
        while answer.body.len() < length {
            self.more(&mut answer.body)?;
        }
        Ok(answer)
    }

    fn more(&mut self, read: &mut Vec<u8>) -> std::io::Result<()> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => {
                read.extend_from_slice(&part[..length]);
                Ok(())
            }
        }
    }
}
