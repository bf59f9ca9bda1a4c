//! What the writer tells the rest of the process about itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::Steady;

/// Shared between the writer and everybody who asks how it is.
#[derive(Debug)]
pub(super) struct Health {
    pace: Mutex<Pace>,
    /// Why the store failed, once it has.
    failure: watch::Sender<Option<String>>,
}

/// How far the writer has got.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When the last pulse was through.
    pub(super) last_pulse: Steady,
    /// When the first entry of the expiry index is due.
    pub(super) next_due: Option<Steady>,
    /// How long the last commit took, in milliseconds.
    pub(super) last_commit_ms: u64,
    /// The first and the last refusal that the writer does not know of.
    refused: Option<(Steady, Steady)>,
}

impl Health {
    pub(super) fn new(now: Steady) -> Self {
        Self {
            pace: Mutex::new(Pace {
                last_pulse: now,
                next_due: None,
                last_commit_ms: 0,
                refused: None,
            }),
            failure: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pace(&self) -> Pace {
        *self.lock()
    }

    pub(super) fn pulse_done(&self, at: Steady) {
        self.lock().last_pulse = at;
    }

    pub(super) fn set_next_due(&self, at: Option<Steady>) {
        self.lock().next_due = at;
    }

    pub(super) fn commit_done(&self, took_ms: u64) {
        self.lock().last_commit_ms = took_ms;
    }

    /// A beat was, or may have been, refused.
    pub(super) fn refused(&self, at: Steady) {
        let mut pace = self.lock();
        let (first, last) = pace.refused.unwrap_or((at, at));
        pace.refused = Some((first.min(at), last.max(at)));
    }

    pub(super) fn take_refused(&self) -> Option<(Steady, Steady)> {
        self.lock().refused.take()
    }

    pub(super) fn fail(&self, reason: String) {
        self.failure.send_replace(Some(reason));
    }

    pub(super) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// Waits until the store fails.
    pub(super) async fn until_failed(&self) {
        let mut failure = self.failure.subscribe();
        // The sender lives as long as `self`, so this cannot end early.
        let _ = failure.wait_for(Option::is_some).await;
    }
}
