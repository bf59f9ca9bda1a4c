//! The journal of heartbeats: commits that only overwrite rows, before the engine has them.
//!
//! One such commit through the engine writes a segment header and pages of data, and takes most of
//! the writer's time; here it is one write of a few sectors, and one sync. What stands in the
//! journal goes into the engine together, many commits at once. It has two halves: while what stands
//! in one is on its way into the engine, the other is written to.
//!
//! ```text
//! <data_dir>/journal   16 MiB, written full of zeros before its first use: a record never changes
//!                      the file's size nor its extents, so that syncing it writes data only
//!
//! record, on whole sectors, from the beginning of a half on:
//!   "\xF0mpj"  crc32 u32  length u32  | store id 16  commit sequence u64  rows…
//!   row: tree u8  key length u8  value length u8  key  value
//! ```
//!
//! Numbers are little-endian, as in values; length and checksum cover what follows the length. The
//! rest of each half is what earlier rounds left, each record with a lower sequence. What of it
//! counts is told by [`super::replay`].
//!
//! A record never shares a sector with another one, as the disk tells its sectors; where those are
//! parts of longer physical ones, the disk must not lose its neighbours when the power fails in the
//! middle of one. The engine's log rests on the same.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use uuid::Uuid;

use crate::store::data_dir::sync_dir;

/// The length of the file, a part of its format: another one is taken for damage. The longer it is,
/// the more heartbeats of a service become one row of the engine; it is read as a whole at every
/// start.
pub(super) const BYTES: usize = 16 << 20;
const HALF: usize = BYTES / 2;
/// Longer commits go into the engine at once.
const RECORD_BYTES_MAX: usize = 1 << 20;
/// What a disk writes as a whole at least; records are looked for where one begins.
const SECTOR: usize = 512;
/// What memory and offsets must be multiples of at the most, to go past the page cache.
const PAGE: usize = 4096;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// In no text do the first two of these bytes follow each other.
const MAGIC: [u8; 4] = *b"\xF0mpj";
const HEAD: usize = MAGIC.len() + 4 + 4;
const IDENTITY: usize = 16 + 8;

/// The trees that journalled rows belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOf {
    Liveness,
    Meta,
}

/// One overwritten row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JournalRow<B> {
    pub(super) tree: RowOf,
    pub(super) key: B,
    pub(super) value: B,
}

impl JournalRow<&[u8]> {
    /// What it takes in a record.
    fn bytes(&self) -> usize {
        3 + self.key.len() + self.value.len()
    }
}

/// One commit, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) store_id: Uuid,
    pub(super) commit_seq: u64,
    rows: Vec<u8>,
}

impl Record {
    /// What it overwrites. A row that makes no sense ends the walk; a record that is found has none.
    pub(super) fn rows(&self) -> impl Iterator<Item = JournalRow<&[u8]>> {
        let mut rest = self.rows.as_slice();
        std::iter::from_fn(move || {
            let (&[tree, key, value], after) = rest.split_first_chunk::<3>()?;
            let tree = match tree {
                0 => RowOf::Liveness,
                1 => RowOf::Meta,
                _ => return None,
            };
            let (key, after) = after.split_at_checked(key.into())?;
            let (value, after) = after.split_at_checked(value.into())?;
            rest = after;
            Some(JournalRow { tree, key, value })
        })
    }

