//! Taking other replicas' states: checked, then merged.
//!
//! Invariant: no operand reaches the store whose checksum or structure is wrong; a join spreads corruption and cannot be undone.
//!
//! Nor what was sent before this replica's purge floor rose: it could bring back what was deleted and forgotten since.
//!
//! Sizes and sibling counts are not limited here: a join must never be refused, only a put may be.

use bytes::Bytes;
use parking_lot::RwLockReadGuard;
use thiserror::Error;

use super::{CHAIN_MAX, ReadError, Replica};
use crate::identity::{ActorChange, IdentityError};
use crate::planted::Bug;
use crate::store::{Batch, Family, Lookup, StoreError, Tier};
use crate::values::{self, Causal, DecodeError};

/// Something that another replica sends for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The storage key.
    pub key: Bytes,
    /// The encoded state or delta.
    pub operand: Bytes,
    /// When it was made, see [`Carries`].
    pub mint: u64,
    /// What the operand is.
    pub carries: Carries,
}

/// What an envelope carries, which decides when it comes too late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// The delta of one put; its mint is that of its dot.
    Write,
    /// States that were read; its mint is the smallest clock value at which one was.
    State,
}

/// Why an operand was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// It is no canonical state.
    #[error(transparent)]
    Damaged(#[from] DecodeError),
    /// It was made before what it may lack was forgotten here.
    #[error("it was made at {mint}, before the purge floor {floor}")]
    Late {
        /// When it was made.
        mint: u64,
        /// What it would have to reach.
        floor: u64,
    },
}

/// An operand that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOperand {
    /// Its place among the writes of the call.
    pub index: usize,
    /// What is wrong with it.
    pub reason: Refusal,
}

