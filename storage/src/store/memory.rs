//! The in-memory store: the oracle of the tests and the disk of the simulator.
//!
//! Invariant: `live` equals `synced` with the operations of `unsynced` applied in order. A crash drops a suffix of `unsynced`, never a
//! part of a batch.
//!
//! It has no cache of its own; a test that wants the blocking path makes it cold.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, RwLock};

use super::{Batch, Family, Lookup, Operation, Store, StoreError, StoreStatistics, Tier, Visitor};
use crate::values;

#[derive(Clone, Debug)]
struct Entry {
    value: Bytes,
    /// Operands joined since the last put, as RocksDB would have to join them at a read.
    chain: usize,
}

type Map = BTreeMap<(Family, Bytes), Entry>;

#[derive(Debug, Default)]
struct State {
    live: Map,
    synced: Map,
    unsynced: Vec<Batch>,
    sequence_live: u64,
    sequence_synced: u64,
}

#[derive(Debug, Default)]
struct Stopped {
    now: bool,
    /// Writes that wait until it is over.
    waiting: usize,
}

/// A store in memory with an explicit line between what is synced and what a power cut would take.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: RwLock<State>,
    cold: AtomicBool,
    stalled: AtomicBool,
    stopped: Mutex<Stopped>,
    goes_on: Condvar,
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// A power cut: everything since the last sync is gone.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// A power cut that the first `batches` unsynced batches survived, as the head of a torn log would.
    pub fn crash_keeping(&self, batches: usize) {
        let state = &mut *self.state.write();
        state.live = state.synced.clone();
        state.sequence_live = state.sequence_synced;
        state.unsynced.truncate(batches);
        for batch in &state.unsynced {
            apply(&mut state.live, &mut state.sequence_live, batch);
        }
        state.synced = state.live.clone();
        state.sequence_synced = state.sequence_live;
        state.unsynced.clear();
    }

    /// How many batches a power cut would take now.
    pub fn unsynced_batches(&self) -> usize {
        self.state.read().unsynced.len()
    }

    /// While cold, [`Tier::Cached`] reads answer [`Lookup::NotCached`].
    pub fn make_cold(&self, cold: bool) {
        self.cold.store(cold, Ordering::SeqCst);
    }

    /// While stalled, [`Store::write`] answers [`StoreError::Stalled`], and [`Store::is_stopped`] says so.
    pub fn make_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::SeqCst);
    }

    /// While held up, [`Store::write_waiting`] waits as long.
    pub fn hold_up(&self, held_up: bool) {
        self.stopped.lock().now = held_up;
        self.goes_on.notify_all();
    }

    fn wait_until_not_held_up(&self) {
        let mut stopped = self.stopped.lock();
        stopped.waiting += 1;
        self.goes_on.wait_while(&mut stopped, |stopped| stopped.now);
        stopped.waiting -= 1;
    }

    /// Writes that are held up.
    pub fn held_up(&self) -> usize {
        self.stopped.lock().waiting
    }

    /// While set, every write fails and changes nothing.
    pub fn make_write_fail(&self, fails: bool) {
        self.write_fails.store(fails, Ordering::SeqCst);
    }

    /// While set, [`Store::sync`] fails and makes nothing durable.
    pub fn make_sync_fail(&self, fails: bool) {
        self.sync_fails.store(fails, Ordering::SeqCst);
    }
}

fn apply(map: &mut Map, sequence: &mut u64, batch: &Batch) {
    for (family, operation) in batch.operations() {
        *sequence += 1;
        match operation {
            Operation::Put(key, value) => {
                let entry = Entry { value: value.clone(), chain: 0 };
                map.insert((*family, key.clone()), entry);
            }
            Operation::Merge(key, operand) => merge(map, (*family, key.clone()), operand),
            Operation::Delete(key) => {
                map.remove(&(*family, key.clone()));
            }
            Operation::DeleteRange(start, end) => {
                let range = (*family, start.clone())..(*family, end.clone());
                let doomed: Vec<_> = map.range(range).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    map.remove(&key);
                }
            }
        }
    }
}

fn merge(map: &mut Map, key: (Family, Bytes), operand: &Bytes) {
    let operands = std::iter::once(operand.as_ref());
    match map.get_mut(&key) {
        Some(entry) => {
            entry.value = Bytes::from(values::merge(Some(&entry.value), operands));
            entry.chain += 1;
        }
        None => {
            let value = Bytes::from(values::merge(None, operands));
            map.insert(key, Entry { value, chain: 1 });
        }
    }
}

impl Store for MemoryStore {
    fn get_with_chain(
        &self,
        family: Family,
        key: &[u8],
        tier: Tier,
    ) -> Result<(Lookup, usize), StoreError> {
        if tier == Tier::Cached && self.cold.load(Ordering::SeqCst) {
            return Ok((Lookup::NotCached, 0));
        }
        let state = self.state.read();
        Ok(match state.live.get(&(family, Bytes::copy_from_slice(key))) {
            Some(entry) => (Lookup::Found(entry.value.clone()), entry.chain),
            None => (Lookup::Absent, 0),
        })
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        if self.stalled.load(Ordering::SeqCst) {
            return Err(StoreError::Stalled);
        }
        self.write_waiting(batch)
    }

    fn write_waiting(&self, batch: Batch) -> Result<(), StoreError> {
        self.wait_until_not_held_up();
        if self.write_fails.load(Ordering::SeqCst) {
            return Err(StoreError::Io { operation: "write", reason: "injected".to_owned() });
        }
        let state = &mut *self.state.write();
        apply(&mut state.live, &mut state.sequence_live, &batch);
        state.unsynced.push(batch);
        Ok(())
    }

    fn is_stopped(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        // A copy, because a visitor may write to the store, and a RocksDB iterator does not see what it writes either.
        let from = Bound::Included((family, Bytes::copy_from_slice(start)));
        let entries: Vec<(Bytes, Bytes)> = self
            .state
            .read()
            .live
            .range((from, Bound::Unbounded))
            .take_while(|((of, key), _)| *of == family && (end.is_empty() || key.as_ref() < end))
            .map(|((_, key), entry)| (key.clone(), entry.value.clone()))
            .collect();
        for (key, value) in &entries {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(StoreError::Io { operation: "sync", reason: "injected".to_owned() });
        }
        let state = &mut *self.state.write();
        for batch in std::mem::take(&mut state.unsynced) {
            apply(&mut state.synced, &mut state.sequence_synced, &batch);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.sync()
    }

    fn compact(&self, _start: &[u8], _end: &[u8]) -> Result<(), StoreError> {
        Ok(())
    }

    fn checkpoint(&self, _path: &Path) -> Result<(), StoreError> {
        let reason = "a store in memory has no files".to_owned();
        Err(StoreError::Io { operation: "checkpoint", reason })
    }

    fn statistics(&self) -> StoreStatistics {
        let state = self.state.read();
        let sizes = state.live.iter().map(|((_, key), entry)| key.len() + entry.value.len());
        StoreStatistics { memtables: sizes.sum::<usize>() as u64, ..StoreStatistics::default() }
    }

    fn latest_sequence(&self) -> u64 {
        self.state.read().sequence_live
    }
}
