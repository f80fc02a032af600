//! Durable, bounded hints: writes owed to replicas that did not take them.
//!
//! Invariant: a hint whose write was acknowledged is handed out until it is done, in the order of its sequence, unless it is dropped for want of
//! room. What is dropped is in the log and counted; the target gets those writes when it is next compared with a replica that has them, as it
//! always is sooner or later.
//!
//! It sends nothing and knows no schedule; the node's handoff replays.

mod envelope;
mod ledger;
mod quarantine;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use starling_ring::HostId;
use thiserror::Error;
use uuid::Uuid;

pub use envelope::Hint;
pub use quarantine::{
    BYTES_MAX as QUARANTINE_BYTES_MAX, HINTS_MAX as QUARANTINE_HINTS_MAX, Quarantine,
};

use crate::store::{Batch, Family, Store, StoreError};
use envelope::{decode_hint_key, hint_key, hint_key_after};
use ledger::Ledger;

const CURSOR_PREFIX: &[u8] = b"hint_cursor/";
const CURSOR_END: &[u8] = b"hint_cursor0";

/// How much may be owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintLimits {
    /// Bytes of all hints of this node together; beyond, the oldest of the largest debt are dropped.
    pub bytes_max: u64,
}

/// Why hints could not be kept, read or removed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum HintError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A stored hint with its place in the target's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwedHint {
    /// Its sequence among the target's hints.
    pub sequence: u64,
    /// The write; `None` if its bytes are damaged, which the replay counts and passes over.
    pub hint: Option<Hint>,
}

/// Hints in a batch that is yet to be written; [`Hints::settle`] ends it.
#[must_use = "unsettled hints block the replay to their target"]
#[derive(Debug, Default)]
pub struct Reservation {
    sequences: Vec<(HostId, u64)>,
    /// What each of them counts.
    bytes: u64,
}

/// All hints of a replica.
pub struct Hints {
    store: Arc<dyn Store>,
    limits: HintLimits,
    ledgers: Mutex<BTreeMap<HostId, Ledger>>,
    quarantine: Quarantine,
}

impl Hints {
    /// Takes stock of the hints in the store. Blocks, longer the more there are.
    pub fn load(store: Arc<dyn Store>, limits: HintLimits) -> Result<Hints, HintError> {
        let mut ledgers = BTreeMap::new();
        let mut add = |key: &[u8], value: &[u8]| {
            if let (Some(target), Some(cursor)) = (mark_target(key, CURSOR_PREFIX), decode(value)) {
                ledgers.insert(target, Ledger::new(cursor));
            }
            ControlFlow::Continue(())
        };
        store.scan(Family::Meta, CURSOR_PREFIX, CURSOR_END, &mut add)?;
        let mut add = |key: &[u8], value: &[u8]| {
            if let Some((target, sequence)) = decode_hint_key(key) {
                let ledger = ledgers.entry(target).or_insert_with(|| Ledger::new(0));
                ledger.recover(sequence, stored_bytes(value));
            }
            ControlFlow::Continue(())
        };
        store.scan(Family::Hints, &[], &[], &mut add)?;
        let quarantine = Quarantine::load(store.clone())?;
        Ok(Hints { store, limits, ledgers: Mutex::new(ledgers), quarantine })
    }

    /// Adds one hint for each target to `batch`, and what has to be dropped for it. The caller writes the batch and then settles.
    pub fn push(&self, batch: &mut Batch, targets: &[HostId], hint: &Hint) -> Reservation {
        let mut reservation = Reservation::default();
        if targets.is_empty() {
            return reservation;
        }
        let stored = hint.encode();
        let bytes = stored_bytes(&stored);
        reservation.bytes = bytes;
        let mut ledgers = self.ledgers.lock();
        for target in targets {
            let ledger = ledgers.entry(*target).or_insert_with(|| Ledger::new(0));
            let sequence = ledger.reserve(bytes);
            batch.put(Family::Hints, hint_key(*target, sequence), stored.clone());
            reservation.sequences.push((*target, sequence));
        }
        self.make_room(&mut ledgers, batch);
        reservation
    }

    /// Ends a reservation: its batch was written, or failed.
    pub fn settle(&self, reservation: Reservation, written: bool) {
        if reservation.sequences.is_empty() {
            return;
        }
        let mut ledgers = self.ledgers.lock();
        for (target, sequence) in reservation.sequences {
            if let Some(ledger) = ledgers.get_mut(&target) {
                ledger.settle(sequence, reservation.bytes, written);
            }
        }
    }

    /// Keeps hints in one batch. May block.
    pub fn keep_all(&self, hints: &[(HostId, Hint)]) -> Result<(), HintError> {
        let mut batch = Batch::with_capacity(hints.len());
        let reservations: Vec<_> =
            hints.iter().map(|(target, hint)| self.push(&mut batch, &[*target], hint)).collect();
        let written = self.store.write_waiting(batch);
        for reservation in reservations {
            self.settle(reservation, written.is_ok());
        }
        Ok(written?)
    }

