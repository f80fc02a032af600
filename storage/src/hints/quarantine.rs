//! Hints that their target refused because they came too late: kept aside for a while, for a person to look at.
//!
//! Invariant: never more than [`HINTS_MAX`] of them and [`BYTES_MAX`]; the oldest go first. Nothing applies them: they could bring back what was
//! deleted. Nothing needs them either: a purge floor rises once every replica has what was written below.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use starling_ring::HostId;
use xxhash_rust::xxh3::xxh3_64;

use super::{Hint, mark_key, stored_bytes};
use crate::store::{Batch, Family, Store, StoreError};

/// Hints that are kept aside at most.
pub const HINTS_MAX: usize = 1_000;
/// Bytes of them at most.
pub const BYTES_MAX: u64 = 16 << 20;

/// Target, mint, storage key.
const PREFIX: &[u8] = b"quarantine/";
const END: &[u8] = b"quarantine0";

/// The hints that are kept aside.
pub struct Quarantine {
    store: Arc<dyn Store>,
    kept: Mutex<Kept>,
}

#[derive(Clone, Default)]
struct Kept {
    /// Mint and store key, and how much each counts.
    by_age: BTreeMap<(u64, Bytes), u64>,
    bytes: u64,
}

impl Quarantine {
    /// Takes stock of what is in the store. Blocks.
    pub fn load(store: Arc<dyn Store>) -> Result<Quarantine, StoreError> {
        let mut kept = Kept::default();
        store.scan(Family::Meta, PREFIX, END, &mut |key, value| {
            if let Some(mint) = mint_of(key) {
                kept.add(mint, Bytes::copy_from_slice(key), stored_bytes(value));
            }
            ControlFlow::Continue(())
        })?;
        Ok(Quarantine { store, kept: Mutex::new(kept) })
    }

    /// Keeps hints aside and names them in the log. May block.
    pub fn keep(&self, target: HostId, hints: &[Hint]) -> Result<(), StoreError> {
        if hints.is_empty() {
            return Ok(());
        }
        let mut kept = self.kept.lock();
        let mut next = kept.clone();
        let mut batch = Batch::with_capacity(hints.len());
        for hint in hints {
            let key = store_key(target, hint);
            let stored = hint.encode();
            next.add(hint.mint, key.clone(), stored_bytes(&stored));
            batch.put(Family::Meta, key, stored);
        }
        while let Some(oldest) = next.pop_above_limits() {
            batch.delete(Family::Meta, oldest);
        }
        self.store.write_waiting(batch)?;
        *kept = next;
        drop(kept);
        for hint in hints {
            let key = format_args!("{:016x}", xxh3_64(&hint.key));
            tracing::error!(%target, table = hint.table, %key, mint = hint.mint, "a hint came too late; it is kept aside and never applied");
        }
        metrics::counter!("starling_hints_quarantined_total").increment(hints.len() as u64);
        Ok(())
    }
}

impl Kept {
    fn add(&mut self, mint: u64, key: Bytes, bytes: u64) {
        let before = self.by_age.insert((mint, key), bytes);
        self.bytes = self.bytes + bytes - before.unwrap_or(0);
    }

    /// Takes out the oldest, if there is too much.
    fn pop_above_limits(&mut self) -> Option<Bytes> {
        if self.by_age.len() <= HINTS_MAX && self.bytes <= BYTES_MAX {
            return None;
        }
        let ((_, key), bytes) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        Some(key)
    }
}

fn store_key(target: HostId, hint: &Hint) -> Bytes {
    [mark_key(PREFIX, target).as_ref(), &hint.mint.to_be_bytes(), &hint.key].concat().into()
}

fn mint_of(key: &[u8]) -> Option<u64> {
    let mint = key.get(PREFIX.len() + 16..)?.first_chunk()?;
    Some(u64::from_be_bytes(*mint))
}
