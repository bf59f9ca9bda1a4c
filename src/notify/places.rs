//! Places for callbacks under way, shared out so that those who hang keep nobody else waiting.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A host (with its port) that hangs has no more of the places than this part.
const HOST_PART: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Places {
    /// For callbacks that took the last notification soon.
    proven: Arc<Semaphore>,
    /// For all others.
    unproven: Arc<Semaphore>,
    per_host: usize,
    /// Of those hosts that anybody waits for.
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place, until it is dropped. `None` never happens: nobody closes the doors.
#[derive(Debug)]
pub(super) struct Place {
    #[expect(dead_code, reason = "held as long as the place is")]
    permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Places {
    pub(super) fn new(in_flight_max: usize) -> Self {
        let unproven = in_flight_max / 2;
        Self {
            proven: Arc::new(Semaphore::new(in_flight_max - unproven)),
            unproven: Arc::new(Semaphore::new(unproven.max(1))),
            per_host: (in_flight_max / HOST_PART).max(1),
            hosts: Mutex::default(),
        }
    }

    /// Waits for a place: first among those of the same host, then among all of the same kind.
    pub(super) async fn take(&self, host: &str, is_proven: bool) -> Place {
        let of_host = self.of_host(host).acquire_owned().await;
        let kind = if is_proven {
            &self.proven
        } else {
            &self.unproven
        };
        let of_kind = kind.clone().acquire_owned().await;
        Place {
            permits: [of_host.ok(), of_kind.ok()],
        }
    }

    fn of_host(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host).and_then(Weak::upgrade) {
            return known;
        }
        // Those of hosts that nobody waits for any more go when the map would grow.
        if hosts.len() == hosts.capacity() {
            hosts.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(self.per_host));
        hosts.insert(host.to_owned(), Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_hangs_keeps_only_its_own_waiting() {
        let places = Places::new(64);
        let is_free = |host, is_proven| places.take(host, is_proven).now_or_never().is_some();
        let hanging: Vec<_> = [false, false, true, true]
            .map(|is_proven| places.take("hangs", is_proven).now_or_never().unwrap())
            .into();
        // A sixteenth of all.
        assert!(!is_free("hangs", false) && !is_free("hangs", true));
        assert!(is_free("well", false) && is_free("well", true));
        drop(hanging);
        assert!(is_free("hangs", false));
        assert!(places.hosts.lock().unwrap().len() <= 2);
    }

    #[tokio::test]
    async fn strangers_have_half_of_the_places() {
        let places = Places::new(64);
        let host = |number| format!("host-{number}");
        let mut held = Vec::new();
        for number in 0..32 {
            held.push(places.take(&host(number), false).now_or_never().unwrap());
        }
        assert!(places.take("stranger", false).now_or_never().is_none());
        assert!(places.take("friend", true).now_or_never().is_some());
        held.clear();
        for number in 0..10_000 {
            drop(places.take(&host(number), true).await);
        }
        assert!(places.hosts.lock().unwrap().len() < 100, "forgotten hosts");
    }
}
