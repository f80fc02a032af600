//! A whole run: a verified load, ordeals until there were enough, and everything read back.
//!
//! Invariant: every acknowledged write of the run is read back at QUORUM and at ALL, when every node serves
//! and nothing is under way, unless the run says that it is broken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_client::load::{
    BucketTarget, Limit, LoadConfig, LoadError, Outcome, VerifyOptions, Workload, run as load,
    verify,
};
use starling_client::{Client, ConsistencyLevel};
use starling_node::time::now;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arena::{Arena, Broken, NODES};
use super::availability::{Availability, Watched};
use super::figures::Figures;
use super::plan::{Means, Ordeal, Plan};

const BUCKET: &str = "demo.load";
/// Few, so that each is written over and over and the data stays small.
const KEYS: u64 = 2_000;
const WRITERS: usize = 48;
/// Between two lines about how it goes.
const TELL_EVERY: Duration = Duration::from_secs(5);
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
/// The longest that things are left as they are between two ordeals.
const CALM_MS_MAX: u64 = 300;
/// A short run has short faults, so that it has some of each.
const FAULTS_IN_A_RUN: u32 = 12;

/// What a run is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is drawn follows from this.
    pub seed: u64,
    /// It goes on for so long at least.
    pub duration: Duration,
    /// It goes on until there were so many kills.
    pub kills: u64,
    /// It goes on until so many writes were acknowledged.
    pub writes: u64,
    /// The means, of which the machine may lack some.
    pub means: Vec<Means>,
    /// Operations a second.
    pub rate: f64,
    /// One write in so many is said to be acknowledged and never sent, for the judge to find.
    pub forgets_every: Option<u64>,
    /// Told how it goes.
    pub tell: fn(&str),
}

/// Runs until everything asked for was done, or `stop`, or the cluster is broken.
///
/// # Errors
/// There was no cluster or no load to judge.
pub async fn run(options: &Options, stop: CancellationToken) -> anyhow::Result<Figures> {
    let mut figures = Figures { seed: options.seed, ..Figures::default() };
    let (mut arena, means, skipped) = Arena::start(&options.means).await?;
    figures.skipped = skipped;
    anyhow::ensure!(!means.is_empty(), "this machine has none of the means: {:?}", figures.skipped);
    let client = arena.cluster().client().await;
    let availability = Availability::default();
    let load = start_load(&client, options, &availability).await?;
    let began = now();
    let score =
        Arc::new(Score { began, availability: availability.clone(), state: Mutex::default() });
    let telling = tokio::spawn(score.clone().tell(options.tell));
    let endured = trouble(&mut arena, options, means, &score, &stop).await;
    telling.abort();
    figures.seconds = began.elapsed().as_secs_f64();
    availability.claim(false);
    load.stop.cancel();
    let outcome = load.running.await??;
    let judged = match endured {
        Ok(()) => read_back(&mut arena, &client, &outcome, &mut figures, options.tell).await,
        Err(broken) => Err(broken),
    };
    figures.found(&outcome.judged);
    figures.broken.extend(judged.err().map(|broken| broken.to_string()));
    figures.unknown = outcome.report.unknown;
    figures.failed = availability.failures();
    figures.acknowledged = outcome.history.acknowledged();
    figures.ended_by_faults = arena.ended_by_faults();
    figures.syncs_failed = arena.syncs_failed();
    let longest = availability.longest();
    figures.longest_unavailable_ms = longest.failing.as_millis() as u64;
    figures.longest_wait_ms = longest.waiting.as_millis() as u64;
    let state = score.state.lock();
    figures.used = state.used.iter().map(|(means, count)| (means.name(), *count)).collect();
    figures.without_quorum = state.without_quorum;
    (options.tell)(&outcome.report.to_string());
    if !figures.passed() {
        figures.kept = Some(arena.keep());
    }
    Ok(figures)
}

struct RunningLoad {
    stop: CancellationToken,
    running: JoinHandle<Result<Outcome, LoadError>>,
}

