//! What a load run is asked to do, and whether that makes sense.
//!
//! Invariant: a [`LoadConfig`] that passed [`LoadConfig::check`] can be run as written; the rest of the
//! module trusts it. Command-line syntax is the binary's business.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use starling_ring::ConsistencyLevel;
use uuid::Uuid;

use super::stamp::STAMP_BYTES;

/// The largest value the generator makes.
const VALUE_BYTES_MAX: usize = 16 << 20;
/// Keys are numbered with room to spare for inserts.
const RECORDS_MAX: u64 = 1 << 40;

/// Which operations a run consists of, named as in YCSB where YCSB has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Workload {
    /// Updates only.
    Write,
    /// Reads only.
    Read,
    /// Reads and updates.
    Mixed {
        /// The share of reads, 0 to 1.
        read_ratio: f64,
    },
    /// Half reads, half updates; zipfian.
    YcsbA,
    /// 95% reads, 5% updates; zipfian.
    YcsbB,
    /// Reads only; zipfian.
    YcsbC,
    /// 95% reads of the latest keys, 5% inserts.
    YcsbD,
    /// Half reads, half read-modify-writes; zipfian.
    YcsbF,
}

/// Why a name names no workload that can be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The workload scans, and the database has no scans yet.
    #[error("{workload} needs scans, which are not supported yet")]
    NeedsScans {
        /// The workload's name.
        workload: String,
    },
    /// No such workload.
    #[error(
        "there is no workload {name:?}; accepted: write, read, mixed, ycsb-a, ycsb-b, ycsb-c, ycsb-d, ycsb-f"
    )]
    Unknown {
        /// What was given.
        name: String,
    },
}

impl FromStr for Workload {
    type Err = WorkloadError;

    fn from_str(name: &str) -> Result<Workload, WorkloadError> {
        match name {
            "write" => Ok(Workload::Write),
            "read" => Ok(Workload::Read),
            "mixed" => Ok(Workload::Mixed { read_ratio: 0.5 }),
            "ycsb-a" => Ok(Workload::YcsbA),
            "ycsb-b" => Ok(Workload::YcsbB),
            "ycsb-c" => Ok(Workload::YcsbC),
            "ycsb-d" => Ok(Workload::YcsbD),
            "ycsb-e" => Err(WorkloadError::NeedsScans { workload: name.to_owned() }),
            "ycsb-f" => Ok(Workload::YcsbF),
            _ => Err(WorkloadError::Unknown { name: name.to_owned() }),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Workload::Write => f.write_str("write"),
            Workload::Read => f.write_str("read"),
            Workload::Mixed { read_ratio } => {
                write!(f, "mixed ({:.0}% reads)", read_ratio * 100.0)
            }
            Workload::YcsbA => f.write_str("ycsb-a"),
            Workload::YcsbB => f.write_str("ycsb-b"),
            Workload::YcsbC => f.write_str("ycsb-c"),
            Workload::YcsbD => f.write_str("ycsb-d"),
            Workload::YcsbF => f.write_str("ycsb-f"),
        }
    }
}

/// The share of each operation; they add up to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mix {
    pub(crate) read: f64,
    pub(crate) update: f64,
    pub(crate) insert: f64,
    pub(crate) read_modify_write: f64,
}

impl Workload {
    pub(crate) fn mix(self) -> Mix {
        let none = Mix { read: 0.0, update: 0.0, insert: 0.0, read_modify_write: 0.0 };
        match self {
            Workload::Write => Mix { update: 1.0, ..none },
            Workload::Read | Workload::YcsbC => Mix { read: 1.0, ..none },
            Workload::Mixed { read_ratio } => {
                Mix { read: read_ratio, update: 1.0 - read_ratio, ..none }
            }
            Workload::YcsbA => Mix { read: 0.5, update: 0.5, ..none },
            Workload::YcsbB => Mix { read: 0.95, update: 0.05, ..none },
            Workload::YcsbD => Mix { read: 0.95, insert: 0.05, ..none },
            Workload::YcsbF => Mix { read: 0.5, read_modify_write: 0.5, ..none },
        }
    }

    /// The order that YCSB gives the workload; uniform for those that are not YCSB's.
    pub(crate) fn key_order(self) -> KeyOrder {
        match self {
            Workload::Write | Workload::Read | Workload::Mixed { .. } => KeyOrder::Uniform,
            Workload::YcsbD => KeyOrder::Latest,
            Workload::YcsbA | Workload::YcsbB | Workload::YcsbC | Workload::YcsbF => {
                KeyOrder::Zipfian
            }
        }
    }

    /// Whether there has to be something before the run begins.
    pub(crate) fn reads(self) -> bool {
        self.mix().update < 1.0
    }
}

/// How keys are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrder {
    /// Every key as often as every other.
    Uniform,
    /// Few keys often, many seldom (exponent 0.99), spread over the key space by a hash.
    Zipfian,
    /// The keys inserted last most often.
    Latest,
    /// One after the other, and again from the first.
    Sequential,
}

