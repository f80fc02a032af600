//! A wall clock that runs with the runtime's time and steps when a test says so.

use std::sync::atomic::{AtomicI64, Ordering};

use starling_node::time::now;
use starling_storage::WallClock;
use tokio::time::Instant;

/// A moment in 2027, so that a test's times are told from the machine's.
const ORIGIN_US: u64 = 1_800_000_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct SteppedClock {
    began: Instant,
    stepped_us: AtomicI64,
}

impl SteppedClock {
    /// A clock for which `began` is the same moment as for every other that was given it.
    pub fn new(began: Instant) -> SteppedClock {
        SteppedClock { began, stepped_us: AtomicI64::new(0) }
    }

    /// Steps by so many microseconds, either way.
    pub fn step(&self, delta_us: i64) {
        self.stepped_us.fetch_add(delta_us, Ordering::SeqCst);
    }

    /// Back to where it would be without any step.
    pub fn set_right(&self) {
        self.stepped_us.store(0, Ordering::SeqCst);
    }
}

impl WallClock for SteppedClock {
    fn now_us(&self) -> u64 {
        let runs = now().saturating_duration_since(self.began).as_micros();
        let runs = u64::try_from(runs).expect("no test runs for a thousand years");
        (ORIGIN_US + runs).saturating_add_signed(self.stepped_us.load(Ordering::SeqCst))
    }
}
