//! `WITNESS`: the newest commit that is on the disk, and whether something failed after it.
//!
//! Written in place and not synced: it must outlive the process, not the machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use super::Durability;
use crate::domain::BootId;

/// The newest commit on the disk, as far as this file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// Of which store.
    pub store_id: Uuid,
    /// Its commit sequence.
    pub commit_seq: u64,
    /// The machine's boot in which it was committed.
    pub boot_id: BootId,
    /// What it survives.
    pub durability: Durability,
    /// After it something failed: in this boot the files may look as if they held what the disk does
    /// not.
    pub in_doubt: bool,
}

impl Witness {
    const BYTES: usize = 16 + 8 + 16 + 1 + 4;

    /// As it stands in the file: below one sector, so that it is written whole or not at all.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(self.store_id.as_bytes());
        bytes.extend_from_slice(&self.commit_seq.to_be_bytes());
        bytes.extend_from_slice(&self.boot_id.0);
        bytes.push(match (self.durability, self.in_doubt) {
            (Durability::PowerLoss, false) => 0,
            (Durability::ProcessCrash, false) => 1,
            (Durability::PowerLoss, true) => 2,
            (Durability::ProcessCrash, true) => 3,
        });
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` for anything else: a witness that makes no sense says nothing.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let (store_id, rest) = body.split_first_chunk::<16>()?;
        let (commit_seq, rest) = rest.split_first_chunk::<8>()?;
        let (boot_id, rest) = rest.split_first_chunk::<16>()?;
        let (durability, in_doubt) = match rest {
            [0] => (Durability::PowerLoss, false),
            [1] => (Durability::ProcessCrash, false),
            [2] => (Durability::PowerLoss, true),
            [3] => (Durability::ProcessCrash, true),
            _ => return None,
        };
        Some(Self {
            store_id: Uuid::from_bytes(*store_id),
            commit_seq: u64::from_be_bytes(*commit_seq),
            boot_id: BootId(*boot_id),
            durability,
            in_doubt,
        })
    }
}

/// Writes the witness of an open store. Whoever commits shares it: what one of them has doubted, no
/// other's commit takes back.
#[derive(Debug)]
pub struct Testimony {
    file: File,
    latest: Mutex<Witness>,
}

impl Testimony {
    /// Nothing is written yet; `latest` is what holds now.
    #[must_use]
    pub fn new(file: File, latest: Witness) -> Self {
        Self {
            file,
            latest: Mutex::new(latest),
        }
    }

    /// A commit is on the disk. It may not be before that: the witness is never ahead.
    pub fn committed(&self, commit_seq: u64) {
        self.tell(|latest| latest.commit_seq = commit_seq);
    }

    /// Something failed. In this boot the disk is not to be judged by what the cache shows.
    pub fn doubt(&self) {
        self.tell(|latest| latest.in_doubt = true);
    }

    fn tell(&self, what: impl FnOnce(&mut Witness)) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut latest);
        if let Err(error) = self.file.write_all_at(&latest.to_bytes(), 0) {
            // An older one is still true, but for a doubt.
            if latest.in_doubt {
                log::warn!("noting in WITNESS that the disk failed did not work: {error}");
            } else {
                log::debug!("noting the commit failed: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(durability: Durability, in_doubt: bool) -> Witness {
        Witness {
            store_id: Uuid::from_bytes([8; 16]),
            commit_seq: 77,
            boot_id: BootId([9; 16]),
            durability,
            in_doubt,
        }
    }

    #[test]
    fn a_witness_reads_back_and_a_damaged_one_says_nothing() {
        let all = [Durability::PowerLoss, Durability::ProcessCrash]
            .into_iter()
            .flat_map(|durability| [false, true].map(|in_doubt| (durability, in_doubt)))
            .map(|(durability, in_doubt)| witness(durability, in_doubt));
        let mut bytes = Vec::new();
        for witness in all {
            bytes = witness.to_bytes();
            assert_eq!(Witness::from_bytes(&bytes), Some(witness));
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Witness::from_bytes(&damaged), None, "bit {bit}");
        }
        assert_eq!(Witness::from_bytes(&[]), None);
    }

    #[test]
    fn no_commit_takes_a_doubt_back_and_no_doubt_a_commit() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let told = || Witness::from_bytes(&std::fs::read(file.path()).unwrap());
        let latest = witness(Durability::PowerLoss, false);
        let testimony = Testimony::new(file.reopen().unwrap(), latest);
        assert_eq!(told(), None);
        testimony.committed(78);
        let newer = Witness {
            commit_seq: 78,
            ..latest
        };
        assert_eq!(told(), Some(newer));
        testimony.doubt();
        testimony.committed(79);
        let doubted = Witness {
            commit_seq: 79,
            in_doubt: true,
            ..latest
        };
        assert_eq!(told(), Some(doubted));
    }
}
