//! A disk whose power can be cut: a FUSE file system with one file, the image of a block device.
//!
//! Written blocks stay in a volatile cache until the image is synced; only then they are on the
//! platter. A loop device upon the image passes a flush of the block layer on as such a sync, so
//! an ext4 on it keeps, over a cut, what a real disk with a write cache keeps.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL, WriteFlags,
};

use super::random::Random;

/// What a file system writes as a whole, and what a cut keeps or loses as a whole.
const BLOCK: usize = 4096;
const IMAGE: INodeNo = INodeNo(2);
/// The image's name in its file system.
pub(crate) const IMAGE_NAME: &str = "disk";
const ATTR_TTL: Duration = Duration::from_secs(3600);

type Blocks = BTreeMap<u64, Vec<u8>>;

/// What of the cache is on the platter after a cut.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survivors {
    /// Nothing: only what was synced.
    Synced,
    /// About every second block, each as last written.
    HalfOfTheRest,
}

/// The disk; a clone is another handle on the same one.
#[derive(Clone)]
pub(crate) struct Disk {
    state: Arc<(Mutex<State>, Condvar)>,
    bytes: u64,
}

#[derive(Default)]
struct State {
    platter: Blocks,
    cache: Blocks,
    /// Everything is refused from now on.
    cut: bool,
    /// Writes until the cut.
    cut_after: Option<usize>,
    /// Syncs fail from now on.
    syncs_fail: bool,
    /// Each sync takes so much longer.
    sync_delay: Duration,
    syncs: u64,
    refused: u64,
}

impl Disk {
    /// An empty one; blocks never written take no memory.
    pub(crate) fn new(mib: u64) -> Self {
        Self {
            state: Arc::default(),
            bytes: mib << 20,
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        let result = f(&mut self.state.0.lock().unwrap());
        self.state.1.notify_all();
        result
    }

    /// Cuts the power right before the n-th write from now.
    pub(crate) fn cut_after(&self, writes: usize) {
        self.with(|state| state.cut_after = Some(writes));
    }

    /// Cuts the power now.
    pub(crate) fn cut(&self) {
        self.with(|state| state.cut = true);
    }

    /// Syncs fail from now on, and leave what was written in the cache.
    pub(crate) fn fail_syncs(&self) {
        self.with(|state| state.syncs_fail = true);
    }

    /// Each sync takes so much longer from now on.
    pub(crate) fn delay_syncs(&self, delay: Duration) {
        self.with(|state| state.sync_delay = delay);
    }

    /// How often the image was synced.
    pub(crate) fn syncs(&self) -> u64 {
        self.with(|state| state.syncs)
    }

    /// Waits until the power is cut, or a write or sync was refused for another reason.
    pub(crate) fn wait_for_trouble(&self) {
        let (state, changed) = &*self.state;
        let quiet = |state: &mut State| !state.cut && state.refused == 0;
        let (_state, waited) = changed
            .wait_timeout_while(state.lock().unwrap(), Duration::from_secs(60), quiet)
            .unwrap();
        assert!(!waited.timed_out(), "the disk was not used for a minute");
    }

    /// The disk as it comes back when the power does.
    pub(crate) fn after_the_cut(&self, survivors: Survivors, random: &mut Random) -> Self {
        let platter = self.with(|state| {
            assert!(state.cut, "the power is still there");
            let mut platter = std::mem::take(&mut state.platter);
            if matches!(survivors, Survivors::HalfOfTheRest) {
                let cache = std::mem::take(&mut state.cache).into_iter();
                platter.extend(cache.filter(|_| random.once_in(2)));
            }
            platter
        });
        let new = Self {
            bytes: self.bytes,
            state: Arc::default(),
        };
        new.with(|state| state.platter = platter);
        new
    }

    /// Mounts the file system with the image.
    pub(crate) fn serve(&self, mount_point: &Path) -> std::io::Result<BackgroundSession> {
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("mepulse-test".to_owned())];
        // The loop device's worker is another user in the eyes of FUSE.
        config.acl = SessionACL::All;
        fuser::spawn_mount(self.clone(), mount_point, &config)
    }

    fn attr(&self, ino: INodeNo) -> FileAttr {
        let is_image = ino == IMAGE;
        FileAttr {
            ino,
            size: if is_image { self.bytes } else { 0 },
            blocks: if is_image { self.bytes / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_image {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: if is_image { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl State {
    fn block(&self, number: u64) -> Option<&Vec<u8>> {
        self.cache
            .get(&number)
            .or_else(|| self.platter.get(&number))
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        for (number, at, part) in parts(offset, bytes.len()) {
            if let Some(block) = self.block(number) {
                let length = part.len();
                bytes[part].copy_from_slice(&block[at..at + length]);
            }
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), Errno> {
        if let Some(left) = &mut self.cut_after {
            self.cut |= *left == 0;
            *left = left.saturating_sub(1);
        }
        if self.cut {
            return self.refuse();
        }
        for (number, at, part) in parts(offset, data.len()) {
            let mut block = match self.block(number) {
                Some(block) => block.clone(),
                None => vec![0; BLOCK],
            };
            block[at..at + part.len()].copy_from_slice(&data[part]);
            self.cache.insert(number, block);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Errno> {
        if self.cut || self.syncs_fail {
            return self.refuse();
        }
        self.syncs += 1;
        self.platter.append(&mut self.cache);
        Ok(())
    }

    fn refuse(&mut self) -> Result<(), Errno> {
        self.refused += 1;
        Err(Errno::EIO)
    }
}

/// The blocks of a stretch: number, where it begins in the block, which part of the stretch it is.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let block = u64::try_from(BLOCK).unwrap();
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + u64::try_from(done).unwrap();
        let within = usize::try_from(at % block).unwrap();
        let part = done..length.min(done + BLOCK - within);
        done = part.end;
        (!part.is_empty()).then_some((at / block, within, part))
    })
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == IMAGE_NAME {
            reply.entry(&ATTR_TTL, &self.attr(IMAGE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&ATTR_TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // No cache of the kernel's between the loop device and us.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = u64::from(size).min(self.bytes.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        self.with(|state| state.read(offset, &mut bytes));
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(|state| state.write(offset, data)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Closing a file is no sync.
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        // The delay is the subject of a test, not a wait for something.
        std::thread::sleep(self.with(|state| state.sync_delay));
        match self.with(State::sync) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }
}
