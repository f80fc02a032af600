//! `starling-load`: puts a cluster under load, measures it, and proves that nothing acknowledged was lost.
//!
//! A thin shell: flags become a `LoadConfig`, progress and report become text. The exit statuses are those of the
//! `starling` command, and 3 where the verification found something wrong.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use starling_client::load::{
    BucketTarget, ConfigError, KeyOrder, Limit, LoadConfig, Phase, Progress, Report, VerifyOptions,
    Workload, parse_duration, run, verify,
};
use starling_client::{Client, ConsistencyLevel, Error, WireError, parse_contact_point};
use tokio_util::sync::CancellationToken;

const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_VIOLATION: u8 = 3;
const EXIT_UNREACHABLE: u8 = 12;

/// Puts a Starling cluster under load, and proves that nothing acknowledged was lost.
///
/// Without flags it loads the node of this machine's default port with its defaults, at once; the first line says
/// what it is going to do.
///
/// Exit status: 0 done, and nothing wrong was found; 1 failed, as when no operation succeeded or another program
/// writes the bucket that is verified; 2 wrong command line; 3 the verification found something wrong, or could not
/// read everything back; 12 no node serves.
#[derive(Debug, Parser)]
#[command(name = "starling-load", version, max_term_width = 100)]
struct Flags {
    /// A node to begin with, host:port; may be repeated. The others are discovered.
    #[arg(
        long = "node",
        value_name = "ADDRESS",
        env = "STARLING_NODE",
        value_delimiter = ',',
        value_parser = parse_contact_point,
        default_value = "127.0.0.1:9050"
    )]
    nodes: Vec<String>,
    /// The bucket, keyspace.bucket.
    #[arg(long, env = "STARLING_BUCKET", default_value = "demo.load")]
    bucket: String,
    /// write, read, mixed, ycsb-a, ycsb-b, ycsb-c, ycsb-d or ycsb-f.
    #[arg(long, default_value = "mixed")]
    workload: Workload,
    /// The share of reads of the mixed workload, 0 to 1. [default: 0.5]
    #[arg(long, value_name = "RATIO")]
    read_ratio: Option<f64>,
    /// The share of updates that delete instead, 0 to 1.
    #[arg(long, value_name = "RATIO", default_value_t = 0.0)]
    delete_ratio: f64,
    /// How many keys there are.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
    /// Do not write the records before a workload that reads: an earlier run did.
    #[arg(long)]
    no_load: bool,
    /// The bucket is new: do not read each key before its first write to replace what is there.
    #[arg(long, conflicts_with = "no_load")]
    fresh: bool,
    /// uniform, zipfian, latest or sequential. [default: the workload's own]
    #[arg(long, value_name = "ORDER")]
    keys: Option<KeyOrder>,
    /// Bytes of each value.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    value_size: usize,
    /// Workers; each has one operation under way at most.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Operations a second, whether the cluster keeps up or not; latency counts from when each was due.
    /// Default: each worker goes on as soon as it has an answer.
    #[arg(long, value_name = "OPS_PER_S")]
    rate: Option<f64>,
    /// Stop after this many operations.
    #[arg(long, conflicts_with = "duration")]
    ops: Option<u64>,
    /// Stop after this long, as in 500ms, 20s, 5m or 1h. [default: 20s]
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Run this long before measuring.
    #[arg(long, value_parser = parse_duration, default_value = "0s")]
    warmup: Duration,
    /// one, two, three, quorum, all, local_one, local_quorum, each_quorum or a number of replicas.
    #[arg(long, default_value = "quorum")]
    consistency: ConsistencyLevel,
    /// Read back everything at the end and judge it. Reads of the run are judged as well where the level
    /// promises that they see every acknowledged write. The bucket must be this run's alone.
    #[arg(long)]
    verify: bool,
    /// The level of reading back. [default: that of --consistency]
    #[arg(long, value_name = "LEVEL", requires = "verify")]
    verify_consistency: Option<ConsistencyLevel>,
    /// Write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Repeat the operations of an earlier run. [default: other ones each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// No progress line.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run_load(&flags) {
        Ok(status) => status,
        Err(error) => {
            // Nothing is left to do if standard error is closed.
            let _ = writeln!(io::stderr(), "{}", told(&error));
            exit_status(&error).into()
        }
    }
}

