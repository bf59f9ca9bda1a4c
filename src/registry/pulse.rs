//! The pulse: wakes for the first entry of the expiry index, and at every tick.
//!
//! Two triggers, and neither carries data: the writer reads the index itself. A pulse is stamped
//! when it is put into the queue, so that every beat received before that instant is taken first;
//! and every tick has its pulse, however far the writer is behind, because the gaps between the
//! stamps are how it learns that this task did not run.

use std::time::Duration;

use super::Registry;

/// Runs until the registry stops.
pub(super) async fn run(registry: Registry) {
    let inner = &registry.0;
    let tick = Duration::from_millis(inner.tick_ms);
    loop {
        let next_due = async {
            // Before, what is due next is not known; and a writer that is behind is not asked more
            // often.
            inner.health.pulse_through().await;
            match inner.health.pace().next_due {
                Some(due) => {
                    let wait_ms = due.ms_since(inner.clock.now().steady).max(1);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                }
                None => std::future::pending().await,
            }
        };
        // Whichever comes first.
        let _ = tokio::time::timeout(tick, next_due).await;
        inner.queue.push_own(|| inner.pulse_now(None));
    }
}
