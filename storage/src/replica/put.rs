//! Leading a write: the one place where dots are minted.
//!
//! Invariant: from reading a key's state to writing its join with the delta the key's stripe is held exclusively, and the actor in whose name
//! the delta vouches has forgotten none of its dots on the key.
//!
//! Nothing here waits for other replicas or for a sync.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::slice;

use bytes::Bytes;
use starling_ring::HostId;
use thiserror::Error;

use super::{Carries, Replica};
use crate::clock::{ClockError, SKEW_MAX_US};
use crate::hints::{Hint, Reservation};
use crate::identity::ActorChange;
use crate::planted::Bug;
use crate::store::{Batch, Family, Lookup, StoreError, Tier};
use crate::values::{Actor, Causal, Context, OperationId, put_delta};

/// One put or delete for this replica to lead.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// The table (bucket) of the key.
    pub table: u32,
    /// The storage key, see [`crate::keys::storage_key`].
    pub key: Bytes,
    /// What the client has seen of the key.
    pub client: Context,
    /// The client's name for the operation.
    pub operation: OperationId,
    /// The value; `None` deletes.
    pub value: Option<Bytes>,
    /// Whether the bucket keeps only the last write.
    pub lww: bool,
    /// Replicas known to be down: each gets a hint in the same write.
    pub hints: Vec<HostId>,
}

/// A write that this replica has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The encoded delta, for the other replicas.
    pub delta: Bytes,
    /// The dot's number, which is also the envelope's.
    pub mint: u64,
    /// What the client has seen by now.
    pub context: Context,
}

/// Why this replica cannot lead writes at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotLeading {
    /// It waits until the time has passed what its last run may have minted.
    Booting {
        /// The rest of the wait.
        wait_us: u64,
    },
    /// It is stopping.
    Stopped,
    /// The request waited for longer than its client does before it repeats it elsewhere.
    TooLate,
    /// Its clock's lease cannot be made durable.
    Lease {
        /// The operating system's words.
        reason: String,
    },
    /// It cannot read what it has of the key.
    Unreadable {
        /// What the store or the decoder said.
        reason: String,
    },
    /// It needs a new actor and cannot make one durable.
    NoActor {
        /// The operating system's words.
        reason: String,
    },
}

impl fmt::Display for NotLeading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotLeading::Booting { wait_us } => write!(f, "it may write in {wait_us} us"),
            NotLeading::TooLate => f.write_str("the request came too late"),
            NotLeading::Stopped => f.write_str("it is stopping"),
            NotLeading::Lease { reason } => {
                write!(f, "its clock's lease cannot be written: {reason}")
            }
            NotLeading::Unreadable { reason } => {
                write!(f, "its state of the key cannot be read: {reason}")
            }
            NotLeading::NoActor { reason } => write!(f, "its identity cannot be written: {reason}"),
        }
    }
}

/// Why a put was not led. Except after [`PutError::Store`] nothing was written.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum PutError {
    /// It would have had to wait for a disk: call again with [`Tier::Any`] where waiting is allowed.
    #[error("the state is not cached")]
    NotCached,
    /// The key has too many concurrent values; one has to be put with their context.
    #[error("the key would have {count} siblings; {max} are allowed")]
    TooManySiblings {
        /// Siblings the put would leave.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The key's state would be too large.
    #[error("the object would have {bytes} bytes; {max} are allowed")]
    ObjectTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The client's context knows a write that is dated too far in the future.
    #[error(
        "the context is dated {ahead_us} us ahead of this node's clock; {max_us} us are tolerated"
    )]
    ClockSkew {
        /// How far ahead it is.
        ahead_us: u64,
        /// How far it may be.
        max_us: u64,
    },
    /// This replica leads no writes now.
    #[error("this replica cannot lead a write: {0}")]
    NotLeading(NotLeading),
    /// The store failed in the middle of the write, which may have happened.
    #[error(transparent)]
    Store(StoreError),
}

/// Puts on their way into one write of the store.
#[derive(Default)]
struct Group {
    batch: Batch,
    hints: Vec<Reservation>,
    /// What the group has made of a key so far; a later put of the group builds on it.
    joined: BTreeMap<Bytes, Bytes>,
}

impl Replica {
    /// Leads one put: as [`Replica::put_all`].
    ///
    /// # Errors
    /// [`PutError`].
    pub fn put(&self, request: &PutRequest, tier: Tier) -> Result<Put, PutError> {
        let mut outcomes = self.put_all(slice::from_ref(request), tier);
        outcomes.pop().expect("a request has an outcome")
    }

