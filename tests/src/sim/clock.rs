//! The wall clock of one simulated machine: simulated time, with an offset and a drift that faults change.

use std::time::Duration;

use parking_lot::Mutex;
use starling_storage::WallClock;

/// 2026-01-01: what simulated time zero means.
const EPOCH_US: i128 = 1_767_225_600_000_000;

/// See the module.
#[derive(Debug, Default)]
pub struct SimClock(Mutex<Error>);

/// How far the clock is off: by `offset_us` at `since`, and by `drift_ppm` more for every second after it.
#[derive(Clone, Copy, Debug, Default)]
struct Error {
    since: Duration,
    offset_us: i64,
    drift_ppm: i64,
}

impl Error {
    fn at(self, now: Duration) -> i128 {
        let held_us = now.saturating_sub(self.since).as_micros();
        let drifted = i128::from(self.drift_ppm) * i128::try_from(held_us).unwrap_or(i128::MAX);
        i128::from(self.offset_us) + drifted / 1_000_000
    }
}

impl SimClock {
    /// Steps by `by_us`, either way.
    pub fn step(&self, now: Duration, by_us: i64) {
        let mut error = self.0.lock();
        let offset = i64::try_from(error.at(now)).unwrap_or(i64::MAX);
        *error = Error { since: now, offset_us: offset.saturating_add(by_us), ..*error };
    }

    /// Runs faster by `ppm` parts in a million from now on; slower if negative.
    pub fn drift(&self, now: Duration, ppm: i64) {
        self.step(now, 0);
        self.0.lock().drift_ppm = ppm;
    }

    /// Right again, and running right.
    pub fn repair(&self) {
        *self.0.lock() = Error::default();
    }
}

impl WallClock for SimClock {
    fn now_us(&self) -> u64 {
        let now = turmoil::sim_elapsed().unwrap_or_default();
        let right = EPOCH_US + i128::try_from(now.as_micros()).unwrap_or(i128::MAX);
        u64::try_from(right + self.0.lock().at(now)).unwrap_or(0)
    }
}
