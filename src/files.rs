//! Small files that are read again when they change, and replaced as a whole.

mod watched;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub use self::watched::Watched;

/// What a file looked like: equal as long as nobody has written to it or put another one in its
/// place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    modified_s: i64,
    modified_ns: i64,
    bytes: u64,
    inode: u64,
}

impl Version {
    /// Of the file at this path now; `None` if there is none, or it cannot be looked at.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            modified_s: found.mtime(),
            modified_ns: found.mtime_nsec(),
            bytes: found.size(),
            inode: found.ino(),
        })
    }
}

/// Replaces a file as a whole; it is on the disk when this returns. Only its owner may read it.
///
/// # Errors
/// A failed file operation; the old content is then still there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, |_| Ok(()))
}

/// The same of a file that is made ready in some other way too before it takes its place.
///
/// # Errors
/// A failed file operation, or what `prepare` says; the old content is then still there.
pub fn replace_with(
    path: &Path,
    content: &[u8],
    prepare: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = sibling(path, ".new");
    // A new one, and never what somebody else has put there, or a link to elsewhere.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = private().create_new(true).open(&temporary)?;
    prepare(&file)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// The path with something behind its name.
#[must_use]
pub fn sibling(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// For writing what nobody else has any business with.
#[must_use]
pub fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    options
}

/// A new name, too, must outlive a power cut.
fn sync_parent(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_seen_to_have_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert_eq!(Version::of(&path), None);
        replace(&path, b"one").unwrap();
        let first = Version::of(&path);
        assert_eq!(first, Version::of(&path));
        replace(&path, b"two").unwrap();
        assert_ne!(first, Version::of(&path));
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