    /// Brings the states of the keys into the cache, so that [`Replica::put_all`] does not wait for the disk while it holds their stripes.
    /// May block.
    pub fn warm<'a>(&self, keys: impl Iterator<Item = &'a Bytes>) {
        for key in keys {
            // What fails here fails again when it is put, where it is answered.
            let _warm = self.store.get(Family::Data, key, Tier::Any);
        }
    }

    /// Leads puts in their order: validates, reads and mints each, and writes the joins and the hints in one batch. Each has an outcome of
    /// its own; only a failed write is an outcome of all. `tier` says how far the states may be fetched from; with [`Tier::Any`] it may block.
    ///
    /// The writes are readable at once and durable when [`crate::CommitLoop::on_durable`] says so.
    pub fn put_all(&self, requests: &[PutRequest], tier: Tier) -> Vec<Result<Put, PutError>> {
        if let Err(error) = self.check_room(Carries::Write) {
            return requests.iter().map(|_| Err(PutError::Store(error.clone()))).collect();
        }
        let keys = requests.iter().map(|request| request.key.as_ref());
        let stripes = match tier {
            Tier::Cached => self.stripes.exclusive_soon(keys),
            Tier::Any => Some(self.stripes.exclusive(keys)),
        };
        let Some(_stripes) = stripes else {
            return requests.iter().map(|_| Err(PutError::NotCached)).collect();
        };
        let mut group = Group::default();
        let prepare = |request| self.prepare(request, tier, &mut group);
        let mut outcomes: Vec<_> = requests.iter().map(prepare).collect();
        if let Err(error) = self.write_group(group, tier) {
            for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
                *outcome = Err(error.clone());
            }
        }
        outcomes
    }

    /// Adds one put to the group. On an error it adds nothing.
    fn prepare(
        &self,
        request: &PutRequest,
        tier: Tier,
        group: &mut Group,
    ) -> Result<Put, PutError> {
        self.check_size(request, request.value.as_ref().map_or(0, Bytes::len))?;
        let state = match group.joined.get(&request.key) {
            Some(joined) => Causal::decode(joined.clone()).map_err(unreadable)?,
            None => self.own_state(&request.key, tier)?,
        };
        let client = self.replaced(request, &state);
        self.check_client(request, &state, &client)?;
        let mint = self.mint(tier)?;
        // After minting: a clock that started over did so after the new actor was visible.
        let me = self.vouching_actor(request, &state, mint, tier)?;
        let (operation, value) = (request.operation, request.value.clone());
        let delta = put_delta(&state, &client, me, mint, operation, value, request.lww);
        let delta_bytes = delta.encode();
        let joined = state.join_encoded(&delta, &delta_bytes);
        self.check_size(request, joined.len())?;
        let put = Put { delta: delta_bytes, mint, context: delta.context().clone() };
        group.joined.insert(request.key.clone(), joined.clone());
        self.add_to(group, request, &put, joined);
        Ok(put)
    }

    /// What the put replaces: what its client has seen, and what an earlier attempt at the same operation left.
    fn replaced<'a>(&self, request: &'a PutRequest, state: &'a Causal) -> Cow<'a, Context> {
        let nothing = self.planted.is(Bug::PutIgnoresContext) && request.value.is_some()
            || self.planted.is(Bug::DeleteIgnoresContext) && request.value.is_none();
        if nothing {
            return Cow::Owned(Context::default());
        }
        let seen =
            if self.planted.is(Bug::PutReplacesUnseen) { state.context() } else { &request.client };
        let mut seen = Cow::Borrowed(seen);
        let attempts =
            state.siblings().filter(|(_, sibling)| sibling.operation == request.operation);
        for (dot, _) in attempts {
            seen.to_mut().insert(dot.actor, dot.seq - 1, dot.seq);
        }
        seen
    }

    fn add_to(&self, group: &mut Group, request: &PutRequest, put: &Put, joined: Bytes) {
        let (key, operand) = (request.key.clone(), put.delta.clone());
        group.batch.put(Family::Data, key.clone(), joined);
        let hint = Hint { table: request.table, mint: put.mint, key, operand };
        let none = self.planted.is(Bug::NoHintForTheDown);
        let targets = if none { &[] } else { request.hints.as_slice() };
        let reservation = self.hints.push(&mut group.batch, targets, &hint);
        group.hints.push(reservation);
    }

    fn write_group(&self, group: Group, tier: Tier) -> Result<(), PutError> {
        if group.batch.is_empty() {
            return Ok(());
        }
        let written = match tier {
            Tier::Cached => self.store.write(group.batch),
            Tier::Any => self.store.write_waiting(group.batch),
        };
        self.mark_dirty(group.joined.keys().map(Bytes::as_ref));
        for reservation in group.hints {
            self.hints.settle(reservation, written.is_ok());
        }
        match written {
            Ok(()) => Ok(()),
            Err(StoreError::Stalled) => Err(PutError::NotCached),
            // The dots may or may not be in the store. Nobody vouches for them: the store's watcher has seen to a new actor.
            Err(error) => Err(PutError::Store(error)),
        }
    }

    fn own_state(&self, key: &[u8], tier: Tier) -> Result<Causal, PutError> {
        match self.store.get(Family::Data, key, tier).map_err(unreadable)? {
            Lookup::Found(bytes) => Causal::decode(bytes).map_err(unreadable),
            Lookup::Absent => Ok(Causal::default()),
            Lookup::NotCached => Err(PutError::NotCached),
        }
    }

    fn check_client(
        &self,
        request: &PutRequest,
        state: &Causal,
        replaced: &Context,
    ) -> Result<(), PutError> {
        // What this replica has seen itself is no news from the future: after its clock stepped back, clients still write over it.
        let now_us = self.clock.last().max(self.clock.now_us());
        let newest = request.client.newest_seq();
        let horizon = now_us.saturating_add(SKEW_MAX_US);
        if newest > horizon && !request.client.is_covered_by(state.context(), horizon) {
            return Err(PutError::ClockSkew { ahead_us: newest - now_us, max_us: SKEW_MAX_US });
        }
        if request.value.is_none() || request.lww {
            return Ok(());
        }
        let count = state.survivors(replaced) + 1;
        if count > self.limits.siblings_max {
            return Err(PutError::TooManySiblings { count, max: self.limits.siblings_max });
        }
        if count > self.limits.siblings_warn {
            self.complain_of_siblings(request, count);
        }
        Ok(())
    }

    fn check_size(&self, request: &PutRequest, bytes: usize) -> Result<(), PutError> {
        if bytes > self.limits.object_bytes_max {
            return Err(PutError::ObjectTooLarge { bytes, max: self.limits.object_bytes_max });
        }
        if bytes > self.limits.object_bytes_warn {
            self.complain_of_size(request, bytes);
        }
        Ok(())
    }

    fn mint(&self, tier: Tier) -> Result<u64, PutError> {
        match self.clock.mint() {
            Ok(mint) => Ok(mint),
            Err(ClockError::LeaseExhausted | ClockError::Jumped { .. }) if tier == Tier::Cached => {
                Err(PutError::NotCached)
            }
            Err(ClockError::LeaseExhausted | ClockError::Jumped { .. }) => self.mint_waiting(),
            Err(error) => Err(not_leading(error)),
        }
    }

    fn mint_waiting(&self) -> Result<u64, PutError> {
        // One at a time: whoever starts the clock over must not do so again over the numbers of another.
        let _recovery = self.recovery.lock();
        match self.clock.mint_waiting() {
            Err(ClockError::Jumped { .. }) => {
                self.new_actor(self.identity.actor(), ActorChange::ClockJumped)?;
                self.clock.start_over().map_err(not_leading)?;
                self.clock.mint_waiting().map_err(not_leading)
            }
            other => other.map_err(not_leading),
        }
    }

    /// The actor for this put: a fresh one if the client has seen dots of the present one that this replica does not know (INV2), or if
    /// the present one has already minted as much.
    fn vouching_actor(
        &self,
        request: &PutRequest,
        state: &Causal,
        mint: u64,
        tier: Tier,
    ) -> Result<Actor, PutError> {
        let me = self.identity.actor();
        let is_fresh = state.context().max_seq(me) < mint;
        let forgotten = self.forgotten_up_to(&request.key);
        let remembers = request.client.actor_is_covered_by(me, state.context(), forgotten);
        if is_fresh && remembers {
            return Ok(me);
        }
        if tier == Tier::Cached {
            return Err(PutError::NotCached);
        }
        self.new_actor(me, ActorChange::AmnesiaRevealed)
    }

    fn new_actor(&self, suspect: Actor, change: ActorChange) -> Result<Actor, PutError> {
        self.identity.replace_actor(suspect, change).map_err(|error| {
            PutError::NotLeading(NotLeading::NoActor { reason: error.to_string() })
        })
    }
}

fn not_leading(error: ClockError) -> PutError {
    PutError::NotLeading(match error {
        ClockError::Booting { wait_us } => NotLeading::Booting { wait_us },
        ClockError::Stopped => NotLeading::Stopped,
        other => NotLeading::Lease { reason: other.to_string() },
    })
}

fn unreadable(reason: impl fmt::Display) -> PutError {
    PutError::NotLeading(NotLeading::Unreadable { reason: reason.to_string() })
}
