//! A callback that does what it is told to, good or bad, and remembers what came.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::time::Instant;

use super::told::{Reference, references};
use crate::support::clients::wait_until;

/// An answer that nobody should read to its end.
const HUGE_BYTES: usize = 10 << 20;

/// What becomes of one notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Do {
    /// 204
    Take,
    /// 200 and a few bytes.
    TakeWithBody,
    /// 200 and very many.
    TakeHuge,
    /// 500
    Refuse,
    /// 503 and so many seconds of `Retry-After`.
    RetryAfter(u32),
    /// No answer, and the connection stays.
    Hang,
    /// The connection is closed instead of an answer.
    HangUp,
    /// The same, in the middle of the answer's head.
    HangUpHalfway,
    /// 307
    Redirect(String),
}

impl Do {
    /// Whether the server may take the notification for delivered.
    fn confirms(&self) -> bool {
        matches!(self, Self::Take | Self::TakeWithBody | Self::TakeHuge)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) path: String,
    /// `Idempotency-Key`.
    pub(super) key: u64,
    /// Of the body as it came.
    pub(super) fingerprint: u64,
    pub(super) references: Vec<Reference>,
    pub(super) at: Instant,
    /// Whether it was answered with success.
    pub(super) confirmed: bool,
}

type Script = Box<dyn FnMut(&Arrival) -> Do + Send>;

struct State {
    arrivals: Vec<Arrival>,
    script: Script,
    /// Per path: the newest notification that was confirmed, and events in all of them.
    confirmed: HashMap<String, (u64, usize)>,
    connections: HashMap<usize, TcpStream>,
}

struct Shared {
    state: Mutex<State>,
    /// So many connections are closed before anything is read from them.
    slams: AtomicUsize,
    accepted: AtomicUsize,
}

/// See the module. It listens on a loopback address of its own, so that nobody else takes its port
/// while it is dead.
pub(super) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

fn own_address() -> SocketAddr {
    static SINKS: AtomicU32 = AtomicU32::new(0);
    // A process id has 22 bits; 127.64 to 127.127 are other tests'.
    let [_, high, middle, low] = (std::process::id() & 0x3f_ffff).to_be_bytes();
    let port = 20_000 + SINKS.fetch_add(1, Ordering::SeqCst) % 10_000;
    let ip = Ipv4Addr::new(127, 128 + high, middle, low);
    SocketAddr::from((ip, u16::try_from(port).unwrap()))
}

impl Sink {
    /// One that takes everything.
    pub(super) fn new() -> Self {
        let mut sink = Self::dead();
        sink.rise();
        sink
    }

