//! A run from beginning to end: load phase, warm-up, measurement.
//!
//! Invariant: when [`run`] returns, no operation is under way, and the history accounts for every write
//! that was sent, of the load phase and the warm-up too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clock;
use super::config::{ConfigError, Limit, LoadConfig};
use super::pace::{Course, Pace};
use super::progress::{Phase, Progress};
use super::recorder::{Interval, Recorder};
use super::report::Report;
use super::target::{Failure, Target};
use super::verify::{History, Verification};
use super::worker::{Shared, Worker};

/// How often the workers' counts are gathered and shown.
const TICK: Duration = Duration::from_secs(1);

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The configuration cannot be run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A record could not be written before the run, in spite of many attempts.
    #[error("the load phase could not write a record: {message}")]
    LoadPhase {
        /// What the client library said.
        message: String,
    },
    /// The run was stopped before it measured anything.
    #[error("stopped before anything was measured")]
    Stopped,
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was measured; without a verification.
    pub report: Report,
    /// What reads during the run found wrong, if they were judged.
    pub judged: Verification,
    /// What was written, to be read back.
    pub history: History,
}

/// Runs the load against `target` until its limit, or until `stop`. `observe` is called once a second.
///
/// # Errors
/// A configuration that cannot be run; a load phase that fails.
pub async fn run<T: Target>(
    target: &T,
    config: &LoadConfig,
    stop: CancellationToken,
    mut observe: impl FnMut(&Progress),
) -> Result<Outcome, LoadError> {
    config.check()?;
    let shared = Arc::new(Shared {
        course: Course::new(config.limit),
        recorder: Recorder::new(),
        horizon: AtomicU64::new(config.records),
        loaded: AtomicU64::new(0),
        load_failure: Mutex::default(),
    });
    let mut workers: Vec<_> = (0..config.concurrency as u64)
        .map(|worker| Worker::new(target.clone(), shared.clone(), config, worker))
        .collect();
    if config.load_phase && config.workload.reads() {
        workers = load(workers, config.records, &shared, &stop, &mut observe).await?;
    }
    let mut run = Measurement::start(workers, shared, config);
    run.attend(target, config, &stop, &mut observe).await?;
    Ok(run.finish(target, config))
}

async fn load<T: Target>(
    workers: Vec<Worker<T>>,
    records: u64,
    shared: &Shared,
    stop: &CancellationToken,
    observe: &mut impl FnMut(&Progress),
) -> Result<Vec<Worker<T>>, LoadError> {
    let begin = clock::now();
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(worker.load());
    }
    let mut loaded = Vec::with_capacity(tasks.len());
    let mut tick = tokio::time::interval_at((begin + TICK).into(), TICK);
    let mut before = 0;
    loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(worker) => loaded.push(worker.expect("a worker does not panic").map_err(
                    |Failure { message, .. }| LoadError::LoadPhase { message },
                )?),
                None => return Ok(loaded),
            },
            _ = tick.tick() => {
                let done = shared.loaded.load(Ordering::Relaxed);
                let mut progress = Progress::of_phase(Phase::Loading, begin, done, Some(records));
                progress.ops_per_s = (done - before) as f64 / TICK.as_secs_f64();
                let failure = shared.load_failure.lock().take();
                progress.stuck_on = failure.filter(|_| done == before);
                before = done;
                observe(&progress);
            }
            () = stop.cancelled() => return Err(LoadError::Stopped),
        }
    }
}

/// A run whose workers work.
struct Measurement<T: Target> {
    shared: Arc<Shared>,
    tasks: JoinSet<Worker<T>>,
    ended: Vec<Worker<T>>,
    phase: Phase,
    /// When the phase began.
    begin: Instant,
    /// When operations stopped being begun.
    end: Option<Instant>,
    drained: Instant,
    last: Interval,
    total: Interval,
    retries_before: u64,
}

