//! Which parts of the data have changed since they were last hashed: what makes comparing replicas cheap.
//!
//! Each table's share of a slot is an *area*, cut into leaves of about [`KEYS_PER_LEAF`] keys. A write makes its leaf dirty; hashing an
//! area again reads its dirty leaves only.
//!
//! Invariant: a leaf that is not dirty has the hash of what the store holds. So a write is marked after it is in the store, and a leaf is
//! cleaned before it is read.
//!
//! All of it is in memory: after a start everything is dirty once.

mod hashes;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use starling_ring::SlotGrid;

use crate::values;

pub use hashes::{Difference, EntryHash, LEAF_BITS_MAX, LeafHashes, TokenRange};
use hashes::{leaf_of, leaf_range};

/// Keys of a leaf at which an area is well cut.
pub const KEYS_PER_LEAF: u64 = 16;
/// Keys of a leaf, on average, beyond which the area is cut anew.
const KEYS_PER_LEAF_MAX: u64 = 4 * KEYS_PER_LEAF;

/// Leaves that are read in one go.
const RUN_MAX: usize = 64;

/// One table's share of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Area {
    /// The table's id.
    pub table: u32,
    /// The slot's number.
    pub slot: u32,
}

/// The leaves of all areas that were ever hashed.
pub struct Leaves {
    grid: SlotGrid,
    tables: RwLock<BTreeMap<u32, Arc<TableLeaves>>>,
}

/// By slot.
type TableLeaves = Vec<Mutex<Option<Box<AreaLeaves>>>>;

struct AreaLeaves {
    /// Whether all of it has been read since it was cut.
    known: bool,
    bits: u8,
    leaves: Vec<Leaf>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Leaf {
    hash: u64,
    keys: u32,
    dirty: bool,
    /// The newest dot of the tombstone that may be forgotten first; 0: there is none.
    tombstone: u64,
}

/// Dirty leaves side by side that are to be read again, as one range.
#[derive(Clone, Copy, Debug)]
pub struct Stale {
    range: TokenRange,
}

/// What was read of a [`Stale`] range: the tokens and hashes of its entries.
#[derive(Debug, Default)]
pub struct Hashed {
    entries: Vec<(u64, u64)>,
    /// Tokens and newest dots.
    tombstones: Vec<(u64, u64)>,
}

impl Leaves {
    /// Nothing is known of any area of `grid`.
    pub fn new(grid: SlotGrid) -> Leaves {
        Leaves { grid, tables: RwLock::default() }
    }

    /// The tokens of an area.
    pub fn range(&self, slot: u32) -> TokenRange {
        let width = u64::MAX >> self.grid.bits();
        let first = u64::from(slot) << (64 - self.grid.bits());
        TokenRange { first, last: first + width }
    }

    /// Whether there is such an area.
    pub fn has(&self, area: Area) -> bool {
        area.slot < self.grid.count()
    }

    /// A write of `token` (in ring order, from 0) is in the store.
    pub fn mark(&self, table: u32, token: u64) {
        let Some(leaves) = self.tables.read().get(&table).cloned() else { return };
        let slot = token >> (64 - self.grid.bits());
        if let Some(area) = leaves[slot as usize].lock().as_mut() {
            let leaf = leaf_of(self.range(slot as u32), area.bits, token);
            area.leaves[leaf].dirty = true;
        }
    }

    /// Takes the first run of dirty leaves from leaf `from` on, cleaning them. None if there is none.
    pub fn take_stale(&self, area: Area, from: u64) -> Option<Stale> {
        let whole = self.range(area.slot);
        let table = self.table(area.table);
        let mut known = table[area.slot as usize].lock();
        let known = known.get_or_insert_with(|| Box::new(AreaLeaves::unknown()));
        let from = leaf_of(whole, known.bits, from.max(whole.first));
        let first = from + known.leaves[from..].iter().position(|leaf| leaf.dirty)?;
        let run = known.leaves[first..].iter_mut().take_while(|leaf| leaf.dirty).take(RUN_MAX);
        let count = run.map(|leaf| leaf.dirty = false).count();
        let range = TokenRange {
            first: leaf_range(whole, known.bits, first).first,
            last: leaf_range(whole, known.bits, first + count - 1).last,
        };
        Some(Stale { range })
    }

    /// Puts back what was taken and could not be read.
    pub fn put_back(&self, area: Area, stale: Stale) {
        let whole = self.range(area.slot);
        let table = self.table(area.table);
        if let Some(known) = table[area.slot as usize].lock().as_mut() {
            let first = leaf_of(whole, known.bits, stale.range.first);
            let last = leaf_of(whole, known.bits, stale.range.last);
            known.leaves[first..=last].iter_mut().for_each(|leaf| leaf.dirty = true);
        }
    }

