//! A token in a file: read again whenever that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::HeaderValue;

use crate::clock::Stopwatch;
use crate::files::Version;

/// The file is looked at no more often, in milliseconds.
const LOOK_MS: u64 = 1000;

/// A token in a file.
#[derive(Debug)]
pub(in crate::agent) struct TokenFile {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    header: Option<HeaderValue>,
    /// Of what was read.
    version: Option<Version>,
    looked: Option<Stopwatch>,
    /// Why it could not be read last.
    error: Option<String>,
}

impl TokenFile {
    /// A token that is read when it is first needed; `None` for an empty path.
    pub(super) fn new(path: &Path) -> Option<Self> {
        (!path.as_os_str().is_empty()).then(|| Self {
            path: path.to_owned(),
            known: Mutex::new(Known {
                header: None,
                version: None,
                looked: None,
                error: None,
            }),
        })
    }

    /// `Authorization` as the file has it now, give or take a second.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut known = self.known();
        let fresh = known.looked.is_some_and(|at| at.elapsed_ms() < LOOK_MS);
        if !fresh {
            self.look(&mut known, false);
        }
        known.header.clone()
    }

    /// The server does not take the token: reads the file at once. Whether there is another one now.
    pub(super) fn refused(&self, header: Option<&HeaderValue>) -> bool {
        let mut known = self.known();
        self.look(&mut known, true);
        known.header.as_ref() != header
    }

    /// Why it could not be read last.
    pub(super) fn error(&self) -> Option<String> {
        self.known().error.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, known: &mut Known, anyway: bool) {
        known.looked = Some(Stopwatch::start());
        let version = Version::of(&self.path);
        if version == known.version && version.is_some() && !anyway {
            return;
        }
        match self.read() {
            Ok(header) => {
                known.header = Some(header);
                known.version = version;
                known.error = None;
            }
            // It is being replaced, perhaps; the old one may still be good.
            Err(reason) => {
                let reason = format!("server.token_file {}: {reason}", self.path.display());
                log::warn!("{reason}");
                known.error = Some(reason);
            }
        }
    }

    fn read(&self) -> Result<HeaderValue, String> {
        let text = fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
        let token = text.trim();
        if token.is_empty() {
            return Err("it is empty".to_owned());
        }
        let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| "it holds what cannot stand in a header".to_owned())?;
        header.set_sensitive(true);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_token_is_read_again_and_a_broken_file_keeps_the_old_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "first\n").unwrap();
        let token = TokenFile::new(file.path()).unwrap();
        let first = token.header();
        assert_eq!(first.as_ref().unwrap(), "Bearer first");
        assert!(!token.refused(first.as_ref()));
        fs::write(file.path(), " second ").unwrap();
        assert!(token.refused(first.as_ref()));
        assert_eq!(token.header().unwrap(), "Bearer second");
        fs::write(file.path(), "a\nb").unwrap();
        assert!(!token.refused(token.header().as_ref()));
        assert_eq!(token.header().unwrap(), "Bearer second");
        assert!(TokenFile::new(Path::new("")).is_none());
    }
}