    /// Those that their target refuses because they could bring back what was deleted.
    pub fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// The target's next hints above its cursor, in order, at most `count_max`, at least one and then up to `bytes_max` of them. May block.
    pub fn next(
        &self,
        target: HostId,
        count_max: usize,
        bytes_max: u64,
    ) -> Result<Vec<OwedHint>, HintError> {
        let (after, end) = match self.ledgers.lock().get(&target) {
            Some(ledger) => (ledger.cursor(), ledger.settled_end()),
            None => return Ok(Vec::new()),
        };
        let mut owed = Vec::new();
        let mut bytes = 0;
        let mut take = |key: &[u8], value: &[u8]| {
            bytes += stored_bytes(value);
            if owed.len() >= count_max || !owed.is_empty() && bytes > bytes_max {
                return ControlFlow::Break(());
            }
            if let Some((_, sequence)) = decode_hint_key(key) {
                let hint = Hint::decode(value);
                owed.push(OwedHint { sequence, hint });
            }
            ControlFlow::Continue(())
        };
        let (start, end) = (hint_key_after(target, after), hint_key(target, end));
        self.store.scan(Family::Hints, &start, &end, &mut take)?;
        Ok(owed)
    }

    /// The target has taken all its hints up to `sequence`: removes them and moves its cursor. May block.
    pub fn done_through(&self, target: HostId, sequence: u64) -> Result<(), HintError> {
        let (cursor, sequence) = match self.ledgers.lock().get(&target) {
            Some(ledger) => (ledger.cursor(), sequence.min(ledger.settled_end() - 1)),
            None => return Ok(()),
        };
        if sequence <= cursor {
            return Ok(());
        }
        let mut sizes = Vec::new();
        let mut measure = |key: &[u8], value: &[u8]| {
            if let Some((_, sequence)) = decode_hint_key(key) {
                sizes.push((sequence, stored_bytes(value)));
            }
            ControlFlow::Continue(())
        };
        let end = hint_key_after(target, sequence);
        let start = hint_key_after(target, cursor);
        self.store.scan(Family::Hints, &start, &end, &mut measure)?;
        let mut batch = Batch::with_capacity(2);
        remove_through(&mut batch, target, sequence);
        self.store.write_waiting(batch)?;
        if let Some(ledger) = self.ledgers.lock().get_mut(&target) {
            // Hints dropped meanwhile moved the cursor and left the account already.
            sizes.retain(|(done, _)| *done > ledger.cursor());
            ledger.done_through(sequence, &sizes);
        }
        Ok(())
    }

    /// How many hints and bytes are owed to `target`.
    pub fn pending(&self, target: HostId) -> (u64, u64) {
        let ledgers = self.ledgers.lock();
        ledgers.get(&target).map_or((0, 0), Ledger::pending)
    }

    /// Every target that is owed something.
    pub fn targets(&self) -> Vec<HostId> {
        let ledgers = self.ledgers.lock();
        let owed = ledgers.iter().filter(|(_, ledger)| ledger.pending().0 > 0);
        owed.map(|(target, _)| *target).collect()
    }

    fn make_room(&self, ledgers: &mut BTreeMap<HostId, Ledger>, batch: &mut Batch) {
        let mut total: u64 = ledgers.values().map(|ledger| ledger.pending().1).sum();
        while total > self.limits.bytes_max {
            let largest = ledgers.iter_mut().max_by_key(|(_, ledger)| ledger.pending().1);
            let Some((target, ledger)) = largest else { return };
            let drops_already = ledger.drops;
            let Some((last, count)) = ledger.drop_oldest() else {
                return;
            };
            remove_through(batch, *target, last);
            if !drops_already {
                tracing::warn!(%target, "hints are full: dropping the oldest; the target gets those writes when replicas are compared");
            }
            metrics::counter!("starling_hints_dropped_total", "reason" => "full").increment(count);
            total = ledgers.values().map(|ledger| ledger.pending().1).sum();
        }
    }
}

fn remove_through(batch: &mut Batch, target: HostId, sequence: u64) {
    let (start, end) = (hint_key(target, 0), hint_key_after(target, sequence));
    batch.delete_range(Family::Hints, start, end);
    let cursor = Bytes::copy_from_slice(&sequence.to_be_bytes());
    batch.put(Family::Meta, mark_key(CURSOR_PREFIX, target), cursor);
}

/// What one hint counts on its target's account: its bytes, and about what a key costs.
fn stored_bytes(stored: &[u8]) -> u64 {
    stored.len() as u64 + 32
}

fn mark_key(prefix: &[u8], target: HostId) -> Bytes {
    Bytes::from([prefix, target.0.as_bytes()].concat())
}

fn mark_target(key: &[u8], prefix: &[u8]) -> Option<HostId> {
    let id = key.strip_prefix(prefix)?;
    Uuid::from_slice(id).ok().map(HostId)
}

fn decode(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_be_bytes)
}