/// A name names no key order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no key order {name:?}; accepted: uniform, zipfian, latest, sequential")]
pub struct KeyOrderError {
    name: String,
}

impl FromStr for KeyOrder {
    type Err = KeyOrderError;

    fn from_str(name: &str) -> Result<KeyOrder, KeyOrderError> {
        match name {
            "uniform" => Ok(KeyOrder::Uniform),
            "zipfian" => Ok(KeyOrder::Zipfian),
            "latest" => Ok(KeyOrder::Latest),
            "sequential" => Ok(KeyOrder::Sequential),
            _ => Err(KeyOrderError { name: name.to_owned() }),
        }
    }
}

/// When a run ends; it also ends when it is told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After this many operations, those of the warm-up not counted.
    Operations(u64),
    /// After this long, the warm-up not counted.
    Duration(Duration),
    /// Only when it is told to.
    UntilStopped,
}

/// A run of the load generator. [`LoadConfig::new`] gives the defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadConfig {
    /// The operations.
    pub workload: Workload,
    /// How keys are drawn; `None` takes the workload's own order.
    pub key_order: Option<KeyOrder>,
    /// How many keys there are before inserts.
    pub records: u64,
    /// Whether to write every record once before a workload that reads.
    pub load_phase: bool,
    /// The bucket is known to be new. Otherwise the first write of each key reads it first, so that
    /// what earlier runs left is replaced rather than kept beside the new value.
    pub fresh: bool,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// How many workers there are, each with at most one request under way.
    pub concurrency: usize,
    /// Operations a second of all workers together. Latency then counts from the moment an operation
    /// was due, so that a stalled cluster is not asked less (no coordinated omission). `None`: each
    /// worker asks again as soon as it has an answer.
    pub rate: Option<f64>,
    /// When it ends.
    pub limit: Limit,
    /// How long to run before measuring.
    pub warmup: Duration,
    /// The share of writes that delete, 0 to 1.
    pub delete_ratio: f64,
    /// The consistency level of every operation.
    pub consistency: ConsistencyLevel,
    /// Judge each read of a worker's own keys at once, where the level promises that it sees the
    /// worker's last acknowledged write.
    pub verify: bool,
    /// Determines keys and operations, though not their timing.
    pub seed: u64,
    /// Marks the run's values, so that they are told from those of other runs.
    pub run: u32,
}

/// Why a configuration cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A number is out of its range.
    #[error("{name} is {found}; accepted: {accepted}")]
    OutOfRange {
        /// The option.
        name: &'static str,
        /// What was given.
        found: String,
        /// What is accepted.
        accepted: String,
    },
    /// Each worker needs a record of its own.
    #[error(
        "records is {records}; accepted: {concurrency} (one for each worker of --concurrency) or more"
    )]
    TooFewRecords {
        /// How many records were asked for.
        records: u64,
        /// How many workers.
        concurrency: u64,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            ConfigError::TooFewRecords { records: 0, concurrency } => {
                format!("--records {concurrency}")
            }
            ConfigError::TooFewRecords { records, concurrency } => {
                format!("--concurrency {records}, or --records {concurrency}")
            }
            ConfigError::OutOfRange { .. } => "starling-load --help".to_owned(),
        }
    }
}

impl LoadConfig {
    /// Mixed reads and updates of 100,000 records at QUORUM for 20 seconds.
    pub fn new() -> LoadConfig {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        LoadConfig {
            workload: Workload::Mixed { read_ratio: 0.5 },
            key_order: None,
            records: 100_000,
            load_phase: true,
            fresh: false,
            value_bytes: 128,
            concurrency: 64,
            rate: None,
            limit: Limit::Duration(Duration::from_secs(20)),
            warmup: Duration::ZERO,
            delete_ratio: 0.0,
            consistency: ConsistencyLevel::Quorum,
            verify: false,
            seed: high,
            run: (low >> 32) as u32,
        }
    }

    /// Whether the configuration can be run.
    ///
    /// # Errors
    /// The first option that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let ratio = 0.0..=1.0;
        if let Workload::Mixed { read_ratio } = self.workload {
            require("read-ratio", ratio.contains(&read_ratio), read_ratio, "0 to 1")?;
        }
        require("delete-ratio", ratio.contains(&self.delete_ratio), self.delete_ratio, "0 to 1")?;
        require("concurrency", self.concurrency >= 1, self.concurrency, "at least 1")?;
        let workers = self.concurrency as u64;
        if self.records < workers {
            let (records, concurrency) = (self.records, workers);
            return Err(ConfigError::TooFewRecords { records, concurrency });
        }
        let records = format!("{workers} to {RECORDS_MAX}");
        require("records", self.records <= RECORDS_MAX, self.records, records)?;
        let rate_fits = self.rate.is_none_or(|rate| (0.001..=1e9).contains(&rate));
        require("rate", rate_fits, self.rate.unwrap_or(0.0), "0.001 to 1,000,000,000")?;
        let value_bytes_min = if self.verify { STAMP_BYTES } else { 0 };
        require(
            "value-size",
            (value_bytes_min..=VALUE_BYTES_MAX).contains(&self.value_bytes),
            self.value_bytes,
            format!("{value_bytes_min} to {VALUE_BYTES_MAX} (verification needs {STAMP_BYTES})"),
        )
    }

    /// Whether a read at this level that starts after an acknowledgement must see it. The explicit
    /// counts depend on the replication factor, which is not known here, so they promise nothing.
    pub(crate) fn reads_see_writes(&self) -> bool {
        matches!(
            self.consistency,
            ConsistencyLevel::Quorum | ConsistencyLevel::LocalQuorum | ConsistencyLevel::All
        )
    }
}