    /// One that nobody can connect to, until it rises.
    pub(super) fn dead() -> Self {
        Self {
            address: own_address(),
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    arrivals: Vec::new(),
                    script: Box::new(|_| Do::Take),
                    confirmed: HashMap::new(),
                    connections: HashMap::new(),
                }),
                slams: AtomicUsize::new(0),
                accepted: AtomicUsize::new(0),
            }),
            listening: None,
        }
    }

    /// Where a path of it is.
    pub(super) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on requests are answered like this. Not to be called from within a script.
    pub(super) fn does(&self, script: impl FnMut(&Arrival) -> Do + Send + 'static) {
        self.shared.state().script = Box::new(script);
    }

    /// Closes so many of the next connections without reading from them.
    pub(super) fn slams(&self, connections: usize) {
        self.shared.slams.store(connections, Ordering::SeqCst);
    }

    /// How many connections there were.
    pub(super) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// What came, in order.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.shared.state().arrivals.clone()
    }

    /// What came on one path.
    pub(super) fn arrivals_at(&self, path: &str) -> Vec<Arrival> {
        let state = self.shared.state();
        let arrivals = state.arrivals.iter();
        arrivals.filter(|a| a.path == path).cloned().collect()
    }

    /// How many requests came.
    pub(super) fn count(&self) -> usize {
        self.shared.state().arrivals.len()
    }

    /// How many events were confirmed on a path, repeats not counted.
    pub(super) fn confirmed(&self, path: &str) -> usize {
        let state = self.shared.state();
        state.confirmed.get(path).map_or(0, |(_, events)| *events)
    }

    /// Listens, also after it has died.
    pub(super) fn rise(&mut self) {
        assert!(self.listening.is_none(), "it is alive");
        // A process that another test is just starting may hold the old socket for a moment.
        let bind = || match TcpListener::bind(self.address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => None,
            bound => Some(bound.unwrap()),
        };
        let mut listener = None;
        wait_until("the address is free", || {
            listener = bind();
            listener.is_some()
        });
        let listener = listener.unwrap();
        let gone = Arc::new(AtomicBool::new(false));
        let thread = {
            let (shared, gone) = (self.shared.clone(), gone.clone());
            std::thread::spawn(move || accept(&listener, &shared, &gone))
        };
        self.listening = Some((gone, thread));
    }

    /// Closes everything: connections are refused from now on.
    pub(super) fn die(&mut self) {
        let Some((gone, thread)) = self.listening.take() else {
            return;
        };
        gone.store(true, Ordering::SeqCst);
        // Wakes the thread; whether anybody takes the connection does not matter.
        let _ = TcpStream::connect(self.address);
        thread.join().unwrap();
        for stream in self.shared.state().connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.die();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what came, and says what to do.
    fn take(&self, mut arrival: Arrival) -> Do {
        let mut state = self.state();
        let what = (state.script)(&arrival);
        arrival.confirmed = what.confirms();
        if arrival.confirmed {
            let (newest, events) = state.confirmed.entry(arrival.path.clone()).or_default();
            // The first event of a store has the sequence 0.
            if *events == 0 || arrival.key > *newest {
                *newest = arrival.key;
                *events += arrival.references.len();
            }
        }
        state.arrivals.push(arrival);
        what
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, gone: &AtomicBool) {
    for number in 0.. {
        let Ok((stream, _)) = listener.accept() else {
            continue;
        };
        if gone.load(Ordering::SeqCst) {
            return;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let slam = shared
            .slams
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if slam.is_ok() {
            continue;
        }
        let clone = stream.try_clone().unwrap();
        shared.state().connections.insert(number, clone);
        let shared = shared.clone();
        std::thread::spawn(move || {
            // A connection that breaks is the server's business, and often the script's wish.
            let _ = serve(&stream, &shared);
            shared.state().connections.remove(&number);
            let _ = stream.shutdown(Shutdown::Both);
        });
    }
}

/// Answers one request after the other.
fn serve(mut stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let arrival = read(&mut reader)?;
        match shared.take(arrival) {
            Do::Take => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
            Do::TakeWithBody => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nthanks")?;
            }
            Do::TakeHuge => {
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {HUGE_BYTES}\r\n\r\n"
                )?;
                stream.write_all(&vec![b'x'; HUGE_BYTES])?;
            }
            Do::Refuse => {
                stream.write_all(b"HTTP/1.1 500 Oh No\r\ncontent-length: 0\r\n\r\n")?;
            }
            Do::RetryAfter(s) => write!(
                stream,
                "HTTP/1.1 503 Later\r\nretry-after: {s}\r\ncontent-length: 0\r\n\r\n"
            )?,
            Do::Redirect(to) => write!(
                stream,
                "HTTP/1.1 307 There\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
            )?,
            Do::Hang => {
                // Until the server has had enough, or this sink dies.
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            }
            Do::HangUp => return Ok(()),
            Do::HangUpHalfway => return stream.write_all(b"HTTP/1.1 204 No Con"),
        }
    }
}

/// The next request; anything but a notification is an error of the server's, and fails the test by
/// never being confirmed.
fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Arrival> {
    let malformed = |what: &str| io::Error::other(what.to_owned());
    let mut line = String::new();
    let mut next_line = |reader: &mut BufReader<&TcpStream>| {
        line.clear();
        match reader.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let request = next_line(reader)?;
    let path = request
        .strip_prefix("POST ")
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"))
        .ok_or_else(|| malformed(&request))?
        .to_owned();
    let (mut key, mut length) = (None, None);
    loop {
        let header = next_line(reader)?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        let number = value.trim().parse::<u64>();
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => key = number.ok(),
            "content-length" => length = number.ok(),
            _ => {}
        }
    }
    let key = key.ok_or_else(|| malformed("no key"))?;
    let length = length.and_then(|length| usize::try_from(length).ok());
    let mut body = vec![0; length.ok_or_else(|| malformed("no length"))?];
    reader.read_exact(&mut body)?;
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    Ok(Arrival {
        path,
        key,
        fingerprint: hasher.finish(),
        references: references(&body),
        at: Instant::now(),
        confirmed: false,
    })
}
