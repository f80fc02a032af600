//! How long writers went without an acknowledgement while a quorum of every key was up.
//!
//! Invariant: a stretch counts from the first write that was not acknowledged to the next one that was,
//! and only that part of it during which a quorum was claimed. What was written is not looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use starling_client::CausalContext;
use starling_client::load::{BucketTarget, Cause, Failure, Reading, Target};
use starling_node::time::now;
use tokio::time::Instant;

/// See the module. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Availability {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when a quorum of every key is up.
    claimed: Option<Instant>,
    waiting: BTreeMap<u64, Waiting>,
    longest: Longest,
    acknowledged: u64,
    failures: Failures,
}

/// How many requests failed, by the code of what they were told.
pub(super) type Failures = BTreeMap<String, u64>;

/// The longest stretches.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Longest {
    /// With at least one write that failed.
    pub(super) failing: Duration,
    /// Whether a write failed or was only slow.
    pub(super) waiting: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: Instant,
    failed: bool,
}

impl State {
    fn count(&mut self, waiting: Waiting, until: Instant) {
        let Some(claimed) = self.claimed else { return };
        let stretch = until.saturating_duration_since(waiting.since.max(claimed));
        self.longest.waiting = self.longest.waiting.max(stretch);
        if waiting.failed {
            self.longest.failing = self.longest.failing.max(stretch);
        }
    }
}

impl Availability {
    /// From now on a quorum of every key is up, or is not.
    pub(super) fn claim(&self, quorum: bool) {
        let state = &mut *self.state.lock();
        match (quorum, state.claimed) {
            (true, None) => state.claimed = Some(now()),
            (false, Some(_)) => {
                let waiting: Vec<_> = state.waiting.values().copied().collect();
                waiting.into_iter().for_each(|waiting| state.count(waiting, now()));
                state.claimed = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// The longest stretches so far.
    pub(super) fn longest(&self) -> Longest {
        self.state.lock().longest
    }

    /// How many writes were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.state.lock().acknowledged
    }

    /// The reads and writes that failed so far.
    pub(super) fn failures(&self) -> Failures {
        self.state.lock().failures.clone()
    }

    fn failed(&self, failure: &Failure) {
        // The message begins with the code in brackets.
        let code = failure.message.split(['[', ']']).nth(1).unwrap_or("unknown");
        *self.state.lock().failures.entry(code.to_owned()).or_default() += 1;
    }

    fn begin(&self, writer: u64) {
        let began = Waiting { since: now(), failed: false };
        self.state.lock().waiting.entry(writer).or_insert(began);
    }

    fn end(&self, writer: u64, acknowledged: bool) {
        let state = &mut *self.state.lock();
        if !acknowledged {
            state.waiting.entry(writer).and_modify(|waiting| waiting.failed = true);
        } else if let Some(waiting) = state.waiting.remove(&writer) {
            state.acknowledged += 1;
            state.count(waiting, now());
        }
    }
}

/// A bucket whose writes are watched. Each clone is a writer of its own.
pub(super) struct Watched {
    inner: BucketTarget,
    availability: Availability,
    writer: u64,
    writers: Arc<AtomicU64>,
    /// One write in so many is acknowledged and not sent: what the judge has to find.
    forgets_every: Option<u64>,
}

impl Watched {
    pub(super) fn new(
        inner: BucketTarget,
        availability: Availability,
        forgets_every: Option<u64>,
    ) -> Watched {
        Watched { inner, availability, writer: 0, writers: Arc::default(), forgets_every }
    }

    fn forgets(&self) -> bool {
        self.forgets_every
            .is_some_and(|every| self.availability.acknowledged() % every == every - 1)
    }
}

impl Clone for Watched {
    fn clone(&self) -> Watched {
        Watched {
            inner: self.inner.clone(),
            availability: self.availability.clone(),
            writer: self.writers.fetch_add(1, Ordering::Relaxed) + 1,
            writers: self.writers.clone(),
            forgets_every: self.forgets_every,
        }
    }
}

impl Target for Watched {
    type Context = CausalContext;

    async fn read(
        &self,
        key: &[u8; 20],
        floor: Option<&CausalContext>,
    ) -> Result<Reading<CausalContext>, Failure> {
        self.inner.read(key, floor).await.inspect_err(|failure| self.availability.failed(failure))
    }

    async fn write(
        &self,
        key: &[u8; 20],
        value: Option<Bytes>,
        cause: Cause<'_, CausalContext>,
    ) -> Result<CausalContext, Failure> {
        self.availability.begin(self.writer);
        let written = match cause {
            Cause::Context(context) if self.forgets() => Ok(context.clone()),
            cause => self.inner.write(key, value, cause).await,
        };
        self.availability.end(self.writer, written.is_ok());
        written.inspect_err(|failure| self.availability.failed(failure))
    }

    fn retries(&self) -> u64 {
        self.inner.retries()
    }

    fn repetitions(&self) -> u64 {
        self.inner.repetitions()
    }
}
