//! Whole runs against a model of a bucket, honest at first and then wrong in every way that a
//! verification has to find.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::keys::KeyName;
use super::{
    Cause, Failure, FailureKind, KeyOrder, Limit, LoadConfig, Outcome, Phase, Reading, Target,
    Verification, VerifyOptions, Workload, run, verify,
};

/// What the model does wrong with every hundredth write, unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Acknowledges a write and drops it.
    DropsAcknowledged,
    /// Keeps what a put replaces.
    KeepsReplaced,
    /// Keeps what a delete deletes.
    IgnoresDeletes,
    /// Says that a write was surely not done, and does it.
    LiesAboutRefusals,
    /// Changes a byte.
    Damages,
    /// Honest: writes half of the writes whose outcome it calls unknown.
    TimesOut,
    /// Honest: refuses.
    Refuses,
    /// Honest: acknowledges after a retry that left a copy, which shows up when all is over.
    Repeats,
    /// Wrong reads only: shows nothing.
    ReadsNothing,
}

type Dots = BTreeSet<u64>;

#[derive(Debug, Default)]
struct Entry {
    seen: Dots,
    siblings: BTreeMap<u64, Bytes>,
}

#[derive(Debug)]
struct State {
    entries: BTreeMap<KeyName, Entry>,
    copies: Vec<(KeyName, u64, Bytes)>,
    dot: u64,
    writes: u64,
    reads: u64,
    fault: Fault,
}

/// A bucket with causal versions, in memory.
#[derive(Clone, Debug)]
struct Model {
    state: Arc<Mutex<State>>,
    retries: Arc<AtomicU64>,
}

impl Model {
    fn new(fault: Fault) -> Model {
        let state = State {
            entries: BTreeMap::new(),
            copies: Vec::new(),
            dot: 0,
            writes: 0,
            reads: 0,
            fault,
        };
        Model { state: Arc::new(Mutex::new(state)), retries: Arc::default() }
    }

    /// Everything is honest from now on, and copies left behind come back.
    fn heal(&self) {
        let mut state = self.state.lock();
        state.fault = Fault::None;
        for (key, dot, value) in std::mem::take(&mut state.copies) {
            state.entries.entry(key).or_default().siblings.insert(dot, value);
        }
    }
}

impl State {
    fn apply(&mut self, key: &KeyName, value: Option<Bytes>, covered: &Dots) -> Dots {
        self.dot += 1;
        let entry = self.entries.entry(*key).or_default();
        entry.siblings.retain(|dot, _| !covered.contains(dot));
        entry.seen.extend(covered.iter().chain([&self.dot]));
        if let Some(value) = value {
            entry.siblings.insert(self.dot, value);
        }
        let mut context = covered.clone();
        context.insert(self.dot);
        context
    }
}

fn failure(kind: FailureKind, unknown: bool) -> Failure {
    Failure { kind, unknown, message: format!("planted {kind:?}") }
}

impl Target for Model {
    type Context = Dots;

    async fn read(&self, key: &KeyName, _: Option<&Dots>) -> Result<Reading<Dots>, Failure> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        state.reads += 1;
        let hidden = state.fault == Fault::ReadsNothing && state.reads.is_multiple_of(100);
        let Some(entry) = state.entries.get(key) else {
            return Ok(Reading { siblings: Vec::new(), context: Dots::new() });
        };
        let siblings = if hidden { Vec::new() } else { entry.siblings.values().cloned().collect() };
        Ok(Reading { siblings, context: entry.seen.clone() })
    }

    async fn write(
        &self,
        key: &KeyName,
        value: Option<Bytes>,
        cause: Cause<'_, Dots>,
    ) -> Result<Dots, Failure> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        state.writes += 1;
        let covered = match cause {
            Cause::Nothing => Dots::new(),
            Cause::Context(context) => context.clone(),
            Cause::WhatIsThere => {
                state.entries.get(key).map(|entry| entry.seen.clone()).unwrap_or_default()
            }
        };
        let struck = state.fault == Fault::IgnoresDeletes || state.writes.is_multiple_of(100);
        let fault = if struck { state.fault } else { Fault::None };
        match fault {
            Fault::None | Fault::ReadsNothing => Ok(state.apply(key, value, &covered)),
            Fault::DropsAcknowledged => Ok(covered),
            Fault::KeepsReplaced => {
                let context = state.apply(key, value, &Dots::new());
                Ok(context.union(&covered).copied().collect())
            }
            Fault::IgnoresDeletes if value.is_none() => Ok(covered),
            Fault::IgnoresDeletes => Ok(state.apply(key, value, &covered)),
            Fault::LiesAboutRefusals => {
                state.apply(key, value, &covered);
                Err(failure(FailureKind::Unavailable, false))
            }
            Fault::Damages => {
                let value = value.map(|value| {
                    let mut damaged = value.to_vec();
                    damaged[30] ^= 1;
                    Bytes::from(damaged)
                });
                Ok(state.apply(key, value, &covered))
            }
            Fault::TimesOut => {
                if state.writes.is_multiple_of(200) {
                    state.apply(key, value, &covered);
                }
                Err(failure(FailureKind::Timeout, true))
            }
            Fault::Refuses => Err(failure(FailureKind::Overloaded, false)),
            Fault::Repeats => {
                self.retries.fetch_add(1, Ordering::Relaxed);
                if let Some(value) = value.clone() {
                    state.dot += 1;
                    let dot = state.dot;
                    state.copies.push((*key, dot, value));
                }
                Ok(state.apply(key, value, &covered))
            }
        }
    }

    fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    fn repetitions(&self) -> u64 {
        self.retries()
    }
}

