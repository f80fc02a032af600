//! A store whose failures end the node.
//!
//! Invariant: when a write or a sync has failed, whoever watches was told before the caller is. RocksDB takes no writes after that, so that a
//! node would serve for ever without ever writing; and what was written is not known, so that nobody may vouch for it.
//!
//! A write that the store refuses because it is behind did not fail. A failed flush shows at the next write.

use std::path::Path;
use std::sync::Arc;

use super::{Batch, Family, Lookup, Store, StoreError, StoreStatistics, Tier, Visitor};

/// Is told what failed.
pub type Watcher = Box<dyn Fn(&StoreError) + Send + Sync>;

/// Another store, watched.
pub struct WatchedStore {
    store: Arc<dyn Store>,
    watcher: Watcher,
}

impl WatchedStore {
    /// `watcher` is told of every write and sync of `store` that fails.
    pub fn new(store: Arc<dyn Store>, watcher: Watcher) -> WatchedStore {
        WatchedStore { store, watcher }
    }

    fn watch(&self, outcome: Result<(), StoreError>) -> Result<(), StoreError> {
        if let Err(error @ (StoreError::Io { .. } | StoreError::Corruption { .. })) = &outcome {
            (self.watcher)(error);
        }
        outcome
    }
}

impl Store for WatchedStore {
    fn get_with_chain(
        &self,
        family: Family,
        key: &[u8],
        tier: Tier,
    ) -> Result<(Lookup, usize), StoreError> {
        self.store.get_with_chain(family, key, tier)
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.watch(self.store.write(batch))
    }

    fn write_waiting(&self, batch: Batch) -> Result<(), StoreError> {
        self.watch(self.store.write_waiting(batch))
    }

    fn is_stopped(&self) -> bool {
        self.store.is_stopped()
    }

    fn scan(
        &self,
        family: Family,
        start: &[u8],
        end: &[u8],
        visit: &mut Visitor<'_>,
    ) -> Result<(), StoreError> {
        self.store.scan(family, start, end, visit)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.watch(self.store.sync())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }

    fn compact(&self, start: &[u8], end: &[u8]) -> Result<(), StoreError> {
        self.store.compact(start, end)
    }

    fn checkpoint(&self, path: &Path) -> Result<(), StoreError> {
        self.store.checkpoint(path)
    }

    fn statistics(&self) -> StoreStatistics {
        self.store.statistics()
    }

    fn latest_sequence(&self) -> u64 {
        self.store.latest_sequence()
    }
}
