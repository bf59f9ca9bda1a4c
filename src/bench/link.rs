//! A connection to the server under test: requests made beforehand, one at a time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};

use super::BenchError;
use super::answer::{Chunks, Framing, Head, Malformed, Reader, head};
use crate::tls::{self, PemFile};

/// Room for an answer; it grows where it must.
const INPUT_BYTES: usize = 2048;

/// The server under test, and how it is spoken to.
pub(super) struct Target {
    /// As it was given, without a slash at the end.
    pub(super) url: String,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// What stands in front of every path.
    prefix: String,
    /// Headers that are the same in every request.
    headers: String,
    /// For a connection, and for an answer.
    timeout: Duration,
}

/// No answer came, or none that could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    #[error("no connection: {0}")]
    Connect(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    #[error("connection closed before the answer was complete")]
    Closed,
    #[error("connection broken: {0}")]
    Broken(String),
    #[error("malformed answer: {0}")]
    Malformed(#[from] Malformed),
}

impl Lost {
    /// The kind that it is counted under.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "no connection",
            Self::Timeout(_) => "no answer in time",
            Self::Closed => "connection closed",
            Self::Broken(_) => "connection broken",
            Self::Malformed(_) => "malformed answer",
        }
    }
}

impl Target {
    /// Connects to nothing yet.
    pub(super) fn new(
        url: &str,
        ca_file: Option<&Path>,
        token: Option<&str>,
        timeout: Duration,
    ) -> Result<Self, BenchError> {
        let bad = |why: &str| BenchError::Usage(format!("--url {url:?}: {why}"));
        let parsed = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        let host = parsed.host().ok_or_else(|| bad("it names no host"))?;
        let port = parsed
            .port_or_known_default()
            .ok_or_else(|| bad("it names no port"))?;
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(bad("it must end with a host, a port or a path"));
        }
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => {
                let ca_file = ca_file.map(|path| PemFile {
                    key: "--ca-file",
                    path,
                });
                let config = tls::client_config(ca_file, None)?;
                let bare = parsed.host_str().unwrap_or_default();
                let bare = bare.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(bare.to_owned())
                    .map_err(|error| bad(&error.to_string()))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
            _ => return Err(bad("http or https is expected")),
        };
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let mut headers = format!("host: {authority}\r\n");
        if let Some(token) = token {
            headers += &format!("authorization: Bearer {token}\r\n");
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            host: match host {
                Host::Ipv6(address) => address.to_string(),
                other => other.to_string(),
            },
            port,
            tls,
            prefix: parsed.path().trim_end_matches('/').to_owned(),
            headers,
            timeout,
        })
    }

    /// Whether it is on this machine, by its address.
    pub(super) fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or(self.host == "localhost", |address| address.is_loopback())
    }

    /// How long an answer may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The beginning of a request, up to and with `path` or its first part.
    pub(super) fn start(&self, method: &str, path: &str) -> Vec<u8> {
        format!("{method} {}{path}", self.prefix).into_bytes()
    }

    /// What stands behind the path: the rest of the head, and the body.
    pub(super) fn end(&self, body: &[u8]) -> Vec<u8> {
        let mut head = format!(" HTTP/1.1\r\n{}", self.headers);
        if !body.is_empty() {
            head += &format!(
                "content-type: application/json\r\ncontent-length: {}\r\n",
                body.len()
            );
        }
        head += "\r\n";
        [head.as_bytes(), body].concat()
    }

    /// A whole request.
    pub(super) fn request(&self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        [self.start(method, path), self.end(body)].concat()
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that is used for one request after the other.
pub(super) struct Link {
    stream: Stream,
    reader: Reader,
    /// Nothing more can be asked over it.
    over: bool,
}

impl Link {
    pub(super) async fn open(target: &Target) -> Result<Self, Lost> {
        let connecting = async {
            let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(match &target.tls {
                None => Stream::Plain(tcp),
                Some((connector, name)) => {
                    Stream::Tls(Box::new(connector.connect(name.clone(), tcp).await?))
                }
            })
        };
        let stream = tokio::time::timeout(target.timeout, connecting)
            .await
            .map_err(|_| Lost::Connect(format!("none within {} ms", target.timeout.as_millis())))?
            .map_err(|error| Lost::Connect(error.to_string()))?;
        Ok(Self {
            stream,
            reader: Reader::default(),
            over: false,
        })
    }

    /// Whether another one is needed for the next request.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// One request; the answer's status, and its body in `body`, which is emptied first.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        body: &mut Vec<u8>,
        limit: Duration,
    ) -> Result<u16, Lost> {
        body.clear();
        let reader = &mut self.reader;
        let exchange = async {
            match &mut self.stream {
                Stream::Plain(stream) => exchange(stream, reader, request, body).await,
                Stream::Tls(stream) => exchange(stream, reader, request, body).await,
            }
        };
        // Unless it ends well, nobody knows what comes next on this connection.
        self.over = true;
        let head = tokio::time::timeout(limit, exchange)
            .await
            .map_err(|_| Lost::Timeout(limit))??;
        self.over = head.close;
        Ok(head.status)
    }

    /// Asks for a body that has no end. `Err(status)` where that is refused.
    pub(super) async fn follow(mut self, request: &[u8]) -> Result<Result<Endless, u16>, Lost> {
        match &mut self.stream {
            Stream::Plain(stream) => send(stream, request).await?,
            Stream::Tls(stream) => send(stream, request).await?,
        }
        loop {
            self.receive().await?;
            let Some(head) = head(self.reader.input())? else {
                continue;
            };
            if head.status != 200 || head.framing != Framing::Chunked {
                return Ok(Err(head.status));
            }
            let mut rest = self.reader.take_rest();
            rest.drain(..head.bytes);
            return Ok(Ok(Endless {
                link: self,
                raw: rest,
                chunks: Chunks::default(),
            }));
        }
    }

    async fn receive(&mut self) -> Result<(), Lost> {
        match &mut self.stream {
            Stream::Plain(stream) => receive(stream, self.reader.input()).await,
            Stream::Tls(stream) => receive(stream, self.reader.input()).await,
        }
    }
}

