//! Looks at the files of a sled 0.34.7 store *before* sled opens them.
//!
//! Why: `sled::open` answers `Ok` with a partly or wholly empty database when
//! its log file (`<dir>/db`) was cut, emptied or overwritten, and the opening
//! itself then rewrites the files (it zeroes what it takes for a torn tail and
//! for free segments, and replaces the snapshot), so that nothing is left to
//! repair. This module only reads, and tells a log that an orderly stop, a
//! `kill -9` or a power cut can leave behind ([`Finding::Sound`]) from one in
//! which something that was once safely written is no longer there
//! ([`Finding::Suspect`]). It must run while no process has the store open.
//!
//! Format facts used (read off sled's `src/pagecache`, default configuration:
//! segments of 512 KiB, no compression, little-endian numbers):
//!
//! * The log is an array of segment slots. A segment has a sequence number
//!   (LSN) that only grows and is a multiple of the segment size; its slot can
//!   be anywhere. Slots of segments without live pages are reused, lowest slot
//!   first, and free slots at the end of the file are cut off, so gaps in the
//!   LSNs and old segments with dead content are normal.
//! * A segment header is 20 bytes: `crc32 ^ !0`, `lsn ^ i64::MAX`,
//!   `stable ^ i64::MAX`. `stable` is the last LSN known to be on disk without
//!   gaps when the segment was begun (-1: none). The greatest of all, together
//!   with the snapshot's, is the *stable end*: what lies below it was complete
//!   once and a crash cannot take it away.
//! * Messages follow without gaps until a `Cap` message or until fewer than 32
//!   bytes are left: `crc32 ^ !0` (over body, then the header after the crc),
//!   kind (u8), and as varints body length, segment number, page number; then
//!   the body. A page is its newest full image plus the links that follow it.
//! * A snapshot `snap.<LSN in hex>` holds the page table at the last opening
//!   that found something new: `stable LSN + 1` (i64; 0: none), active slot,
//!   pages until the end; then payload length (u64) and crc32. It is written
//!   on opening only, before free slots and torn segments are zeroed.
//! * A segment that holds stable data is given up only when all its pages were
//!   written anew elsewhere, and that too is stable. Buffers may reach the disk
//!   out of order, so a freed segment may have its middle overwritten before
//!   its header, and a slot may still be blank when later ones are not.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const SEGMENT: u64 = 512 * 1024;
const SEGMENT_LEN: usize = 512 * 1024;
const SEGMENT_HEADER: usize = 20;
/// No message begins in the last bytes of a segment.
const LAST_START: usize = SEGMENT_LEN - 32;

/// What a file system writes or does not write as a whole.
const PAGE: usize = 4096;

/// The shortest message: a header without a body.
const MESSAGE_MIN: usize = 8;
/// Longer pages are written as blobs.
const LONGEST_MESSAGE: usize = SEGMENT_LEN / 4 + 32;
/// So many batches may be under way at once when the power fails.
const LATER_BATCHES: u32 = 4;

// Message kinds; 0 (and anything unknown) is what sled calls corrupted.
const CAP: u8 = 2;
const BATCH: u8 = 3;
const FREE: u8 = 4;
const BLOB_META: u8 = 7;
const BLOB_NODE: u8 = 9;
const INLINE_LINK: u8 = 10;
const BLOB_LINK: u8 = 11;

/// What the look at the files has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The log looks like what a stop, a crash or a power cut leaves behind.
    Sound,
    /// Stable data is damaged or missing; the sentence says what and where.
    Suspect(String),
}

/// Reads the store in `sled_dir` without changing anything and judges its log. `seen` is shown
/// every stretch of the log that sled would go by, so that a caller can look for what must be in
/// there.
///
/// Costs about one read of the log and memory for one segment plus some 100
/// bytes per page of the store. An invalid snapshot alone is not a finding:
/// the newest valid one is used, or the whole log if there is none.
/// An error means that a file could not be read.
pub(super) fn inspect(sled_dir: &Path, seen: &mut dyn FnMut(&[u8])) -> io::Result<Finding> {
    match check(sled_dir, seen) {
        Ok(()) => Ok(Finding::Sound),
        Err(Stop::Damage(sentence)) => Ok(Finding::Suspect(sentence)),
        Err(Stop::Io(error)) => Err(error),
    }
}

