//! How long operations took and how they ended, gathered by many workers and read once a second.
//!
//! Invariant: every operation is counted in exactly one interval. Workers share a few shards, because a
//! histogram each would push the working set out of the processor's caches.

use hdrhistogram::Histogram;
use parking_lot::Mutex;

use super::target::{Failure, FailureKind};

/// The longest latency told apart; longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Enough for workers on several threads not to meet at one lock.
const SHARDS: usize = 4;

/// Which histogram an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// How many operations ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    /// Reads that found a value.
    pub(crate) found: u64,
    pub(crate) unavailable: u64,
    pub(crate) timeout: u64,
    pub(crate) overloaded: u64,
    pub(crate) other: u64,
    /// Writes of unknown outcome, which are among the errors too.
    pub(crate) unknown: u64,
}

impl Counts {
    pub(crate) fn succeeded(self) -> u64 {
        self.reads + self.writes
    }

    pub(crate) fn failed(self) -> u64 {
        self.unavailable + self.timeout + self.overloaded + self.other
    }
}

/// Latencies (microseconds, of successful operations) and counts of some stretch of time.
#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) read: Histogram<u64>,
    pub(crate) write: Histogram<u64>,
    pub(crate) counts: Counts,
    /// What the first failure said.
    pub(crate) first_failure: Option<String>,
}

impl Interval {
    pub(crate) fn new() -> Interval {
        let histogram = || {
            Histogram::new_with_max(LATENCY_US_MAX, 3)
                .expect("the bounds are in the accepted range")
        };
        Interval {
            read: histogram(),
            write: histogram(),
            counts: Counts::default(),
            first_failure: None,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.read.reset();
        self.write.reset();
        self.counts = Counts::default();
        self.first_failure = None;
    }

    pub(crate) fn absorb(&mut self, other: &Interval) {
        for (mine, theirs) in [(&mut self.read, &other.read), (&mut self.write, &other.write)] {
            // Adding walks all buckets; a direction that was not used is skipped.
            if !theirs.is_empty() {
                mine.add(theirs).expect("all histograms have the same bounds");
            }
        }
        let (mine, theirs) = (&mut self.counts, &other.counts);
        mine.reads += theirs.reads;
        mine.writes += theirs.writes;
        mine.found += theirs.found;
        mine.unavailable += theirs.unavailable;
        mine.timeout += theirs.timeout;
        mine.overloaded += theirs.overloaded;
        mine.other += theirs.other;
        mine.unknown += theirs.unknown;
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&other.first_failure);
        }
    }

    /// Reads and writes together.
    pub(crate) fn both(&self) -> Histogram<u64> {
        let mut both = self.read.clone();
        both.add(&self.write).expect("all histograms have the same bounds");
        both
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Recorder {
    shards: Vec<Mutex<Interval>>,
}

impl Recorder {
    pub(crate) fn new() -> Recorder {
        Recorder { shards: (0..SHARDS).map(|_| Mutex::new(Interval::new())).collect() }
    }

    /// Counts a success.
    pub(crate) fn succeeded(&self, worker: u64, direction: Direction, latency_us: u64) {
        let mut shard = self.shard(worker);
        match direction {
            Direction::Read => {
                shard.counts.reads += 1;
                shard.read.saturating_record(latency_us);
            }
            Direction::Write => {
                shard.counts.writes += 1;
                shard.write.saturating_record(latency_us);
            }
        }
    }

    /// A read that was counted found a value.
    pub(crate) fn found(&self, worker: u64) {
        self.shard(worker).counts.found += 1;
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, worker: u64, direction: Direction, failure: &Failure) {
        let mut shard = self.shard(worker);
        let counts = &mut shard.counts;
        match failure.kind {
            FailureKind::Unavailable => counts.unavailable += 1,
            FailureKind::Timeout => counts.timeout += 1,
            FailureKind::Overloaded => counts.overloaded += 1,
            FailureKind::Other => counts.other += 1,
        }
        if direction == Direction::Write && failure.unknown {
            counts.unknown += 1;
        }
        if shard.first_failure.is_none() {
            shard.first_failure = Some(failure.message.clone());
        }
    }

    /// Moves what was gathered since the last call into `interval`, which is cleared first.
    pub(crate) fn drain(&self, interval: &mut Interval) {
        interval.clear();
        for shard in &self.shards {
            let mut shard = shard.lock();
            interval.absorb(&shard);
            shard.clear();
        }
    }

    fn shard(&self, worker: u64) -> parking_lot::MutexGuard<'_, Interval> {
        self.shards[(worker % SHARDS as u64) as usize].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Interval, Recorder};
    use crate::load::target::{Failure, FailureKind};

    #[test]
    fn everything_is_counted_once() {
        let recorder = Recorder::new();
        let mut interval = Interval::new();
        let mut total = Interval::new();
        for round in 0..3 {
            for worker in 0..10 {
                recorder.succeeded(worker, Direction::Read, 100 * (round + 1));
                recorder.succeeded(worker, Direction::Write, 1000);
                recorder.found(worker);
            }
            let failure = Failure {
                kind: FailureKind::Timeout,
                unknown: true,
                message: format!("round {round}"),
            };
            recorder.failed(1, Direction::Write, &failure);
            recorder.failed(2, Direction::Read, &failure);
            recorder.drain(&mut interval);
            assert_eq!(interval.counts.succeeded(), 20);
            total.absorb(&interval);
        }
        recorder.drain(&mut interval);
        assert_eq!(interval.counts.succeeded(), 0);
        assert_eq!((total.counts.reads, total.counts.writes, total.counts.found), (30, 30, 30));
        assert_eq!((total.counts.timeout, total.counts.unknown), (6, 3));
        assert_eq!(total.first_failure.as_deref(), Some("round 0"));
        assert_eq!(total.both().len(), 60);
        assert_eq!(total.read.max(), 300);
    }
}
