//! The result of a run, as a table for people and as JSON for programs.
//!
//! Invariant: the JSON's names are an interface; they are only ever added to.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::recorder::Interval;
use super::verify::Verification;

/// What a run measured. Serialises to the JSON of `starling-load --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Successful operations a second.
    pub throughput_per_s: f64,
    /// Operations that ended, failed ones included.
    pub ops: u64,
    /// Writes that were acknowledged.
    pub acked_writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Those of them that found a value.
    pub reads_found: u64,
    /// Requests that the client sent again.
    pub retried: u64,
    /// Writes that may or may not have taken effect.
    pub unknown: u64,
    /// Operations that failed after all retries.
    pub errors: Errors,
    /// Latencies of successful operations.
    pub latency_us: Latencies,
    /// What reading back found; nothing if it was not asked for.
    pub verify: Option<Verification>,
    /// How long was measured.
    #[serde(skip)]
    pub elapsed: Duration,
    /// What the first failure said.
    #[serde(skip)]
    pub first_failure: Option<String>,
}

/// Failed operations by class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Errors {
    /// Too few replicas were up.
    pub unavailable: u64,
    /// Too few replicas answered in time.
    pub timeout: u64,
    /// A limit was reached.
    pub overloaded: u64,
    /// Anything else.
    pub other: u64,
}

impl Errors {
    /// All of them.
    pub fn sum(self) -> u64 {
        self.unavailable + self.timeout + self.overloaded + self.other
    }
}

/// Latencies by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Latencies {
    /// Reads.
    pub read: Quantiles,
    /// Writes and deletes.
    pub write: Quantiles,
}

/// Quantiles in microseconds; all zero if there was nothing to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The median.
    pub p50: u64,
    /// The 95th percentile.
    pub p95: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Quantiles {
        Quantiles {
            p50: histogram.value_at_quantile(0.5),
            p95: histogram.value_at_quantile(0.95),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl Report {
    /// Operations that succeeded.
    pub fn succeeded(&self) -> u64 {
        self.reads + self.acked_writes
    }

    pub(crate) fn new(measured: &Interval, elapsed: Duration, retried: u64) -> Report {
        let counts = measured.counts;
        Report {
            throughput_per_s: counts.succeeded() as f64 / elapsed.as_secs_f64().max(1e-9),
            ops: counts.succeeded() + counts.failed(),
            acked_writes: counts.writes,
            reads: counts.reads,
            reads_found: counts.found,
            retried,
            unknown: counts.unknown,
            errors: Errors {
                unavailable: counts.unavailable,
                timeout: counts.timeout,
                overloaded: counts.overloaded,
                other: counts.other,
            },
            latency_us: Latencies {
                read: Quantiles::of(&measured.read),
                write: Quantiles::of(&measured.write),
            },
            verify: None,
            elapsed,
            first_failure: measured.first_failure.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            formatter,
            "{} operations in {seconds:.1} s, {:.0} a second; {} acknowledged writes, {} retried",
            self.ops, self.throughput_per_s, self.acked_writes, self.retried
        )?;
        writeln!(
            formatter,
            "{:>12}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "latency (ms)", "p50", "p95", "p99", "p99.9", "max"
        )?;
        for (name, row) in [("read", self.latency_us.read), ("write", self.latency_us.write)] {
            if row == Quantiles::default() {
                continue;
            }
            write!(formatter, "{name:>12}")?;
            for micros in [row.p50, row.p95, row.p99, row.p999, row.max] {
                write!(formatter, "{:>10.2}", micros as f64 / 1000.0)?;
            }
            writeln!(formatter)?;
        }
        let errors = self.errors;
        write!(
            formatter,
            "errors: {} unavailable, {} timeout, {} overloaded, {} other; {} writes of unknown outcome",
            errors.unavailable, errors.timeout, errors.overloaded, errors.other, self.unknown
        )?;
        if let Some(failure) = &self.first_failure {
            write!(formatter, "\nfirst error: {failure}")?;
        }
        if self.reads > 0 && self.reads_found == 0 {
            write!(
                formatter,
                "\nwarning: none of {} reads found a value; was the bucket ever loaded? leave out --no-load",
                self.reads
            )?;
        }
        if let Some(verify) = &self.verify {
            write!(formatter, "\n{verify}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keys == 0 && self.is_clean() {
            return formatter.write_str("nothing was written, so nothing was checked");
        }
        write!(
            formatter,
            "checked {} acknowledged writes: {} lost, {} stale, {} resurrected",
            self.checked, self.lost, self.stale, self.resurrected
        )?;
        for (count, what) in [
            (self.overwritten, "overwritten by another run"),
            (self.damaged, "damaged"),
            (self.unread, "could not be read"),
            (self.beside_earlier, "with an earlier uncertain write beside the last (allowed)"),
        ] {
            if count > 0 {
                write!(formatter, ", {count} {what}")?;
            }
        }
        for violation in &self.violations {
            write!(formatter, "\n  {violation}")?;
        }
        let described = self.violations.len() as u64;
        if self.wrong_keys() > described {
            write!(formatter, "\n  ... and {} more", self.wrong_keys() - described)?;
        }
        if self.is_void() {
            write!(formatter, "\nanother program writes this bucket: the verdict is void")?;
        }
        Ok(())
    }
}
