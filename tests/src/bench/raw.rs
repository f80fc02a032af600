//! The store alone, in one thread.

use std::time::Duration;

use anyhow::Context;
use starling_node::time::now;
use starling_storage::RocksOptions;
use starling_storage::store::StoreError;
use starling_storage::store::yardstick::Yardstick;

use super::Scale;

/// Operations between two looks at the clock.
const STRETCH: usize = 2000;

/// Operations a second.
#[derive(Clone, Copy, Debug)]
pub struct RawFigures {
    /// Overwrites, not synced.
    pub puts_per_s: f64,
    /// Reads of keys whose blocks are cached.
    pub gets_per_s: f64,
}

/// Measures the store with `options`. Blocks.
///
/// # Errors
/// A store that fails.
pub fn measure_raw(scale: &Scale, options: &RocksOptions) -> anyhow::Result<RawFigures> {
    let folder = tempfile::tempdir().context("the temporary folder cannot be written")?;
    let yardstick = Yardstick::open(folder.path(), options, scale.records, scale.value_bytes)?;
    rate(scale.warmup / 4, || yardstick.put(STRETCH))?;
    let puts_per_s = rate(scale.measure, || yardstick.put(STRETCH))?;
    yardstick.settle()?;
    let get = || {
        let found = yardstick.get(STRETCH)?;
        assert!(found == STRETCH, "every key of the yardstick was written");
        Ok(())
    };
    rate(scale.warmup / 4, get)?;
    let gets_per_s = rate(scale.measure, get)?;
    Ok(RawFigures { puts_per_s, gets_per_s })
}

/// Operations a second of `stretch`, which does [`STRETCH`] of them, repeated for `how_long`.
fn rate(
    how_long: Duration,
    stretch: impl Fn() -> Result<(), StoreError>,
) -> Result<f64, StoreError> {
    let begin = now();
    let mut operations = 0;
    loop {
        stretch()?;
        operations += STRETCH;
        let elapsed = begin.elapsed();
        if elapsed >= how_long {
            return Ok(operations as f64 / elapsed.as_secs_f64());
        }
    }
}
