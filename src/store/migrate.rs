//! Brings a store to the schema of this binary, in parts that survive a crash.

use std::fs::File;

use super::codec;
use super::schema::{meta, tree};
#[doc(inline)]
pub use steps::{Progress, STEPS, Step, StepError};

#[path = "../../migrations/mod.rs"]
#[allow(
    clippy::module_inception,
    reason = "the files live in the mandated folder"
)]
mod steps;

/// A step failed. Nothing is lost; the next start goes on from the last cursor.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The step itself failed.
    #[error(
        "migrating the store to schema {to} ({name}) failed: {source}. The store is as far as the step got; starting again goes on from there"
    )]
    Step {
        /// The schema it leads to.
        to: u32,
        /// The step's name.
        name: &'static str,
        /// Why.
        source: StepError,
    },
    /// The progress could not be made durable.
    #[error("migrating the store: its progress could not be written: {0}")]
    Progress(#[from] std::io::Error),
}

/// The newest schema that a list of steps leads to.
#[must_use]
pub fn newest_schema(steps: &[Step]) -> u32 {
    steps.last().map_or(0, |step| step.to)
}

/// The schema whose step has completed; 0 for a store that has none.
///
/// # Errors
/// When the engine fails, or the row is damaged.
pub fn schema_of(db: &sled::Db) -> Result<u32, StepError> {
    let meta = db.open_tree(tree::META)?;
    match meta.get(meta::SCHEMA)? {
        None => Ok(0),
        Some(bytes) => codec::decode_v1(&bytes)
            .map_err(|error| StepError::Record(format!("meta/schema: {error}"))),
    }
}

/// Runs what is missing. `log` is our own handle on the engine's log, for syncing.
///
/// # Errors
/// [`MigrationError`]; run it again after the cause is mended.
pub fn run(db: &sled::Db, log: &File, steps: &[Step]) -> Result<(), MigrationError> {
    let wrap = |step: &Step| {
        let (to, name) = (step.to, step.name);
        move |source| MigrationError::Step { to, name, source }
    };
    for step in steps {
        if step.to <= schema_of(db).map_err(wrap(step))? {
            continue;
        }
        let is_new_store = step.to == 1;
        if !is_new_store {
            log::info!("migrating the store to schema {}: {}", step.to, step.name);
        }
        let parts = run_step(db, log, step)?;
        if !is_new_store {
            log::info!("the store has schema {} now ({parts} parts)", step.to);
        }
    }
    Ok(())
}

/// Runs one step to its end and raises the schema; returns in how many parts.
fn run_step(db: &sled::Db, log: &File, step: &Step) -> Result<usize, MigrationError> {
    let wrap = |source| MigrationError::Step {
        to: step.to,
        name: step.name,
        source,
    };
    let engine = |error: sled::Error| wrap(StepError::Engine(error));
    let meta_tree = db.open_tree(tree::META).map_err(engine)?;
    let mut parts = 0;
    loop {
        let cursor = meta_tree.get(meta::MIGRATION_CURSOR).map_err(engine)?;
        let progress = (step.run)(db, cursor.as_deref()).map_err(wrap)?;
        parts += 1;
        match progress {
            Progress::More { cursor } => {
                meta_tree
                    .insert(meta::MIGRATION_CURSOR, cursor)
                    .map_err(engine)?;
            }
            Progress::Done => {
                // One batch: a cursor must never be read by the next step.
                let mut batch = sled::Batch::default();
                batch.remove(meta::MIGRATION_CURSOR);
                batch.insert(meta::SCHEMA, codec::encode(1, &step.to));
                meta_tree.apply_batch(batch).map_err(engine)?;
                db.flush().map_err(engine)?;
                log.sync_data()?;
                return Ok(parts);
            }
        }
        db.flush().map_err(engine)?;
        log.sync_data()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_steps_are_numbered_without_a_gap() {
        let numbers: Vec<_> = STEPS.iter().map(|step| step.to).collect();
        let expected: Vec<_> = (1..).take(STEPS.len()).collect();
        assert_eq!(numbers, expected);
    }
}
