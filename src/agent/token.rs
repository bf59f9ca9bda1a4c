//! Where the bearer token comes from: a file, or a server that hands out tokens for a while.
//!
//! `file` reads it again when it changes. `fetched` keeps one of a token endpoint, and a fresh one
//! ready before that ends; `grant` is what is asked and what is answered, `schedule` when (pure).

mod fetched;
mod file;
mod grant;
mod schedule;

use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use self::fetched::Fetched;
use self::file::TokenFile;
use self::grant::Grant;
use super::config::Server;
use super::line::{Line, Lost};
use super::status::TokenMeters;
use crate::clock::Clock;

/// One of the two.
#[derive(Debug)]
pub(super) enum Source {
    /// Somebody else puts it there.
    File(TokenFile),
    /// We fetch it.
    Fetched(Fetched),
}

/// A token, for applications that ask their agent.
pub(super) struct HandedOut {
    pub(super) header: HeaderValue,
    /// Seconds; `None`: nobody knows.
    pub(super) ends_in_s: Option<u64>,
}

impl Source {
    /// As configured; `None`: requests carry no token.
    ///
    /// # Errors
    /// The URL that cannot be called.
    pub(super) fn of(
        server: &Server,
        app: &str,
        line: &Line,
        meters: &TokenMeters,
        clock: &Clock,
    ) -> Result<Option<Self>, String> {
        if let Some(file) = TokenFile::new(&server.token_file) {
            return Ok(Some(Self::File(file)));
        }
        let grant = Grant::of(server, app)?;
        Ok(grant.map(|grant| {
            let meters = meters.clone();
            Self::Fetched(Fetched::new(
                grant,
                line.clone(),
                server.timeout_ms,
                meters,
                clock.clone(),
            ))
        }))
    }

    /// Fetches the first one before anybody asks.
    pub(super) fn prepare(&self) {
        if let Self::Fetched(fetched) = self {
            fetched.prepare();
        }
    }

    /// Whoever beats has promised to try again within so many milliseconds.
    pub(super) fn promise(&self, patience_ms: u64) {
        if let Self::Fetched(fetched) = self {
            fetched.promise(Duration::from_millis(patience_ms));
        }
    }

    /// What was refused may have been put right.
    pub(super) fn relent(&self) {
        if let Self::Fetched(fetched) = self {
            fetched.relent();
        }
    }

    /// When the next one is fetched, while there is an [`Self::error`].
    pub(super) fn next_try_in_ms(&self) -> Option<u64> {
        match self {
            Self::File(_) => None,
            Self::Fetched(fetched) => fetched.next_try_in_ms(),
        }
    }

    /// `Authorization` as it is now. While there is none that holds, this waits for one.
    ///
    /// # Errors
    /// [`Lost`]: none can be had in time.
    pub(super) async fn header(&self, deadline: Instant) -> Result<Option<HeaderValue>, Lost> {
        match self {
            Self::File(file) => Ok(file.header()),
            Self::Fetched(fetched) => fetched.header(deadline).await.map(Some),
        }
    }

    /// The server does not take this one: another one, if there is or soon will be one.
    pub(super) async fn refused(
        &self,
        header: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Option<HeaderValue> {
        match self {
            Self::File(file) if file.refused(header) => file.header(),
            Self::File(_) => None,
            Self::Fetched(fetched) => fetched.refused(header, deadline).await,
        }
    }

    /// The token as it is now, without waiting for one.
    pub(super) fn hand_out(&self) -> Option<HandedOut> {
        match self {
            Self::File(file) => file.header().map(|header| HandedOut {
                header,
                ends_in_s: None,
            }),
            Self::Fetched(fetched) => fetched.hand_out(),
        }
    }

    /// How long the token holds, in seconds; `None`: there is none, or nobody knows.
    pub(super) fn ends_in_s(&self) -> Option<u64> {
        match self {
            Self::File(_) => None,
            Self::Fetched(fetched) => fetched.ends_in_s(),
        }
    }

    /// Why there is no fresh one.
    pub(super) fn error(&self) -> Option<String> {
        match self {
            Self::File(file) => file.error(),
            Self::Fetched(fetched) => fetched.error(),
        }
    }
}
