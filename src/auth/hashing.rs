//! Verifying a secret by its hash: slow on purpose, so few at a time and each in its turn.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordVerifier};

use super::limits::Network;

/// What no secret has: verified against for clients that are not known, so that they take as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bWVwdWxzZSBub2JvZHk\
                      $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Hashes under way at a time: each takes 19 MiB and a core for some ten milliseconds, and the cores
/// are there for heartbeats.
const AT_ONCE_MAX: usize = 1;

/// Requests that wait for one of these places.
const WAITING_MAX: usize = 60;

/// Those of one network: whoever sends many requests cannot take the place of all others.
const WAITING_OF_ONE_MAX: usize = 4;

/// When there may be a place again, for those who find none.
const BUSY: Duration = Duration::from_secs(1);

/// The places for hashes, so that many requests at once cannot take all memory.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    places: Mutex<Places>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Places {
    taken: usize,
    next_ticket: u64,
    /// Who waits, in the order in which they came. Whose address is not known is of no network.
    waiting: VecDeque<(u64, Option<Network>)>,
}

impl Hashing {
    /// Whether this is the secret of that hash. Without a hash it is not, which takes as long to
    /// find out. Slow, and waits for its turn: to be called where that is allowed.
    ///
    /// # Errors
    /// Too many are waiting; after how long to try again.
    pub(super) fn verify(
        &self,
        from: Option<Network>,
        secret: &str,
        hash: Option<&str>,
    ) -> Result<bool, Duration> {
        let _place = self.take_place(from)?;
        let known = hash.and_then(|hash| PasswordHash::new(hash).ok());
        let Some(hash) = known.clone().or_else(|| PasswordHash::new(NOBODY).ok()) else {
            return Ok(false);
        };
        // Its parameters are those of the hash; the outputs are compared in constant time.
        let verified = Argon2::default().verify_password(secret.as_bytes(), &hash);
        Ok(verified.is_ok() && known.is_some())
    }

    fn take_place(&self, from: Option<Network>) -> Result<Place<'_>, Duration> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // A place that is free belongs to whoever waits already, awake or not.
        if places.taken >= AT_ONCE_MAX || !places.waiting.is_empty() {
            let ticket = places.queue(from)?;
            while !places.is_turn_of(ticket) {
                let freed = self.freed.wait(places);
                places = freed.unwrap_or_else(PoisonError::into_inner);
            }
            places.waiting.pop_front();
        }
        places.taken += 1;
        drop(places);
        // The next one may have looked before this one had left the queue.
        self.freed.notify_all();
        Ok(Place(self))
    }
}

impl Places {
    fn queue(&mut self, from: Option<Network>) -> Result<u64, Duration> {
        let of_one = self.waiting.iter().filter(|(_, who)| *who == from).count();
        if self.waiting.len() >= WAITING_MAX || of_one >= WAITING_OF_ONE_MAX {
            return Err(BUSY);
        }
        let ticket = self.next_ticket;
        self.next_ticket = ticket.wrapping_add(1);
        self.waiting.push_back((ticket, from));
        Ok(ticket)
    }

    fn is_turn_of(&self, ticket: u64) -> bool {
        let first = self.waiting.front();
        self.taken < AT_ONCE_MAX && first.is_some_and(|(first, _)| *first == ticket)
    }
}

struct Place<'a>(&'a Hashing);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.taken -= 1;
        drop(places);
        // All, because only the first in the queue may go, and which thread that is nobody knows.
        self.0.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Mutex;

    use argon2::Params;

    use super::super::secret::{ARGON2, hash, is_hash, new_secret};
    use super::*;

    fn network(number: usize) -> Option<Network> {
        let bits = u32::try_from(number).unwrap();
        Some(Network::of(IpAddr::from(Ipv4Addr::from_bits(bits))))
    }

    fn wait_for(hashing: &Hashing, waiting: usize) {
        while hashing.places.lock().unwrap().waiting.len() < waiting {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_secret_is_known_by_its_hash_alone() {
        let hashing = Hashing::default();
        let secret = new_secret().unwrap();
        let hash = hash(&secret).unwrap();
        let verify = |secret: &str, hash| hashing.verify(None, secret, hash);
        assert_eq!(verify(&secret, Some(&hash)), Ok(true));
        assert_eq!(verify(&secret[1..], Some(&hash)), Ok(false));
        assert_eq!(verify("", Some(&hash)), Ok(false));
        assert_eq!(verify(&secret, None), Ok(false));
        assert_eq!(verify(&secret, Some("nonsense")), Ok(false));
    }

    #[test]
    fn the_hash_for_nobody_costs_the_same() {
        assert!(is_hash(NOBODY));
        let nobody = PasswordHash::new(NOBODY).unwrap();
        let params = Params::try_from(&nobody).unwrap();
        assert_eq!((params.m_cost(), params.t_cost(), params.p_cost()), ARGON2);
        assert_eq!(nobody.hash.unwrap().len(), 32);
    }

    #[test]
    fn the_places_are_few_and_come_back() {
        let hashing = Hashing::default();
        let held: Vec<_> = (0..AT_ONCE_MAX)
            .map(|_| hashing.take_place(None).unwrap())
            .collect();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..WAITING_MAX)
                .map(|at| {
                    scope.spawn({
                        let hashing = &hashing;
                        move || hashing.take_place(network(at)).is_ok()
                    })
                })
                .collect();
            wait_for(&hashing, WAITING_MAX);
            assert_eq!(hashing.take_place(network(99)).err(), Some(BUSY));
            drop(held);
            for waiter in waiters {
                assert!(waiter.join().unwrap());
            }
        });
        assert!(hashing.take_place(None).is_ok());
        let places = hashing.places.lock().unwrap();
        assert_eq!((places.taken, places.waiting.len()), (0, 0));
    }

    #[test]
    fn who_came_first_is_first_and_one_network_does_not_fill_the_queue() {
        let hashing = Hashing::default();
        let held: Vec<_> = (0..AT_ONCE_MAX)
            .map(|_| hashing.take_place(None).unwrap())
            .collect();
        let served = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let waiters = WAITING_OF_ONE_MAX + 2;
            for number in 0..waiters {
                let (hashing, served) = (&hashing, &served);
                scope.spawn(move || {
                    let _place = hashing
                        .take_place(network(number / WAITING_OF_ONE_MAX))
                        .unwrap();
                    served.lock().unwrap().push(number);
                });
                wait_for(hashing, number + 1);
            }
            // One network has its share, and others are still let in.
            assert_eq!(hashing.take_place(network(0)).err(), Some(BUSY));
            // Whoever finds a place free, but others waiting, goes behind them.
            let mut places = hashing.places.lock().unwrap();
            let newcomer = places.queue(network(5)).unwrap();
            places.taken = 0;
            assert!(!places.is_turn_of(newcomer));
            places.taken = AT_ONCE_MAX;
            places.waiting.pop_back();
            drop(places);
            drop(held);
        });
        let order: Vec<_> = (0..WAITING_OF_ONE_MAX + 2).collect();
        assert_eq!(*served.lock().unwrap(), order);
    }
}
