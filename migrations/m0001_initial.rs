//! Schema 1: the trees of the first release, all empty.

use super::{Progress, Step, StepError};

pub(super) const STEP: Step = Step {
    to: 1,
    name: "the first trees",
    run,
};

/// Frozen: the trees as schema 1 names them.
const TREES: [&str; 7] = [
    "apps",
    "services",
    "liveness",
    "expiry",
    "blind_spots",
    "events",
    "history",
];

fn run(db: &sled::Db, _cursor: Option<&[u8]>) -> Result<Progress, StepError> {
    for tree in TREES {
        db.open_tree(tree)?;
    }
    Ok(Progress::Done)
}