async fn start_load(
    client: &Client,
    options: &Options,
    availability: &Availability,
) -> anyhow::Result<RunningLoad> {
    let config = LoadConfig {
        workload: Workload::Mixed { read_ratio: 0.3 },
        records: KEYS,
        load_phase: false,
        fresh: true,
        concurrency: WRITERS,
        rate: Some(options.rate),
        limit: Limit::UntilStopped,
        delete_ratio: 0.1,
        verify: true,
        seed: options.seed,
        ..LoadConfig::new()
    };
    let target = BucketTarget::open(client, BUCKET, config.consistency).await?;
    let target = Watched::new(target, availability.clone(), options.forgets_every);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let running = tokio::spawn(async move { load(&target, &config, stopped, |_| {}).await });
    Ok(RunningLoad { stop, running })
}

/// What was done so far, for those who watch.
struct Score {
    began: Instant,
    availability: Availability,
    state: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    used: BTreeMap<Means, u64>,
    without_quorum: u64,
    /// What is being done.
    doing: String,
}

impl Score {
    fn begin(&self, ordeal: &Ordeal) {
        let mut state = self.state.lock();
        for fault in &ordeal.faults {
            *state.used.entry(fault.deed.means()).or_default() += 1;
        }
        state.without_quorum += u64::from(!ordeal.leaves_quorum);
        state.doing = ordeal.to_string();
    }

    /// Whether all that was asked for was done, and every means used.
    fn is_enough(&self, options: &Options, means: &[Means]) -> bool {
        let used = &self.state.lock().used;
        let kills = used.get(&Means::Kill).copied().unwrap_or_default();
        self.began.elapsed() >= options.duration
            && kills >= options.kills
            && self.availability.acknowledged() >= options.writes
            && means.iter().all(|means| used.contains_key(means))
    }

    async fn tell(self: Arc<Score>, tell: fn(&str)) {
        let mut tick = tokio::time::interval(TELL_EVERY);
        let mut before = 0;
        loop {
            tick.tick().await;
            let acknowledged = self.availability.acknowledged();
            let rate = (acknowledged - before) / TELL_EVERY.as_secs();
            before = acknowledged;
            let state = self.state.lock();
            let kills = state.used.get(&Means::Kill).copied().unwrap_or_default();
            let others = state.used.values().sum::<u64>() - kills;
            tell(&format!(
                "{:>6.0} s  {kills:>5} kills  {others:>5} others  {acknowledged:>9} writes  {rate:>5}/s  {}",
                self.began.elapsed().as_secs_f64(),
                state.doing,
            ));
        }
    }
}

async fn trouble(
    arena: &mut Arena,
    options: &Options,
    means: Vec<Means>,
    score: &Score,
    stop: &CancellationToken,
) -> Result<(), Broken> {
    let longest = options.duration / FAULTS_IN_A_RUN;
    let longest = if longest.is_zero() { Duration::MAX } else { longest };
    let mut plan = Plan::new(options.seed, NODES, means.clone(), longest);
    let mut random = StdRng::seed_from_u64(options.seed ^ 1);
    while !stop.is_cancelled() && !score.is_enough(options, &means) {
        let ordeal = plan.next();
        if ordeal.leaves_quorum {
            arena.all_up().await?;
        }
        score.availability.claim(ordeal.leaves_quorum);
        let calm = Duration::from_millis(random.random_range(0..=CALM_MS_MAX));
        arena.pass_until(now() + calm).await?;
        score.begin(&ordeal);
        arena.endure(&ordeal).await?;
    }
    Ok(())
}

async fn read_back(
    arena: &mut Arena,
    client: &Client,
    outcome: &Outcome,
    figures: &mut Figures,
    tell: fn(&str),
) -> Result<(), Broken> {
    arena.mend().await?;
    arena.all_up().await?;
    arena.settled(SETTLED_WITHIN).await?;
    for level in [ConsistencyLevel::Quorum, ConsistencyLevel::All] {
        let target = BucketTarget::open(client, BUCKET, level).await;
        let target =
            target.map_err(|error| Broken::new(format!("no bucket at {level}: {error}")))?;
        let found =
            verify(&target, outcome.history.clone(), VerifyOptions::default(), |_| {}).await;
        tell(&format!("at {level}: {found}"));
        figures.checked = found.checked;
        figures.found(&found);
    }
    Ok(())
}
