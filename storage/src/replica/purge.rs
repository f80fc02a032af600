//! Forgetting what was deleted: this replica's part in raising a purge floor, and the sweeper's strokes below it.
//!
//! Invariant: a tombstone is forgotten only if all its dots are at or below the floor that this replica has adopted for its slot, that is,
//! when every replica of the slot has seen them and nothing that was sent earlier can arrive any more. Cassandra forgets after
//! `gc_grace_seconds` instead, whoever has seen the delete; a node that was away for longer brings the value back.
//!
//! What was forgotten by its age is remembered by table until the next start: a tombstone of that age that comes back is no news of what this
//! replica wrote, and is not taken again where there is nothing that it deletes.
//!
//! It does not decide when a floor rises: the node's repair does.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{ReadError, Replica};
use crate::floors::{Floor, Floors};
use crate::keys;
use crate::leaves::{Area, TokenRange};
use crate::planted::Bug;
use crate::store::{Batch, Family, Lookup, StoreError, Tier};
use crate::values::{self, Causal};

/// Keys that are forgotten in one write: writers wait for their stripes meanwhile.
const STROKE_KEYS: usize = 16;

/// What a stroke of the sweeper came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Keys that are gone.
    pub keys: u64,
    /// Bytes that were read.
    pub read: u64,
}

/// Up to when tombstones were forgotten by their age, by table.
#[derive(Debug, Default)]
pub(super) struct Reaped(RwLock<BTreeMap<u32, u64>>);

impl Reaped {
    /// Before the first of them is.
    fn raise(&self, table: u32, cutoff: u64) {
        let mut tables = self.0.write();
        let known = tables.entry(table).or_default();
        *known = cutoff.max(*known);
    }

    fn of(&self, table: u32) -> u64 {
        self.0.read().get(&table).copied().unwrap_or(0)
    }
}

impl Replica {
    /// The purge floors of all slots.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// A number such that every write which this replica ever leads up to it is in its store by now; 0 while it may not lead yet. May block for
    /// a moment.
    pub fn seal(&self) -> u64 {
        let Some(sealed) = self.clock.seal() else { return 0 };
        self.stripes.wait_for_writers();
        sealed
    }

    /// Promises, for good, to mint nothing up to `writes` and to have what it holds of these slots by now. Returns a number above that of every
    /// state that was read before. Blocks.
    pub fn promise(&self, slots: &[u32], writes: u64) -> Result<u64, StoreError> {
        self.clock.pass(writes);
        self.floors.raise(slots, Floor { promised: writes, ..Floor::default() })?;
        Ok(self.clock.pass_present())
    }

    /// Adopts a floor that all replicas of these slots have promised: what is older is refused from here on. Blocks.
    pub fn adopt_floor(&self, slots: &[u32], floor: Floor) -> Result<(), StoreError> {
        let floor = Floor { promised: floor.promised.max(floor.writes), ..floor };
        self.floors.raise(slots, floor)?;
        self.clock.pass(floor.states.max(floor.writes));
        Ok(())
    }

    /// Forgets the tombstones of an area that are at or below its floor; with a `grace`, those that are older than that instead, whoever has
    /// seen them. Only leaves that were read before are looked at. Blocks.
    pub fn purge(&self, area: Area, grace: Option<Duration>) -> Result<Purged, ReadError> {
        let floor = match grace {
            _ if self.planted.is(Bug::PurgeWithoutFloor) => self.clock.last(),
            Some(grace) => {
                let grace_us = u64::try_from(grace.as_micros()).unwrap_or(u64::MAX);
                let cutoff = self.clock.now_us().saturating_sub(grace_us);
                self.reaped.raise(area.table, cutoff);
                cutoff
            }
            None => self.floors.of(area.slot).writes,
        };
        let mut purged = Purged::default();
        if floor == 0 {
            return Ok(purged);
        }
        for range in self.leaves.forgettable(area, floor) {
            self.purge_range(area.table, range, floor, &mut purged)?;
        }
        Ok(purged)
    }

