//! The clock that dates everything a replica mints: a hybrid logical clock under a durable lease.
//!
//! Invariant: no number is minted twice for one actor, whatever the wall clock does and whenever the process dies.
//!
//! It does not choose actors: when the wall clock has stepped far back over a restart it says [`ClockError::Jumped`], and its owner takes a new
//! actor before [`Clock::start_over`].

mod hlc;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use thiserror::Error;

pub use hlc::{
    BOOT_AHEAD_US, BOOT_JUMP_US, Hlc, LEASE_AHEAD_US, LEASE_RENEW_BELOW_US, SKEW_MAX_US,
};

use crate::files::{DurableNumber, Files};

/// The name of the lease's record.
pub const LEASE_FILE: &str = "LEASE";

/// A source of wall-clock time.
pub trait WallClock: Send + Sync {
    /// Microseconds since the Unix epoch. May step either way at any time.
    fn now_us(&self) -> u64;
}

/// The operating system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one driver that reads the wall clock")]
    fn now_us(&self) -> u64 {
        let now = std::time::SystemTime::now();
        // Before 1970 counts as 1970: the lease rules carry on from there.
        now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }
}

/// A wall clock that stands still until it is told otherwise, for tests and the simulator.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock standing at `now_us`.
    pub fn new(now_us: u64) -> ManualClock {
        ManualClock(AtomicU64::new(now_us))
    }

    /// Steps to `now_us`.
    pub fn set(&self, now_us: u64) {
        self.0.store(now_us, Ordering::SeqCst);
    }

    /// Steps by `delta_us`, either way.
    pub fn advance(&self, delta_us: i64) {
        let stepped = self.now_us().saturating_add_signed(delta_us);
        self.set(stepped);
    }
}

impl WallClock for ManualClock {
    fn now_us(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why the clock minted nothing or refused a number.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClockError {
    /// The lease is used up: [`Clock::extend`] (which blocks) and mint again.
    #[error("the clock's lease is used up")]
    LeaseExhausted,
    /// The clock waits until the time has passed what an earlier run may have minted.
    #[error("the clock may mint again in {wait_us} us")]
    Booting {
        /// The rest of the wait.
        wait_us: u64,
    },
    /// Over a restart the wall clock stepped back behind what was minted: a new actor is needed.
    #[error("the wall clock is {ahead_us} us behind what was minted before the restart")]
    Jumped {
        /// How far the last lease is ahead of the wall clock.
        ahead_us: u64,
    },
    /// A fresh write is dated too far ahead of this node's time.
    #[error("dated {ahead_us} us ahead of this node's clock; {max_us} us are tolerated")]
    Skew {
        /// How far ahead it is.
        ahead_us: u64,
        /// How far it may be.
        max_us: u64,
    },
    /// The clock was stopped cleanly and mints no more.
    #[error("the clock is stopped")]
    Stopped,
    /// The lease could not be made durable.
    #[error("cannot write the clock's lease: {reason}")]
    Lease {
        /// The operating system's words.
        reason: String,
    },
}

#[derive(Debug)]
struct State {
    hlc: Hlc,
    stopped: bool,
}

/// The shared clock of a replica.
pub struct Clock {
    wall: Arc<dyn WallClock>,
    files: Arc<dyn Files>,
    state: Mutex<State>,
    /// Held while a lease is being made durable; minting goes on meanwhile.
    lease: Mutex<DurableNumber>,
    /// Nothing is minted up to here, even after starting over.
    passed: AtomicU64,
}

impl Clock {
    /// Opens the clock over the lease that `files` hold. Minting may have to wait, see [`Clock::boot_wait_us`].
    pub fn open(files: Arc<dyn Files>, wall: Arc<dyn WallClock>) -> io::Result<Clock> {
        let (lease, stored) = DurableNumber::open(files.as_ref(), LEASE_FILE)?;
        let hlc = Hlc::boot(stored, wall.now_us());
        Ok(Clock {
            wall,
            files,
            state: Mutex::new(State { hlc, stopped: false }),
            lease: Mutex::new(lease),
            passed: AtomicU64::new(0),
        })
    }

    /// The next number, in microseconds since the Unix epoch. Never blocks.
    pub fn mint(&self) -> Result<u64, ClockError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(ClockError::Stopped);
        }
        state.hlc.mint(self.wall.now_us())
    }

