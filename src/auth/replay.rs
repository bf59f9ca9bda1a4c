//! Signatures of requests that have come in: none is good twice.
//!
//! They are remembered in memory alone; a restart forgets them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::domain::Steady;

/// Signatures that are remembered.
const ALL_MAX: usize = 65_536;

/// Those of one access key: whoever has one cannot take the place of all others.
const OF_ONE_MAX: usize = 1_024;

/// Why a signature is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It has come in before.
    Again,
    /// Too many are remembered; after so long one of them is forgotten.
    Full(Duration),
}

/// The signatures of the last `window`.
#[derive(Debug)]
pub(super) struct Replay {
    window_ms: u64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    signatures: HashSet<[u8; 32]>,
    /// In the order in which they came.
    order: VecDeque<(Steady, [u8; 32], Arc<str>)>,
    /// The times of each access key's, in the same order.
    of_one: HashMap<Arc<str>, VecDeque<Steady>>,
}

impl Replay {
    /// Remembers signatures for so many seconds.
    pub(super) fn new(window_s: u64) -> Self {
        Self {
            window_ms: window_s.saturating_mul(1000),
            seen: Mutex::default(),
        }
    }

    /// Remembers a signature that was verified. Whether it is there already is found out in the same
    /// breath, so of two that come at once one is taken. When there is no room nothing is forgotten
    /// early: it would be good again.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(super) fn remember(
        &self,
        access_key: &str,
        signature: [u8; 32],
        now: Steady,
    ) -> Result<(), NotTaken> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_old(now, self.window_ms);
        if seen.signatures.contains(&signature) {
            return Err(NotTaken::Again);
        }
        let own = seen.of_one.get(access_key);
        let oldest = if own.is_some_and(|own| own.len() >= OF_ONE_MAX) {
            own.and_then(|own| own.front().copied())
        } else if seen.order.len() >= ALL_MAX {
            seen.order.front().map(|(at, _, _)| *at)
        } else {
            None
        };
        if let Some(oldest) = oldest {
            let until = oldest.plus_ms(self.window_ms);
            return Err(NotTaken::Full(Duration::from_millis(until.ms_since(now))));
        }
        let name = match seen.of_one.get_key_value(access_key) {
            Some((name, _)) => name.clone(),
            None => Arc::from(access_key),
        };
        seen.signatures.insert(signature);
        seen.order.push_back((now, signature, name.clone()));
        seen.of_one.entry(name).or_default().push_back(now);
        Ok(())
    }
}

impl Seen {
    fn forget_old(&mut self, now: Steady, window_ms: u64) {
        while let Some((at, _, _)) = self.order.front()
            && now.ms_since(*at) >= window_ms
        {
            let Some((_, signature, name)) = self.order.pop_front() else {
                return;
            };
            self.signatures.remove(&signature);
            if let Some(own) = self.of_one.get_mut(&name) {
                own.pop_front();
                if own.is_empty() {
                    self.of_one.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(number: usize) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        bytes
    }

    const fn at(s: u64) -> Steady {
        Steady::from_ms(s * 1000)
    }

    #[test]
    fn a_signature_is_good_once_within_the_window() {
        let replay = Replay::new(10);
        let one = signature(1);
        assert_eq!(replay.remember("a", one, at(100)), Ok(()));
        assert_eq!(replay.remember("a", one, at(100)), Err(NotTaken::Again));
        assert_eq!(replay.remember("a", one, at(109)), Err(NotTaken::Again));
        assert_eq!(replay.remember("a", signature(2), at(109)), Ok(()));
        assert_eq!(replay.remember("a", one, at(110)), Ok(()));
        let two = replay.remember("a", signature(2), at(110));
        assert_eq!(two, Err(NotTaken::Again));
        // Whose clock was read a little earlier is not forgotten sooner.
        assert_eq!(replay.remember("a", one, at(90)), Err(NotTaken::Again));
        assert_eq!(replay.remember("a", signature(3), at(1000)), Ok(()));
        let seen = replay.seen.lock().unwrap();
        assert_eq!(
            (seen.signatures.len(), seen.order.len(), seen.of_one.len()),
            (1, 1, 1)
        );
    }

    #[test]
    fn one_access_key_does_not_fill_it_and_nothing_is_forgotten_early() {
        let replay = Replay::new(10);
        for number in 0..OF_ONE_MAX {
            assert_eq!(replay.remember("a", signature(number), at(100)), Ok(()));
        }
        let full = replay.remember("a", signature(OF_ONE_MAX), at(104));
        assert_eq!(full, Err(NotTaken::Full(Duration::from_secs(6))));
        let again = replay.remember("a", signature(0), at(104));
        assert_eq!(again, Err(NotTaken::Again));
        assert_eq!(replay.remember("b", signature(OF_ONE_MAX), at(104)), Ok(()));
        assert_eq!(
            replay.remember("a", signature(OF_ONE_MAX + 1), at(110)),
            Ok(())
        );
    }

    #[test]
    fn all_together_are_bounded() {
        let replay = Replay::new(10);
        for number in 0..ALL_MAX {
            let access_key = (number / OF_ONE_MAX).to_string();
            let taken = replay.remember(&access_key, signature(number), at(100));
            assert_eq!(taken, Ok(()));
        }
        let full = replay.remember("new", signature(ALL_MAX), at(101));
        assert_eq!(full, Err(NotTaken::Full(Duration::from_secs(9))));
        assert_eq!(replay.remember("new", signature(ALL_MAX), at(110)), Ok(()));
    }

    #[test]
    fn of_many_that_come_at_once_one_is_taken() {
        let replay = Replay::new(10);
        let taken = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| replay.remember("a", signature(1), at(100)).is_ok()))
                .collect();
            let tries = tries.into_iter().map(|one| one.join().unwrap());
            tries.filter(|taken| *taken).count()
        });
        assert_eq!(taken, 1);
    }
}
