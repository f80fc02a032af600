//! The ordered, mergeable key-value store under a replica: its vocabulary and its contract.
//!
//! Invariant: the two implementations cannot be told apart through [`Store`], except by what survives a crash that preceded a
//! [`Store::sync`], and by [`Store::checkpoint`]. One suite and a differential property test (`tests/store.rs`) hold them to it.
//!
//! [`WatchedStore`] is either of them, with somebody who is told when it fails.
//!
//! It does not lock keys (the replica's stripes do), and it does not know what a value means beyond the join.

mod memory;
mod rocks;
mod watched;
pub mod yardstick;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use thiserror::Error;

pub use memory::MemoryStore;
pub use rocks::{RocksOptions, RocksStore};
pub use watched::WatchedStore;

/// A column family: a key space of its own, with its own tuning. A batch may span families and stays atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// All tables' values; the only family whose entries can be merged.
    Data,
    /// Writes owed to other replicas.
    Hints,
    /// Bucket names, cursors and marks of this replica.
    Meta,
}

impl Family {
    /// Every family, in a fixed order.
    pub const ALL: [Family; 3] = [Family::Data, Family::Hints, Family::Meta];

    /// The family's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Data => "data",
            Family::Hints => "hints",
            Family::Meta => "meta",
        }
    }
}

/// How far a read may go for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Memory only: never blocks on a disk, and may answer [`Lookup::NotCached`]. For async workers.
    Cached,
    /// Wherever the entry is. May block: for threads that are allowed to.
    Any,
}

/// What a point read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The entry's bytes, all operands joined.
    Found(Bytes),
    /// There is no such entry.
    Absent,
    /// Only [`Tier::Any`] can tell.
    NotCached,
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another part of this one, has the directory open.
    #[error("the data directory {} is in use by another process", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The directory could not be opened as a store.
    #[error("cannot open the store in {}: {reason}", path.display())]
    Open {
        /// The store's directory.
        path: PathBuf,
        /// RocksDB's words.
        reason: String,
    },
    /// The store is behind with flushing and would have had to wait. Nothing was written.
    #[error("the store is behind with flushing and would have to wait")]
    Stalled,
    /// The disk is nearly full, see [`crate::replica::Room`]. Nothing was written.
    #[error("the disk is nearly full")]
    NoRoom,
    /// Stored bytes failed their checksum or structure.
    #[error("stored bytes are damaged ({operation}): {reason}")]
    Corruption {
        /// What was being done.
        operation: &'static str,
        /// RocksDB's words.
        reason: String,
    },
    /// The disk failed. After a write this leaves its outcome unknown.
    #[error("the disk failed ({operation}): {reason}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// RocksDB's words.
        reason: String,
    },
}

/// One step of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Replace the entry.
    Put(Bytes, Bytes),
    /// Join an operand into the entry.
    Merge(Bytes, Bytes),
    /// Remove the entry.
    Delete(Bytes),
    /// Remove all entries of `[start, end)`.
    DeleteRange(Bytes, Bytes),
}

/// Writes that happen together or not at all, in the order they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    operations: Vec<(Family, Operation)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// An empty batch with room for `count` operations.
    pub fn with_capacity(count: usize) -> Batch {
        Batch { operations: Vec::with_capacity(count) }
    }

    /// Adds: set `key` to `value`.
    pub fn put(&mut self, family: Family, key: Bytes, value: Bytes) {
        self.operations.push((family, Operation::Put(key, value)));
    }

    /// Adds: join `operand` into `key`'s value. Panics for a family without a merge operator.
    pub fn merge(&mut self, family: Family, key: Bytes, operand: Bytes) {
        assert!(family == Family::Data, "only the data family merges");
        self.operations.push((family, Operation::Merge(key, operand)));
    }

    /// Adds: remove `key`.
    pub fn delete(&mut self, family: Family, key: Bytes) {
        self.operations.push((family, Operation::Delete(key)));
    }

    /// Adds: remove every key of `[start, end)`; nothing if that is empty, since RocksDB rejects a reversed range.
    pub fn delete_range(&mut self, family: Family, start: Bytes, end: Bytes) {
        if start < end {
            self.operations.push((family, Operation::DeleteRange(start, end)));
        }
    }

    /// How many operations the batch holds.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The operations in order.
    pub fn operations(&self) -> &[(Family, Operation)] {
        &self.operations
    }
}

/// What a scan calls for each entry (key, value); it says whether to go on.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// How much a store holds, in bytes, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStatistics {
    /// In sorted files on disk.
    pub tables: u64,
    /// In memory tables, which the log repeats on disk.
    pub memtables: u64,
    /// That compactions have yet to rewrite.
    pub compactions_owed: u64,
}

/// An ordered store of byte strings whose `Data` entries merge by [`crate::values::merge`].
pub trait Store: Send + Sync {
    /// Reads one entry, and says how many merge operands had to be joined for it (0: a plain value).
    fn get_with_chain(
        &self,
        family: Family,
        key: &[u8],
        tier: Tier,
    ) -> Result<(Lookup, usize), StoreError>;

    /// Reads one entry.
    fn get(&self, family: Family, key: &[u8], tier: Tier) -> Result<Lookup, StoreError> {
        Ok(self.get_with_chain(family, key, tier)?.0)
    }

    /// Writes a batch without waiting: a store that is behind answers [`StoreError::Stalled`] and has written nothing.
    /// The batch is durable after the next [`Store::sync`]; a killed process alone does not lose it.
    fn write(&self, batch: Batch) -> Result<(), StoreError>;

    /// Like [`Store::write`], but waits out a stall. May block.
    fn write_waiting(&self, batch: Batch) -> Result<(), StoreError>;

    /// Whether [`Store::write_waiting`] would wait now, for as long as it takes to flush or to compact.
    fn is_stopped(&self) -> bool;

    /// Visits the entries of `[start, end)` in key order; an empty `end` means to the last key. May block.
    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError>;

    /// Makes every write that returned before this call durable against power loss. Blocks.
    fn sync(&self) -> Result<(), StoreError>;

    /// Moves memory tables to sorted files, so that the next start has no log to replay. Blocks.
    fn flush(&self) -> Result<(), StoreError>;

    /// Rewrites `[start, end)` of the data, so that what was deleted there takes no room. Blocks, for long where there is much.
    fn compact(&self, start: &[u8], end: &[u8]) -> Result<(), StoreError>;

    /// Puts a copy of everything written so far into the new directory `path`, as durable as it gets; what is in files already is linked
    /// rather than copied. A store in memory has no such copies. Blocks.
    fn checkpoint(&self, path: &Path) -> Result<(), StoreError>;

    /// How much the store holds and owes: for people, not for decisions.
    fn statistics(&self) -> StoreStatistics;

    /// The number of the last operation written; each operation of a batch counts one. It only falls when writes were lost.
    fn latest_sequence(&self) -> u64;
}