#[derive(Debug, thiserror::Error)]
enum Stop {
    #[error("{0}")]
    Damage(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn damage<T>(sentence: String) -> Result<T, Stop> {
    Err(Stop::Damage(sentence))
}

fn check(dir: &Path, seen: &mut dyn FnMut(&[u8])) -> Result<(), Stop> {
    let log = Log::open(dir)?;
    let mut table = Table::load(dir)?;
    table.pages_max = log.messages_max();
    // The first LSN that may be missing, and the segment from which on sled
    // wants to see an unbroken row.
    let stable_end = log.stable_end.max(table.stable_end);
    let floor = table.stable_end / SEGMENT * SEGMENT;
    let tail = log.stable_end.saturating_sub(1).max(floor) / SEGMENT * SEGMENT;
    let mut expected = tail;
    let mut slot = Vec::new();

    for &index in log.by_lsn.range(..floor).map(|(_, index)| index) {
        log.read_slot(index, &mut slot)?;
        seen(&slot);
    }
    for (&lsn, &index) in log.by_lsn.range(floor..) {
        if lsn >= tail {
            if lsn != expected {
                break; // beyond a gap in what is not stable yet
            }
            expected += SEGMENT;
        }
        log.read_slot(index, &mut slot)?;
        let tear = table.follow(&slot, lsn, index * SEGMENT);
        seen(slot.get(..tear.unwrap_or(slot.len())).unwrap_or(&slot));
        let Some(tear) = tear else {
            continue;
        };
        if lsn + widen(tear) < stable_end
            && (lsn >= tail || !being_overwritten(&slot, tear, stable_end))
        {
            return damage(format!(
                "the log segment at byte {} of the file db is broken at its byte {tear} (LSN {}), but everything below LSN {stable_end} had been written completely",
                index * SEGMENT,
                lsn + widen(tear),
            ));
        }
        if lsn >= tail {
            if !is_torn_write(&slot, tear, lsn / SEGMENT) {
                return damage(format!(
                    "the log message at byte {} of the file db (LSN {}) was complete once and is damaged or cut off",
                    index * SEGMENT + widen(tear),
                    lsn + widen(tear),
                ));
            }
            break; // the ordinary end of the log
        }
    }
    if expected == tail && stable_end > tail {
        return damage(format!(
            "the log segment with LSN {tail} is missing from the file db, but everything below LSN {stable_end} had been written completely"
        ));
    }
    check_blank_slots(&log, &table, stable_end)?;
    check_pages(dir, &log, &table)
}

/// Judges slots whose header is zero. They are free, or their first write is
/// still to come; because the lowest free slot is always taken first, none can
/// have been free below a slot that was taken after the last opening.
fn check_blank_slots(log: &Log, table: &Table, stable_end: u64) -> Result<(), Stop> {
    let since_opening = table.stable_end..=stable_end;
    let highest = log
        .slots
        .iter()
        .rposition(|lsn| lsn.is_some_and(|lsn| since_opening.contains(&lsn)));
    let mut slot = Vec::new();
    for index in 0..log.slots.len() {
        if log.slots.get(index).copied().flatten().is_some() {
            continue;
        }
        let at = widen(index) * SEGMENT;
        if table.shows_last_opening && highest.is_some_and(|highest| index < highest) {
            return damage(format!(
                "the log segment at byte {at} of the file db is blank, although later data was written behind it"
            ));
        }
        // Messages under a blank header must be dead: superseded elsewhere.
        log.read_slot(widen(index), &mut slot)?;
        if slot.iter().all(|&byte| byte == 0) {
            continue;
        }
        let known = |number| (table.stable_end / SEGMENT..=stable_end / SEGMENT).contains(&number);
        let mut start = SEGMENT_HEADER;
        while start <= LAST_START {
            let Some(message) = message_at(&slot, start, known) else {
                start += 1;
                continue;
            };
            let lsn = message.number * SEGMENT + widen(start);
            let newest = table.page(message.page).and_then(|page| page.image);
            let live = lsn >= table.stable_end
                && lsn < stable_end
                && newest.is_none_or(|newest| newest < lsn);
            if message.kind >= FREE && live {
                return damage(format!(
                    "the log segment at byte {at} of the file db has lost its header but still holds page {} of LSN {lsn}, which is found nowhere else",
                    message.page
                ));
            }
            start = message.end;
        }
    }
    Ok(())
}

/// Checks that no page is missing and that what the snapshot points to is there.
fn check_pages(dir: &Path, log: &Log, table: &Table) -> Result<(), Stop> {
    let mut parts = Vec::new();
    if let Some(number) = table.stray {
        return damage(format!(
            "the file db holds page {number} of the store, and has no room for the pages before it"
        ));
    }
    for (number, page) in (0u64..).zip(&table.pages) {
        if page.image.is_none() {
            return damage(format!(
                "page {number} of the store is missing from the file db, but later pages are there"
            ));
        }
        parts.extend(
            page.parts
                .iter()
                .map(|part| (part.at, part.lsn, part.blob, number)),
        );
    }
    parts.sort_unstable();
    let mut slot = Vec::new();
    let mut loaded = None;
    for (at, lsn, blob, page) in parts {
        let index = at / SEGMENT;
        if loaded != Some(index) {
            log.read_slot(index, &mut slot)?;
            loaded = Some(index);
        }
        let segment = usize::try_from(index)
            .ok()
            .and_then(|index| log.slots.get(index).copied().flatten());
        let message = usize::try_from(at % SEGMENT)
            .ok()
            .and_then(|at| message_at(&slot, at, |number| number == lsn / SEGMENT));
        if segment != Some(lsn / SEGMENT * SEGMENT)
            || message.is_none_or(|message| message.page != page)
        {
            return damage(format!(
                "page {page} of the store (LSN {lsn}) is not at byte {at} of the file db any more"
            ));
        }
        if let Some(blob) = blob
            && !blob_is_whole(&dir.join("blobs").join(blob.to_string()))?
        {
            return damage(format!(
                "the file blobs/{blob} with page {page} of the store is missing or damaged"
            ));
        }
    }
    Ok(())
}

/// A blob file is a crc32 over the rest, the message kind, and the page.
fn blob_is_whole(path: &Path) -> io::Result<bool> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let mut rest = bytes.as_slice();
    Ok(take::<4>(&mut rest)
        .is_some_and(|crc| !rest.is_empty() && u32::from_le_bytes(crc) == crc32fast::hash(rest)))
}

/// The log file and the headers of its segments.
struct Log {
    file: File,
    /// For each slot the LSN of its segment, `None` if the header is zero.
    slots: Vec<Option<u64>>,
    by_lsn: BTreeMap<u64, u64>,
    /// One more than the greatest stable LSN in any header.
    stable_end: u64,
}

impl Log {
    fn open(dir: &Path) -> Result<Self, Stop> {
        let file = match File::open(dir.join("db")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return damage("the file db does not exist".to_owned());
            }
            other => other?,
        };
        let length = file.metadata()?.len();
        if length == 0 {
            return damage("the file db is empty".to_owned());
        }
        let mut log = Log {
            file,
            slots: Vec::new(),
            by_lsn: BTreeMap::new(),
            stable_end: 0,
        };
        let mut at = 0;
        while at + widen(SEGMENT_HEADER) <= length {
            let mut bytes = [0; SEGMENT_HEADER];
            log.file.seek(SeekFrom::Start(at))?;
            log.file.read_exact(&mut bytes)?;
            if bytes == [0; SEGMENT_HEADER] {
                log.slots.push(None);
            } else if let Some((lsn, stable_end)) =
                segment_header(&bytes).filter(|(lsn, _)| *lsn >= at)
            {
                if let Some(other) = log.by_lsn.insert(lsn, at / SEGMENT) {
                    return damage(format!(
                        "the segments at bytes {} and {at} of the file db have the same LSN {lsn}",
                        other * SEGMENT
                    ));
                }
                log.stable_end = log.stable_end.max(stable_end);
                log.slots.push(Some(lsn));
            } else {
                return damage(format!(
                    "the header of the log segment at byte {at} of the file db is garbled"
                ));
            }
            at += SEGMENT;
        }
        if log.by_lsn.is_empty() {
            return damage("the file db holds no valid log segment at all".to_owned());
        }
        Ok(log)
    }

