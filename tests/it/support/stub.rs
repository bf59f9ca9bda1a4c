//! A server that answers as a script says: other platforms, bad ones, and proxies.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mepulse::clock::Stopwatch;
use serde_json::{Value, json};

use super::{send, try_send};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// Hands it on to a server.
    pub(crate) fn forward(&self, url: &str) -> Reply {
        let uri = format!("{url}{}", self.path);
        match try_send(&self.method, &uri, &[], &self.body) {
            Ok(answer) => Reply::Answer(answer.status, Vec::new(), answer.body),
            Err(_) => Reply::Close,
        }
    }

    /// Hands it on, whatever comes of it.
    pub(crate) fn forward_later(&self, url: &str, pause: Duration) {
        let (request, url) = (self.clone(), url.to_owned());
        std::thread::spawn(move || {
            std::thread::sleep(pause);
            let uri = format!("{url}{}", request.path);
            send(&request.method, &uri, &[], &request.body);
        });
    }
}

/// What is done about it.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// These very bytes, and the connection is closed.
    Bytes(Vec<u8>),
    /// The connection is closed.
    Close,
    /// Nothing.
    Hang,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::Answer(status, Vec::new(), body.to_string().into_bytes())
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self::Answer(status, Vec::new(), Vec::new())
    }
}

/// Hands out tokens, and knows which of them are good.
pub(crate) struct Tokens {
    life: Duration,
    /// The newest last.
    issued: Mutex<Vec<(String, Stopwatch)>>,
    /// Those before this one are forgotten.
    revoked: AtomicUsize,
    /// It answers 503.
    down: AtomicBool,
    /// Requests with a token that is not good.
    refused: AtomicUsize,
}

impl Tokens {
    pub(crate) fn new(life: Duration) -> Arc<Self> {
        Arc::new(Self {
            life,
            issued: Mutex::default(),
            revoked: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        })
    }

    /// What the token endpoint answers.
    pub(crate) fn issue(&self) -> Reply {
        if self.down.load(Ordering::SeqCst) {
            return Reply::empty(503);
        }
        let mut issued = self.issued.lock().unwrap();
        let token = format!("secret-token-{}", issued.len());
        let life = self.life.as_secs();
        let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": life});
        issued.push((token, Stopwatch::start()));
        Reply::json(200, &body)
    }

    /// What is answered to a request that has no good token.
    pub(crate) fn refuse(&self, request: &Request) -> Option<Reply> {
        let given = request.header("authorization").unwrap_or_default();
        let issued = self.issued.lock().unwrap();
        let mut good = issued.iter().skip(self.revoked.load(Ordering::SeqCst));
        let is_good =
            good.any(|(token, at)| given == format!("Bearer {token}") && at.elapsed() <= self.life);
        if is_good {
            return None;
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Some(Reply::json(401, &json!({"detail": "who are you?"})))
    }

    pub(crate) fn issued(&self) -> usize {
        self.issued.lock().unwrap().len()
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Nothing that was handed out so far is good any more.
    pub(crate) fn revoke(&self) {
        self.revoked.store(self.issued(), Ordering::SeqCst);
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// A server on a port of its own; gone when dropped.
pub(crate) struct Stub {
    pub(crate) url: String,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
}

impl Stub {
    pub(crate) fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script)
    }

    pub(crate) fn start_at(
        place: &str,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            requests: Mutex::default(),
            connections: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                let kept = stream.try_clone().unwrap();
                accepting.connections.lock().unwrap().push(kept);
                let shared = accepting.clone();
                std::thread::spawn(move || shared.talk(stream));
            }
        });
        Self {
            url: format!("http://{address}"),
            shared,
            accepting: Some(accepting),
        }
    }

    /// All requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        let requests = self.requests();
        requests.iter().filter(|it| it.method == method).count()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.url.strip_prefix("http://").unwrap());
        let _ = self.accepting.take().unwrap().join();
        for connection in self.shared.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn talk(&self, mut stream: TcpStream) {
        while let Some(request) = read(&mut stream) {
            self.requests.lock().unwrap().push(request.clone());
            let bytes = match (self.script)(&request) {
                Reply::Answer(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} X\r\n");
                    for (name, value) in headers {
                        head += &format!("{name}: {value}\r\n");
                    }
                    if status != 204 {
                        head += &format!("content-length: {}\r\n", body.len());
                    }
                    [(head + "\r\n").into_bytes(), body].concat()
                }
                Reply::Bytes(bytes) => {
                    let _ = stream.write_all(&bytes);
                    break;
                }
                Reply::Close => break,
                Reply::Hang => {
                    // Until the caller hangs up, or the test is over.
                    let _ = stream.read(&mut [0; 1024]);
                    break;
                }
            };
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let mut lines = head.lines();
            let mut first = lines.next()?.split(' ');
            let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
            let headers: Vec<_> = lines
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(name, _)| name == "content-length");
            let length = length.map_or(0, |(_, value)| value.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = bytes[end + 4..end + 4 + length].to_vec();
                return Some(Request {
                    method,
                    path,
                    headers,
                    body,
                });
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&part[..read]),
        }
    }
}
