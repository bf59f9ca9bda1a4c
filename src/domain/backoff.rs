//! How long to wait before trying again.

/// The pause after so many failures in a row, in milliseconds; 0 counts as the first.
///
/// Doubles from `first_ms` up to `cap_ms`. Half of it is fixed, the other half is drawn by `jitter`,
/// any random number: those that failed together do not come back together.
#[must_use]
pub fn pause_ms(first_ms: u64, failures: u32, cap_ms: u64, jitter: u64) -> u64 {
    // 2^14 times any first pause of ours is beyond an hour.
    let doublings = failures.saturating_sub(1).min(14);
    let full_ms = (first_ms << doublings).min(cap_ms.max(1));
    let half_ms = full_ms / 2;
    (half_ms + jitter % (full_ms - half_ms + 1)).max(1)
}
