//! The engine takes over what the journal holds, beside the writer: heartbeats go on meanwhile, into
//! the journal's other half.
//!
//! Where so many services beat so fast that their rows are not written over in the journal, each is
//! written twice for nothing. So a takeover that has not paid is followed by a while without journal.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::commit::Writes;
use super::waiting::{ROWS_DIRECT, Waiting};
use super::{Engine, SledStore};
use crate::store::Error;
use crate::store::records::Census;
use crate::store::witness::Testimony;

/// One under way. While there is one, nobody else writes to the engine.
pub(super) struct Takeover(JoinHandle<Result<Census, Error>>);

/// What a takeover needs.
#[derive(Clone)]
struct Task {
    engine: Arc<Engine>,
    testimony: Arc<Testimony>,
    waiting: Arc<Waiting>,
    /// Of the newest commit among the rows.
    census: Census,
}

impl Task {
    /// Everything is on the disk afterwards.
    fn run(mut self) -> Result<Census, Error> {
        let writes = Writes::of_waiting(&self.waiting, &mut self.census);
        let written = self.engine.write(writes.touched(&self.engine.trees));
        let synced = written.and_then(|()| self.engine.sync());
        // The writer notices with its next commit, and may be killed before.
        synced.inspect_err(|_| self.testimony.doubt())?;
        Ok(self.census)
    }
}

impl Takeover {
    /// An error: there is no thread.
    fn begin(task: Task) -> std::io::Result<Self> {
        let thread = thread::Builder::new().name("takeover".to_owned());
        thread.spawn(move || task.run()).map(Self)
    }

    fn has_ended(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits for its end; everything is on the disk then.
    fn end(self) -> Result<Census, Error> {
        self.0.join().unwrap_or(Err(Error::Panicked))
    }
}

impl SledStore {
    /// Lets the engine take over what waits, once it is worth it, and sees to it that a failure is
    /// noticed. What comes faster than the engine takes it has to wait.
    pub(super) fn take_over_if_due(&mut self) -> Result<(), Error> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let is_ripe = self.waiting.is_ripe() || journal.is_ripe();
        let must_not_grow = self.waiting.is_full() || journal.is_full();
        if must_not_grow || self.takeover.as_ref().is_some_and(Takeover::has_ended) {
            self.finish_takeover()?;
        }
        if !is_ripe || self.takeover.is_some() {
            return Ok(());
        }
        if !self.waiting.has_paid() {
            self.direct_rows = ROWS_DIRECT;
        }
        let task = Task {
            engine: self.engine.clone(),
            testimony: self.testimony.clone(),
            waiting: Arc::new(std::mem::take(&mut self.waiting)),
            census: self.census,
        };
        if let Some(journal) = &mut self.journal {
            journal.turn();
        }
        match Takeover::begin(task.clone()) {
            Ok(takeover) => self.takeover = Some(takeover),
            Err(error) => {
                log::warn!("no thread for the store ({error}): heartbeats have to wait for it");
                self.census.fingerprint = task.run()?.fingerprint;
            }
        }
        Ok(())
    }

    /// Waits for the one that is under way, if any.
    pub(super) fn finish_takeover(&mut self) -> Result<(), Error> {
        if let Some(takeover) = self.takeover.take() {
            self.census.fingerprint = takeover.end()?.fingerprint;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
