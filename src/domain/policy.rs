//! The operator's choices that the rules need.

use super::liveness::Liveness;
use super::service::LivenessOffer;
use super::silence::Timer;
use super::time::LivenessInterval;

/// Bounds of the negotiation and the terms of the deadline rule. Built by the validated
/// configuration, stored beside the data so that an offline look judges by the same terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Given to a producer that leaves the choice to us.
    pub default_interval: LivenessInterval,
    /// Shorter proposals are raised to this.
    pub min_interval: LivenessInterval,
    /// Longer proposals are lowered to this.
    pub max_interval: LivenessInterval,
    /// Grace as a share of the interval, in percent.
    pub grace_percent: u32,
    /// The least grace in milliseconds.
    pub grace_min_ms: u64,
    /// How many intervals of watched time may be added by credits (see [`Timer::blind_cap`]).
    pub blind_cap: u32,
    /// A SUSPENDED service is removed after so many milliseconds; `None`: never.
    pub remove_after_ms: Option<u64>,
}

impl Policy {
    /// The interval that an offer leads to.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.1.2.2.
    #[must_use]
    pub fn negotiate(&self, offer: LivenessOffer) -> LivenessInterval {
        let wanted = match offer {
            LivenessOffer::PlatformChooses => None,
            LivenessOffer::Seconds(secs) => LivenessInterval::from_secs(secs),
        };
        wanted
            .unwrap_or(self.default_interval)
            .clamp(self.min_interval, self.max_interval)
    }

    /// Grace in milliseconds for an interval: the larger of the share and the least.
    #[must_use]
    pub fn grace_ms(&self, interval: LivenessInterval) -> u64 {
        (interval.as_ms() * u64::from(self.grace_percent) / 100).max(self.grace_min_ms)
    }

    /// The timer that leads to the removal of a SUSPENDED service; `None` when none runs. The same
    /// rule as for silence: an outage of ours is not charged to a producer that may come back.
    #[must_use]
    pub fn removal_of(&self, liveness: &Liveness) -> Option<Timer> {
        let interval = liveness.monitored()?.agreement.counting();
        Some(Timer {
            base: liveness.suspended_since()?,
            interval_ms: self.remove_after_ms?,
            grace_ms: self.grace_ms(interval),
            retry_ms: interval.as_ms(),
            blind_cap: self.blind_cap,
        })
    }

    /// The running timer of a service, ready for [`super::silence::deadline`]; `None` when none
    /// runs.
    #[must_use]
    pub fn timer_of(&self, liveness: &Liveness) -> Option<Timer> {
        let (running, agreement) = liveness.running()?;
        let interval = agreement.counting();
        Some(Timer {
            base: running.base,
            interval_ms: interval.as_ms(),
            grace_ms: self.grace_ms(interval),
            retry_ms: running
                .promise
                .map_or(interval.as_ms(), |promise| promise.as_ms()),
            blind_cap: self.blind_cap,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u32) -> LivenessInterval {
        LivenessInterval::from_secs(s).unwrap()
    }

    #[test]
    fn offers_are_clamped_to_the_bounds() {
        let policy = Policy {
            default_interval: secs(30),
            min_interval: secs(5),
            max_interval: secs(100),
            grace_percent: 20,
            grace_min_ms: 2000,
            blind_cap: 10,
            remove_after_ms: None,
        };
        for (offer, interval) in [
            (LivenessOffer::PlatformChooses, 30),
            (LivenessOffer::Seconds(1), 5),
            (LivenessOffer::Seconds(5), 5),
            (LivenessOffer::Seconds(60), 60),
            (LivenessOffer::Seconds(101), 100),
            (LivenessOffer::Seconds(u32::MAX), 100),
        ] {
            assert_eq!(policy.negotiate(offer), secs(interval), "{offer:?}");
        }
        assert_eq!(policy.grace_ms(secs(5)), 2000);
        assert_eq!(policy.grace_ms(secs(100)), 20_000);
    }
}
