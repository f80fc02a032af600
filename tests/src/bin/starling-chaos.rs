//! `make chaos`: troubles a cluster of five processes, and says what it found and how to do it again.
//!
//! Exit status: 0 nothing is wrong; 1 it could not run; 2 unknown flags or values; 3 something acknowledged
//! was lost, stale or came back, or a node ended or did not come back.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use rand::RngExt;
use starling_client::load::parse_duration;
use starling_tests::chaos::{Figures, Means, Options, enter_namespace, run};
use tokio_util::sync::CancellationToken;

const EXIT_WRONG: u8 = 3;
/// How long it goes on if nothing is said.
const DURATION: Duration = Duration::from_secs(60);

/// Troubles five nodes under a verified load, and proves that nothing acknowledged was lost.
#[derive(Debug, Parser)]
#[command(name = "starling-chaos", version, max_term_width = 100)]
struct Flags {
    /// Decides what is tried; a fresh one if none is given.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// How long at least, as 30m. [default: 60s, if nothing else is asked for]
    #[arg(long, env = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How many times a node is killed with kill -9 at least.
    #[arg(long, env = "ROUNDS")]
    rounds: Option<u64>,
    /// How many writes are acknowledged at least.
    #[arg(long)]
    writes: Option<u64>,
    /// Only these means: kill, restart, pause, cut, clock, disk-full, sync-error.
    #[arg(long, value_delimiter = ',', conflicts_with = "without")]
    only: Vec<Means>,
    /// All means but these.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Means>,
    /// Reads and writes a second.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Writes the figures to this file too, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Says of one write in so many that it was acknowledged, and never sends it.
    #[arg(long, hide = true)]
    forget_every: Option<u64>,
}

impl Flags {
    fn options(&self, seed: u64) -> Options {
        let bounded = self.rounds.is_some() || self.writes.is_some();
        let default = if bounded { Duration::ZERO } else { DURATION };
        let wished = |means: &Means| {
            !self.without.contains(means) && (self.only.is_empty() || self.only.contains(means))
        };
        Options {
            seed,
            duration: self.duration.unwrap_or(default),
            kills: self.rounds.unwrap_or(0),
            writes: self.writes.unwrap_or(0),
            means: Means::ALL.into_iter().filter(wished).collect(),
            rate: self.rate,
            forgets_every: self.forget_every,
            tell,
        }
    }

    /// What to type for a run of the same plan.
    fn again(&self, seed: u64) -> String {
        let mut again = format!("make chaos SEED={seed}");
        if let Some(duration) = self.duration {
            again.push_str(&format!(" DURATION={}ms", duration.as_millis()));
        }
        if let Some(rounds) = self.rounds {
            again.push_str(&format!(" ROUNDS={rounds}"));
        }
        let list =
            |means: &[Means]| means.iter().map(|means| means.name()).collect::<Vec<_>>().join(",");
        let mut flags = format!("--rate {}", self.rate);
        if !self.only.is_empty() {
            flags.push_str(&format!(" --only {}", list(&self.only)));
        }
        if !self.without.is_empty() {
            flags.push_str(&format!(" --without {}", list(&self.without)));
        }
        if let Some(writes) = self.writes {
            flags.push_str(&format!(" --writes {writes}"));
        }
        format!("{again} ARGS=\"{flags}\"")
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    enter_namespace();
    let seed = flags.seed.unwrap_or_else(|| rand::rng().random_range(0..1 << 40));
    tell(&format!("seed {seed}"));
    let stop = CancellationToken::new();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(async {
        let interrupted = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                tell("interrupted: what was written is read back now");
                interrupted.cancel();
            }
        });
        run(&flags.options(seed), stop).await
    })?;
    tell(&figures.to_string());
    if let Some(path) = &flags.json {
        write_json(path, &figures)?;
    }
    if figures.passed() {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(kept) = &figures.kept {
        tell(&format!("configurations, data and logs (nodeN.log) are kept in {}", kept.display()));
    }
    tell(&format!("the same again: {}", flags.again(seed)));
    Ok(ExitCode::from(EXIT_WRONG))
}

fn write_json(path: &Path, figures: &Figures) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(figures)?;
    fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
}

fn tell(line: &str) {
    // Whoever listened is gone; the exit status says the rest.
    let _ = writeln!(io::stdout(), "{line}");
}
