//! The engine's own threads.
//!
//! sled hands each write of its log to a pool of seven threads, and wakes all of them for it. Spread
//! over the processors, the six that find nothing to do cost a third of a loaded server's time;
//! together on one they cost little.

use std::fs;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// How the engine names the threads of that pool.
const NAME: &str = "sled-io-";

/// Keeps the threads of the pool on one of the processors that this process may use. Only the speed
/// depends on it, so what cannot be done is left.
pub(super) fn keep_together() {
    let Some(one) = last_processor() else { return };
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return;
    };
    let mut kept = 0;
    for thread in threads.flatten() {
        let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
        if let Some(id) = id
            .and_then(Pid::from_raw)
            .filter(|_| name.starts_with(NAME))
            && sched_setaffinity(Some(id), &one).is_ok()
        {
            kept += 1;
        }
    }
    log::debug!("{kept} threads of the engine share one processor");
}

/// The last of the processors that we may use; `None` if there is no choice. The first ones are where
/// devices interrupt.
fn last_processor() -> Option<CpuSet> {
    let allowed = sched_getaffinity(None).ok()?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|at| allowed.is_set(*at));
    let (first, last) = (processors.next()?, processors.next_back()?);
    debug_assert!(first < last);
    let mut one = CpuSet::new();
    one.set(last);
    Some(one)
}
