//! The fingerprint of the rows that must not be lost: registrations, liveness, subscriptions.
//!
//! It is the sum (exclusive or) of a hash over each row, so that a commit changes it by what the
//! commit changes, and a row that is missing or older than it should be changes it too. It stands
//! in the store beside the rows it vouches for, in the same transaction.

use xxhash_rust::xxh3::xxh3_64;

use super::Trees;
use crate::store::schema::CENSUS_KEY;

/// The running sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fingerprint(pub(super) u64);

/// Which tree a row stands in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    Services,
    Liveness,
    Subscriptions,
}

impl Fingerprint {
    /// A row comes or goes: adding is taking away.
    pub(super) fn toggle(&mut self, tree: Counted, key: &[u8], value: &[u8]) {
        // The hash of a row: the tree, and both parts, each by its own hash, so that no byte can
        // move from one to the other unnoticed.
        let mut parts = [0; 17];
        parts[0] = tree as u8;
        parts[1..9].copy_from_slice(&xxh3_64(key).to_le_bytes());
        parts[9..].copy_from_slice(&xxh3_64(value).to_le_bytes());
        self.0 ^= xxh3_64(&parts);
    }

    /// Adds what was counted apart.
    pub(super) fn join(&mut self, other: Self) {
        self.0 ^= other.0;
    }

    /// Counts the store anew.
    pub(super) fn of(trees: &Trees) -> Result<Self, sled::Error> {
        let mut sum = Self::default();
        for row in trees.services.iter() {
            let (key, value) = row?;
            sum.toggle(Counted::Services, &key, &value);
        }
        for row in trees.liveness.iter() {
            let (key, value) = row?;
            if key != CENSUS_KEY {
                sum.toggle(Counted::Liveness, &key, &value);
            }
        }
        for row in trees.subscriptions.iter() {
            let (key, value) = row?;
            sum.toggle(Counted::Subscriptions, &key, &value);
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_shows_and_taking_back_restores() {
        let mut sum = Fingerprint::default();
        sum.toggle(Counted::Liveness, b"a", b"1");
        let one = sum;
        sum.toggle(Counted::Liveness, b"b", b"1");
        let both = sum;
        let differing = [
            (Counted::Services, b"b", b"1"),
            (Counted::Liveness, b"c", b"1"),
            (Counted::Liveness, b"b", b"2"),
        ];
        for (tree, key, value) in differing {
            let mut other = one;
            other.toggle(tree, key, value);
            assert_ne!(other, both);
        }
        sum.toggle(Counted::Liveness, b"b", b"1");
        assert_eq!(sum, one);
    }
}
