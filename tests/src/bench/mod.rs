//! `make bench`: what a cluster does, beside what its store alone does on the same machine.
//!
//! Invariant: the store and the clusters are measured one after the other in one run, with the same values,
//! so that only the ratios matter and not the machine. It reports; whether a figure is good enough is for
//! the reader, though the table says which targets are missed.

mod cores;
mod live;
mod memory_limit;
mod overload;
mod raw;
mod steal;
mod table;

use std::time::Duration;

pub use cores::Cores;
pub use live::{ClusterFigures, default_options, measure_cluster};
pub use overload::{OverloadFigures, Parts, measure_overload};
pub use raw::{RawFigures, measure_raw};
pub use table::Table;

/// How large and how long.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Keys.
    pub records: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Operations under way at a time.
    pub concurrency: usize,
    /// How long each figure is measured.
    pub measure: Duration,
    /// How long each load runs before that.
    pub warmup: Duration,
}

impl Default for Scale {
    fn default() -> Scale {
        Scale {
            records: 100_000,
            value_bytes: 128,
            concurrency: 256,
            measure: Duration::from_secs(10),
            warmup: Duration::from_secs(4),
        }
    }
}
