//! One connection: hyper on top, a watchdog beside it.
//!
//! The watchdog bounds the time for a head, the time between requests, and the time for which a
//! client may not take its answer. hyper's own head timeout cannot tell the first two apart. It
//! costs nothing per request but a few stores: it sleeps until the earliest instant at which the
//! connection could be overdue, and looks again then.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;
use warp::http::header::CONTENT_LENGTH;
use warp::http::{Method, Request, Response, Version};
use warp::reply::Response as Answer;

use super::answer::Problem;
use super::listener::Limits;
use super::patient::Patient;
use super::peer::Peer;
use crate::metrics::Metrics;

/// Longest URI in bytes; ids and queries need far less.
const URI_BYTES_MAX: usize = 8 * 1024;
/// Longest head in bytes; hyper answers 431 beyond it.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Streams of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;

/// Who is overdue is looked at again after this.
const SECOND_LOOK: Duration = Duration::from_millis(50);

/// Serves one connection to its end: the client's, the server's, or the watchdog's.
pub(super) async fn serve<S, H>(
    stream: S,
    peer: Arc<Peer>,
    service: H,
    limits: Limits,
    metrics: Arc<Metrics>,
    watcher: Watcher,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    H: Service<Request<Patient>, Response = Answer, Error = Infallible>,
    H::Future: Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let io = TokioIo::new(Watched {
        stream,
        activity: activity.clone(),
    });
    let answering = service_fn(|mut request: Request<Incoming>| {
        let guard = activity.request(request.version());
        // hyper leaves the body out for HTTP/1 only.
        let only_head = request.method() == Method::HEAD && request.version() == Version::HTTP_2;
        let metrics = metrics.clone();
        request.extensions_mut().insert(peer.clone());
        let answer = match request.uri().path_and_query() {
            // `CONNECT host:port`: a URI without a path, which warp cannot take.
            None => Err(Problem::no_route().into_last_answer("/")),
            Some(path) if path.as_str().len() > URI_BYTES_MAX => {
                Err(Problem::uri_too_long(URI_BYTES_MAX).into_answer(request.uri().path()))
            }
            Some(_) => Ok(service.call(Patient::take(request, limits.body_timeout))),
        };
        async move {
            let mut answer = match answer {
                Ok(call) => call.await.unwrap_or_else(|never| match never {}),
                Err(refused) => refused,
            };
            metrics.response(answer.status().as_u16());
            if only_head && let Some(length) = answer.body().size_hint().exact() {
                answer.headers_mut().insert(CONTENT_LENGTH, length.into());
            }
            Ok::<Response<_>, Infallible>(answer.map(|body| Counted {
                body: (!only_head).then_some(body),
                sending: guard.sending(),
            }))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX);
    builder.http2().max_concurrent_streams(STREAMS_MAX);
    let connection = pin!(watcher.watch(builder.serve_connection(io, answering)));
    let overdue = pin!(activity.until_overdue(limits));
    tokio::select! {
        biased;
        ended = connection => if let Err(error) = ended {
            log::debug!("a connection ended early: {error}");
        },
        what = overdue => log::debug!("closing a connection: {what}"),
    }
}

/// What happens on a connection, in milliseconds since it began; 0 stands for "not".
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// Requests whose answer is not complete.
    under_way: AtomicUsize,
    /// When the first byte of a head came that is not complete.
    head_since_ms: AtomicU64,
    /// When the client stopped taking what is written.
    blocked_since_ms: AtomicU64,
    /// Answers that are being sent.
    sending: AtomicUsize,
    /// When the last part of an answer was taken.
    taken_at_ms: AtomicU64,
    /// When the last answer was complete.
    idle_since_ms: AtomicU64,
    /// HTTP/2: bytes between requests are not the beginning of a head.
    is_http2: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            under_way: AtomicUsize::new(0),
            head_since_ms: AtomicU64::new(0),
            blocked_since_ms: AtomicU64::new(0),
            sending: AtomicUsize::new(0),
            taken_at_ms: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            is_http2: AtomicBool::new(false),
        }
    }

    /// At least 1, because 0 stands for "not".
    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).map_or(u64::MAX, |ms| ms + 1)
    }

    /// A head is complete.
    fn request(self: &Arc<Self>, version: Version) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.head_since_ms.store(0, Ordering::Relaxed);
        if version == Version::HTTP_2 {
            self.is_http2.store(true, Ordering::Relaxed);
        }
        UnderWay(self.clone())
    }

    /// The client takes a part of an answer.
    fn taken(&self) {
        self.taken_at_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn read(&self) {
        let begins_head = self.under_way.load(Ordering::Relaxed) == 0
            && self.head_since_ms.load(Ordering::Relaxed) == 0
            && !self.is_http2.load(Ordering::Relaxed);
        if begins_head {
            self.head_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    fn written<T>(&self, result: &Poll<io::Result<T>>) {
        let was_blocked = self.blocked_since_ms.load(Ordering::Relaxed) != 0;
        match result {
            Poll::Pending if !was_blocked => {
                self.blocked_since_ms
                    .store(self.now_ms(), Ordering::Relaxed);
            }
            Poll::Ready(_) if was_blocked => self.blocked_since_ms.store(0, Ordering::Relaxed),
            Poll::Pending | Poll::Ready(_) => {}
        }
    }

    /// When the connection is overdue as things stand, and why.
    fn overdue_at_ms(&self, limits: Limits) -> (u64, &'static str) {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (header_ms, idle_ms) = (ms(limits.header_timeout), ms(limits.idle_timeout));
        let blocked_since = self.blocked_since_ms.load(Ordering::Relaxed);
        let head_since = self.head_since_ms.load(Ordering::Relaxed);
        if blocked_since != 0 {
            (
                blocked_since.saturating_add(idle_ms),
                "the client does not take its answer",
            )
        } else if self.sending.load(Ordering::Relaxed) > 0 {
            // HTTP/2: the socket takes everything, the stream's window may not.
            let taken_at = self.taken_at_ms.load(Ordering::Relaxed);
            (
                taken_at.saturating_add(idle_ms),
                "the client does not take its answer",
            )
        } else if self.under_way.load(Ordering::Relaxed) > 0 {
            // The body has its own timeout; look again later.
            (self.now_ms().saturating_add(idle_ms), "")
        } else if head_since != 0 {
            (
                head_since.saturating_add(header_ms),
                "the head did not arrive in time",
            )
        } else {
            let idle_since = self.idle_since_ms.load(Ordering::Relaxed);
            (idle_since.saturating_add(idle_ms), "it was idle")
        }
    }

    /// Waits until the connection is overdue; returns why.
    async fn until_overdue(&self, limits: Limits) -> &'static str {
        // A head that begins while this sleeps for idleness must not wait for it.
        let step = limits.header_timeout.min(limits.idle_timeout);
        let mut was_overdue = false;
        loop {
            let (at_ms, why) = self.overdue_at_ms(limits);
            let left_ms = at_ms.saturating_sub(self.now_ms());
            let wait = match left_ms {
                0 if was_overdue => return why,
                // Perhaps it was us who stood still, and what it has sent is only now looked at.
                0 => SECOND_LOOK,
                _ => Duration::from_millis(left_ms).min(step),
            };
            was_overdue = left_ms == 0;
            tokio::time::sleep(wait).await;
        }
    }
}

/// A request whose answer is not complete.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0
            .idle_since_ms
            .store(self.0.now_ms(), Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl UnderWay {
    /// The answer is there.
    fn sending(self) -> Sending {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
        self.0.taken();
        Sending(self)
    }
}

/// An answer that is being sent.
struct Sending(UnderWay);

impl Drop for Sending {
    fn drop(&mut self) {
        self.0.0.sending.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that keeps its request under way until it is sent.
struct Counted<B> {
    /// `None`: the answer to a HEAD.
    body: Option<B>,
    sending: Sending,
}

impl<B: Body + Unpin> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.sending.0.0.taken();
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

/// A stream that notes what happens on it.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, buffers);
        self.activity.written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