/// The file for the result cannot be written, which is known before there is one.
#[derive(Debug, thiserror::Error)]
#[error("--json {}: {source}", path.display())]
struct Unwritable {
    path: PathBuf,
    source: io::Error,
}

/// The run went to its end, and there is nothing to show for it.
#[derive(Debug, thiserror::Error)]
#[error("0 of {ops} operations succeeded")]
struct NothingSucceeded {
    ops: u64,
}

fn exit_status(error: &anyhow::Error) -> u8 {
    let not_ready = |error: &Error| {
        matches!(error.wire(), Some(WireError::NotReady { .. } | WireError::ShuttingDown))
    };
    match error.downcast_ref::<Error>() {
        Some(error) if error.is_unreachable() || not_ready(error) => EXIT_UNREACHABLE,
        None if error.is::<ConfigError>() || error.is::<Unwritable>() => EXIT_USAGE,
        _ => EXIT_FAILED,
    }
}

/// A code, what happened, its effect, what to try: as the `starling` command tells it.
fn told(error: &anyhow::Error) -> String {
    let (what, effect, advice) = if let Some(error) = error.downcast_ref::<Error>() {
        (format!("[{}] {error}", error.code()), "the load has ended", error.advice())
    } else if let Some(error) = error.downcast_ref::<ConfigError>() {
        let advice = error.advice();
        return format!(
            "error[S012] usage: {error}\n  effect  nothing was done\n  try     {advice}"
        );
    } else if let Some(error) = error.downcast_ref::<Unwritable>() {
        (format!("[S012] usage: {error}"), "nothing was done", "name a file that can be written")
    } else {
        (format!("[S014] load: {error:#}"), "the load has ended", "look at `starling status`")
    };
    format!("error{what}\n  effect  {effect}\n  try     {advice}")
}

fn run_load(flags: &Flags) -> anyhow::Result<ExitCode> {
    let config = config(flags)?;
    config.check()?;
    if let Some(path) = &flags.json {
        check_writable(path)?;
    }
    if !flags.quiet {
        // The run matters, not whether somebody reads of it.
        let _ = writeln!(io::stderr(), "{} on {}: {config}", flags.bucket, flags.nodes.join(", "));
    }
    // One thread is enough for what two cores can serve, and saves waking a second one.
    let mut builder = match flags.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads);
            builder
        }
    };
    let runtime = builder.enable_all().build().context("cannot start the runtime")?;
    let report = runtime.block_on(measure(flags, &config))?;
    writeln!(io::stdout(), "{report}")?;
    if let Some(path) = &flags.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    judge(&report).map(ExitCode::from)
}

/// The exit status of a run that came to its end.
fn judge(report: &Report) -> anyhow::Result<u8> {
    match &report.verify {
        Some(found) if found.is_void() => Ok(EXIT_FAILED),
        Some(found) if !found.is_clean() => Ok(EXIT_VIOLATION),
        _ if report.succeeded() == 0 => Err(NothingSucceeded { ops: report.ops }.into()),
        _ => Ok(0),
    }
}

