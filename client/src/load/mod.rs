//! A load generator: YCSB-style workloads, latencies that do not omit stalls, and the proof that nothing
//! acknowledged was lost. The binary `starling-load` is a thin shell around it.
//!
//! - `config`, `duration`: what a run is asked to do; `plan` and `keys`: the operations that follow from it
//! - `stamp`: values that say what they are; `history`: what may be read after which writes
//! - `target`: what is loaded; `bucket_target`: a real bucket
//! - `worker`, `pace`, `recorder`: one worker, its timing, its measurements
//! - `run`, `progress`, `report`: a whole run and what it says
//! - `verify`: reading everything back
//!
//! ```no_run
//! # async fn example(client: starling_client::Client) -> anyhow::Result<()> {
//! use starling_client::load::{BucketTarget, LoadConfig, VerifyOptions, run, verify};
//!
//! let config = LoadConfig { verify: true, ..LoadConfig::new() };
//! let target = BucketTarget::open(&client, "demo.load", config.consistency).await?;
//! let outcome = run(&target, &config, Default::default(), |_| {}).await?;
//! let found = verify(&target, outcome.history, VerifyOptions::default(), |_| {}).await;
//! assert!(found.is_clean());
//! # Ok(())
//! # }
//! ```

mod bucket_target;
mod clock;
mod config;
mod duration;
mod history;
mod keys;
mod pace;
mod plan;
mod progress;
mod recorder;
mod report;
mod run;
mod stamp;
mod target;
mod verify;
mod worker;

#[cfg(test)]
mod tests;

pub use bucket_target::BucketTarget;
pub use config::{
    ConfigError, KeyOrder, KeyOrderError, Limit, LoadConfig, Workload, WorkloadError,
};
pub use duration::{DurationError, parse_duration};
pub use history::Verdict;
pub use progress::{Phase, Progress};
pub use report::{Errors, Latencies, Quantiles, Report};
pub use run::{LoadError, Outcome, run};
pub use target::{Cause, Failure, FailureKind, Reading, Target};
pub use verify::{History, Verification, VerifyOptions, Violation, verify};
