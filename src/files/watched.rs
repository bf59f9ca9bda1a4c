//! What is read from files, and read again when they change.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Version;

/// The content of some files. What cannot be read any more stays as it was read last.
#[derive(Debug)]
pub struct Watched<T> {
    files: Vec<PathBuf>,
    content: RwLock<Arc<T>>,
    /// Locked while the files are read.
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// What the files looked like before the content was read.
    versions: Vec<Option<Version>>,
    /// What was wrong with them when they were read last, so that it is said once.
    complaint: Option<String>,
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn open<E>(files: Vec<PathBuf>, read: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let versions = versions(&files);
        let content = RwLock::new(Arc::new(read()?));
        Ok(Self {
            files,
            content,
            seen: Mutex::new(Seen {
                versions,
                complaint: None,
            }),
        })
    }

    /// What was read last.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        let content = self.content.read().unwrap_or_else(PoisonError::into_inner);
        content.clone()
    }

    /// What was wrong with the files when they were read last, if that has not ended.
    #[must_use]
    pub fn standing(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.complaint.clone()
    }

    /// Reads the files if they have changed since, or could not be read then; whether there is other
    /// content now.
    ///
    /// # Errors
    /// Those of `read`, unless it was the same the last time. The content stays what it was.
    pub fn refresh<E: Display>(&self, read: impl FnOnce() -> Result<T, E>) -> Result<bool, E> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = versions(&self.files);
        if versions == seen.versions && seen.complaint.is_none() {
            return Ok(false);
        }
        match read() {
            Ok(content) => {
                *seen = Seen {
                    versions,
                    complaint: None,
                };
                *self.content.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(content);
                Ok(true)
            }
            Err(error) => {
                let complaint = Some(error.to_string());
                if seen.complaint == complaint {
                    return Ok(false);
                }
                seen.complaint = complaint;
                Err(error)
            }
        }
    }
}

fn versions(files: &[PathBuf]) -> Vec<Option<Version>> {
    files.iter().map(|file| Version::of(file)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_broken_file_keeps_the_old_content_and_is_complained_of_once() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("file");
        let read = || fs::read_to_string(&path).map_err(|error| format!("file: {error}"));
        assert!(Watched::open(vec![path.clone()], read).is_err());
        fs::write(&path, "one").unwrap();
        let watched = Watched::open(vec![path.clone()], read).unwrap();
        let unread = || -> Result<String, String> { panic!("it has not changed") };
        assert!(!watched.refresh(unread).unwrap());
        fs::write(&path, "three").unwrap();
        assert!(watched.refresh(read).unwrap());
        assert_eq!(*watched.get(), "three");

        fs::remove_file(&path).unwrap();
        assert!(watched.refresh(read).is_err());
        assert!(!watched.refresh(read).unwrap());
        assert_eq!(*watched.get(), "three");
        // It stands for as long as the file is not read.
        assert!(watched.standing().is_some_and(|said| said.contains("file")));
        // Another fault is another complaint.
        fs::create_dir(&path).unwrap();
        assert!(watched.refresh(read).is_err());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "four").unwrap();
        assert!(watched.refresh(read).unwrap());
        assert_eq!(*watched.get(), "four");
        assert_eq!(watched.standing(), None);
        assert!(!watched.refresh(unread).unwrap());
    }
}