/// A run of hours whose result cannot be kept should not begin. What is in the file stays until there is a result.
fn check_writable(path: &Path) -> Result<(), Unwritable> {
    let existed = path.exists();
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    let checked = match opened {
        Ok(_) if existed => Ok(()),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    checked.map_err(|source| Unwritable { path: path.to_owned(), source })
}

async fn measure(flags: &Flags, config: &LoadConfig) -> anyhow::Result<Report> {
    let mut builder = Client::builder();
    for node in &flags.nodes {
        builder = builder.contact_point(node.as_str());
    }
    let client = builder.build().await?;
    let target = BucketTarget::open(&client, &flags.bucket, config.consistency).await?;
    let stop = stop_on_interrupt();
    let mut display = Display::new(flags.quiet);
    let outcome = run(&target, config, stop, |progress| display.show(progress)).await?;
    let mut report = outcome.report;
    if flags.verify {
        let level = flags.verify_consistency.unwrap_or(config.consistency);
        let target = BucketTarget::open(&client, &flags.bucket, level).await?;
        let options = VerifyOptions { concurrency: config.concurrency, ..VerifyOptions::default() };
        let show = |progress: &Progress| display.show(progress);
        let mut found = verify(&target, outcome.history, options, show).await;
        found.absorb(outcome.judged);
        report.verify = Some(found);
    }
    display.finish();
    Ok(report)
}

fn config(flags: &Flags) -> Result<LoadConfig, ConfigError> {
    let defaults = LoadConfig::new();
    let workload = match (flags.workload, flags.read_ratio) {
        (workload, None) => workload,
        (Workload::Mixed { .. }, Some(read_ratio)) => Workload::Mixed { read_ratio },
        (_, Some(read_ratio)) => {
            return Err(ConfigError::OutOfRange {
                name: "read-ratio",
                found: read_ratio.to_string(),
                accepted: "no ratio but that of the workload itself, unless it is mixed".to_owned(),
            });
        }
    };
    let limit = match (flags.ops, flags.duration) {
        (Some(ops), _) => Limit::Operations(ops),
        (None, Some(duration)) => Limit::Duration(duration),
        (None, None) => defaults.limit,
    };
    Ok(LoadConfig {
        workload,
        key_order: flags.keys,
        records: flags.records,
        load_phase: !flags.no_load,
        fresh: flags.fresh,
        value_bytes: flags.value_size,
        concurrency: flags.concurrency,
        rate: flags.rate,
        limit,
        warmup: flags.warmup,
        delete_ratio: flags.delete_ratio,
        consistency: flags.consistency,
        verify: flags.verify,
        seed: flags.seed.unwrap_or(defaults.seed),
        ..defaults
    })
}

/// The first Ctrl-C ends the run early and still reports and verifies; the second kills.
fn stop_on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        // Without signals the run simply cannot be ended early.
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(130);
        }
    });
    stop
}

/// The live line: redrawn in place on a terminal, a line a second elsewhere.
enum Display {
    Quiet,
    Bar(ProgressBar),
    Lines,
}

impl Display {
    fn new(quiet: bool) -> Display {
        if quiet {
            return Display::Quiet;
        }
        if !io::stderr().is_terminal() {
            return Display::Lines;
        }
        let bar = ProgressBar::new_spinner();
        bar.set_style(
            ProgressStyle::with_template("{spinner} {msg}").expect("the template is well formed"),
        );
        Display::Bar(bar)
    }

    fn show(&mut self, progress: &Progress) {
        match self {
            Display::Quiet => {}
            Display::Bar(bar) => {
                bar.set_message(line(progress));
                bar.tick();
            }
            Display::Lines => {
                // A closed standard error must not end the measurement.
                let _ = writeln!(io::stderr(), "{}", line(progress));
            }
        }
    }