/// What the run is going to do, for a person who may still want to stop it.
impl fmt::Display for LoadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.load_phase && self.workload.reads() {
            write!(f, "writes {} records, then {}", self.records, self.workload)?;
        } else {
            write!(f, "{} of {} records", self.workload, self.records)?;
        }
        match self.limit {
            Limit::Operations(operations) => write!(f, ", {operations} operations")?,
            Limit::Duration(duration) => write!(f, " for {duration:?}")?,
            Limit::UntilStopped => write!(f, " until it is stopped")?,
        }
        if !self.warmup.is_zero() {
            write!(f, " after {:?} of warm-up", self.warmup)?;
        }
        write!(f, ", at {}; values of {} bytes, ", self.consistency, self.value_bytes)?;
        match self.rate {
            Some(rate) => write!(f, "{rate} operations a second"),
            None => write!(f, "{} operations at a time", self.concurrency),
        }
    }
}

impl Default for LoadConfig {
    fn default() -> LoadConfig {
        LoadConfig::new()
    }
}

fn require(
    name: &'static str,
    holds: bool,
    found: impl fmt::Display,
    accepted: impl Into<String>,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { name, found: found.to_string(), accepted: accepted.into() })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ConfigError, Limit, LoadConfig, Workload, WorkloadError};

    #[test]
    fn every_named_workload_adds_up_to_one() {
        for name in ["write", "read", "mixed", "ycsb-a", "ycsb-b", "ycsb-c", "ycsb-d", "ycsb-f"] {
            let mix = name.parse::<Workload>().expect("the name is listed").mix();
            let sum = mix.read + mix.update + mix.insert + mix.read_modify_write;
            assert!((sum - 1.0).abs() < 1e-9, "{name} adds up to {sum}");
        }
    }

    #[test]
    fn scans_are_refused_as_such() {
        let refused = "ycsb-e".parse::<Workload>();
        assert_eq!(refused, Err(WorkloadError::NeedsScans { workload: "ycsb-e".to_owned() }));
        assert!(matches!("ycsb-g".parse::<Workload>(), Err(WorkloadError::Unknown { .. })));
    }

    #[test]
    fn a_run_is_told_before_it_begins() {
        let told = |spoil: &dyn Fn(&mut LoadConfig)| {
            let mut config = LoadConfig::new();
            spoil(&mut config);
            config.to_string()
        };
        assert_eq!(
            told(&|_| {}),
            "writes 100000 records, then mixed (50% reads) for 20s, at QUORUM; values of 128 bytes, 64 operations at a time"
        );
        assert_eq!(
            told(&|c| {
                c.workload = Workload::Write;
                c.limit = Limit::Operations(7);
                c.rate = Some(500.0);
            }),
            "write of 100000 records, 7 operations, at QUORUM; values of 128 bytes, 500 operations a second"
        );
        let kept = told(&|c| (c.load_phase, c.warmup) = (false, Duration::from_millis(1500)));
        assert!(
            kept.starts_with("mixed (50% reads) of 100000 records for 20s after 1.5s"),
            "{kept}"
        );
    }

    #[test]
    fn the_defaults_can_be_run_and_each_bad_option_is_named() {
        assert_eq!(LoadConfig::new().check(), Ok(()));
        let check = |name: &str, spoil: &dyn Fn(&mut LoadConfig)| {
            let mut config = LoadConfig::new();
            spoil(&mut config);
            match config.check() {
                Err(ConfigError::OutOfRange { name: found, .. }) => assert_eq!(found, name),
                other => panic!("{name}: {other:?}"),
            }
        };
        check("read-ratio", &|c| c.workload = Workload::Mixed { read_ratio: 1.5 });
        check("delete-ratio", &|c| c.delete_ratio = -0.1);
        check("delete-ratio", &|c| c.delete_ratio = f64::NAN);
        check("concurrency", &|c| c.concurrency = 0);
        check("records", &|c| c.records = 1 << 41);
        check("rate", &|c| c.rate = Some(0.0));
        check("value-size", &|c| {
            c.verify = true;
            c.value_bytes = 23;
        });
        let few = LoadConfig { records: 10, ..LoadConfig::new() }.check().expect_err("64 workers");
        assert_eq!(few.advice(), "--concurrency 10, or --records 64");
    }
}
