//! The sweeper: forgets tombstones below the purge floors, and gives their space back.
//!
//! It looks only where a comparison has met tombstones ([`starling_storage::leaves`]), and goes no faster than anti-entropy may.

use std::collections::BTreeMap;
use std::time::Duration;

use starling_storage::keys;
use starling_storage::leaves::Area;
use starling_storage::replica::{Purged, ReadError, Replica};
use tracing::{info, warn};

use super::Repair;

/// Slots that are swept in one go.
const SLOTS_AT_ONCE: usize = 64;
/// Compacting a table is worth it once so many of its keys were forgotten,
const COMPACT_KEYS_MIN: u64 = 1_000;
/// and once one in so many was.
const COMPACT_SHARE: u64 = 4;

/// What decides that a tombstone may be forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// That every replica has it.
    Floor,
    /// Its age.
    Grace,
}

impl Repair {
    /// Looks for tombstones in the slots that only this node has: those of several replicas are read when they are compared.
    pub(super) async fn read_what_is_mine_alone(&self) {
        for bucket in self.bucket_names() {
            for group in self.groups.iter().filter(|group| group.members.len() == 1) {
                for slots in group.slots.chunks(SLOTS_AT_ONCE) {
                    match self.refresh(bucket.id, slots.to_vec()).await {
                        Ok(read) => self.pace(read.bytes).await,
                        Err(error) => {
                            warn!(bucket = bucket.name, %error, "cannot sweep; it is tried again")
                        }
                    }
                }
            }
        }
    }

    /// Forgets what may be forgotten by now: below the floors, or, in buckets that have a grace, what is older.
    pub(super) async fn sweep(&self, by: By, forgotten: &mut BTreeMap<u32, u64>) {
        for bucket in self.bucket_names() {
            let grace = self.parts.gc_grace.get(&bucket.name).copied();
            if grace.is_some() != (by == By::Grace) {
                continue;
            }
            match self.sweep_table(bucket.id, grace).await {
                Ok(0) => {}
                Ok(keys) => {
                    crate::metrics::observe_purged(keys);
                    info!(bucket = bucket.name, keys, "forgot what was deleted");
                    *forgotten.entry(bucket.id).or_default() += keys;
                }
                Err(error) => {
                    warn!(bucket = bucket.name, %error, "cannot sweep; it is tried again")
                }
            }
            self.give_space_back(bucket.id, forgotten).await;
        }
    }

    async fn sweep_table(&self, table: u32, grace: Option<Duration>) -> Result<u64, ReadError> {
        let mut keys = 0;
        for group in &self.groups {
            for slots in group.slots.chunks(SLOTS_AT_ONCE) {
                let slots = slots.to_vec();
                let sweep = move |replica: &Replica| -> Result<Purged, ReadError> {
                    let mut swept = Purged::default();
                    for slot in slots {
                        let purged = replica.purge(Area { table, slot }, grace)?;
                        swept.keys += purged.keys;
                        swept.read += purged.read;
                    }
                    Ok(swept)
                };
                let swept = self.read(sweep).await?;
                keys += swept.keys;
                self.pace(swept.read).await;
            }
        }
        Ok(keys)
    }

    async fn give_space_back(&self, table: u32, forgotten: &mut BTreeMap<u32, u64>) {
        let Some(gone) = forgotten.get(&table).copied().filter(|keys| *keys >= COMPACT_KEYS_MIN)
        else {
            return;
        };
        let leaves = self.parts.replica.leaves();
        let slots = self.groups.iter().flat_map(|group| &group.slots);
        let left: u64 = slots.map(|slot| leaves.keys(Area { table, slot: *slot })).sum();
        if gone < left / COMPACT_SHARE {
            return;
        }
        forgotten.remove(&table);
        let compacted = self.read(move |replica| {
            let (start, end) = keys::token_bounds(table, 0, u64::MAX);
            replica.store().compact(&start, &end)
        });
        match compacted.await {
            Ok(()) => {
                crate::metrics::observe_sweep_compaction();
                info!(keys = gone, "gave the space of deleted keys back");
            }
            Err(error) => warn!(%error, "cannot give the space of deleted keys back"),
        }
    }
}
