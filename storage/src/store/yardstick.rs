//! What the store alone does in one thread: the measure that the whole cluster is compared with.
//!
//! Invariant: the same options, merge operator, keys and values as a replica's, through the same store, so
//! that only the cluster around it differs. It reads no clock; the caller times each call.

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;

use super::{Batch, Family, Lookup, RocksOptions, RocksStore, Store, StoreError, Tier};
use crate::keys::{storage_key, table_id};
use crate::values::{Actor, Causal, Context, OperationId, put_delta};

/// Odd, so that multiples of it visit every number of 64 bits once.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Values that are told apart, so that blocks do not compress better than a replica's.
const VALUES: u64 = 4096;

/// A store with a set of keys to write and read.
pub struct Yardstick {
    store: RocksStore,
    /// In random order.
    keys: Vec<Bytes>,
    values: Vec<Bytes>,
}

impl Yardstick {
    /// Opens a store in `path` for `records` keys with values of `value_bytes`, as a replica keeps them.
    ///
    /// # Errors
    /// Those of [`RocksStore::open`].
    pub fn open(
        path: &Path,
        options: &RocksOptions,
        records: u64,
        value_bytes: usize,
    ) -> Result<Yardstick, StoreError> {
        let table = table_id("bench.yardstick");
        let key = |number: u64| {
            let token = number.wrapping_mul(STRIDE) as i64;
            Bytes::from(storage_key(table, token, format!("load{number:016x}").as_bytes()))
        };
        let mut keys: Vec<_> = (0..records).map(key).collect();
        let mut state = STRIDE;
        for at in (1..keys.len()).rev() {
            state = (state ^ (state >> 29)).wrapping_mul(STRIDE).wrapping_add(STRIDE);
            keys.swap(at, ((state >> 32) % (at as u64 + 1)) as usize);
        }
        let values = (1..=VALUES).map(|number| replica_value(number, value_bytes)).collect();
        Ok(Yardstick { store: RocksStore::open(path, options)?, keys, values })
    }

    /// Overwrites `count` keys, one after the other, without syncing.
    ///
    /// # Errors
    /// A store that fails.
    pub fn put(&self, count: usize) -> Result<(), StoreError> {
        for (key, value) in self.keys.iter().cycle().zip(self.values.iter().cycle()).take(count) {
            let mut batch = Batch::with_capacity(1);
            batch.put(Family::Data, key.clone(), value.clone());
            self.store.write_waiting(batch)?;
        }
        Ok(())
    }

    /// Writes every key, moves all to sorted files, and reads them into the cache.
    ///
    /// # Errors
    /// A store that fails.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.put(self.keys.len())?;
        self.store.flush()?;
        self.store.compact_all();
        self.store.scan(Family::Data, &[], &[], &mut |_, _| ControlFlow::Continue(()))
    }

    /// Reads `count` keys, one after the other, from memory where they are cached; how many were found.
    ///
    /// # Errors
    /// A store that fails.
    pub fn get(&self, count: usize) -> Result<usize, StoreError> {
        let mut found = 0;
        for key in self.keys.iter().cycle().take(count) {
            let lookup = self.store.get(Family::Data, key, Tier::Any)?;
            found += usize::from(matches!(lookup, Lookup::Found(_)));
        }
        Ok(found)
    }
}

/// The bytes that a replica keeps after one put of `value_bytes` bytes that do not compress.
fn replica_value(number: u64, value_bytes: usize) -> Bytes {
    let mut state = number;
    let mut value = Vec::with_capacity(value_bytes + 8);
    while value.len() < value_bytes {
        state = (state ^ (state >> 29)).wrapping_mul(STRIDE).wrapping_add(STRIDE);
        value.extend_from_slice(&(state ^ (state >> 32)).to_le_bytes());
    }
    value.truncate(value_bytes);
    let delta = put_delta(
        &Causal::absent(),
        &Context::new(),
        Actor(STRIDE),
        // As many microseconds as a clock of this century shows.
        1_700_000_000_000_000 + number,
        OperationId(*b"yardstick-write!"),
        Some(value.into()),
        false,
    );
    delta.encode()
}

#[cfg(test)]
mod tests {
    use super::{RocksOptions, Yardstick};

    #[test]
    fn every_key_is_found_after_settling() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let yardstick = Yardstick::open(folder.path(), &RocksOptions::default(), 500, 128);
        let yardstick = yardstick.expect("an empty folder can be opened");
        yardstick.put(100).expect("it can be written");
        assert_eq!(yardstick.get(500).expect("it can be read"), 100);
        yardstick.settle().expect("it can be settled");
        assert_eq!(yardstick.get(1000).expect("it can be read"), 1000);
    }
}
