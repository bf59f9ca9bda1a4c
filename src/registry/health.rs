//! What the writer tells the rest of the process about itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::domain::Steady;

/// Shared between the writer and everybody who asks how it is.
#[derive(Debug)]
pub(super) struct Health {
    /// When the last pulse was through, in steady ms.
    pulse_done_ms: AtomicU64,
    /// When the expiry index wants to be looked at, in steady ms; `u64::MAX`: never.
    next_due_ms: AtomicU64,
    failure: OnceLock<String>,
    failed: watch::Sender<bool>,
}

impl Health {
    pub(super) fn new(now: Steady) -> Self {
        Self {
            pulse_done_ms: AtomicU64::new(now.as_ms()),
            next_due_ms: AtomicU64::new(u64::MAX),
            failure: OnceLock::new(),
            failed: watch::Sender::new(false),
        }
    }

    pub(super) fn pulse_done(&self, at: Steady) {
        self.pulse_done_ms.store(at.as_ms(), Ordering::Relaxed);
    }

    pub(super) fn last_pulse(&self) -> Steady {
        Steady::from_ms(self.pulse_done_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set_next_due(&self, at: Option<Steady>) {
        self.next_due_ms
            .store(at.map_or(u64::MAX, Steady::as_ms), Ordering::Relaxed);
    }

    pub(super) fn next_due(&self) -> Option<Steady> {
        match self.next_due_ms.load(Ordering::Relaxed) {
            u64::MAX => None,
            ms => Some(Steady::from_ms(ms)),
        }
    }

    pub(super) fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
        self.failed.send_replace(true);
    }

    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Waits until the store fails.
    pub(super) async fn until_failed(&self) {
        let mut failed = self.failed.subscribe();
        // The sender lives as long as `self`, so this cannot end early.
        let _ = failed.wait_for(|failed| *failed).await;
    }
}
