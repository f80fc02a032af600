//! What a run reports while it goes on.

use std::time::{Duration, Instant};

use super::clock;
use super::recorder::Interval;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Writing the records that the workload needs.
    Loading,
    /// Running without measuring.
    WarmingUp,
    /// Running and measuring.
    Measuring,
    /// Reading back.
    Verifying,
}

/// The last second.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What the run is doing.
    pub phase: Phase,
    /// Since the phase began.
    pub elapsed: Duration,
    /// Operations, records or keys done in the phase.
    pub done: u64,
    /// How many there will be, where that is known.
    pub total: Option<u64>,
    /// Successes of the last second.
    pub ops_per_s: f64,
    /// Median latency of the last second, in microseconds.
    pub p50_us: u64,
    /// 99th percentile of the last second, in microseconds.
    pub p99_us: u64,
    /// Failed operations of the last second.
    pub errors: u64,
    /// Failed operations of the phase.
    pub errors_total: u64,
    /// What loading met last, while it makes no progress.
    pub stuck_on: Option<String>,
}

impl Progress {
    pub(crate) fn of_phase(
        phase: Phase,
        begin: Instant,
        done: u64,
        total: Option<u64>,
    ) -> Progress {
        Progress {
            phase,
            elapsed: clock::now().saturating_duration_since(begin),
            done,
            total,
            ops_per_s: 0.0,
            p50_us: 0,
            p99_us: 0,
            errors: 0,
            errors_total: 0,
            stuck_on: None,
        }
    }

    /// Fills in what a stretch of `seconds` showed.
    pub(crate) fn with_interval(mut self, interval: &Interval, seconds: f64) -> Progress {
        let both = interval.both();
        self.ops_per_s = interval.counts.succeeded() as f64 / seconds.max(1e-3);
        self.p50_us = both.value_at_quantile(0.5);
        self.p99_us = both.value_at_quantile(0.99);
        self.errors = interval.counts.failed();
        self
    }
}