/// A body that goes on.
pub(super) struct Endless {
    link: Link,
    /// Read, and not yet taken apart.
    raw: Vec<u8>,
    chunks: Chunks,
}

impl Endless {
    /// Appends what comes next; `false` at the end.
    pub(super) async fn more(&mut self, body: &mut Vec<u8>) -> Result<bool, Lost> {
        let before = body.len();
        loop {
            self.chunks.feed(&self.raw, body)?;
            self.raw.clear();
            if self.chunks.is_done() {
                return Ok(false);
            }
            if body.len() > before {
                return Ok(true);
            }
            self.link.receive().await?;
            self.raw = self.link.reader.take_rest();
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    reader: &mut Reader,
    request: &[u8],
    body: &mut Vec<u8>,
) -> Result<Head, Lost> {
    send(stream, request).await?;
    loop {
        receive(stream, reader.input()).await?;
        if let Some(head) = reader.advance(body)? {
            return Ok(head);
        }
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, request: &[u8]) -> Result<(), Lost> {
    let sent = async {
        stream.write_all(request).await?;
        stream.flush().await
    };
    sent.await.map_err(|error| broken(&error))
}

async fn receive<S: AsyncRead + Unpin>(stream: &mut S, input: &mut Vec<u8>) -> Result<(), Lost> {
    input.reserve(INPUT_BYTES);
    match stream.read_buf(input).await {
        Ok(0) => Err(Lost::Closed),
        Ok(_) => Ok(()),
        Err(error) => Err(broken(&error)),
    }
}

fn broken(error: &std::io::Error) -> Lost {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => Lost::Closed,
        _ => Lost::Broken(error.to_string()),
    }
}