fn config() -> LoadConfig {
    LoadConfig {
        records: 50,
        concurrency: 5,
        value_bytes: 64,
        limit: Limit::Operations(5000),
        delete_ratio: 0.1,
        verify: true,
        seed: 11,
        ..LoadConfig::new()
    }
}

async fn run_model(model: &Model, config: &LoadConfig) -> (Outcome, Verification) {
    let outcome =
        run(model, config, CancellationToken::new(), |_| {}).await.expect("it can be run");
    model.heal();
    let options = VerifyOptions { concurrency: 3, patience: Duration::ZERO };
    let mut found = verify(model, outcome.history.clone(), options, |_| {}).await;
    found.absorb(outcome.judged.clone());
    (outcome, found)
}

async fn run_with(fault: Fault) -> (Outcome, Verification) {
    run_model(&Model::new(fault), &config()).await
}

#[tokio::test]
async fn an_honest_bucket_is_clean() {
    let (outcome, found) = run_with(Fault::None).await;
    assert!(found.is_clean(), "{found}");
    assert_eq!(found.beside_earlier, 0);
    assert_eq!(outcome.report.ops, 5000);
    assert_eq!(outcome.report.errors.sum(), 0);
    // The load phase is verified too, though it is not measured.
    assert_eq!(found.checked, outcome.report.acked_writes + 50);
    assert_eq!(found.checked, outcome.history.acknowledged());
    assert_eq!(outcome.history.keys(), 50);
}

#[tokio::test]
async fn every_workload_and_order_runs_clean() {
    for workload in ["write", "read", "mixed", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f"] {
        for order in [KeyOrder::Uniform, KeyOrder::Zipfian, KeyOrder::Latest, KeyOrder::Sequential]
        {
            let config = LoadConfig {
                workload: workload.parse::<Workload>().expect("the name is listed"),
                key_order: Some(order),
                limit: Limit::Operations(1000),
                ..config()
            };
            let (outcome, found) = run_model(&Model::new(Fault::None), &config).await;
            assert!(found.is_clean(), "{workload} {order:?}: {found}");
            assert_eq!(outcome.report.errors.sum(), 0, "{workload} {order:?}");
        }
    }
}

#[tokio::test]
async fn losses_are_found() {
    let (_, found) = run_with(Fault::DropsAcknowledged).await;
    assert!(found.lost + found.stale > 0, "{found}");
    let (_, found) = run_with(Fault::ReadsNothing).await;
    assert!(found.lost > 0, "{found}");
}

#[tokio::test]
async fn resurrections_are_found() {
    for fault in [Fault::KeepsReplaced, Fault::IgnoresDeletes, Fault::LiesAboutRefusals] {
        let (_, found) = run_with(fault).await;
        assert!(found.resurrected + found.stale > 0, "{fault:?}: {found}");
        assert!(!found.violations.is_empty());
    }
}

#[tokio::test]
async fn damage_is_found() {
    let (_, found) = run_with(Fault::Damages).await;
    assert!(found.damaged > 0, "{found}");
}

#[tokio::test]
async fn uncertainty_is_no_violation() {
    let (outcome, found) = run_with(Fault::TimesOut).await;
    assert!(found.is_clean(), "{found}");
    assert!(outcome.report.unknown > 0 && outcome.report.unknown == outcome.report.errors.timeout);
    let (outcome, found) = run_with(Fault::Refuses).await;
    assert!(found.is_clean(), "{found}");
    assert!(outcome.report.errors.overloaded > 0 && outcome.report.unknown == 0);
    assert_eq!(outcome.report.first_failure.as_deref(), Some("planted Overloaded"));
    let (outcome, found) = run_with(Fault::Repeats).await;
    assert!(found.is_clean(), "{found}");
    assert!(found.beside_earlier > 0 && outcome.report.retried > 0);
}

#[tokio::test]
async fn a_second_run_replaces_what_the_first_left() {
    let model = Model::new(Fault::None);
    let first = config();
    run_model(&model, &first).await;
    let second = LoadConfig { run: first.run.wrapping_add(1), seed: 12, ..config() };
    let (_, found) = run_model(&model, &second).await;
    assert!(found.is_clean(), "{found}");
    let state = model.state.lock();
    assert!(state.entries.values().all(|entry| entry.siblings.len() <= 1));
}

