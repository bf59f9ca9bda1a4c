//! The pulse: wakes for the first entry of the expiry index, and at every tick.
//!
//! Two triggers, and neither carries data: the writer reads the index itself. A pulse is stamped
//! when it is put into the queue, so that every beat received before that instant is taken first;
//! and every tick has its pulse, however far the writer is behind, because the gaps between the
//! stamps are how it learns that this task did not run.

use std::time::Duration;

use tokio::sync::oneshot;

use super::Registry;

/// Runs until the registry stops.
pub(super) async fn run(registry: Registry) {
    let inner = &registry.0;
    let tick = Duration::from_millis(inner.tick_ms);
    loop {
        let (done, through) = oneshot::channel();
        if !inner.queue.push_own(|| inner.pulse_now(Some(done))) {
            return;
        }
        let until_due = async {
            if in_ms(&registry).is_none_or(|ms| ms == 0) {
                // What is due after that is known when the writer is through; and one that is
                // behind is not asked more often. One that gives up is at the end of it, too.
                let _ = through.await;
            }
            match in_ms(&registry) {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms.max(1))).await,
                None => std::future::pending().await,
            }
        };
        // Whichever comes first.
        let _ = tokio::time::timeout(tick, until_due).await;
    }
}

/// How long until the next entry is due, as far as the writer has told; `None`: there is none.
fn in_ms(registry: &Registry) -> Option<u64> {
    let now = registry.now().steady;
    let due = registry.0.health.pace().next_due;
    due.map(|due| due.ms_since(now))
}
