//! One replica: its store, clock, identity, hints and commit loop, opened together and checked against each other.
//!
//! Invariant: before the first dot is minted, everything that could reveal lost memory has been compared: the high-water mark, the store's
//! mark of identity, the machine's boot, the clock's lease; and a new actor is durable if any of it failed.
//!
//! It knows no ring, no quorum and no network: coordinators decide, replicas do.

mod amnesia;
mod apply;
mod compare;
mod complaint;
mod purge;
mod put;
mod room;
mod stripes;

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use starling_ring::SlotGrid;
use thiserror::Error;

pub use apply::{ApplyError, BadOperand, Carries, Envelope, Refusal};
pub use compare::{Refreshed, States};
pub use purge::Purged;
use purge::Reaped;
pub use put::{NotLeading, Put, PutError, PutRequest};
pub use room::Room;
use room::ToldRoom;

use crate::buckets::BucketRegistry;
use crate::clock::{Clock, ClockError, WallClock};
use crate::commit::{CommitLoop, Durability, Fatal, HighWater, Synced};
use crate::files::Files;
use crate::floors::Floors;
use crate::hints::{HintError, HintLimits, Hints};
use crate::identity::{ActorChange, Identity, IdentityError, IdentityRecord};
use crate::leaves::Leaves;
use crate::planted::Planted;
use crate::store::{Batch, Family, Lookup, Store, StoreError, Tier, Visitor};
use stripes::Stripes;

/// Operands a read may have to join before the key is worth rewriting.
const CHAIN_MAX: usize = 8;

const IDENTITY_MARK: &[u8] = b"identity";
const AMNESIA_MARK: &[u8] = b"amnesia";

/// What a leader refuses, and what it only complains about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaLimits {
    /// Siblings of one key beyond which a put is logged.
    pub siblings_warn: usize,
    /// Siblings of one key beyond which a put is refused.
    pub siblings_max: usize,
    /// Bytes of one key's state beyond which a put is logged.
    pub object_bytes_warn: usize,
    /// Bytes of one key's state beyond which a put is refused.
    pub object_bytes_max: usize,
}

impl Default for ReplicaLimits {
    fn default() -> ReplicaLimits {
        ReplicaLimits {
            siblings_warn: 25,
            siblings_max: 100,
            object_bytes_warn: 5 << 20,
            object_bytes_max: 50 << 20,
        }
    }
}

/// What a replica is made of.
pub struct ReplicaConfig {
    /// The store; opened first, since it locks the directory.
    pub store: Arc<dyn Store>,
    /// Lease and high-water mark live here, beside the identity.
    pub files: Arc<dyn Files>,
    /// The identity, opened after the store.
    pub identity: Arc<Identity>,
    /// The wall clock.
    pub wall: Arc<dyn WallClock>,
    /// When a write counts as done.
    pub durability: Durability,
    /// What a leader refuses.
    pub limits: ReplicaLimits,
    /// How much may be owed to others.
    pub hint_limits: HintLimits,
    /// The slots by which replicas compare what they hold.
    pub grid: SlotGrid,
    /// Is told how long each sync of the log took.
    pub observe_sync: fn(Duration),
    /// Ends the node when a sync or a write fails; [`crate::commit::abort_process`] outside of tests.
    pub fatal: Fatal,
    /// What a test wants to be wrong.
    pub planted: Planted,
}

/// What opening a replica found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Why the replica took new actors, in order.
    pub actor_changes: Vec<ActorChange>,
}

/// Why a replica could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The identity could not be changed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The clock's lease could not be written.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The hints could not be loaded.
    #[error(transparent)]
    Hints(#[from] HintError),
    /// The store was written by another identity, and this one belongs to no cluster yet. Nothing was changed.
    #[error(
        "the store was written under another identity than that of the file IDENTITY; restore that file from a backup, or set data_dir to another directory"
    )]
    OtherIdentity,
    /// A record beside the store could not be read or written, or the commit thread not started.
    #[error("cannot open the replica's records: {0}")]
    Io(#[from] io::Error),
}

/// Why a replica could not be read.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a replica did not stop cleanly. The next start treats it like a crash.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StopError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The clean mark could not be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The lease could not be written.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The high-water mark could not be written.
    #[error("cannot write the high-water mark: {0}")]
    Io(#[from] io::Error),
}

/// An open replica. All methods may be called from many threads; those that may block say so.
pub struct Replica {
    store: Arc<dyn Store>,
    identity: Arc<Identity>,
    clock: Arc<Clock>,
    hints: Hints,
    buckets: BucketRegistry,
    commit: CommitLoop,
    high_water: Arc<HighWater>,
    stripes: Stripes,
    leaves: Leaves,
    floors: Floors,
    reaped: Reaped,
    /// Held by whoever reads dirty leaves.
    refreshing: Mutex<()>,
    whole: AtomicBool,
    room: ToldRoom,
    limits: ReplicaLimits,
    report: OpenReport,
    /// Held while the clock recovers from a jump.
    recovery: Mutex<()>,
    planted: Planted,
}