    /// More messages than this cannot be in it.
    fn messages_max(&self) -> usize {
        self.slots.len() * (SEGMENT_LEN / MESSAGE_MIN)
    }

    fn read_slot(&self, index: u64, slot: &mut Vec<u8>) -> io::Result<()> {
        slot.clear();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(index * SEGMENT))?;
        file.take(SEGMENT).read_to_end(slot).map(drop)
    }
}

fn segment_header(bytes: &[u8; SEGMENT_HEADER]) -> Option<(u64, u64)> {
    let mut rest = bytes.as_slice();
    let crc = !u32::from_le_bytes(take(&mut rest)?);
    let sound = crc == crc32fast::hash(rest);
    let lsn = u64::try_from(i64::from_le_bytes(take(&mut rest)?) ^ i64::MAX).ok()?;
    let stable = i64::from_le_bytes(take(&mut rest)?) ^ i64::MAX;
    let stable_end = u64::try_from(stable.checked_add(1)?).ok()?;
    (sound && lsn % SEGMENT == 0).then_some((lsn, stable_end))
}

/// Where the pages are: the newest valid snapshot, advanced by the log.
#[derive(Default)]
struct Table {
    /// The snapshot covers everything below this LSN.
    stable_end: u64,
    /// Whether no newer snapshot is there that cannot be read.
    shows_last_opening: bool,
    /// By page number; there are millions, and each message changes one.
    pages: Vec<Page>,
    pages_max: usize,
    /// A page beyond that.
    stray: Option<u64>,
}