    /// Shows all that stand in a journal, in the order of the file.
    ///
    /// # Errors
    /// When it cannot be read, or does not have its length ([`io::ErrorKind::InvalidData`]).
    pub(super) fn each_in(journal: &File, mut each: impl FnMut(Self)) -> io::Result<()> {
        let length = journal.metadata()?.len();
        if length != widen(BYTES) {
            let reason = format!("{length} bytes instead of {BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let mut at = 0;
        while at < BYTES {
            let found = Self::read_at(journal, at)?;
            let length = found
                .as_ref()
                .map_or(0, |record| HEAD + IDENTITY + record.rows.len());
            at += length.max(1).next_multiple_of(SECTOR);
            found.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Reads the record that begins here, if one does.
    fn read_at(journal: &File, at: usize) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        journal.read_exact_at(&mut head, widen(at))?;
        let Some((crc, length)) = parse_head(&head) else {
            return Ok(None);
        };
        if length > RECORD_BYTES_MAX.min(BYTES - at - HEAD) {
            return Ok(None);
        }
        let mut body = vec![0; length];
        journal.read_exact_at(&mut body, widen(at + HEAD))?;
        Ok(Self::parse_body(&body, crc))
    }

    fn parse_body(body: &[u8], crc: u32) -> Option<Self> {
        if crc32fast::hash(body) != crc {
            return None;
        }
        let (store_id, body) = body.split_first_chunk::<16>()?;
        let (commit_seq, rows) = body.split_first_chunk::<8>()?;
        let record = Self {
            store_id: Uuid::from_bytes(*store_id),
            commit_seq: u64::from_le_bytes(*commit_seq),
            rows: rows.to_vec(),
        };
        let understood = record.rows().map(|row| row.bytes()).sum::<usize>();
        (understood == rows.len()).then_some(record)
    }
}

/// The checksum and length of what follows.
fn parse_head(head: &[u8; HEAD]) -> Option<(u32, usize)> {
    let rest = head.strip_prefix(&MAGIC)?;
    let (crc, length) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(length.try_into().ok()?);
    Some((u32::from_le_bytes(*crc), usize::try_from(length).ok()?))
}

fn widen(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Makes the file, full of zeros, all of it on the disk.
///
/// # Errors
/// A failed file operation.
pub(super) fn create(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let made = write_zeros(&temporary).and_then(|()| fs::rename(&temporary, path));
    if made.is_err() {
        // On a full disk every bit counts.
        let _ = fs::remove_file(&temporary);
    }
    made?;
    path.parent().map_or(Ok(()), sync_dir)
}

fn write_zeros(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(path)?;
    // By and by: having freed one great piece, the allocator would give less back ever after.
    for at in (0..BYTES).step_by(ZEROS.len()) {
        file.write_all_at(&ZEROS, widen(at))?;
    }
    file.sync_all()
}

/// The journal, open for records.
pub(super) struct Journal {
    file: File,
    /// What a record's beginning and length are multiples of.
    sector: usize,
    /// Where the half begins that is written to.
    start: usize,
    /// Where the next record goes.
    end: usize,
    record: Aligned,
}

/// Bytes that may go to a disk past the page cache.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new() -> Self {
        let bytes = vec![0; RECORD_BYTES_MAX + PAGE];
        // Where it cannot be told there is no direct way, and the beginning is as good.
        let start = Some(bytes.as_ptr().align_offset(PAGE)).filter(|start| *start < PAGE);
        Self {
            start: start.unwrap_or(0),
            bytes,
        }
    }

    fn first(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + length]
    }
}

impl Journal {
    /// Opens the file for records, from its beginning on: nothing that stands in it may be needed
    /// any more.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut record = Aligned::new();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let direct = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let past_the_cache = options.clone().custom_flags(direct).open(path).ok();
        let direct = past_the_cache.and_then(|file| {
            let takes = |sector: &usize| {
                file.read_exact_at(record.first(*sector), widen(*sector))
                    .is_ok()
            };
            let sector = [SECTOR, PAGE].into_iter().find(takes)?;
            Some((file, sector))
        });
        // The page cache writes whole pages: right, and eight times as much.
        let (file, sector) = match direct {
            Some(direct) => direct,
            None => (options.open(path)?, SECTOR),
        };
        Ok(Self {
            file,
            sector,
            start: 0,
            end: 0,
            record,
        })
    }

    /// Adds a commit; on the disk after [`Self::sync`]. `false`: it does not fit, and nothing was
    /// written.
    ///
    /// # Errors
    /// A failed write. What reached the disk is unknown then.
    pub(super) fn append(
        &mut self,
        store_id: Uuid,
        commit_seq: u64,
        rows: impl Iterator<Item = JournalRow<impl AsRef<[u8]>>>,
    ) -> io::Result<bool> {
        let room = RECORD_BYTES_MAX.min(self.start + HALF - self.end);
        let Some(length) = compose(self.record.first(room), store_id, commit_seq, rows) else {
            return Ok(false);
        };
        let whole = length.next_multiple_of(self.sector);
        if whole > room {
            return Ok(false);
        }
        let bytes = self.record.first(whole);
        bytes[length..].fill(0);
        self.file.write_all_at(bytes, widen(self.end))?;
        self.end += whole;
        Ok(true)
    }

    /// Puts what was added onto the disk.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether the engine should take over what stands in the half.
    pub(super) fn is_ripe(&self) -> bool {
        self.end - self.start >= HALF / 4 * 3
    }

    /// Whether hardly anything more goes into the half.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start >= HALF / 8 * 7
    }

    /// Goes on in the other half: the engine has what stood there, on the disk.
    pub(super) fn turn(&mut self) {
        self.start = HALF - self.start;
        self.end = self.start;
    }

    /// Begins the half anew: the engine has everything, on the disk.
    pub(super) fn restart(&mut self) {
        self.end = self.start;
    }
}

/// Writes a record to the beginning of a buffer and returns its length; `None`: it does not fit.
pub(super) fn compose(
    buffer: &mut [u8],
    store_id: Uuid,
    commit_seq: u64,
    rows: impl Iterator<Item = JournalRow<impl AsRef<[u8]>>>,
) -> Option<usize> {
    let (head, body) = buffer.split_at_mut_checked(HEAD)?;
    let mut writer = Writer {
        buffer: body,
        length: 0,
    };
    writer.put(store_id.as_bytes())?;
    writer.put(&commit_seq.to_le_bytes())?;
    for row in rows {
        let tree = match row.tree {
            RowOf::Liveness => 0,
            RowOf::Meta => 1,
        };
        let (key, value) = (row.key.as_ref(), row.value.as_ref());
        let length_of = |bytes: &[u8]| u8::try_from(bytes.len()).ok();
        writer.put(&[tree, length_of(key)?, length_of(value)?])?;
        writer.put(key)?;
        writer.put(value)?;
    }
    let length = writer.length;
    let crc = crc32fast::hash(&body[..length]);
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    head[8..].copy_from_slice(&u32::try_from(length).ok()?.to_le_bytes());
    Some(HEAD + length)
}

struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        let place = self.buffer.get_mut(self.length..end)?;
        place.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }
}

#[cfg(test)]
mod tests;
