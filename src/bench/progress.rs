//! One line on a terminal that says how far it is; nothing anywhere else.

use std::cell::Cell;
use std::io::{IsTerminal, Write};

use crate::clock::Stopwatch;

/// The line is written no more often, in milliseconds.
const PERIOD_MS: u64 = 1000;
/// What was longer before is wiped.
const WIDTH: usize = 70;

/// The line, on standard error.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    written: Cell<Stopwatch>,
    shown: Cell<bool>,
}

impl Progress {
    /// Shows something only if standard error is a terminal.
    #[must_use]
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            written: Cell::new(Stopwatch::start()),
            shown: Cell::new(false),
        }
    }

    /// Says what is being done, once a second at the most.
    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if !self.terminal || self.written.get().elapsed_ms() < PERIOD_MS {
            return;
        }
        self.written.set(Stopwatch::start());
        self.shown.set(true);
        let mut stderr = std::io::stderr().lock();
        // Nobody may be looking.
        let _ = write!(stderr, "\r{:WIDTH$}", text()).and_then(|()| stderr.flush());
    }

    /// So many of so many.
    pub(super) fn count(&self, doing: &str, done: u64, of: u64) {
        self.say(|| format!("{doing}: {done} of {of}"));
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.get() {
            let _ = write!(std::io::stderr(), "\r{:WIDTH$}\r", "");
        }
    }
}