impl<T: Target> Measurement<T> {
    fn start(workers: Vec<Worker<T>>, shared: Arc<Shared>, config: &LoadConfig) -> Measurement<T> {
        let begin = clock::now();
        let mut tasks = JoinSet::new();
        for (number, worker) in workers.into_iter().enumerate() {
            tasks.spawn(worker.work(Pace::new(config, number as u64, begin)));
        }
        Measurement {
            shared,
            tasks,
            ended: Vec::new(),
            phase: Phase::WarmingUp,
            begin,
            end: None,
            drained: begin,
            last: Interval::new(),
            total: Interval::new(),
            retries_before: 0,
        }
    }

    /// Watches over the workers until all have ended.
    async fn attend(
        &mut self,
        target: &T,
        config: &LoadConfig,
        stop: &CancellationToken,
        observe: &mut impl FnMut(&Progress),
    ) -> Result<(), LoadError> {
        let warm = self.begin + config.warmup;
        let until = match config.limit {
            Limit::Duration(duration) => Some(warm + duration),
            Limit::Operations(_) | Limit::UntilStopped => None,
        };
        if config.warmup.is_zero() {
            self.measure(target);
        }
        let mut tick = tokio::time::interval_at((self.begin + TICK).into(), TICK);
        let mut stopped = false;
        loop {
            let warming = self.phase == Phase::WarmingUp;
            tokio::select! {
                joined = self.tasks.join_next() => match joined {
                    Some(worker) => {
                        self.end.get_or_insert_with(clock::now);
                        self.ended.push(worker.expect("a worker does not panic"));
                    }
                    None if warming => return Err(LoadError::Stopped),
                    None => return Ok(()),
                },
                () = tokio::time::sleep_until(warm.into()), if warming => self.measure(target),
                () = sleep_until(until), if until.is_some() && !stopped => {
                    stopped = true;
                    self.end = until;
                    self.shared.course.stop();
                }
                () = stop.cancelled(), if !stopped => {
                    stopped = true;
                    self.end.get_or_insert_with(clock::now);
                    self.shared.course.stop();
                }
                _ = tick.tick() => self.show(config, observe),
            }
        }
    }

    /// Ends the warm-up: forgets what was counted so far.
    fn measure(&mut self, target: &T) {
        self.shared.recorder.drain(&mut self.last);
        self.total.clear();
        self.shared.course.measure();
        self.phase = Phase::Measuring;
        self.begin = clock::now();
        self.drained = self.begin;
        self.retries_before = target.retries();
    }

    /// Moves what was counted into the total; the length of the stretch in seconds.
    fn gather(&mut self) -> f64 {
        self.shared.recorder.drain(&mut self.last);
        self.total.absorb(&self.last);
        let now = clock::now();
        let stretch = now.saturating_duration_since(self.drained);
        self.drained = now;
        stretch.as_secs_f64()
    }

    fn show(&mut self, config: &LoadConfig, observe: &mut impl FnMut(&Progress)) {
        // Just after the warm-up there is nothing yet that a rate could be told of.
        if clock::now().saturating_duration_since(self.drained) < TICK / 2 {
            return;
        }
        let seconds = self.gather();
        let counts = self.total.counts;
        let total = match config.limit {
            Limit::Operations(limit) => Some(limit),
            Limit::Duration(_) | Limit::UntilStopped => None,
        };
        let done = counts.succeeded() + counts.failed();
        let mut progress = Progress::of_phase(self.phase, self.begin, done, total)
            .with_interval(&self.last, seconds);
        progress.errors_total = counts.failed();
        observe(&progress);
    }

    fn finish(mut self, target: &T, config: &LoadConfig) -> Outcome {
        self.gather();
        let end = self.end.unwrap_or_else(clock::now);
        let elapsed = end.saturating_duration_since(self.begin);
        let retried = target.retries() - self.retries_before;
        let mut history = History { run: config.run, keys: Vec::new() };
        let mut judged = Verification::default();
        for worker in self.ended {
            let (keys, found) = worker.into_history();
            history.keys.extend(keys);
            judged.absorb(found);
        }
        Outcome { report: Report::new(&self.total, elapsed, retried), judged, history }
    }
}

/// Never ends without a moment; the caller asks only if there is one.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