/// Why not everything was applied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Some operands were refused; all others were applied.
    #[error("{} of the operands were refused, the first at {}: {}", bad.len(), bad[0].index, bad[0].reason)]
    BadOperands {
        /// Those refused, by place; at least one.
        bad: Vec<BadOperand>,
    },
    /// The store failed. [`StoreError::Stalled`]: nothing was applied, try where waiting is allowed. [`StoreError::NoRoom`]: nothing was applied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This replica found that it has forgotten its own writes, and cannot take a new actor. Nothing was applied.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Replica {
    /// Merges operands into their storage keys in one atomic write, without waiting: where it would have to wait for the store, or for who
    /// does, it answers [`StoreError::Stalled`]. It reads nothing, except for tombstones that are old enough to be forgotten by their age.
    ///
    /// The writes are readable at once and durable when [`crate::CommitLoop::on_durable`] says so.
    pub fn apply(&self, writes: &[Envelope]) -> Result<(), ApplyError> {
        let keys = writes.iter().map(|write| write.key.as_ref());
        let Some(stripes) = self.stripes.shared_soon(keys) else {
            return Err(StoreError::Stalled.into());
        };
        self.merge_all(writes, stripes, |batch| self.store.write(batch))
    }

    /// Like [`Replica::apply`], but waits out a stall of the store. May block.
    pub fn apply_waiting(&self, writes: &[Envelope]) -> Result<(), ApplyError> {
        let stripes = self.stripes.shared(writes.iter().map(|write| write.key.as_ref()));
        self.merge_all(writes, stripes, |batch| self.store.write_waiting(batch))
    }

    /// Applies states that were read at other replicas. If they know dots of this replica's actor that it does not, it takes a new actor first.
    /// Reads each key. May block.
    pub fn apply_repair(&self, writes: &[Envelope]) -> Result<(), ApplyError> {
        for Envelope { key, operand, .. } in writes {
            let Ok(theirs) = Causal::decode(operand.clone()) else {
                continue;
            };
            let me = self.identity.actor();
            if theirs.context().intervals(me).is_none() {
                continue;
            }
            let ours = match self.store.get(Family::Data, key, Tier::Any)? {
                Lookup::Found(bytes) => Causal::decode(bytes).unwrap_or_default(),
                Lookup::Absent | Lookup::NotCached => Causal::default(),
            };
            let forgotten = self.forgotten_up_to(key);
            let remembers = theirs.context().actor_is_covered_by(me, ours.context(), forgotten);
            if !remembers {
                self.identity.replace_actor(me, ActorChange::AmnesiaRevealed)?;
            }
        }
        self.apply_waiting(writes)
    }

    /// Reads one key's state, and shortens its chain of operands if the read had to join many.
    pub fn read(&self, key: &[u8], tier: Tier) -> Result<Lookup, ReadError> {
        let (lookup, chain) = self.store.get_with_chain(Family::Data, key, tier)?;
        if lookup == Lookup::NotCached && self.planted.is(Bug::NotCachedIsAbsent) {
            return Ok(Lookup::Absent);
        }
        if chain > CHAIN_MAX {
            self.collapse(key, tier);
        }
        Ok(lookup)
    }

    fn merge_all(
        &self,
        writes: &[Envelope],
        stripes: Vec<RwLockReadGuard<'_, ()>>,
        write: impl FnOnce(Batch) -> Result<(), StoreError>,
    ) -> Result<(), ApplyError> {
        for write in writes {
            self.check_room(write.carries)?;
        }
        let mut batch = Batch::with_capacity(writes.len());
        let mut bad = Vec::new();
        let forgotten = usize::from(self.planted.is(Bug::ApplyForgetsFirst) && writes.len() > 1);
        let writes = &writes[forgotten..];
        let keys = || writes.iter().map(|write| write.key.as_ref());
        // Under the stripes: whoever forgets a key takes its stripe after the floor has risen.
        for (index, write) in writes.iter().enumerate() {
            match self.check(write) {
                Ok(()) if self.is_forgotten(write) => {}
                Ok(()) => batch.merge(Family::Data, write.key.clone(), write.operand.clone()),
                Err(reason) => bad.push(BadOperand { index, reason }),
            }
        }
        if !batch.is_empty() {
            let written = write(batch);
            self.mark_dirty(keys());
            written?;
        }
        drop(stripes);
        if bad.is_empty() {
            return Ok(());
        }
        metrics::counter!("starling_bad_operands_total").increment(bad.len() as u64);
        Err(ApplyError::BadOperands { bad })
    }

    fn check(&self, write: &Envelope) -> Result<(), Refusal> {
        let floor = self.floor_of(&write.key);
        let floor = match write.carries {
            // The floor itself is the last write that is everywhere.
            Carries::Write => floor.writes.saturating_add(u64::from(floor.writes > 0)),
            Carries::State => floor.states,
        };
        if write.mint < floor && !self.planted.is(Bug::TakeLateEnvelopes) {
            return Err(Refusal::Late { mint: write.mint, floor });
        }
        Ok(values::verify(&write.operand)?)
    }

    /// Whether this is a tombstone that this replica has seen and forgotten, or is about to.
    fn is_forgotten(&self, write: &Envelope) -> bool {
        if write.carries != Carries::State || self.forgotten_up_to(&write.key) == 0 {
            return false;
        }
        let Some(newest) = values::tombstone(&write.operand) else { return false };
        if newest <= self.floor_of(&write.key).writes {
            return true;
        }
        // By its age alone: then this replica may never have seen it, and it is forgotten only where it deletes nothing. What is not in memory is
        // left to the sweeper.
        let here = || self.store.get(Family::Data, &write.key, Tier::Cached);
        newest <= self.reaped_of(&write.key) && matches!(here(), Ok(Lookup::Absent))
    }

    /// Replaces a base and its operands by their join. A matter of speed only: whatever is in the way, another read will do it.
    fn collapse(&self, key: &[u8], tier: Tier) {
        let Some(_stripe) = self.stripes.try_exclusive(key) else {
            return;
        };
        if let Ok(Lookup::Found(joined)) = self.store.get(Family::Data, key, tier) {
            let mut batch = Batch::with_capacity(1);
            batch.put(Family::Data, Bytes::copy_from_slice(key), joined);
            if let Err(error) = self.store.write(batch) {
                tracing::debug!(%error, "a chain of operands stays long");
            }
        }
    }
}
