//! `<data_dir>/auth`: where the keys and credentials are, and who may write there.
//!
//! ```text
//! auth/                  0700
//!   lock                 held by whoever changes something, for as long as that takes
//!   signing-key.pem      what our own tokens are signed with
//!   clients.json         applications and the hashes of their secrets
//!   access-keys.json     access keys and their encrypted secret keys
//!   access-keys.key      what those are encrypted with, unless it is kept elsewhere
//! ```
//!
//! Every file is replaced as a whole, so readers need no lock. What root makes belongs to whom the
//! directory belongs: the server may run as somebody else, and must be able to read it.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use zeroize::Zeroizing;

use super::AuthError;
use crate::files;

/// Files of keys and credentials are not longer, in bytes: some ten thousand applications.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The directory of a data directory that holds keys and credentials.
#[must_use]
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("auth")
}

/// The right to change what is in the directory. Held by one process, and there by one thread.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory if it is not there, and waits for its lock.
    pub(super) fn take(directory: &Path) -> Result<Self, AuthError> {
        make_directory(directory).map_err(AuthError::io("creating", directory))?;
        make_private(directory)?;
        let path = directory.join("lock");
        let file = open_lock(&path).map_err(AuthError::io("opening", &path))?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(AuthError::io("locking", &path)(errno.into())),
            }
        }
    }
}

/// Makes a directory, and those that lead to it.
fn make_directory(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => {}
        Err(_) if directory.is_dir() => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = directory.parent().ok_or(error)?;
            make_directory(parent)?;
            // Somebody else may have been first.
            match DirBuilder::new().mode(0o700).create(directory) {
                Err(_) if directory.is_dir() => return Ok(()),
                made => made?,
            }
        }
        Err(error) => return Err(error),
    }
    // No link that somebody has put in its place by now.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::open(directory, flags, Mode::empty())?;
    give_away(&File::from(made), directory)
}

fn open_lock(path: &Path) -> io::Result<File> {
    match files::private().create_new(true).open(path) {
        Ok(file) => {
            give_away(&file, path)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            files::private().truncate(false).open(path)
        }
        Err(error) => Err(error),
    }
}

/// Gives what root has just made to the owner of the directory that it is in. Only what is new: a
/// file that was there may be a link to somebody else's.
fn give_away(made: &File, path: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let owner = fs::metadata(parent.unwrap_or(Path::new(".")))?;
    std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid()))
}

/// Nobody else may even see which applications there are.
fn make_private(directory: &Path) -> Result<(), AuthError> {
    let mode = fs::metadata(directory)
        .map_err(AuthError::io("reading", directory))?
        .permissions()
        .mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    log::warn!("{} was open to others; making it 0700", directory.display());
    fs::set_permissions(directory, Permissions::from_mode(0o700))
        .map_err(AuthError::io("making private", directory))
}

/// What is in a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AuthError> {
    match File::open(path) {
        Ok(file) => read_open(file, path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AuthError::io("reading", path)(error)),
    }
}

/// The same of a file with a secret in it, which nobody else may be able to read or write.
pub(super) fn read_secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, AuthError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AuthError::io("reading", path)(error)),
    };
    // Of the open file: the name may lead to another one by now.
    let metadata = file.metadata().map_err(AuthError::io("reading", path))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o066 != 0 {
        return Err(AuthError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    read_open(file, path).map(Some)
}

fn read_open(file: File, path: &Path) -> Result<Zeroizing<Vec<u8>>, AuthError> {
    let failed = AuthError::io("reading", path);
    let length = match file.metadata() {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Err(failed(io::Error::other("it is no ordinary file"))),
        Err(error) => return Err(failed(error)),
    };
    // At once in its full length: a vector that grows leaves copies behind.
    let room = usize::try_from(length.min(FILE_BYTES_MAX)).unwrap_or(0);
    let mut content = Zeroizing::new(Vec::with_capacity(room.saturating_add(1)));
    match file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content) {
        Ok(_) if content.len() as u64 > FILE_BYTES_MAX => Err(AuthError::malformed(
            path,
            "file of ours",
            format!("it is longer than {FILE_BYTES_MAX} bytes"),
        )),
        Ok(_) => Ok(content),
        Err(error) => Err(failed(error)),
    }
}

/// Replaces a file as a whole; only its owner may read it. What is too long to be read again is not
/// written.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), AuthError> {
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(AuthError::Full {
            path: path.to_owned(),
            max: FILE_BYTES_MAX,
        });
    }
    files::replace_with(path, content, |file| give_away(file, path))
        .map_err(AuthError::io("writing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_made_private_and_one_at_a_time_changes_it() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = directory(&temporary.path().join("data"));
        let lock = Lock::take(&directory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        assert_eq!(mode(directory.parent().unwrap()), 0o700);
        assert_eq!(mode(&directory.join("lock")), 0o600);
        let waiting = std::thread::spawn({
            let directory = directory.clone();
            move || {
                let _lock = Lock::take(&directory).unwrap();
                fs::metadata(directory.join("done")).is_ok()
            }
        });
        fs::write(directory.join("done"), "").unwrap();
        drop(lock);
        assert!(waiting.join().unwrap());
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let _lock = Lock::take(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
    }

    #[test]
    fn secrets_that_others_can_get_at_are_refused_by_name() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("secret");
        assert!(read_secret(&path).unwrap().is_none());
        write(&path, b"s").unwrap();
        assert_eq!(**read_secret(&path).unwrap().unwrap(), *b"s");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = read_secret(&path).unwrap_err().to_string();
            assert!(
                refused.contains("secret") && refused.contains("chmod 600"),
                "{refused}"
            );
            assert!(read(&path).unwrap().is_some());
        }
        assert!(read(temporary.path()).is_err());
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        if !rustix::process::geteuid().is_root() {
            // Nobody else may give files away.
            return;
        }
        let temporary = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(temporary.path(), Some(12_345), Some(12_346)).unwrap();
        let directory = directory(&temporary.path().join("data"));
        let _lock = Lock::take(&directory).unwrap();
        let path = directory.join("file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        let parent = directory.parent().unwrap();
        for made in [parent, &directory, &directory.join("lock"), &path] {
            let owner = fs::metadata(made).unwrap();
            let owner = (owner.uid(), owner.gid());
            assert_eq!(owner, (12_345, 12_346), "{}", made.display());
        }
        // A link that was put there first leads nowhere.
        let victim = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(victim.path(), directory.join("file.new")).unwrap();
        write(&path, b"three").unwrap();
        let victim = fs::metadata(victim.path()).unwrap();
        assert_eq!((victim.uid(), victim.len()), (0, 0));
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("file");
        let longest = vec![b'x'; usize::try_from(FILE_BYTES_MAX).unwrap()];
        write(&path, &longest).unwrap();
        let refused = write(&path, &[longest.as_slice(), b"x"].concat()).unwrap_err();
        assert!(refused.to_string().contains("longer than"), "{refused}");
        assert_eq!(read(&path).unwrap().unwrap().len(), longest.len());
    }
}
