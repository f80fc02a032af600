//! The locks between the writers of one key.
//!
//! Invariant: whoever reads a key to write it back holds its stripe exclusively, whoever only merges holds it shared; otherwise a put would
//! silently erase a merge that came between its read and its write. Several stripes are taken in index order only.
//!
//! Readers need no lock.

use std::time::{Duration, Instant};

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use xxhash_rust::xxh3::xxh3_64;

/// Power of two; at a thousand writers in flight two of them rarely meet.
const COUNT: usize = 1024;
/// Who holds a stripe for longer waits for the store, and may do so for seconds.
const SOON: Duration = Duration::from_millis(2);

/// All stripes of a replica.
pub struct Stripes {
    locks: Vec<RwLock<()>>,
}

impl Stripes {
    /// Stripes that nobody holds.
    pub fn new() -> Stripes {
        Stripes { locks: (0..COUNT).map(|_| RwLock::new(())).collect() }
    }

    /// Waits for the stripes of all `keys` and holds them alone.
    pub fn exclusive<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<RwLockWriteGuard<'_, ()>> {
        indexes(keys).iter().map(|at| self.locks[*at].write()).collect()
    }

    /// As [`Self::exclusive`], for who must not wait while a holder waits for the store. Nothing if it would take long.
    pub fn exclusive_soon<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Vec<RwLockWriteGuard<'_, ()>>> {
        let by = soon();
        indexes(keys).iter().map(|at| self.locks[*at].try_write_until(by)).collect()
    }

    /// Returns when everybody has let go who held a stripe alone at the call. Nobody waits for this: it joins those who only merge.
    pub fn wait_for_writers(&self) {
        for stripe in &self.locks {
            drop(stripe.read());
        }
    }

    /// The key's stripe alone, if nobody holds it now.
    pub fn try_exclusive(&self, key: &[u8]) -> Option<RwLockWriteGuard<'_, ()>> {
        self.locks[index(key)].try_write()
    }

    /// Waits for the stripes of all `keys` and holds them together with other mergers.
    pub fn shared<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) -> Vec<RwLockReadGuard<'_, ()>> {
        indexes(keys).iter().map(|at| self.locks[*at].read()).collect()
    }

    /// As [`Self::shared`], for who must not wait while a holder waits for the store. Nothing if it would take long.
    pub fn shared_soon<'a>(
        &self,
        keys: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Vec<RwLockReadGuard<'_, ()>>> {
        let by = soon();
        indexes(keys).iter().map(|at| self.locks[*at].try_read_until(by)).collect()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "only who carries out a write depends on it, and not what it does"
)]
fn soon() -> Instant {
    Instant::now() + SOON
}

/// In order, and each once: a second lock of one stripe by one thread waits for ever.
fn indexes<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<usize> {
    let mut indexes: Vec<usize> = keys.map(index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

fn index(key: &[u8]) -> usize {
    xxh3_64(key) as usize % COUNT
}
