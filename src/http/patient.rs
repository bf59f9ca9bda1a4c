//! A request's body that is read to its end, within bounds, also when its handler lets go of it: a
//! client that is in the middle of sending sees its refusal only when it gets through, because
//! closing on unread bytes resets the connection under the answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;
use warp::http::Request;
use warp::http::header::EXPECT;

/// What a client may still send of a body that nobody reads.
const UNREAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The body.
pub(super) struct Patient {
    /// Taken when dropped.
    body: Option<Incoming>,
    /// The whole body's time, whoever reads it.
    timeout: Duration,
    /// Since when it is waited for.
    since: Option<Instant>,
    /// A client that waits for the go-ahead (`Expect: 100-continue`) has sent nothing, and reading
    /// would give it.
    expects_go_ahead: bool,
}

impl Patient {
    /// Wraps the request's body, which has `timeout` to come.
    pub(super) fn take(request: Request<Incoming>, timeout: Duration) -> Request<Self> {
        let expects_go_ahead = request.headers().contains_key(EXPECT);
        request.map(|body| Self {
            body: Some(body),
            timeout,
            since: None,
            expects_go_ahead,
        })
    }
}

impl Body for Patient {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.expects_go_ahead = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if frame.is_pending() {
            self.since.get_or_insert_with(Instant::now);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !self.expects_go_ahead
            && !body.is_end_stream()
        {
            let until = self.since.unwrap_or_else(Instant::now) + self.timeout;
            tokio::spawn(tokio::time::timeout_at(until, discard(body)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await
        && bytes < UNREAD_BYTES_MAX
    {
        bytes += frame.data_ref().map_or(0, Bytes::len);
    }
}
