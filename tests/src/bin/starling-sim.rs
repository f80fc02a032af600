//! `make sim`: runs seeds on all cores, and says what they broke and how to see it again.

use std::io::{self, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use anyhow::Context;
use clap::Parser;
use rand::RngExt;
use starling_storage::planted::{Bug, Planted};
use starling_tests::sim::{self, Summary};

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
    jobs: Option<NonZero<usize>>,
    /// Plants a bug of this name in every node; `all` runs each in turn until it is caught, and prints a table.
    #[arg(long)]
    bug: Option<String>,
    /// Runs one seed, with logs of the nodes and everything the clients did on standard error.
    #[arg(long)]
    verbose: bool,
    /// What is logged with --verbose.
    #[arg(long, value_name = "FILTER", default_value = "info,turmoil=warn", requires = "verbose")]
    log: String,
    /// Runs one seed in this process and prints its summary as JSON.
    #[arg(long, hide = true, requires = "seed")]
    one: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let first = flags.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    if flags.one || flags.verbose {
        return run_here(first, &flags);
    }
    let count = flags.seeds.unwrap_or(if flags.seed.is_some() { 1 } else { 100 });
    let jobs = flags.jobs.map_or_else(thread::available_parallelism, Ok)?.get();
    let seeds = Seeds { binary: &std::env::current_exe()?, first, end: first + count, jobs };
    match flags.bug.as_deref() {
        None => seeds.judge(),
        Some("all") => seeds.catch_all(),
        Some(name) => {
            let bug = named(name)?;
            let ran = seeds.run(Some(bug), Stop::AtFirstBroken, report)?;
            writeln!(io::stdout(), "{}", catch_line(bug, first, &ran))?;
            Ok(if ran.broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

fn named(name: &str) -> anyhow::Result<Bug> {
    let bug = Bug::ALL.into_iter().find(|bug| bug.to_string() == name);
    bug.with_context(|| format!("no bug {name:?}; there are {:?}", Bug::ALL))
}

fn run_here(seed: u64, flags: &Flags) -> anyhow::Result<ExitCode> {
    if flags.verbose {
        tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(&flags.log).init();
    }
    let bug = flags.bug.as_deref().map(named).transpose()?;
    let outcome = sim::run(seed, bug.map_or(Planted::NONE, Planted::new));
    let summary = Summary::from(&outcome);
    if flags.one {
        serde_json::to_writer(io::stdout(), &summary)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(io::stdout(), "{summary}")?;
    Ok(if summary.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The seeds to run, and how.
struct Seeds<'a> {
    binary: &'a Path,
    first: u64,
    end: u64,
    jobs: usize,
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
    broken: Vec<(u64, String)>,
}

impl Seeds<'_> {
    /// Without a planted bug nothing may be broken.
    fn judge(&self) -> anyhow::Result<ExitCode> {
        let ran = self.run(None, Stop::AtTheEnd, report)?;
        writeln!(
            io::stdout(),
            "{} seeds from {}: {} operations, {} faults, {} seeds broke a promise",
            ran.seeds,
            self.first,
            ran.operations,
            ran.faults,
            ran.broken.len(),
        )?;
        Ok(if ran.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Every planted bug has to be caught.
    fn catch_all(&self) -> anyhow::Result<ExitCode> {
        let mut missed = 0;
        for bug in Bug::ALL {
            let ran = self.run(Some(bug), Stop::AtFirstBroken, |_| Ok(()))?;
            missed += usize::from(ran.broken.is_empty());
            writeln!(io::stdout(), "{}", catch_line(bug, self.first, &ran))?;
        }
        writeln!(io::stdout(), "{missed} of {} planted bugs were not caught", Bug::ALL.len())?;
        Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn run(
        &self,
        bug: Option<Bug>,
        stop: Stop,
        mut tell: impl FnMut(&Summary) -> io::Result<()>,
    ) -> anyhow::Result<Ran> {
        let (next, enough) = (AtomicU64::new(self.first), AtomicBool::new(false));
        let (send, summaries) = sync_channel(self.jobs);
        let mut ran = Ran::default();
        thread::scope(|scope| {
            for _ in 0..self.jobs {
                let send = send.clone();
                scope.spawn(|| self.work(&next, &enough, bug, send));
            }
            drop(send);
            for summary in summaries {
                let summary: Summary =
                    summary.inspect_err(|_| enough.store(true, Ordering::Relaxed))?;
                ran.seeds += 1;
                ran.operations += summary.operations;
                ran.faults += summary.faults;
                if let Some(broken) = summary.broken.first() {
                    ran.broken.push((summary.seed, broken.promise.clone()));
                    enough.fetch_or(stop == Stop::AtFirstBroken, Ordering::Relaxed);
                }
                tell(&summary)?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        ran.broken.sort_unstable();
        Ok(ran)
    }

    fn work(
        &self,
        next: &AtomicU64,
        enough: &AtomicBool,
        bug: Option<Bug>,
        summaries: SyncSender<anyhow::Result<Summary>>,
    ) {
        while !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            let summary = Summary::of_process(self.binary, seed, bug);
            if summaries.send(summary).is_err() {
                return;
            }
        }
    }
}

fn catch_line(bug: Bug, first: u64, ran: &Ran) -> String {
    match ran.broken.first() {
        Some((seed, promise)) => format!("| {bug} | {} | {promise} |", seed - first + 1),
        None => format!("| {bug} | not caught in {} | |", ran.seeds),
    }
}

fn report(summary: &Summary) -> io::Result<()> {
    writeln!(io::stdout(), "{summary}")
}
