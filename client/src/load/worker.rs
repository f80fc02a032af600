//! One worker: takes steps from its plan, sends them, and remembers what became of each write.
//!
//! Invariant: a worker has at most one operation under way, and only it writes its keys; so the writes of
//! a key never overlap, and each put carries the context of the last one acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::clock::{self, micros_between};
use super::config::LoadConfig;
use super::history::{Effect, Found, KeyHistory, Verdict};
use super::keys::{Ownership, key_name};
use super::pace::{Course, Pace};
use super::plan::{Plan, Step};
use super::recorder::{Direction, Recorder};
use super::stamp::ValueMaker;
use super::target::{Cause, Failure, Reading, Target};
use super::verify::{DURING, Verification};

/// After a refusal: a cluster that answers errors at once is not asked in a tight loop.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(10);
/// Attempts to write one record before the load phase gives up.
const LOAD_ATTEMPTS: usize = 50;
/// Between those attempts.
const LOAD_PAUSE: Duration = Duration::from_millis(200);

/// A key that the worker owns.
#[derive(Debug)]
struct KeyState<C> {
    history: KeyHistory,
    /// The context of the last acknowledged write, or a later one that was read.
    context: Option<C>,
    /// A write of unknown outcome may stand beside what the context covers.
    unsettled: bool,
}

impl<C> KeyState<C> {
    fn new() -> KeyState<C> {
        KeyState { history: KeyHistory::default(), context: None, unsettled: false }
    }
}

/// What the workers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) course: Course,
    pub(crate) recorder: Recorder,
    /// How many keys there are, inserted ones included.
    pub(crate) horizon: AtomicU64,
    /// Records written by the load phase.
    pub(crate) loaded: AtomicU64,
    /// What the last attempt to load a record met.
    pub(crate) load_failure: Mutex<Option<String>>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Worker<T: Target> {
    target: T,
    shared: Arc<Shared>,
    own: Ownership,
    plan: Plan,
    values: ValueMaker,
    run: u32,
    fresh: bool,
    /// Judge reads as they come.
    judges: bool,
    keys: Vec<KeyState<T::Context>>,
    inserted: Vec<(u64, KeyState<T::Context>)>,
    verification: Verification,
}

impl<T: Target> Worker<T> {
    pub(crate) fn new(
        target: T,
        shared: Arc<Shared>,
        config: &LoadConfig,
        worker: u64,
    ) -> Worker<T> {
        let workers = config.concurrency as u64;
        let own = Ownership { worker, workers, records: config.records };
        Worker {
            target,
            shared,
            own,
            plan: Plan::new(config, own),
            values: ValueMaker::new(config.run, worker as u32, config.value_bytes),
            run: config.run,
            fresh: config.fresh,
            judges: config.verify && config.reads_see_writes(),
            keys: (0..own.count()).map(|_| KeyState::new()).collect(),
            inserted: Vec::new(),
            verification: Verification::default(),
        }
    }

    /// Writes every record the worker owns once.
    ///
    /// # Errors
    /// The last failure of a record that could not be written.
    pub(crate) async fn load(mut self) -> Result<Worker<T>, Failure> {
        for index in 0..self.keys.len() {
            let mut attempt = 1;
            while let Err(failure) = self.write_record(index, Effect::Put).await {
                if attempt == LOAD_ATTEMPTS {
                    return Err(failure);
                }
                attempt += 1;
                *self.shared.load_failure.lock() = Some(failure.message);
                tokio::time::sleep(LOAD_PAUSE).await;
            }
            self.shared.loaded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self)
    }

    /// Works until the course ends.
    pub(crate) async fn work(mut self, mut pace: Pace) -> Worker<T> {
        while let Some(begin) = pace.next(&self.shared.course).await {
            let horizon = self.shared.horizon.load(Ordering::Relaxed);
            match self.plan.next(horizon) {
                Step::Read { key } => {
                    self.read(key, begin).await;
                }
                Step::Update { index } => self.update(index, Effect::Put, begin).await,
                Step::Delete { index } => self.update(index, Effect::Delete, begin).await,
                Step::ReadModifyWrite { index } => self.read_modify_write(index, begin).await,
                Step::Insert => self.insert(begin).await,
            }
        }
        self
    }

