//! Units of time, and the stretches of it that we did not watch.

use std::num::NonZeroU32;

/// Steady time: the platform's own timeline in milliseconds.
///
/// It starts as the wall clock at the store's first start, is carried forward by `CLOCK_BOOTTIME`
/// and is never stepped. Every deadline is in steady time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Steady(u64);

impl Steady {
    /// From milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Later by `ms` milliseconds (saturating: such a deadline is never reached).
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 when `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Steady) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in nanoseconds since the Unix epoch: for the API's `timeStamp` and for people,
/// never for a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(u64);

impl Wall {
    /// From nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the Unix epoch.
    #[must_use]
    pub const fn as_ns(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Whole seconds since the Unix epoch, and the nanoseconds within the second.
    #[must_use]
    pub const fn split(self) -> (u64, u32) {
        // The remainder is below 1e9 and so fits.
        (self.0 / 1_000_000_000, (self.0 % 1_000_000_000) as u32)
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For deadlines.
    pub steady: Steady,
    /// For the wire and for people.
    pub wall: Wall,
}

/// The effective heartbeat interval in whole seconds, at least 1.
///
/// Source: GS MEC 011 V2.2.1, 8.1.2.2 (`livenessInterval`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LivenessInterval(NonZeroU32);

impl LivenessInterval {
    /// From seconds; `None` for 0.
    #[must_use]
    pub fn from_secs(secs: u32) -> Option<Self> {
        NonZeroU32::new(secs).map(Self)
    }

    /// In seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0.get()
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        u64::from(self.0.get()) * 1000
    }
}

/// What a beat may promise: "while I cannot reach you I try again within so many seconds".
/// Belongs to that beat only. Whole seconds, at least 1 and at most the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RetryPromise(NonZeroU32);

impl RetryPromise {
    /// From seconds; `None` for 0.
    #[must_use]
    pub fn from_secs(secs: u32) -> Option<Self> {
        NonZeroU32::new(secs).map(Self)
    }

    /// In seconds.
    #[must_use]
    pub const fn as_secs(self) -> u32 {
        self.0.get()
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_ms(self) -> u64 {
        u64::from(self.0.get()) * 1000
    }
}

/// A stretch `[start, end)` of steady time in which heartbeats could not be received and committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlindSpot {
    /// First blind millisecond.
    pub start: Steady,
    /// First millisecond that was watched again.
    pub end: Steady,
    /// Why we were blind.
    pub cause: BlindCause,
    /// Whether the length is a measurement; otherwise only `end` can be relied on, and the rule of
    /// [`crate::domain::silence`] needs no more.
    pub length_known: bool,
}

/// Why heartbeats could not be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlindCause {
    /// The process was not running and had not said goodbye: a crash, a kill, a power cut.
    Down,
    /// The process was not running after an orderly stop.
    PlannedStop,
    /// Beats were refused because too many came. For the cap of the deadline rule this time counts
    /// as watched, so that a flooder cannot keep the dead alive.
    Overload,
    /// The process did not run: stopped, or its machine paused.
    Frozen,
    /// The machine was suspended.
    Asleep,
    /// A commit took too long.
    SlowDisk,
    /// The event loop did not run, though the process did.
    Starved,
}

impl BlindCause {
    /// All causes, in the order of their stored numbers.
    pub const ALL: [Self; 7] = [
        Self::Down,
        Self::PlannedStop,
        Self::Overload,
        Self::Frozen,
        Self::Asleep,
        Self::SlowDisk,
        Self::Starved,
    ];

    /// The name in logs, metrics and the admin's output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::PlannedStop => "planned-stop",
            Self::Overload => "overload",
            Self::Frozen => "frozen",
            Self::Asleep => "asleep",
            Self::SlowDisk => "slow-disk",
            Self::Starved => "starved",
        }
    }
}