#[derive(Default)]
struct Page {
    /// LSN of the newest full image (or of the freeing) of the page.
    image: Option<u64>,
    /// What is to be verified: messages known from the snapshot, and blobs.
    parts: Vec<Part>,
}

struct Part {
    lsn: u64,
    at: u64,
    blob: Option<i64>,
}

impl Table {
    fn load(dir: &Path) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.extend(
                entry?
                    .file_name()
                    .into_string()
                    .ok()
                    .filter(|name| name.starts_with("snap.")),
            );
        }
        names.sort_unstable();
        let mut shows_last_opening = true;
        for name in names.iter().rev() {
            if let Some(mut table) = Self::from_snapshot(&fs::read(dir.join(name))?) {
                table.shows_last_opening = shows_last_opening;
                return Ok(table);
            }
            // One that was never finished had no consequences for the log.
            shows_last_opening &= name.ends_with(".generating");
        }
        Ok(Table {
            shows_last_opening,
            ..Table::default()
        })
    }

    fn from_snapshot(bytes: &[u8]) -> Option<Self> {
        let (mut rest, mut trailer) = bytes.split_at_checked(bytes.len().checked_sub(12)?)?;
        let _length: [u8; 8] = take(&mut trailer)?;
        if u32::from_le_bytes(take(&mut trailer)?) != crc32fast::hash(rest) {
            return None;
        }
        let mut table = Table {
            stable_end: lsn(&mut rest)?.saturating_sub(1),
            ..Table::default()
        };
        let _active_slot = varint(&mut rest)?;
        while let Some([count]) = take(&mut rest) {
            let mut page = Page {
                image: None,
                parts: Vec::with_capacity(usize::from(count.max(1))),
            };
            for index in 0..count.max(1) {
                let lsn = lsn(&mut rest)?;
                let [has_blob] = take(&mut rest)?;
                let at = varint(&mut rest)?;
                let blob = if has_blob == 0 {
                    None
                } else {
                    Some(i64::from_le_bytes(take(&mut rest)?))
                };
                if count > 0 {
                    let _size = varint(&mut rest)?;
                }
                if index == 0 {
                    page.image = Some(lsn);
                }
                page.parts.push(Part { lsn, at, blob });
            }
            table.pages.push(page);
        }
        Some(table)
    }

    /// Takes in the messages of one segment in the order they were written.
    /// Returns the place of the first one that is not valid, if any.
    fn follow(&mut self, slot: &[u8], segment: u64, slot_at: u64) -> Option<usize> {
        let mut start = SEGMENT_HEADER;
        while start <= LAST_START {
            let Some(message) = message_at(slot, start, |number| number == segment / SEGMENT)
            else {
                return Some(start);
            };
            if message.kind == CAP {
                break;
            }
            let lsn = segment + widen(start);
            if lsn >= self.stable_end && message.kind >= FREE {
                self.take_in(&message, lsn, slot_at + widen(start));
            }
            start = message.end;
        }
        None
    }

    fn take_in(&mut self, message: &Message, lsn: u64, at: u64) {
        let number = usize::try_from(message.page).unwrap_or(usize::MAX);
        if number >= self.pages_max {
            self.stray = Some(message.page);
            return;
        }
        if number >= self.pages.len() {
            self.pages.resize_with(number + 1, Page::default);
        }
        let Some(page) = self.pages.get_mut(number) else {
            return;
        };
        if !message.is_link() {
            *page = Page {
                image: Some(lsn),
                parts: Vec::new(),
            };
        }
        if message.blob.is_some() {
            let blob = message.blob;
            page.parts.push(Part { lsn, at, blob });
        }
    }

    fn page(&self, number: u64) -> Option<&Page> {
        self.pages.get(usize::try_from(number).ok()?)
    }
}

/// Whether the rest of a segment that had been given up already holds messages
/// of a new segment, one that is not known to be complete.
fn being_overwritten(slot: &[u8], tear: usize, stable_end: u64) -> bool {
    let new = |number: u64| {
        number
            .checked_mul(SEGMENT)
            .is_some_and(|lsn| lsn >= stable_end)
    };
    (tear..=LAST_START).any(|start| message_at(slot, start, new).is_some())
}

