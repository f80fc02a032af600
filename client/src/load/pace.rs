//! When a worker begins its next operation, and when it stops.
//!
//! Invariant: with a rate, the moments at which operations are due depend on nothing that the cluster
//! does; a worker that is late begins at once, and its latencies count from when they were due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::clock;
use super::config::{Limit, LoadConfig};

/// What all workers of a run share.
#[derive(Debug)]
pub(crate) struct Course {
    /// Set once; a plain flag, because a token's own check takes a lock.
    stopping: AtomicBool,
    stop: CancellationToken,
    /// Whether the warm-up is over.
    measuring: AtomicBool,
    begun: AtomicU64,
    limit: Limit,
}

impl Course {
    pub(crate) fn new(limit: Limit) -> Course {
        Course {
            stopping: AtomicBool::new(false),
            stop: CancellationToken::new(),
            measuring: AtomicBool::new(false),
            begun: AtomicU64::new(0),
            limit,
        }
    }

    /// Ends the warm-up.
    pub(crate) fn measure(&self) {
        self.measuring.store(true, Ordering::Relaxed);
    }

    /// Lets every worker finish the operation under way and end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.stop.cancel();
    }

    /// Whether one more operation may begin; counts it.
    fn admit(&self) -> bool {
        if self.stopping.load(Ordering::Relaxed) {
            return false;
        }
        let Limit::Operations(limit) = self.limit else { return true };
        !self.measuring.load(Ordering::Relaxed)
            || self.begun.fetch_add(1, Ordering::Relaxed) < limit
    }
}

/// A worker's schedule.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The next due moment and the time between two, for a run with a rate.
    schedule: Option<(Instant, Duration)>,
}

impl Pace {
    /// The schedule of one worker; the workers' schedules interleave evenly.
    pub(crate) fn new(config: &LoadConfig, worker: u64, from: Instant) -> Pace {
        let schedule = config.rate.map(|rate| {
            let every = Duration::from_secs_f64(config.concurrency as f64 / rate);
            (from + Duration::from_secs_f64(worker as f64 / rate), every)
        });
        Pace { schedule }
    }

    /// Waits until the next operation is due and gives the moment its latency counts from; `None` ends
    /// the worker.
    pub(crate) async fn next(&mut self, course: &Course) -> Option<Instant> {
        let Some((due, every)) = &mut self.schedule else {
            return course.admit().then(clock::now);
        };
        let begin = *due;
        *due += *every;
        if begin > clock::now() {
            tokio::select! {
                () = tokio::time::sleep_until(begin.into()) => {}
                () = course.stop.cancelled() => return None,
            }
        }
        course.admit().then_some(begin)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Course, Limit, Pace};
    use crate::load::clock;
    use crate::load::config::LoadConfig;

    #[tokio::test]
    async fn due_moments_do_not_depend_on_lateness() {
        let config = LoadConfig { concurrency: 4, rate: Some(1000.0), ..LoadConfig::new() };
        let course = Course::new(Limit::UntilStopped);
        // A start in the past, as if the first operation had been stuck for a second.
        let from = clock::now() - Duration::from_secs(1);
        let mut pace = Pace::new(&config, 2, from);
        for turn in 0..5 {
            let due = pace.next(&course).await.expect("nothing stops the run");
            let expected = from + Duration::from_millis(2 + 4 * turn);
            let apart = due.max(expected) - due.min(expected);
            assert!(apart < Duration::from_micros(5), "{turn}");
        }
    }

    #[tokio::test]
    async fn a_waiting_worker_stops_at_once() {
        let config = LoadConfig { concurrency: 1, rate: Some(0.001), ..LoadConfig::new() };
        let course = Course::new(Limit::UntilStopped);
        let mut pace = Pace::new(&config, 0, clock::now() + Duration::from_secs(1000));
        let (next, ()) = tokio::join!(pace.next(&course), async { course.stop() });
        assert_eq!(next, None);
    }

    #[tokio::test]
    async fn operations_are_limited_only_while_measured() {
        let course = Course::new(Limit::Operations(3));
        let mut pace = Pace::new(&LoadConfig::new(), 0, clock::now());
        for _ in 0..10 {
            assert!(pace.next(&course).await.is_some());
        }
        course.measure();
        for _ in 0..3 {
            assert!(pace.next(&course).await.is_some());
        }
        assert_eq!(pace.next(&course).await, None);
    }
}