    fn finish(&self) {
        if let Display::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(progress: &Progress) -> String {
    let seconds = progress.elapsed.as_secs();
    let rate = progress.ops_per_s;
    let share = match progress.total {
        Some(total) => format!(" {} of {total}", progress.done),
        None => String::new(),
    };
    let phase = match progress.phase {
        Phase::Loading => {
            let stuck = progress.stuck_on.as_ref().map(|error| format!("  last error: {error}"));
            return format!("loading{share}  {rate:.0} writes/s{}", stuck.unwrap_or_default());
        }
        Phase::Verifying => return format!("verifying{share} keys  {rate:.0} reads/s"),
        Phase::WarmingUp => "warming up",
        Phase::Measuring => "running",
    };
    format!(
        "{phase} {seconds} s{share}  {rate:.0} ops/s  p50 {:.2} ms  p99 {:.2} ms  {} errors",
        progress.p50_us as f64 / 1000.0,
        progress.p99_us as f64 / 1000.0,
        progress.errors_total,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Flags, check_writable, config, exit_status};
    use starling_client::load::{Limit, Workload};
    use starling_client::{Error, WireError};

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn a_full_command_line_becomes_a_configuration() {
        let flags = Flags::parse_from([
            "starling-load",
            "--node",
            "127.0.0.1:9050",
            "--node",
            "127.0.0.2:9050",
            "--bucket",
            "demo.load",
            "--workload",
            "mixed",
            "--read-ratio",
            "0.25",
            "--records",
            "100000",
            "--duration",
            "20s",
            "--concurrency",
            "64",
            "--value-size",
            "128",
            "--consistency",
            "quorum",
            "--verify",
            "--json",
            "out.json",
        ]);
        assert_eq!(flags.nodes.len(), 2);
        let config = config(&flags).expect("the flags fit together");
        assert_eq!(config.workload, Workload::Mixed { read_ratio: 0.25 });
        assert_eq!(config.limit, Limit::Duration(Duration::from_secs(20)));
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn a_read_ratio_is_refused_where_the_workload_has_its_own() {
        let flags = ["starling-load", "--workload", "ycsb-b", "--read-ratio", "0.25"];
        let refused = config(&Flags::parse_from(flags)).expect_err("ycsb-b reads 95 of 100");
        let told = super::told(&refused.into());
        assert!(told.starts_with("error[S012] usage: ") && told.contains("read-ratio"), "{told}");
        assert!(told.contains("\n  effect  ") && told.contains("\n  try     "), "{told}");
    }

    #[test]
    fn what_failed_shows_in_the_exit_status() {
        let refused = |error| Error::Refused { error, unknown: false };
        let nobody = Error::Unreachable { tried: Vec::new() };
        assert_eq!(exit_status(&nobody.into()), 12);
        let not_ready = refused(WireError::NotReady { waiting_for: Vec::new() });
        assert_eq!(exit_status(&not_ready.into()), 12);
        let keyspace = refused(WireError::UnknownKeyspace { name: "x".to_owned() });
        assert_eq!(exit_status(&keyspace.into()), 1);
        let flags = ["starling-load", "--workload", "ycsb-b", "--read-ratio", "0.25"];
        let config = config(&Flags::parse_from(flags)).expect_err("ycsb-b reads 95 of 100");
        assert_eq!(exit_status(&config.into()), 2);
        let malformed = Flags::try_parse_from(["starling-load", "--node", "127.0.0.1"]);
        assert_eq!(malformed.expect_err("there is no port").exit_code(), 2);
    }

    #[test]
    fn a_result_that_cannot_be_kept_is_known_before_the_run() {
        let path = Path::new("no/such/folder/out.json");
        let error = check_writable(path).expect_err("there is no folder").into();
        assert_eq!(exit_status(&error), 2);
        let told = super::told(&error);
        assert!(told.contains("S012") && told.contains("no/such/folder/out.json"), "{told}");
        let file = std::env::temp_dir().join(format!("starling-load-{}.json", std::process::id()));
        check_writable(&file).expect("the temporary folder can be written");
        assert!(!file.exists(), "nothing is left of the look");
        std::fs::write(&file, "earlier").expect("it can be written");
        check_writable(&file).expect("it can be written again");
        let kept = std::fs::read(&file).expect("it is there");
        std::fs::remove_file(&file).expect("it is ours");
        assert_eq!(kept, b"earlier", "an earlier result stays until there is another");
    }

    #[test]
    fn scans_are_refused_with_a_reason() {
        let refused = Flags::try_parse_from(["starling-load", "--workload", "ycsb-e"]);
        let message = refused.expect_err("ycsb-e scans").to_string();
        assert!(message.contains("needs scans"), "{message}");
    }
}