    /// Like [`Clock::mint`], but extends the lease as needed. May block on the disk.
    pub fn mint_waiting(&self) -> Result<u64, ClockError> {
        match self.mint() {
            Err(ClockError::LeaseExhausted) => {
                self.extend()?;
                self.mint()
            }
            other => other,
        }
    }

    /// Takes note of the mint of a fresh write from elsewhere; [`ClockError::Skew`] if it is too far ahead.
    ///
    /// Only for envelopes of fresh writes, never for the dots inside states.
    pub fn observe(&self, minted_us: u64) -> Result<(), ClockError> {
        let now_us = self.wall.now_us();
        self.state.lock().hlc.observe(minted_us, now_us)
    }

    /// Extends the lease durably if its end is near. Blocks on the disk when it is.
    pub fn extend(&self) -> Result<(), ClockError> {
        let mut number = self.lease.lock();
        let wanted = {
            let state = self.state.lock();
            if state.stopped {
                return Ok(());
            }
            state.hlc.lease_wanted(self.wall.now_us())
        };
        let Some(lease) = wanted else { return Ok(()) };
        self.write_lease(&mut number, lease)?;
        self.state.lock().hlc.grant(lease);
        Ok(())
    }

    /// [`Clock::extend`], if anything was minted since the last time: an idle clock needs no lease.
    pub fn extend_while_minting(&self) -> Result<(), ClockError> {
        if self.state.lock().hlc.is_minting() {
            self.extend()?;
        }
        Ok(())
    }

    /// Microseconds until the first mint after a start; [`ClockError::Jumped`] if no wait of a second would do.
    pub fn boot_wait_us(&self) -> Result<u64, ClockError> {
        let now_us = self.wall.now_us();
        self.state.lock().hlc.boot_wait_us(now_us)
    }

    /// Mints nothing up to `number` any more, whatever the wall clock says.
    pub fn pass(&self, number: u64) {
        self.passed.fetch_max(number, Ordering::SeqCst);
        self.state.lock().hlc.pass(number);
    }

    /// Begins again at the wall clock's time, above what was passed. The caller has made a new actor durable before.
    pub fn start_over(&self) -> Result<(), ClockError> {
        let mut number = self.lease.lock();
        let from = self.wall.now_us().max(self.passed.load(Ordering::SeqCst));
        let lease = from + LEASE_AHEAD_US;
        self.write_lease(&mut number, lease)?;
        let mut state = self.state.lock();
        state.hlc.start_over(from);
        state.hlc.grant(lease);
        Ok(())
    }

    /// Ends minting for good and leaves the lease at the last number, so that the next start need not wait. Blocks.
    pub fn clean_stop(&self) -> Result<(), ClockError> {
        let mut number = self.lease.lock();
        let last = {
            let mut state = self.state.lock();
            state.stopped = true;
            state.hlc.last()
        };
        self.write_lease(&mut number, last)
    }

    /// The present moment as this clock tells it: whatever it mints from here on is above.
    pub fn read(&self) -> u64 {
        let now_us = self.wall.now_us();
        let mut state = self.state.lock();
        state.hlc.pass(now_us);
        state.hlc.last()
    }

    /// [`Clock::read`], if this clock may mint by now: until it may, it could start over and mint below.
    pub fn seal(&self) -> Option<u64> {
        let now_us = self.wall.now_us();
        let mut state = self.state.lock();
        state.hlc.leave_boot(now_us).ok()?;
        state.hlc.pass(now_us);
        Some(state.hlc.last())
    }

    /// Passes the present moment and tells it: it is above everything that this clock has told, also if its time stands still.
    pub fn pass_present(&self) -> u64 {
        let present = self.read() + 1;
        self.pass(present);
        present
    }

    /// The largest number minted, observed or passed.
    pub fn last(&self) -> u64 {
        self.state.lock().hlc.last()
    }

    /// The wall clock's time in microseconds.
    pub fn now_us(&self) -> u64 {
        self.wall.now_us()
    }

    fn write_lease(&self, number: &mut DurableNumber, lease: u64) -> Result<(), ClockError> {
        number
            .write(self.files.as_ref(), lease)
            .map_err(|error| ClockError::Lease { reason: error.to_string() })
    }
}
