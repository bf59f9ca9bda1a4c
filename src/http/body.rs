//! A request's body: bounded in size and time, and mostly there together with its head.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use super::answer::Problem;

pub(super) type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, warp::Error>> + Send>>;

/// Bounds of a request's body.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Longest body in bytes.
    pub bytes: usize,
    /// It must be complete within so many milliseconds.
    pub timeout_ms: u64,
}

/// A body that is being read.
pub(super) struct Reading {
    stream: BodyStream,
    limits: BodyLimits,
    so_far: SoFar,
}

/// One part is the rule, and needs no copy.
enum SoFar {
    Nothing,
    One(Bytes),
    Joined(BytesMut),
}

impl SoFar {
    fn add(&mut self, part: Bytes) {
        match self {
            Self::Nothing => *self = Self::One(part),
            Self::One(first) => {
                let mut joined = BytesMut::with_capacity(first.len() + part.len());
                joined.extend_from_slice(first);
                joined.extend_from_slice(&part);
                *self = Self::Joined(joined);
            }
            Self::Joined(joined) => joined.extend_from_slice(&part),
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(part) => part.len(),
            Self::Joined(joined) => joined.len(),
        }
    }

    fn take(&mut self) -> Bytes {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Bytes::new(),
            Self::One(part) => part,
            Self::Joined(joined) => joined.freeze(),
        }
    }
}

impl Reading {
    pub(super) fn new(stream: BodyStream, limits: BodyLimits) -> Self {
        Self {
            stream,
            limits,
            so_far: SoFar::Nothing,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Problem>> {
        while let Some(part) = ready!(self.stream.as_mut().poll_next(context)) {
            let part = part.map_err(|error| {
                Problem::malformed(format!("the body could not be read to its end: {error}"))
            })?;
            if self.so_far.length() + part.len() > self.limits.bytes {
                return Poll::Ready(Err(Problem::too_large(self.limits.bytes)));
            }
            self.so_far.add(part);
        }
        Poll::Ready(Ok(self.so_far.take()))
    }

    /// All of it, if it is there already: then nothing has to be kept for a wait.
    pub(super) fn at_hand(&mut self) -> Option<Result<Bytes, Problem>> {
        // Whoever waits for the rest asks again, and is woken.
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(body) => Some(body),
            Poll::Pending => None,
        }
    }

    /// All of it.
    pub(super) async fn whole(mut self) -> Result<Bytes, Problem> {
        match self.at_hand() {
            Some(body) => body,
            None => self.rest().await,
        }
    }

    /// Waits for the rest.
    pub(super) async fn rest(mut self) -> Result<Bytes, Problem> {
        let timeout_ms = self.limits.timeout_ms;
        let rest = poll_fn(|context| self.poll(context));
        tokio::time::timeout(Duration::from_millis(timeout_ms), rest)
            .await
            .unwrap_or_else(|_| Err(Problem::too_slow(timeout_ms)))
    }
}
