//! Purge floors: up to where every replica of a slot has every write, so that what was deleted can be forgotten.
//!
//! A floor rises in three steps. All replicas of the slot compare what they hold, each having first sealed what it had minted; all promise
//! never to mint below, which is durable with everything they hold by then; all adopt it, and from then on refuse what was sent before.
//! Only then does a replica forget tombstones below its own floor.
//!
//! Invariant: a floor never falls, and is durable before anybody can tell that it has risen.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use starling_ring::SlotGrid;

use crate::store::{Batch, Family, Lookup, Store, StoreError, Tier};

const FLOORS: &[u8] = b"floors";
const VERSION: u8 = 1;

/// How far one slot is. All numbers are those of hybrid clocks, in microseconds since the Unix epoch; 0: not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Floor {
    /// This replica mints nothing up to here any more, and has kept its memory since it said so.
    pub promised: u64,
    /// Writes up to here are at every replica: tombstones of them may be forgotten, and envelopes of them come too late.
    pub writes: u64,
    /// States that were read before this may lack some of those writes: they come too late, too.
    pub states: u64,
}

/// Neighbouring slots with one floor: how many, and which.
pub type Runs = Vec<(u32, Floor)>;

/// The floors of all slots.
pub struct Floors {
    grid: SlotGrid,
    store: Arc<dyn Store>,
    slots: RwLock<Vec<Floor>>,
    /// Held while the floors are made durable.
    writing: Mutex<()>,
}

impl Floors {
    /// Reads what an earlier run has promised and adopted.
    pub fn load(store: Arc<dyn Store>, grid: SlotGrid) -> Result<Floors, StoreError> {
        let count = grid.count() as usize;
        let slots = match store.get(Family::Meta, FLOORS, Tier::Any)? {
            Lookup::Found(record) => decode(&record)
                .filter(|slots| slots.len() == count)
                .ok_or_else(|| StoreError::Corruption {
                    operation: "read",
                    reason: format!("the floors of {count} slots do not decode"),
                })?,
            Lookup::Absent | Lookup::NotCached => vec![Floor::default(); count],
        };
        Ok(Floors { grid, store, slots: RwLock::new(slots), writing: Mutex::new(()) })
    }

    /// The floor of a slot.
    pub fn of(&self, slot: u32) -> Floor {
        self.slots.read().get(slot as usize).copied().unwrap_or_default()
    }

    /// The floor of the slot of a token, in ring order from 0.
    pub fn of_token(&self, token: u64) -> Floor {
        self.of(self.slot_of(token))
    }

    /// The slot of a token, in ring order from 0.
    pub fn slot_of(&self, token: u64) -> u32 {
        (token >> (64 - self.grid.bits())) as u32
    }

    /// The number that this replica must not mint again: the highest that it promised or adopted.
    pub fn highest(&self) -> u64 {
        let highest = |floor: &Floor| floor.promised.max(floor.writes).max(floor.states);
        self.slots.read().iter().map(highest).max().unwrap_or(0)
    }

    /// All floors in the order of the slots.
    pub fn runs(&self) -> Runs {
        runs(&self.slots.read())
    }

    /// Raises some slots to at least `floor`, durably. Blocks.
    pub fn raise(&self, slots: &[u32], floor: Floor) -> Result<(), StoreError> {
        let _one = self.writing.lock();
        let mut raised = self.slots.read().clone();
        for slot in slots {
            if let Some(of) = raised.get_mut(*slot as usize) {
                of.promised = of.promised.max(floor.promised);
                of.writes = of.writes.max(floor.writes);
                of.states = of.states.max(floor.states);
            }
        }
        if *self.slots.read() == raised {
            return Ok(());
        }
        let mut batch = Batch::with_capacity(1);
        batch.put(Family::Meta, Bytes::from_static(FLOORS), encode(&raised));
        self.store.write_waiting(batch)?;
        self.store.sync()?;
        *self.slots.write() = raised;
        Ok(())
    }
}

/// The slots of runs, one by one. None if they are not `count`.
pub fn slots(runs: &Runs, count: u32) -> Option<Vec<Floor>> {
    let all: u64 = runs.iter().map(|(len, _)| u64::from(*len)).sum();
    if all != u64::from(count) {
        return None;
    }
    let slots = runs.iter().flat_map(|(len, floor)| std::iter::repeat_n(*floor, *len as usize));
    Some(slots.collect())
}

fn runs(slots: &[Floor]) -> Runs {
    let same = slots.chunk_by(|a, b| a == b);
    same.map(|run| (run.len() as u32, run[0])).collect()
}

/// Version, runs of (length, promised, writes, states), checksum.
fn encode(slots: &[Floor]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    for (len, floor) in runs(slots) {
        bytes.put_u32_le(len);
        bytes.put_u64_le(floor.promised);
        bytes.put_u64_le(floor.writes);
        bytes.put_u64_le(floor.states);
    }
    let checksum = crc32c::crc32c(&bytes);
    bytes.put_u32_le(checksum);
    bytes.freeze()
}

fn decode(record: &[u8]) -> Option<Vec<Floor>> {
    let (mut body, mut checksum) = record.split_at_checked(record.len().checked_sub(4)?)?;
    if checksum.get_u32_le() != crc32c::crc32c(body) || body.try_get_u8().ok()? != VERSION {
        return None;
    }
    let mut slots = Vec::new();
    while body.has_remaining() {
        let len = body.try_get_u32_le().ok()? as usize;
        let floor = Floor {
            promised: body.try_get_u64_le().ok()?,
            writes: body.try_get_u64_le().ok()?,
            states: body.try_get_u64_le().ok()?,
        };
        slots.extend(std::iter::repeat_n(floor, len.min(1 << 16)));
    }
    Some(slots)
}