/// Whether what stands at `tear` at the end of the log can be an ordinary torn
/// tail, that is, a write which is wholly or from some page on still missing.
fn is_torn_write(slot: &[u8], tear: usize, number: u64) -> bool {
    let page_end = (tear / PAGE + 1) * PAGE;
    let begun = header_at(slot, tear)
        .map(|(header, _)| header)
        .filter(|header| header.number == number && header.end <= SEGMENT_LEN);
    if let Some(header) = &begun {
        if header.end > slot.len() {
            return slot.len().is_multiple_of(PAGE); // the file grows by whole pages or whole writes
        }
        if header.end <= page_end {
            return false; // a page is not written in part
        }
    }
    // What was written behind it, and what was there before?
    let mut behind = begun.as_ref().map_or(tear, |header| header.end);
    let (mut later_batches, mut reused) = (0, false);
    let mut start = tear + 1;
    while start <= LAST_START {
        let Some(message) = message_at(slot, start, |_| true) else {
            start += 1;
            continue;
        };
        start = message.end;
        if message.number == number {
            behind = behind.max(message.end);
            later_batches += u32::from(message.kind == BATCH);
        } else {
            reused = true;
        }
    }
    if begun.is_some() && later_batches >= LATER_BATCHES {
        return false; // each of them had to wait until all before it was on disk
    }
    // (sled leaves the last byte of a segment alone when it zeroes a tail.)
    let blank = |from: usize, to: usize| {
        slot.get(from..to.min(slot.len()))
            .is_none_or(|bytes| bytes.iter().all(|&byte| byte == 0))
    };
    if reused || (SEGMENT_LEN - behind <= LONGEST_MESSAGE && !blank(behind, SEGMENT_LEN - 1)) {
        return true; // the missing part may show any old bytes
    }
    match begun {
        Some(header) => (page_end..header.end)
            .step_by(PAGE)
            .any(|page| blank(page, header.end.min(page + PAGE))),
        None => page_end - tear < SEGMENT_LEN - LAST_START || blank(tear, page_end),
    }
}

struct Header {
    kind: u8,
    number: u64,
    page: u64,
    body: usize,
    end: usize,
}

struct Message {
    kind: u8,
    number: u64,
    page: u64,
    blob: Option<i64>,
    end: usize,
}

impl Message {
    fn is_link(&self) -> bool {
        self.kind == INLINE_LINK || self.kind == BLOB_LINK
    }
}

/// The message header at `start` of a segment, unchecked but for its kind.
fn header_at(slot: &[u8], start: usize) -> Option<(Header, u32)> {
    let from = slot.get(start..)?;
    let mut rest = from;
    let crc = !u32::from_le_bytes(take(&mut rest)?);
    let [kind] = take(&mut rest)?;
    if !(1..=BLOB_LINK).contains(&kind) {
        return None;
    }
    let length = usize::try_from(varint(&mut rest)?).ok()?;
    let number = varint(&mut rest)?;
    let page = varint(&mut rest)?;
    let body = start + from.len() - rest.len();
    Some((
        Header {
            kind,
            number,
            page,
            body,
            end: body.checked_add(length)?,
        },
        crc,
    ))
}

/// The message at `start` of a segment, if it is valid and of a wanted segment.
fn message_at(slot: &[u8], start: usize, wanted: impl Fn(u64) -> bool) -> Option<Message> {
    let (
        Header {
            kind,
            number,
            page,
            body,
            end,
        },
        crc,
    ) = header_at(slot, start)?;
    if !wanted(number) {
        return None;
    }
    let bytes = slot.get(body..end)?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher.update(slot.get(start + 4..body)?);
    if hasher.finalize() != crc {
        return None;
    }
    let blob = if matches!(kind, BLOB_META | BLOB_NODE | BLOB_LINK) {
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    } else {
        None
    };
    Some(Message {
        kind,
        number,
        page,
        blob,
        end,
    })
}

/// sled's own variable-length number, up to 9 bytes.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let [first] = take(rest)?;
    let mut bytes = [0; 8];
    match first {
        0..=240 => Some(u64::from(first)),
        241..=248 => {
            let [low] = take(rest)?;
            Some(240 + 256 * (u64::from(first) - 241) + u64::from(low))
        }
        249 => {
            let [high, low] = take(rest)?;
            Some(2288 + 256 * u64::from(high) + u64::from(low))
        }
        250.. => {
            let (number, after) = rest.split_at_checked(usize::from(first) - 247)?;
            bytes.get_mut(..number.len())?.copy_from_slice(number);
            *rest = after;
            Some(u64::from_le_bytes(bytes))
        }
    }
}

fn lsn(rest: &mut &[u8]) -> Option<u64> {
    u64::try_from(i64::from_le_bytes(take(rest)?)).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn widen(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