    /// Drops what a replica that kept its memory has seen deleted: this one lost writes, deletes among them. Of each key its own values up
    /// to `floor` stay only where the other has them, too. Blocks.
    pub fn drop_unless_known(
        &self,
        theirs: &[(Bytes, Option<Bytes>)],
        floor: u64,
    ) -> Result<u64, ReadError> {
        let mut dropped = 0;
        for (key, their_state) in theirs {
            let _stripe = self.stripes.exclusive(std::iter::once(key.as_ref()));
            let Lookup::Found(own) = self.store.get(Family::Data, key, Tier::Any)? else {
                continue;
            };
            let Ok(own) = Causal::decode(own) else { continue };
            let Ok(theirs) = their_state.clone().map_or(Ok(Causal::default()), Causal::decode)
            else {
                continue;
            };
            let stays = |dot| dot > floor;
            let kept =
                own.siblings().filter(|(dot, _)| stays(dot.seq) || theirs.sibling(*dot).is_some());
            let kept: Vec<_> = kept.map(|(dot, sibling)| (dot, sibling.clone())).collect();
            if kept.len() == own.sibling_count() {
                continue;
            }
            dropped += (own.sibling_count() - kept.len()) as u64;
            let kept = Causal::from_parts(own.context().clone(), kept);
            let kept = kept.expect("the context has seen what it had seen");
            let mut batch = Batch::with_capacity(1);
            batch.put(Family::Data, key.clone(), kept.encode());
            let written = self.store.write_waiting(batch);
            self.mark_dirty(std::iter::once(key.as_ref()));
            written?;
        }
        Ok(dropped)
    }

    /// The floor of a storage key's slot.
    pub fn floor_of(&self, key: &[u8]) -> Floor {
        keys::position(key).map_or_else(Floor::default, |(_, token)| self.floors.of_token(token))
    }

    /// Up to when this replica may have forgotten tombstones of a storage key for their age alone.
    pub(super) fn reaped_of(&self, key: &[u8]) -> u64 {
        keys::position(key).map_or(0, |(table, _)| self.reaped.of(table))
    }

    /// Up to when what is not in a storage key's state may have been seen and forgotten here.
    pub fn forgotten_up_to(&self, key: &[u8]) -> u64 {
        self.floor_of(key).writes.max(self.reaped_of(key))
    }

    fn purge_range(
        &self,
        table: u32,
        range: TokenRange,
        floor: u64,
        purged: &mut Purged,
    ) -> Result<(), ReadError> {
        let is_old = |state: &[u8]| values::tombstone(state).is_some_and(|newest| newest <= floor);
        let mut found = Vec::new();
        self.visit(table, range, |_, key, state| {
            purged.read += (key.len() + state.len()) as u64;
            if is_old(state) {
                found.push(Bytes::copy_from_slice(key));
            }
            ControlFlow::Continue(())
        })?;
        for stroke in found.chunks(STROKE_KEYS) {
            for key in stroke {
                // Brings the state into the cache: async workers wait for stripes and must not wait for a disk.
                self.store.get(Family::Data, key, Tier::Any)?;
            }
            let _stripes = self.stripes.exclusive(stroke.iter().map(AsRef::as_ref));
            let mut batch = Batch::with_capacity(stroke.len());
            for key in stroke {
                // Somebody may have written it since. What is not in the cache any more has another time.
                if let Lookup::Found(state) = self.store.get(Family::Data, key, Tier::Cached)?
                    && is_old(&state)
                {
                    batch.delete(Family::Data, key.clone());
                }
            }
            let keys = batch.len() as u64;
            if keys == 0 {
                continue;
            }
            let written = self.store.write(batch);
            self.mark_dirty(stroke.iter().map(AsRef::as_ref));
            match written {
                Ok(()) => purged.keys += keys,
                // Others need the store more.
                Err(StoreError::Stalled) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
