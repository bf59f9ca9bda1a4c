//! The steps from one schema of the store to the next, oldest first. See README.md beside this file.

/// One step of the schema. It must be idempotent: after a crash it is run again from its last
/// cursor, on data that it may already have changed.
#[derive(Clone, Copy)]
pub struct Step {
    /// The schema after the step. Steps are numbered 1, 2, 3, … without a gap.
    pub to: u32,
    /// What it does, for the log.
    pub name: &'static str,
    /// Does one bounded part of the work, starting after `cursor` (`None`: at the beginning).
    pub run: fn(db: &sled::Db, cursor: Option<&[u8]>) -> Result<Progress, StepError>,
}

/// How far a step has got.
pub enum Progress {
    /// There is more: call again with this cursor.
    More {
        /// Where to go on. Kept in the store, so that a crash costs one part at most.
        cursor: Vec<u8>,
    },
    /// The step is complete.
    Done,
}

/// Why a step could not go on.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] sled::Error),
    /// A record is not what the previous schema promises.
    #[error("{0}")]
    Record(String),
}

mod m0001_initial;
mod m0002_subscriptions;
mod m0003_journal;

/// All released steps.
pub const STEPS: &[Step] = &[
    m0001_initial::STEP,
    m0002_subscriptions::STEP,
    m0003_journal::STEP,
    // next goes here
];
