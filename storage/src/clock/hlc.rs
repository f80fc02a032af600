//! The hybrid logical clock as a pure state machine.
//!
//! Invariant: every minted number is above all minted before it, and below the lease that was made durable before; so a restart that
//! continues at the lease cannot mint a number twice.
//!
//! It reads no wall clock and writes no file: callers pass the time, and make leases durable before they grant them.

use super::ClockError;

/// How far above the time a new lease reaches.
pub const LEASE_AHEAD_US: u64 = 300_000;
/// The rest of a lease at which it is time for the next one: leases follow one another every 100 ms while minting.
pub const LEASE_RENEW_BELOW_US: u64 = 200_000;
/// How far above our time another node's fresh write may be dated.
pub const SKEW_MAX_US: u64 = 500_000;
/// How far ahead of the time the first mint after a restart may be.
pub const BOOT_AHEAD_US: u64 = 100_000;
/// A lease further ahead than this was left by a clock that jumped since, not by the last run's minting.
pub const BOOT_JUMP_US: u64 = 1_000_000;

/// The clock's state. All times are microseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hlc {
    last: u64,
    lease: u64,
    /// Set until the time has come near the lease of the previous run.
    booting: bool,
    /// Whether anything was minted under the current lease.
    minted: bool,
}

impl Hlc {
    /// The clock after a start that found `stored_lease` (`None`: the first start ever) at time `now_us`.
    pub fn boot(stored_lease: Option<u64>, now_us: u64) -> Hlc {
        let lease = stored_lease.unwrap_or(0);
        Hlc { last: lease.max(now_us), lease, booting: true, minted: false }
    }

    /// The next number: at least the time, above everything minted or observed, below the lease.
    pub fn mint(&mut self, now_us: u64) -> Result<u64, ClockError> {
        self.leave_boot(now_us)?;
        let next = now_us.max(self.last + 1);
        if next >= self.lease {
            return Err(ClockError::LeaseExhausted);
        }
        self.last = next;
        self.minted = true;
        Ok(next)
    }

    /// Takes note of a number minted elsewhere for a fresh write; refuses one too far above our time.
    pub fn observe(&mut self, minted_us: u64, now_us: u64) -> Result<(), ClockError> {
        if minted_us > now_us.saturating_add(SKEW_MAX_US) {
            return Err(ClockError::Skew { ahead_us: minted_us - now_us, max_us: SKEW_MAX_US });
        }
        self.last = self.last.max(minted_us);
        Ok(())
    }

    /// Microseconds until the first mint is allowed after a start (0: now); [`ClockError::Jumped`] if that is out of reach.
    pub fn boot_wait_us(&self, now_us: u64) -> Result<u64, ClockError> {
        if !self.booting {
            return Ok(0);
        }
        let ahead = self.last.saturating_sub(now_us);
        if ahead > BOOT_JUMP_US {
            return Err(ClockError::Jumped { ahead_us: ahead });
        }
        Ok(ahead.saturating_sub(BOOT_AHEAD_US))
    }

    /// The lease to make durable now, if less than [`LEASE_RENEW_BELOW_US`] is left.
    ///
    /// Never while booting: starts in quick succession would push the lease ever further ahead of the time.
    pub fn lease_wanted(&self, now_us: u64) -> Option<u64> {
        if self.booting {
            return None;
        }
        let base = now_us.max(self.last);
        (self.lease < base + LEASE_RENEW_BELOW_US).then_some(base + LEASE_AHEAD_US)
    }

    /// Allows minting below `lease`, which is durable by now.
    pub fn grant(&mut self, lease: u64) {
        self.lease = self.lease.max(lease);
        self.minted = false;
    }

    /// Whether the lease is in use, so that it pays to renew it ahead of need.
    pub fn is_minting(&self) -> bool {
        self.minted
    }

    /// Starts over at the time, for a new actor: only then may numbers return.
    pub fn start_over(&mut self, now_us: u64) {
        *self = Hlc { last: now_us, lease: 0, booting: false, minted: false };
    }

    /// Mints nothing up to `number` any more.
    pub fn pass(&mut self, number: u64) {
        self.last = self.last.max(number);
    }

    /// The largest number minted, observed or passed.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// From here on the clock does not start over any more. [`Hlc::boot_wait_us`] says when it may.
    pub fn leave_boot(&mut self, now_us: u64) -> Result<(), ClockError> {
        let wait_us = self.boot_wait_us(now_us)?;
        if wait_us > 0 {
            return Err(ClockError::Booting { wait_us });
        }
        self.booting = false;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code")]
mod tests {
    use super::{ClockError, Hlc, LEASE_AHEAD_US};

    const HOUR: u64 = 3_600_000_000;
    const NOW: u64 = 1_000 * HOUR;

    fn running(now: u64) -> Hlc {
        let mut hlc = Hlc::boot(None, now);
        assert_eq!(hlc.mint(now), Err(ClockError::LeaseExhausted));
        hlc.grant(hlc.lease_wanted(now).unwrap());
        hlc
    }

    #[test]
    fn mints_rise_while_the_wall_clock_falls() {
        let mut hlc = running(NOW);
        let first = hlc.mint(NOW).unwrap();
        let second = hlc.mint(NOW - HOUR).unwrap();
        assert!(second > first);
    }

    #[test]
    fn nothing_is_minted_at_or_above_the_lease() {
        let mut hlc = running(NOW);
        assert_eq!(hlc.clone().mint(NOW + LEASE_AHEAD_US), Err(ClockError::LeaseExhausted));
        assert!(hlc.mint(NOW + LEASE_AHEAD_US - 1).is_ok());
    }

    #[test]
    fn a_crash_resumes_at_the_lease() {
        let lease = NOW + LEASE_AHEAD_US;
        let mut hlc = Hlc::boot(Some(lease), NOW);
        assert_eq!(hlc.mint(NOW), Err(ClockError::Booting { wait_us: 200_000 }));
        let later = NOW + 200_000;
        assert_eq!(hlc.lease_wanted(later), None);
        assert_eq!(hlc.mint(later), Err(ClockError::LeaseExhausted));
        hlc.grant(hlc.lease_wanted(later).unwrap());
        assert!(hlc.mint(later).unwrap() > lease);
    }

    #[test]
    fn a_lease_far_ahead_is_a_jump() {
        let mut hlc = Hlc::boot(Some(NOW), NOW - HOUR);
        assert_eq!(hlc.mint(NOW - HOUR), Err(ClockError::Jumped { ahead_us: HOUR }));
        hlc.start_over(NOW - HOUR);
        hlc.grant(hlc.lease_wanted(NOW - HOUR).unwrap());
        assert_eq!(hlc.mint(NOW - HOUR).unwrap(), NOW - HOUR + 1);
    }

    #[test]
    fn a_fresh_write_from_far_ahead_is_refused_and_not_remembered() {
        let mut hlc = running(NOW);
        assert!(hlc.observe(NOW + 400_000, NOW).is_ok());
        assert!(matches!(hlc.observe(NOW + HOUR, NOW), Err(ClockError::Skew { .. })));
        assert_eq!(hlc.last(), NOW + 400_000);
    }
}