    /// Takes in what a stale range holds now. Returns false if the area has grown so much that it has to be cut anew: all of it is
    /// dirty then. Between taking a range and this call nobody else may take one of the area.
    pub fn update(&self, area: Area, stale: Stale, hashed: &Hashed) -> bool {
        let whole = self.range(area.slot);
        let table = self.table(area.table);
        let mut known = table[area.slot as usize].lock();
        let known = known.as_mut().expect("what is taken from an area stays in it");
        if stale.range == whole {
            known.cut(bits_for(hashed.entries.len() as u64));
            known.known = true;
        }
        let (first, last) = (
            leaf_of(whole, known.bits, stale.range.first),
            leaf_of(whole, known.bits, stale.range.last),
        );
        for leaf in &mut known.leaves[first..=last] {
            (leaf.hash, leaf.keys, leaf.tombstone) = (0, 0, 0);
        }
        for (token, hash) in &hashed.entries {
            let leaf = &mut known.leaves[leaf_of(whole, known.bits, *token)];
            leaf.hash = leaf.hash.wrapping_add(*hash);
            leaf.keys = leaf.keys.saturating_add(1);
        }
        for (token, newest) in &hashed.tombstones {
            let leaf = &mut known.leaves[leaf_of(whole, known.bits, *token)];
            let first = if leaf.tombstone == 0 { *newest } else { leaf.tombstone.min(*newest) };
            leaf.tombstone = first;
        }
        let is_crowded =
            known.keys() > KEYS_PER_LEAF_MAX << known.bits && known.bits < LEAF_BITS_MAX;
        if is_crowded {
            **known = AreaLeaves::unknown();
        }
        !is_crowded
    }

    /// The parts of an area that held a tombstone with no dot above `floor` when they were last read.
    pub fn forgettable(&self, area: Area, floor: u64) -> Vec<TokenRange> {
        let whole = self.range(area.slot);
        let table = self.table(area.table);
        let known = table[area.slot as usize].lock();
        let Some(known) = known.as_ref() else { return Vec::new() };
        let leaves = known.leaves.iter().enumerate();
        let old = leaves.filter(|(_, leaf)| leaf.tombstone != 0 && leaf.tombstone <= floor);
        old.map(|(at, _)| leaf_range(whole, known.bits, at)).collect()
    }

    /// Whether any leaf held a tombstone when it was last read.
    pub fn has_tombstones(&self) -> bool {
        let tables: Vec<_> = self.tables.read().values().cloned().collect();
        let holds = |known: &AreaLeaves| known.leaves.iter().any(|leaf| leaf.tombstone != 0);
        let mut areas = tables.iter().flat_map(|table| table.iter());
        areas.any(|area| area.lock().as_deref().is_some_and(holds))
    }

    /// The hashes of an area as they are known; what is dirty has an old one. None before all of it has been read, once and whenever it is cut
    /// anew: no hash would look like that of no entries.
    pub fn hashes(&self, area: Area) -> Option<LeafHashes> {
        let table = self.table(area.table);
        let area = table[area.slot as usize].lock();
        let known = area.as_ref().filter(|area| area.known)?;
        let hashes = known.leaves.iter().map(|leaf| leaf.hash).collect();
        Some(LeafHashes::new(known.bits, hashes).expect("an area has 2^bits leaves"))
    }

    /// How many keys the area held when its leaves were last read.
    pub fn keys(&self, area: Area) -> u64 {
        self.table(area.table)[area.slot as usize].lock().as_ref().map_or(0, |known| known.keys())
    }

    fn table(&self, table: u32) -> Arc<TableLeaves> {
        if let Some(leaves) = self.tables.read().get(&table) {
            return leaves.clone();
        }
        let make = || Arc::new((0..self.grid.count()).map(|_| Mutex::new(None)).collect());
        self.tables.write().entry(table).or_insert_with(make).clone()
    }
}

impl Stale {
    /// What to read.
    pub fn range(&self) -> TokenRange {
        self.range
    }
}

impl Hashed {
    /// Takes in an entry of the store.
    pub fn add(&mut self, token: u64, key: &[u8], state: &[u8]) {
        if let Some(entry) = EntryHash::of(key, state) {
            self.entries.push((token, entry.state));
        }
        if let Some(newest) = values::tombstone(state) {
            self.tombstones.push((token, newest));
        }
    }
}

impl AreaLeaves {
    fn unknown() -> AreaLeaves {
        let leaves = vec![Leaf { dirty: true, ..Leaf::default() }];
        AreaLeaves { known: false, bits: 0, leaves }
    }

    fn keys(&self) -> u64 {
        self.leaves.iter().map(|leaf| u64::from(leaf.keys)).sum()
    }

    /// Into `2^bits` leaves, all of them as dirty as the whole was.
    fn cut(&mut self, bits: u8) {
        let dirty = self.leaves.iter().any(|leaf| leaf.dirty);
        self.leaves = vec![Leaf { dirty, ..Leaf::default() }; 1 << bits];
        self.bits = bits;
    }
}

/// A power of two near `keys / KEYS_PER_LEAF`.
fn bits_for(keys: u64) -> u8 {
    let leaves = (keys / KEYS_PER_LEAF).max(1).next_power_of_two();
    u8::try_from(leaves.ilog2()).unwrap_or(LEAF_BITS_MAX).min(LEAF_BITS_MAX)
}
