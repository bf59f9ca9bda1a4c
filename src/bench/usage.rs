//! What a process takes, as Linux counts it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::disk;
use super::machine::{kilobytes, value_of};
use super::tally::float;

/// Counters of a process at an instant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Of all threads, in user and kernel; hundredths of a second are all that Linux tells.
    pub(super) cpu: Duration,
    pub(super) rss_bytes: u64,
    /// Handed to the disk.
    pub(super) written_bytes: u64,
}

impl Usage {
    /// `None` where the process is gone, or there is no `/proc`.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let text = |name| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let ticks_per_s = rustix::param::clock_ticks_per_second();
        Some(Self {
            cpu: cpu(&text("stat")?, ticks_per_s)?,
            rss_bytes: kilobytes(value_of(&text("status")?, "VmRSS")?)?,
            written_bytes: value_of(&text("io")?, "write_bytes")?.parse().ok()?,
        })
    }
}

/// Fields 14 and 15; the second one, the name, may hold anything. Source: proc_pid_stat(5).
fn cpu(stat: &str, ticks_per_s: u64) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    let nanos = ticks.checked_mul(1_000_000_000)?.checked_div(ticks_per_s)?;
    Some(Duration::from_nanos(nanos))
}

/// What a server of our own took.
#[derive(Debug, Clone, Serialize)]
pub struct Resources {
    /// Resident memory at the end of the measured time, in bytes.
    pub rss_bytes: u64,
    /// CPU time within the measured time, of all its threads, in seconds.
    pub cpu_s: f64,
    /// The same per good answer, in microseconds.
    pub cpu_per_answer_us: f64,
    /// Handed to the disk within the measured time, in bytes.
    pub written_bytes: u64,
    /// The same per entry (a heartbeat, a registration, …), in bytes.
    pub written_per_entry_bytes: f64,
    /// The store's directory at the end, in bytes.
    pub store_bytes: u64,
}

impl Resources {
    /// Between two instants, in which so much was done.
    pub(super) fn between(
        (from, to): (Usage, Usage),
        answers: u64,
        entries: u64,
        store: &Path,
    ) -> Self {
        let cpu_s = to.cpu.saturating_sub(from.cpu).as_secs_f64();
        let written_bytes = to.written_bytes.saturating_sub(from.written_bytes);
        Self {
            rss_bytes: to.rss_bytes,
            cpu_s,
            cpu_per_answer_us: cpu_s * 1e6 / float(answers.max(1)),
            written_bytes,
            written_per_entry_bytes: float(written_bytes) / float(entries.max(1)),
            store_bytes: disk::size_bytes(store),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 99 0 0 0 150 50 7 8 20 0 4 0";
        assert_eq!(cpu(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(cpu("12 (a) S 1", 100), None);
        assert_eq!(cpu(stat, 0), None);
    }

    #[test]
    fn this_process_can_be_looked_at() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_bytes > 0);
        assert!(Usage::of(u32::MAX).is_none());
    }
}