    /// What the worker knows at its end: its keys' histories, and what it judged on the way.
    pub(crate) fn into_history(self) -> (Vec<(u64, KeyHistory)>, Verification) {
        let own = self.own;
        let records = self.keys.into_iter().zip(0..);
        let records = records.map(|(state, index)| (own.key(index), state.history));
        let inserted = self.inserted.into_iter().map(|(key, state)| (key, state.history));
        let written = records.chain(inserted).filter(|(_, history)| history.issued() > 0);
        (written.collect(), self.verification)
    }

    async fn read(&mut self, key: u64, begin: Instant) -> Option<Reading<T::Context>> {
        let outcome = self.target.read(&key_name(key), None).await;
        self.record(Direction::Read, begin, outcome.as_ref().err()).await;
        let reading = outcome.ok()?;
        if !reading.siblings.is_empty() {
            self.shared.recorder.found(self.own.worker);
        }
        if self.judges
            && let Some(index) = self.own.index(key)
        {
            self.judge(key, index as usize, &reading);
        }
        Some(reading)
    }

    fn judge(&mut self, key: u64, index: usize, reading: &Reading<T::Context>) {
        let place = |value: &bytes::Bytes| Found::place(self.run, key, value);
        let found: Vec<_> = reading.siblings.iter().map(place).collect();
        let history = &self.keys[index].history;
        match history.judge(&found) {
            Verdict::Kept | Verdict::KeptBesideEarlier => {}
            verdict => self.verification.violate(key, history, &found, verdict, DURING),
        }
    }

    async fn update(&mut self, index: u64, effect: Effect, begin: Instant) {
        let outcome = self.write_record(index as usize, effect).await;
        self.record(Direction::Write, begin, outcome.err().as_ref()).await;
    }

    async fn read_modify_write(&mut self, index: u64, begin: Instant) {
        let Some(reading) = self.read(self.own.key(index), begin).await else { return };
        let state = &mut self.keys[index as usize];
        // A read at a low level may be older than what this worker wrote; its own context is not.
        if self.judges || state.context.is_none() {
            state.context = Some(reading.context);
        }
        self.update(index, Effect::Put, clock::now()).await;
    }

    async fn insert(&mut self, begin: Instant) {
        let key = self.shared.horizon.fetch_add(1, Ordering::Relaxed);
        self.inserted.push((key, KeyState::new()));
        let (_, state) = self.inserted.last_mut().expect("it was just pushed");
        let outcome =
            write(&self.target, &mut self.values, self.fresh, key, state, Effect::Put).await;
        self.record(Direction::Write, begin, outcome.err().as_ref()).await;
    }

    async fn write_record(&mut self, index: usize, effect: Effect) -> Result<(), Failure> {
        let key = self.own.key(index as u64);
        let state = &mut self.keys[index];
        write(&self.target, &mut self.values, self.fresh, key, state, effect).await
    }

    async fn record(&self, direction: Direction, begin: Instant, failure: Option<&Failure>) {
        let (worker, recorder) = (self.own.worker, &self.shared.recorder);
        match failure {
            None => recorder.succeeded(worker, direction, micros_between(begin, clock::now())),
            Some(failure) => {
                recorder.failed(worker, direction, failure);
                if !failure.unknown {
                    tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
                }
            }
        }
    }
}

async fn write<T: Target>(
    target: &T,
    values: &mut ValueMaker,
    fresh: bool,
    key: u64,
    state: &mut KeyState<T::Context>,
    effect: Effect,
) -> Result<(), Failure> {
    let name = key_name(key);
    if state.unsettled {
        // Without this every write of unknown outcome that did take place would stay as a sibling.
        if let Ok(reading) = target.read(&name, state.context.as_ref()).await {
            state.context = Some(reading.context);
            state.unsettled = false;
        }
    }
    let sequence = state.history.issue();
    let value = match effect {
        Effect::Put => Some(values.make(key, sequence)),
        Effect::Delete => None,
    };
    let cause = match &state.context {
        Some(context) => Cause::Context(context),
        None if fresh && effect == Effect::Put => Cause::Nothing,
        None => Cause::WhatIsThere,
    };
    // The counter is shared, so a write that merely overlaps a repeated one counts as repeated too.
    let repetitions = target.repetitions();
    match target.write(&name, value, cause).await {
        Ok(context) => {
            state.history.acknowledge(effect, target.repetitions() != repetitions);
            state.context = Some(context);
            Ok(())
        }
        Err(failure) => {
            if failure.unknown {
                state.history.unknown(effect);
                state.unsettled = true;
            }
            Err(failure)
        }
    }
}
