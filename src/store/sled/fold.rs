//! What the journal holds goes into the engine beside the writer: heartbeats go on meanwhile, into the
//! journal's other half.
//!
//! Where so many services beat so fast that their rows are not written over in the journal, each is
//! written twice for nothing. So a fold that has not paid is followed by a while without journal.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::commit::Writes;
use super::pending::{Pending, ROWS_DIRECT};
use super::{Engine, SledStore};
use crate::store::Error;
use crate::store::records::Census;

/// One fold under way. While there is one, nobody else writes to the engine.
pub(super) struct Fold(JoinHandle<Result<Census, Error>>);

impl Fold {
    /// Begins it; `census` is that of the newest commit among the rows.
    fn begin(engine: Arc<Engine>, pending: Pending, mut census: Census) -> Result<Self, Error> {
        let fold = move || {
            let writes = Writes::of_pending(&pending, &mut census);
            engine.write(writes.touched(&engine.trees))?;
            engine.sync()?;
            Ok(census)
        };
        let thread = thread::Builder::new().name("fold".to_owned()).spawn(fold);
        thread.map(Self).map_err(Error::Thread)
    }

    /// Waits for its end; everything is on the disk then.
    fn end(self) -> Result<Census, Error> {
        // A panic of the engine is the writer's, too.
        self.0
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl SledStore {
    /// Folds once it is worth it, and sees to it that a failed fold is noticed. What comes faster than
    /// the engine takes it has to wait.
    pub(super) fn fold_if_due(&mut self) -> Result<(), Error> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let is_ripe = self.pending.is_ripe() || journal.is_ripe();
        let must_not_grow = self.pending.is_full() || journal.is_full();
        if must_not_grow || (self.fold.as_ref()).is_some_and(|fold| fold.0.is_finished()) {
            self.finish_fold()?;
        }
        if !is_ripe || self.fold.is_some() {
            return Ok(());
        }
        if !self.pending.has_paid() {
            self.direct_rows = ROWS_DIRECT;
        }
        let pending = std::mem::take(&mut self.pending);
        self.fold = Some(Fold::begin(self.engine.clone(), pending, self.census)?);
        if let Some(journal) = &mut self.journal {
            journal.turn();
        }
        Ok(())
    }

    /// Waits for a fold that is under way.
    pub(super) fn finish_fold(&mut self) -> Result<(), Error> {
        if let Some(fold) = self.fold.take() {
            self.census.fingerprint = fold.end()?.fingerprint;
        }
        Ok(())
    }
}
