//! A data directory that is not there is made, and remarked on.

use std::path::Path;

use crate::config::Config;

/// The data directory, and whether it was there before anything was done.
pub(super) struct DataDir<'a> {
    path: &'a Path,
    was_there: bool,
}

impl<'a> DataDir<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        let path = config.store.data_dir.as_path();
        Self {
            path,
            was_there: path.exists(),
        }
    }

    /// No server has ever used it: that may be meant, or a slip.
    pub(super) fn warn_if_new(&self) {
        if !self.was_there {
            log::warn!(
                "the data directory {} was not there and has been made; if the server uses another \
                 one, remove it and say which with --data-dir",
                self.path.display()
            );
        }
    }
}
