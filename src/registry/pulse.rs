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
    let mut is_behind = false;
    loop {
        let now = inner.clock.now().steady;
        let tick_ms = inner.tick_ms;
        let wait_ms = match inner.health.pace().next_due {
            // At least a moment, and a writer that is behind is not asked more often.
            Some(due) if !is_behind => due.ms_since(now).clamp(1, tick_ms),
            _ => tick_ms,
        };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        inner.queue.push_own(|waiting| {
            is_behind = waiting > 0;
            Some(inner.pulse_now(None))
        });
    }
}
