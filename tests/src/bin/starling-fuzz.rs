//! `make fuzz`: feeds each decoder for a while, and says what it did not stand.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use starling_tests::fuzz::{self, Until};

/// Feeds decoders with samples that were changed at random.
#[derive(Debug, Parser)]
#[command(name = "starling-fuzz", version)]
struct Flags {
    /// Seconds for each target.
    #[arg(long, env = "SECONDS_EACH", default_value_t = 60)]
    seconds: u64,
    /// This target only.
    #[arg(long, env = "TARGET")]
    target: Option<String>,
    /// What is tried follows from it; a fresh one if none is given.
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let seed = flags.seed.unwrap_or_else(rand::random);
    let mut targets = fuzz::all();
    let names: Vec<_> = targets.iter().map(|target| target.name).collect();
    targets.retain(|target| flags.target.as_deref().is_none_or(|name| name == target.name));
    ensure!(!targets.is_empty(), "there is no such target; there are {names:?}");
    // What a target panics with is part of its result.
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = io::stdout();
    let mut broken = 0;
    for target in targets {
        let fed = target.fuzz(seed, Until::Elapsed(Duration::from_secs(flags.seconds)));
        let name = target.name;
        writeln!(out, "{name}: {} inputs, {} of them accepted", fed.inputs, fed.accepted)?;
        if let Some((input, why)) = fed.broken {
            broken += 1;
            let hex = input.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
                hex
            });
            writeln!(
                out,
                "  broken: {why}\n  input: {hex}\n  again: SEED={seed} TARGET={name} make fuzz"
            )?;
        }
    }
    Ok(if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
