//! `make bench`: measures and prints one table. Everything is decided in `starling_tests::bench`.

use std::io::{self, Write};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use starling_client::load::{Phase, Progress};
use starling_tests::bench::{
    Cores, Parts, Scale, Table, default_options, measure_cluster, measure_overload, measure_raw,
};
use tokio::runtime::Runtime;

/// Measures Starling beside its store alone.
#[derive(Debug, Parser)]
#[command(name = "starling-bench", version)]
struct Flags {
    /// Seconds for each figure.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Keys.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// What to measure beside the store.
    #[arg(long, value_enum, default_value_t = Scope::All)]
    scope: Scope,
    /// No progress lines.
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scope {
    All,
    Raw,
    One,
    Three,
    Overload,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let scale = Scale {
        records: flags.records,
        measure: Duration::from_secs(flags.seconds.max(1)),
        ..Scale::default()
    };
    let note = |text: &str| {
        if !flags.quiet {
            // A closed standard error must not end the measurement.
            let _ = writeln!(io::stderr(), "{text}");
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if flags.scope != Scope::Overload {
        compare(&flags, scale, &runtime, &note)?;
    }
    if matches!(flags.scope, Scope::All | Scope::Overload) {
        let cores = Cores::halves();
        if let Some(cores) = cores {
            cores.be_a_client();
        }
        let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let parts = Parts { warmup: 10, before: 10, wave: 10, after: 15 };
        let figures = threads.block_on(measure_overload(parts, cores, &note))?;
        write!(io::stdout(), "{figures}")?;
    }
    Ok(())
}

/// The clusters beside the store alone.
fn compare(
    flags: &Flags,
    scale: Scale,
    runtime: &Runtime,
    note: &impl Fn(&str),
) -> anyhow::Result<()> {
    note("the store alone ...");
    let raw = measure_raw(&scale, &default_options()?)?;
    let cluster = |nodes: u8, scope: Scope| {
        if flags.scope != Scope::All && flags.scope != scope {
            return Ok(None);
        }
        note(&format!("{nodes} node(s) ..."));
        let observe = |label: &str, progress: &Progress| note(&line(label, progress));
        runtime.block_on(measure_cluster(nodes, &scale, observe)).map(Some)
    };
    let one = cluster(1, Scope::One)?;
    let three = cluster(3, Scope::Three)?;
    write!(io::stdout(), "{}", Table { scale, raw, one, three })?;
    Ok(())
}

fn line(label: &str, progress: &Progress) -> String {
    let phase = match progress.phase {
        Phase::Loading => "loading",
        Phase::WarmingUp => "warming up",
        Phase::Measuring => "measuring",
        Phase::Verifying => "verifying",
    };
    format!(
        "  {label}, {phase}: {:.0}/s  p50 {:.2} ms  p99 {:.2} ms  {} errors",
        progress.ops_per_s,
        progress.p50_us as f64 / 1000.0,
        progress.p99_us as f64 / 1000.0,
        progress.errors_total
    )
}
