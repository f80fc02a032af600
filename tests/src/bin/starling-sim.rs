//! `make sim`: runs seeds on all cores, and says what they broke and how to see it again.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::Context;
use clap::Parser;
use rand::RngExt;
use starling_storage::planted::{Bug, Planted};
use starling_tests::sim::{self, Outcome};

/// Simulates whole clusters under faults that a seed decides, and judges what their clients saw.
#[derive(Debug, Parser)]
#[command(name = "starling-sim", version)]
struct Flags {
    /// The first seed; fresh ones if none is given.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How many seeds from there; 1 if the first is given, else 100.
    #[arg(long, env = "SEEDS")]
    seeds: Option<u64>,
    /// Seeds at a time; by default one for each core.
    #[arg(long)]
    jobs: Option<usize>,
    /// Plants a bug of this name in every node; `all` runs each in turn until it is caught, and prints a table.
    #[arg(long)]
    bug: Option<String>,
    /// Logs of the nodes and everything the clients did, on standard error.
    #[arg(long)]
    verbose: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    if flags.verbose {
        let filter = "info,turmoil=warn";
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter).init();
    }
    let count = flags.seeds.unwrap_or(if flags.seed.is_some() { 1 } else { 100 });
    let first = flags.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    let jobs = flags.jobs.map_or_else(thread::available_parallelism, |jobs| {
        std::num::NonZero::new(jobs)
            .context("0 seeds at a time never end")
            .map_err(io::Error::other)
    })?;
    let jobs = if flags.verbose { 1 } else { jobs.get() };
    match flags.bug.as_deref() {
        None => judge(first, count, jobs),
        Some("all") => catch_all(first, count, jobs),
        Some(name) => {
            let bug = Bug::ALL.into_iter().find(|bug| bug.to_string() == name);
            let bug = bug.with_context(|| format!("no bug {name:?}; there are {:?}", Bug::ALL))?;
            let caught =
                run_all(first, count, jobs, Planted::new(bug), Stop::AtFirstBroken, report)?;
            writeln!(io::stdout(), "{}", catch_line(bug, first, &caught))?;
            Ok(if caught.broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

/// Without a planted bug nothing may be broken.
fn judge(first: u64, count: u64, jobs: usize) -> anyhow::Result<ExitCode> {
    let ran = run_all(first, count, jobs, Planted::NONE, Stop::AtTheEnd, report)?;
    let broken = ran.broken.len();
    writeln!(
        io::stdout(),
        "{} seeds from {first}: {} operations, {} faults, {broken} seeds broke a promise",
        ran.seeds,
        ran.operations,
        ran.faults
    )?;
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Every planted bug has to be caught.
fn catch_all(first: u64, count: u64, jobs: usize) -> anyhow::Result<ExitCode> {
    let mut missed = 0;
    for bug in Bug::ALL {
        let silent = |_: &Outcome| Ok(());
        let ran = run_all(first, count, jobs, Planted::new(bug), Stop::AtFirstBroken, silent)?;
        missed += usize::from(ran.broken.is_empty());
        writeln!(io::stdout(), "{}", catch_line(bug, first, &ran))?;
    }
    writeln!(io::stdout(), "{missed} of {} planted bugs were not caught", Bug::ALL.len())?;
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn catch_line(bug: Bug, first: u64, ran: &Ran) -> String {
    match ran.broken.first() {
        Some((seed, promise)) => format!("| {bug} | {} | {promise} |", seed - first + 1),
        None => format!("| {bug} | not caught in {} | |", ran.seeds),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    AtTheEnd,
    AtFirstBroken,
}

/// What a number of runs came to.
#[derive(Default)]
struct Ran {
    seeds: u64,
    operations: usize,
    faults: usize,
    /// Seeds in order, each with the first promise it broke.
    broken: Vec<(u64, &'static str)>,
}

fn run_all(
    first: u64,
    count: u64,
    jobs: usize,
    planted: Planted,
    stop: Stop,
    mut tell: impl FnMut(&Outcome) -> io::Result<()>,
) -> io::Result<Ran> {
    let (next, enough) = (AtomicU64::new(first), AtomicBool::new(false));
    let (send, outcomes) = sync_channel(jobs);
    let mut ran = Ran::default();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let send = send.clone();
            scope.spawn(|| work(&next, first + count, &enough, planted, send));
        }
        drop(send);
        for outcome in outcomes {
            ran.seeds += 1;
            ran.operations += outcome.operations.len();
            ran.faults += outcome.scenario.faults.len();
            if let Some(violation) = outcome.violations.first() {
                ran.broken.push((outcome.scenario.seed, violation.promise));
                enough.fetch_or(stop == Stop::AtFirstBroken, Ordering::Relaxed);
            }
            tell(&outcome)?;
        }
        Ok::<_, io::Error>(())
    })?;
    ran.broken.sort_unstable();
    Ok(ran)
}

fn work(
    next: &AtomicU64,
    end: u64,
    enough: &AtomicBool,
    planted: Planted,
    outcomes: SyncSender<Outcome>,
) {
    while !enough.load(Ordering::Relaxed) {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || outcomes.send(sim::run(seed, planted)).is_err() {
            return;
        }
    }
}

fn report(outcome: &Outcome) -> io::Result<()> {
    let Outcome { scenario, operations, violations, trace } = outcome;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "seed {}: {} nodes, {} faults, {} operations, trace {trace:016x}, {} violations",
        scenario.seed,
        scenario.nodes,
        scenario.faults.len(),
        operations.len(),
        violations.len()
    )?;
    for violation in violations.iter().take(3) {
        writeln!(out, "  {violation}")?;
    }
    if !violations.is_empty() {
        writeln!(out, "  again: SEED={} make sim ARGS=--verbose", scenario.seed)?;
    }
    Ok(())
}
