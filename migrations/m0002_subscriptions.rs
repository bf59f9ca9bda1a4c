//! Schema 2: what applications say of themselves, subscriptions, how far each has been told, and
//! what could not be delivered. Nothing that stands in the store changes: events of schema 1 are
//! still read.

use super::{Progress, Step, StepError};

pub(super) const STEP: Step = Step {
    to: 2,
    name: "subscriptions",
    run,
};

/// Frozen: the trees that schema 2 adds.
const TREES: [&str; 4] = ["app_info", "subscriptions", "cursors", "dead_letters"];

fn run(db: &sled::Db, _cursor: Option<&[u8]>) -> Result<Progress, StepError> {
    for tree in TREES {
        db.open_tree(tree)?;
    }
    Ok(Progress::Done)
}