impl Replica {
    /// Opens a replica, taking new actors where memory may be incomplete. Blocks.
    pub fn open(config: ReplicaConfig) -> Result<Replica, OpenError> {
        let ReplicaConfig { store, files, identity, wall, .. } = config;
        let high_water = Arc::new(HighWater::open(files.clone())?);
        let mut report = OpenReport::default();
        report.actor_changes.extend(identity.change_at_open());
        if let Some(change) = lost_memory(store.as_ref(), &identity, &high_water)? {
            identity.new_actor(change)?;
            report.actor_changes.push(change);
            // Who was never a member and completed no start has acknowledged nothing.
            if high_water.sequence() > 0 || identity.cluster_id().is_some() {
                mark(store.as_ref(), AMNESIA_MARK, b"1")?;
            }
        }
        let record = identity.record();
        mark(store.as_ref(), IDENTITY_MARK, &identity_mark(&record))?;
        let sequence = store.latest_sequence();
        store.sync()?;
        // Only now, down to what there is: the loss has been answered, and must not be declared at every start.
        high_water.set(sequence)?;

        let clock = Arc::new(Clock::open(files, wall)?);
        let (upkeep_clock, upkeep_mark) = (clock.clone(), high_water.clone());
        let upkeep = Box::new(move |synced: Option<Synced>| {
            let Some(synced) = synced else { return upkeep_mark.catch_up(upkeep_clock.now_us()) };
            (config.observe_sync)(synced.took);
            let left = upkeep_mark.offer(synced.sequence, upkeep_clock.now_us())?;
            upkeep_clock.extend_while_minting().map_err(io::Error::other)?;
            Ok(left)
        });
        let (doubtful, fatal) = (identity.clone(), config.fatal);
        let fatal = Box::new(move |reason: &str| {
            // What was minted may be lost though no machine restarts: nobody may vouch for it from here on.
            if let Err(error) = doubtful.new_actor(ActorChange::AmbiguousWrite) {
                tracing::error!(%error, "cannot take a new actor after a failed write");
            }
            fatal(reason);
        });
        let commit = CommitLoop::start(store, config.durability, upkeep, fatal, config.planted)?;
        let store = commit.watched_store();
        let floors = Floors::load(store.clone(), config.grid)?;
        clock.pass(floors.highest());
        if let Err(ClockError::Jumped { .. }) = clock.boot_wait_us() {
            identity.new_actor(ActorChange::ClockJumped)?;
            report.actor_changes.push(ActorChange::ClockJumped);
            clock.start_over()?;
        }
        let amnesia = store.get(Family::Meta, AMNESIA_MARK, Tier::Any)?;
        Ok(Replica {
            whole: AtomicBool::new(amnesia == Lookup::Absent),
            room: ToldRoom::default(),
            leaves: Leaves::new(config.grid),
            floors,
            reaped: Reaped::default(),
            refreshing: Mutex::new(()),
            hints: Hints::load(store.clone(), config.hint_limits)?,
            buckets: BucketRegistry::load(store.clone())?,
            commit,
            store,
            identity,
            clock,
            high_water,
            stripes: Stripes::new(),
            limits: config.limits,
            report,
            recovery: Mutex::new(()),
            planted: config.planted,
        })
    }

    /// What opening found.
    pub fn report(&self) -> &OpenReport {
        &self.report
    }

    /// The store, for scans and reads beside the data.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The identity.
    pub fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// The commit loop: what makes writes durable.
    pub fn commit(&self) -> &CommitLoop {
        &self.commit
    }

    /// Hints for other replicas.
    pub fn hints(&self) -> &Hints {
        &self.hints
    }

    /// Names and ids of buckets.
    pub fn buckets(&self) -> &BucketRegistry {
        &self.buckets
    }

    /// Visits the states of the storage keys in `[start, end)` in order; an empty `end` means to the last. May block.
    pub fn scan(&self, start: &[u8], end: &[u8], visit: &mut Visitor<'_>) -> Result<(), ReadError> {
        Ok(self.store.scan(Family::Data, start, end, visit)?)
    }

    /// Whether the store takes no writes now, until it has flushed or compacted enough.
    pub fn is_stalled(&self) -> bool {
        self.store.is_stopped()
    }

    /// Stops in good order: mints no more, syncs, runs what waits for the sync, and marks the stop clean. The caller has stopped sending
    /// writes here. Blocks.
    pub fn stop(&self) -> Result<(), StopError> {
        self.clock.clean_stop()?;
        let sequence = self.store.latest_sequence();
        self.store.sync()?;
        self.commit.stop();
        self.store.flush()?;
        self.high_water.set(sequence)?;
        Ok(self.identity.mark_clean()?)
    }
}

/// Compares what the store holds with what is remembered outside of it.
fn lost_memory(
    store: &dyn Store,
    identity: &Identity,
    high_water: &HighWater,
) -> Result<Option<ActorChange>, OpenError> {
    let written_by = store.get(Family::Meta, IDENTITY_MARK, Tier::Any)?;
    let is_mine = written_by == Lookup::Found(identity_mark(&identity.record()).into());
    // A node that takes its name back may have been ended between the one record and the other.
    let is_returning = store.get(Family::Meta, AMNESIA_MARK, Tier::Any)? != Lookup::Absent;
    let is_new = identity.cluster_id().is_none() && !is_returning;
    if is_new && !is_mine && written_by != Lookup::Absent {
        return Err(OpenError::OtherIdentity);
    }
    let (found, remembered) = (store.latest_sequence(), high_water.sequence());
    if found < remembered {
        tracing::error!(
            found,
            remembered,
            "the store has lost writes that were synced; this replica needs a repair"
        );
        return Ok(Some(ActorChange::LostWrites));
    }
    // A fresh identity has a fresh actor; there is nothing it could have forgotten.
    Ok((!is_mine && !identity.was_fresh()).then_some(ActorChange::StoreMismatch))
}

fn identity_mark(record: &IdentityRecord) -> Vec<u8> {
    [record.host_id.0.as_bytes().as_slice(), &record.nonce].concat()
}

fn mark(store: &dyn Store, key: &'static [u8], value: &[u8]) -> Result<(), StoreError> {
    let mut batch = Batch::with_capacity(1);
    let value = Bytes::copy_from_slice(value);
    batch.put(Family::Meta, Bytes::from_static(key), value);
    store.write_waiting(batch)
}
