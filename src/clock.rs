//! The only reader of machine time.
//!
//! [`Machine`] is what the operating system says; [`Clock`] carries the platform's steady time
//! forward from there. Tests put a [`ManualMachine`] in its place and move it by hand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::{BootId, Moment, Reading, Steady, Wall};

/// Where readings come from.
pub trait Machine: Send + Sync {
    /// Reads all clocks at once.
    fn read(&self) -> Reading;

    /// For how long the machine has been suspended since it was booted, in milliseconds.
    fn asleep_ms(&self) -> u64;
}

/// The real machine.
#[derive(Debug)]
pub struct SystemMachine {
    boot_id: BootId,
}

impl SystemMachine {
    /// Learns which boot this is.
    ///
    /// Where the kernel does not tell (no `/proc`), every start counts as a reboot: outages are
    /// then measured by the wall clock.
    #[must_use]
    pub fn new() -> Self {
        let told = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
        let boot_id = told.and_then(|text| uuid::Uuid::try_parse(text.trim()).ok());
        Self {
            boot_id: BootId(boot_id.unwrap_or_else(uuid::Uuid::new_v4).into_bytes()),
        }
    }
}

impl Default for SystemMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for SystemMachine {
    fn read(&self) -> Reading {
        Reading {
            boot_ms: clock_ms(rustix::time::ClockId::Boottime),
            boot_id: self.boot_id,
            wall: wall_now(),
        }
    }

    fn asleep_ms(&self) -> u64 {
        // Only the first of the two runs through a suspend.
        let running_ms = clock_ms(rustix::time::ClockId::Monotonic);
        clock_ms(rustix::time::ClockId::Boottime).saturating_sub(running_ms)
    }
}

fn clock_ms(clock: rustix::time::ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    secs * 1000 + nanos / 1_000_000
}

/// The wall clock. A clock before 1970 reads as 1970, one after 2554 as 2554.
#[must_use]
pub fn wall_now() -> Wall {
    #[expect(
        clippy::disallowed_methods,
        reason = "this file is the reader of machine time"
    )]
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Wall::from_ns(u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX))
}

/// Measures how long something took; for metrics and logs, never for a verdict.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this file is the reader of machine time"
        )]
        Self(Instant::now())
    }

    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// Whole milliseconds since the start.
    #[must_use]
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Steady and wall time, as everything above this file sees them.
#[derive(Clone)]
pub struct Clock {
    machine: Arc<dyn Machine>,
    steady_anchor: Steady,
    boot_anchor_ms: u64,
}

impl Clock {
    /// A clock whose steady time is `steady` at the instant of `reading`.
    #[must_use]
    pub fn anchored(machine: Arc<dyn Machine>, steady: Steady, reading: &Reading) -> Self {
        Self {
            machine,
            steady_anchor: steady,
            boot_anchor_ms: reading.boot_ms,
        }
    }

    /// Both times now.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.read().0
    }

    /// See [`Machine::asleep_ms`].
    #[must_use]
    pub fn asleep_ms(&self) -> u64 {
        self.machine.asleep_ms()
    }

    /// Both times now, with the reading they come from.
    #[must_use]
    pub fn read(&self) -> (Moment, Reading) {
        let reading = self.machine.read();
        let since_anchor_ms = reading.boot_ms.saturating_sub(self.boot_anchor_ms);
        let steady = self.steady_anchor.plus_ms(since_anchor_ms);
        (
            Moment {
                steady,
                wall: reading.wall,
            },
            reading,
        )
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clock")
            .field("steady_anchor", &self.steady_anchor)
            .finish_non_exhaustive()
    }
}

/// A machine whose clocks move only when told to; clones share them.
#[derive(Debug, Clone)]
pub struct ManualMachine(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    reading: Reading,
    asleep_ms: u64,
}

impl ManualMachine {
    /// A machine up for an hour in boot 1, at a round date of 2026.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Hands {
            reading: Reading {
                boot_ms: 3_600_000,
                boot_id: BootId([1; 16]),
                wall: Wall::from_ns(1_780_000_000_000_000_000),
            },
            asleep_ms: 0,
        })))
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Reading)) {
        change(&mut self.hands().reading);
    }

    /// Suspends the machine.
    pub fn sleep_ms(&self, ms: u64) {
        self.advance_ms(ms);
        self.hands().asleep_ms += ms;
    }

    /// Lets time pass on all clocks.
    pub fn advance_ms(&self, ms: u64) {
        self.change(|reading| {
            reading.boot_ms += ms;
            reading.wall = Wall::from_ns(reading.wall.as_ns() + ms * 1_000_000);
        });
    }

    /// Steps the wall clock alone, forward or back.
    pub fn step_wall_ms(&self, ms: i64) {
        self.change(|reading| {
            reading.wall =
                Wall::from_ns(reading.wall.as_ns().saturating_add_signed(ms * 1_000_000));
        });
    }

    /// Reboots: a new boot id, `CLOCK_BOOTTIME` starts anew; the wall clock goes on.
    pub fn reboot(&self) {
        self.change(|reading| {
            reading.boot_ms = 1_000;
            reading.boot_id.0[0] = reading.boot_id.0[0].wrapping_add(1);
        });
        self.hands().asleep_ms = 0;
    }
}

impl Default for ManualMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine for ManualMachine {
    fn read(&self) -> Reading {
        self.hands().reading
    }

    fn asleep_ms(&self) -> u64 {
        self.hands().asleep_ms
    }
}
