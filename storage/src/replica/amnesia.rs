//! A replica that lost writes: that it knows it, says it, and when it is over.
//!
//! Invariant: from the moment at which writes may be missing until every peer's states have been joined it is not whole, across restarts;
//! and whoever was whole before has another actor from then on.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use starling_ring::HostId;

use super::{AMNESIA_MARK, IDENTITY_MARK, OpenError, Replica, identity_mark, mark};
use crate::identity::ActorChange;
use crate::planted::Bug;
use crate::store::{Batch, Family, StoreError};

impl Replica {
    /// Whether this replica holds every write that it acknowledged. One that does not must not count towards the quorum of a read.
    pub fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether reads may be answered from here.
    pub fn may_answer(&self) -> bool {
        self.is_whole() || self.planted.is(Bug::AnswerWhileRebuilding)
    }

    /// This replica lost writes: durable when this returns. Blocks.
    pub fn declare_amnesia(&self) -> Result<(), StoreError> {
        self.whole.store(false, Ordering::Release);
        mark(self.store.as_ref(), AMNESIA_MARK, b"1")?;
        self.store.sync()
    }

    /// This replica has forgotten writes that others know: it vouches for nothing that it minted until now, and is not whole. Durable when this
    /// returns. Blocks.
    pub fn forget(&self) -> Result<(), OpenError> {
        // The actor first: ended between the two, the next start still has to find out that it is not whole, but vouches for nothing.
        self.identity.new_actor(ActorChange::AmnesiaRevealed)?;
        Ok(self.declare_amnesia()?)
    }

    /// Takes back the name under which the cluster knows this replica, whose disk was lost: everything that it had acknowledged is missing.
    /// The actor stays the fresh one. Blocks.
    pub fn take_back(
        &self,
        host_id: HostId,
        nonce: [u8; 32],
        incarnation: u64,
    ) -> Result<(), OpenError> {
        self.declare_amnesia()?;
        self.identity.take_back(host_id, nonce, incarnation)?;
        mark(self.store.as_ref(), IDENTITY_MARK, &identity_mark(&self.identity.record()))?;
        Ok(self.store.sync()?)
    }

    /// Every other replica's states have been joined into this one after it lost writes. Blocks.
    pub fn amnesia_repaired(&self) -> Result<(), StoreError> {
        // What was joined first: a power cut must not leave the word without the deed.
        self.store.sync()?;
        let mut batch = Batch::with_capacity(1);
        batch.delete(Family::Meta, Bytes::from_static(AMNESIA_MARK));
        self.store.write_waiting(batch)?;
        self.store.sync()?;
        self.whole.store(true, Ordering::Release);
        Ok(())
    }
}