#[tokio::test]
async fn the_warm_up_is_not_measured_but_verified() {
    let mut phases = Vec::new();
    let config = LoadConfig {
        warmup: Duration::from_millis(50),
        limit: Limit::Operations(100),
        workload: Workload::Write,
        ..config()
    };
    let model = Model::new(Fault::None);
    let stop = CancellationToken::new();
    let outcome = run(&model, &config, stop, |progress| phases.push(progress.phase)).await;
    let outcome = outcome.expect("it can be run");
    // Operations under way when the warm-up ends are measured, one a worker at most.
    assert!((100..=105).contains(&outcome.report.ops), "{}", outcome.report.ops);
    assert!(outcome.history.acknowledged() > 100);
    assert!(phases.iter().all(|phase| *phase == Phase::Measuring));
}

#[tokio::test]
async fn a_rate_is_kept() {
    let config = LoadConfig {
        rate: Some(2000.0),
        limit: Limit::Duration(Duration::from_millis(500)),
        workload: Workload::Write,
        ..config()
    };
    let (outcome, _) = run_model(&Model::new(Fault::None), &config).await;
    // The schedule bounds the number of operations, however slow the machine is.
    assert!((900..=1010).contains(&outcome.report.ops), "{}", outcome.report.ops);
}

#[tokio::test]
async fn stopping_ends_a_run_without_limit() {
    let config = LoadConfig { limit: Limit::UntilStopped, workload: Workload::Write, ..config() };
    let stop = CancellationToken::new();
    let model = Model::new(Fault::None);
    let stopper = stop.clone();
    let watched = model.clone();
    let watch = tokio::spawn(async move {
        while watched.state.lock().writes < 500 {
            tokio::task::yield_now().await;
        }
        stopper.cancel();
    });
    let outcome = run(&model, &config, stop, |_| {}).await.expect("it can be run");
    watch.await.expect("the watcher ends");
    assert!(outcome.report.ops >= 500);
    assert_eq!(outcome.history.acknowledged(), outcome.report.acked_writes);
}

/// Two runs at once: what one replaces, the other has not lost.
#[tokio::test]
async fn another_program_in_the_bucket_makes_the_verdict_void() {
    let model = Model::new(Fault::None);
    let mine = LoadConfig { workload: Workload::Write, delete_ratio: 0.0, ..config() };
    let stop = CancellationToken::new;
    let outcome = run(&model, &mine, stop(), |_| {}).await.expect("it can be run");
    let theirs = LoadConfig { run: mine.run.wrapping_add(1), ..mine.clone() };
    run(&model, &theirs, stop(), |_| {}).await.expect("it can be run");
    let mut found = verify(&model, outcome.history, VerifyOptions::default(), |_| {}).await;
    assert!(found.is_void() && !found.is_clean(), "{found}");
    assert_eq!((found.overwritten, found.lost, found.stale, found.resurrected), (50, 0, 0, 0));
    let text = found.to_string();
    assert!(text.ends_with("another program writes this bucket: the verdict is void"), "{text}");
    // A key counts once, however often it was met.
    found.absorb(found.clone());
    assert_eq!((found.overwritten, found.violations.len()), (50, 10));
    let text = found.to_string();
    assert!(text.contains("\n  ... and 40 more\n"), "{text}");
    assert!(text.contains("was acknowledged, a read at the end found a value of another run"));
}

#[tokio::test]
async fn violations_are_told_in_words() {
    let (_, found) = run_with(Fault::ReadsNothing).await;
    let text = found.to_string();
    let told = text.lines().nth(1).expect("one is described");
    assert!(told.starts_with("  load000000000000") && told.contains("  lost: write "), "{told}");
    assert!(told.ends_with(" was acknowledged, a read during the run found nothing"), "{told}");
}

#[tokio::test]
async fn an_empty_bucket_is_no_benchmark() {
    let empty = LoadConfig { workload: Workload::Read, load_phase: false, ..config() };
    let (mut outcome, found) = run_model(&Model::new(Fault::None), &empty).await;
    outcome.report.verify = Some(found);
    let text = outcome.report.to_string();
    assert!(text.contains("none of 5000 reads found a value"), "{text}");
    assert!(text.contains("\nnothing was written, so nothing was checked"), "{text}");
    let (outcome, _) = run_with(Fault::None).await;
    assert!(!outcome.report.to_string().contains("none of"), "{}", outcome.report);
    assert_eq!(outcome.report.succeeded(), 5000);
}

#[test]
fn the_report_has_the_names_that_programs_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime can be built");
    let (mut outcome, found) = runtime.block_on(run_with(Fault::None));
    outcome.report.verify = Some(found);
    let json = serde_json::to_value(&outcome.report).expect("a report is plain data");
    for name in ["throughput_per_s", "ops", "acked_writes", "retried", "unknown"] {
        assert!(json[name].is_number(), "{name}");
    }
    for name in ["unavailable", "timeout", "overloaded", "other"] {
        assert!(json["errors"][name].is_u64(), "{name}");
    }
    for direction in ["read", "write"] {
        for name in ["p50", "p95", "p99", "p999", "max"] {
            assert!(json["latency_us"][direction][name].is_u64(), "{direction} {name}");
        }
    }
    for name in ["checked", "lost", "stale", "resurrected"] {
        assert!(json["verify"][name].is_u64(), "{name}");
    }
    let text = outcome.report.to_string();
    assert!(text.contains("0 lost, 0 stale, 0 resurrected"), "{text}");
}
