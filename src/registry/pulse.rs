//! The pulse: wakes for the first entry of the expiry index, and at every tick.
//!
//! Two triggers, and neither carries data: the writer reads the index itself. A pulse is stamped
//! when it is put into the queue, so that every beat received before that instant is taken first.

use std::time::Duration;

use super::Registry;
use super::command::Item;

/// Pulses that may wait at once: the writer is behind anyway, more would tell it nothing.
const WAITING_MAX: usize = 2;

/// Runs until the registry stops.
pub(super) async fn run(registry: Registry) {
    let inner = &registry.0;
    loop {
        let now = inner.clock.now().steady;
        let tick_ms = inner.tick_ms;
        let wait_ms = match inner.health.pace().next_due {
            // At least a moment, so that a busy writer is not asked again and again.
            Some(due) => due.ms_since(now).clamp(1, tick_ms),
            None => tick_ms,
        };
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        inner.queue.push_own(|waiting| {
            (waiting < WAITING_MAX).then(|| Item::Pulse {
                at: inner.clock.now().steady,
                done: None,
            })
        });
    }
}
