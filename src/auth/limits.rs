//! How many requests for tokens that cost something, or lead to nothing, one address may make.
//!
//! The allowances that are remembered are bounded: when there is no room for a new one, it is shared
//! with all others that came too late.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use uuid::Uuid;

use crate::domain::Steady;

/// Allowances that are remembered, each in some 80 bytes.
const ALLOWANCES_MAX: usize = 16_384;

/// When there is no room, those that have rested are looked for no more often, in nanoseconds.
const SWEEP_EVERY_NS: u64 = 1_000_000_000;

/// Where a request comes from, as far as that can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Network {
    /// One address.
    V4([u8; 4]),
    /// A whole /64: who has one address there has them all.
    V6([u8; 8]),
}

impl Network {
    /// That of an address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// What a network's request is charged to. One address may be many applications': behind a proxy, or
/// on the platform itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Account {
    /// Secrets of one client, by its credential.
    Client(Uuid),
    /// Secrets of clients that are not known.
    Nobody,
    /// Signatures that do not verify.
    Signatures,
}

/// Whose allowance is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bucket {
    Of(Network, Account),
    /// All for whom there is no room.
    Latecomers,
}

/// Steady time, as it was told last. The room reads no clock, so the limiter is given one that only
/// repeats.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicU64>);

impl Told {
    fn tell(&self, now: Steady) {
        // Half of the range is some three hundred years, and sums with it cannot overflow.
        let ns = now.as_ms().saturating_mul(1_000_000).min(u64::MAX / 2);
        // Of two that are told at once the later one stays.
        self.0.fetch_max(ns, Ordering::Relaxed);
    }

    fn ns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.ns().into()
    }
}

/// What the limiter remembers: for each bucket the time until which its allowance is used.
#[derive(Debug)]
struct Buckets {
    now: Told,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    until: HashMap<Bucket, Nanos>,
    swept_ns: u64,
}

impl StateStore for Buckets {
    type Key = Bucket;

    fn measure_and_replace<T, F, E>(&self, bucket: &Bucket, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bucket = *bucket;
        if !used.until.contains_key(&bucket) && used.until.len() >= ALLOWANCES_MAX {
            used.sweep(self.now.ns());
            if used.until.len() >= ALLOWANCES_MAX {
                bucket = Bucket::Latecomers;
            }
        }
        let (answer, until) = judge(used.until.get(&bucket).copied())?;
        used.until.insert(bucket, until);
        Ok(answer)
    }
}

impl Used {
    /// Forgets all whose allowance is whole again: they are as good as new.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.swept_ns) < SWEEP_EVERY_NS {
            return;
        }
        self.swept_ns = now_ns;
        self.until.retain(|_, until| until.as_u64() > now_ns);
    }
}

/// All allowances.
#[derive(Debug)]
pub(super) struct Limits {
    now: Told,
    limiter: RateLimiter<Bucket, Buckets, Told, NoOpMiddleware<Nanos>>,
}

impl Limits {
    /// So many requests at once, and so many in every minute; at least one.
    pub(super) fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        let now = Told::default();
        let buckets = Buckets {
            now: now.clone(),
            used: Mutex::default(),
        };
        Self {
            limiter: RateLimiter::new(Quota::per_minute(per_minute), buckets, now.clone()),
            now,
        }
    }

    /// Takes one request from an allowance.
    ///
    /// # Errors
    /// It is used up; for how long.
    pub(super) fn charge(
        &self,
        from: Network,
        account: Account,
        now: Steady,
    ) -> Result<(), Duration> {
        self.now.tell(now);
        self.limiter
            .check_key(&Bucket::Of(from, account))
            .map_err(|until| until.wait_time_from(self.now.now()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const fn at(s: u64) -> Steady {
        Steady::from_ms(1_700_000_000_000 + s * 1000)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A signature of this address does not verify.
    fn charge(limits: &Limits, from: IpAddr, now: Steady) -> Result<(), Duration> {
        limits.charge(Network::of(from), Account::Signatures, now)
    }

    #[test]
    fn an_allowance_is_used_up_and_comes_back() {
        let limits = Limits::new(6);
        let one = address("10.0.0.1");
        for _ in 0..6 {
            assert_eq!(charge(&limits, one, at(0)), Ok(()));
        }
        assert_eq!(charge(&limits, one, at(0)), Err(Duration::from_secs(10)));
        assert_eq!(charge(&limits, one, at(4)), Err(Duration::from_secs(6)));
        assert_eq!(charge(&limits, address("10.0.0.2"), at(4)), Ok(()));
        assert_eq!(charge(&limits, one, at(10)), Ok(()));
        assert!(charge(&limits, one, at(10)).is_err());
        // Whose clock was read earlier.
        assert!(charge(&limits, one, at(0)).is_err());
        for _ in 0..6 {
            assert_eq!(charge(&limits, one, at(100)), Ok(()));
        }
        assert!(charge(&limits, one, at(100)).is_err());
    }

    #[test]
    fn addresses_of_one_network_or_two_notations_are_one() {
        for (first, second, is_one) in [
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            let limits = Limits::new(1);
            assert_eq!(charge(&limits, address(first), at(0)), Ok(()));
            let refused = charge(&limits, address(second), at(0)).is_err();
            assert_eq!(refused, is_one, "{first} {second}");
        }
    }

    #[test]
    fn the_addresses_are_bounded_and_the_late_share_one_allowance() {
        let limits = Limits::new(2);
        let many = (0..u32::try_from(ALLOWANCES_MAX).unwrap()).map(Ipv4Addr::from_bits);
        for address in many {
            assert_eq!(charge(&limits, address.into(), at(0)), Ok(()));
        }
        let late = |number: u128| IpAddr::from(Ipv6Addr::from_bits(number << 64));
        assert_eq!(charge(&limits, late(1), at(1)), Ok(()));
        assert_eq!(charge(&limits, late(2), at(1)), Ok(()));
        assert!(charge(&limits, late(3), at(1)).is_err());
        // Who was there before has an allowance of his own.
        assert_eq!(
            charge(&limits, Ipv4Addr::from_bits(7).into(), at(1)),
            Ok(())
        );
        // When they have rested there is room again.
        assert_eq!(charge(&limits, late(3), at(100)), Ok(()));
        let buckets = limits.limiter.into_state_store();
        assert_eq!(buckets.used.lock().unwrap().until.len(), 1);
    }

    #[test]
    fn one_address_has_an_allowance_for_each_client() {
        let limits = Limits::new(1);
        let from = Network::of(address("127.0.0.1"));
        let clients = [1, 2].map(|number| Account::Client(Uuid::from_u128(number)));
        for account in clients
            .into_iter()
            .chain([Account::Nobody, Account::Signatures])
        {
            assert_eq!(limits.charge(from, account, at(0)), Ok(()));
            assert!(limits.charge(from, account, at(0)).is_err());
        }
    }

    #[test]
    fn the_ends_of_time_do_no_harm() {
        let limits = Limits::new(1);
        for now in [0, 1, u64::MAX] {
            let _ = charge(&limits, address("::1"), Steady::from_ms(now));
        }
    }
}
