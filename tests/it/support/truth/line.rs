//! One HTTP/1.1 client on its own connection: it knows when its request was on its way, and tells
//! "it never arrived" from "nobody knows".

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const CONNECT_MAX: Duration = Duration::from_millis(300);

/// What came of a request.
pub(super) struct Asked {
    /// When it was written, by the latest; without a connection, when it was begun.
    pub(super) sent: Instant,
    /// Status and body.
    pub(super) answer: Option<(u16, Vec<u8>)>,
    /// Requests that were written and not answered: they may have been carried out.
    pub(super) doubts: u64,
}

pub(super) struct Line {
    address: SocketAddr,
    /// Whether the connection stays open between requests.
    keeps: bool,
    stream: Option<TcpStream>,
}

impl Line {
    pub(super) fn new(address: SocketAddr, keeps: bool) -> Self {
        Self {
            address,
            keeps,
            stream: None,
        }
    }

    /// Asks once, and gives up in time for the next try.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Asked {
        let body = body.map(Value::to_string).unwrap_or_default();
        let close = if self.keeps {
            ""
        } else {
            "connection: close\r\n"
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: truth\r\n{close}prefer: return=representation\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut asked = Asked {
            sent: Instant::now(),
            answer: None,
            doubts: 0,
        };
        let exchange = self.exchange(request.as_bytes(), &mut asked);
        let _ = timeout(patience, exchange).await;
        if let Some((status, _)) = &asked.answer {
            asked.doubts -= 1;
            // Who is turned away comes back on a new connection.
            if *status >= 500 {
                self.stream = None;
            }
        }
        asked
    }

    /// Connects, and gives up soon: a server that is there answers at once. Where the kernel's queue
    /// of a server that does not accept is full, connecting would take seconds.
    async fn connect(&self, asked: &mut Asked) -> Result<TcpStream, Error> {
        match timeout(CONNECT_MAX, TcpStream::connect(self.address)).await {
            Ok(connected) => connected,
            Err(_) => {
                // It was tried by then, unless this process was slow itself.
                if asked.doubts == 0 {
                    asked.sent = Instant::now() - CONNECT_MAX;
                }
                Err(ErrorKind::TimedOut.into())
            }
        }
    }

    async fn exchange(&mut self, request: &[u8], asked: &mut Asked) -> Result<(), Error> {
        // A connection that the server has closed is no way to reach it.
        let mut open = self.stream.take().filter(|stream| {
            let read = stream.try_read(&mut [0]);
            read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        loop {
            let is_reused = open.is_some();
            let mut stream = match open.take() {
                Some(stream) => stream,
                None => self.connect(asked).await?,
            };
            let _ = stream.set_nodelay(true);
            asked.doubts += 1;
            let written = stream.write_all(request).await;
            if asked.doubts == 1 {
                asked.sent = Instant::now();
            }
            match read_answer(&mut stream).await {
                Ok(answer) => {
                    asked.answer = Some(answer);
                    self.stream = self.keeps.then_some(stream);
                    return Ok(());
                }
                Err(_) if is_reused => {}
                Err(error) => return written.and(Err(error)),
            }
        }
    }
}

/// An answer of known length.
async fn read_answer(stream: &mut TcpStream) -> Result<(u16, Vec<u8>), Error> {
    let broken = || Error::from(ErrorKind::InvalidData);
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(Ok(0), |length| length.trim().parse::<usize>())
            .map_err(|_| broken())?;
        let mut body = bytes.split_off(end + 4);
        while body.len() < length {
            if stream.read_buf(&mut body).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        return Ok((status.ok_or_else(broken)?, body));
    }
}
