//! Random choices that can be repeated: a seed that is printed, and taken from the environment.

use std::hash::{BuildHasher, Hasher, RandomState};

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// From `MEPULSE_SEED`, else a new seed; printed, so that a failure tells it. The seed
    /// settles what this test chooses, not how threads and the disk take turns.
    pub(crate) fn from_env(test: &str) -> Self {
        Self::from_env_or(test, RandomState::new().build_hasher().finish())
    }

    /// From `MEPULSE_SEED`, else this seed: for what is to be the same in every ordinary run.
    pub(crate) fn from_env_or(test: &str, seed: u64) -> Self {
        let seed = std::env::var("MEPULSE_SEED").map_or(seed, |seed| seed.parse().unwrap());
        eprintln!("{test}: MEPULSE_SEED={seed}");
        Self(seed)
    }

    /// The same again.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Another one that runs independently of this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Once in `n` times.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
