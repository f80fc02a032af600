//! Who this replica is: host id, incarnation, and the actor in whose name it mints dots.
//!
//! Invariant: an actor may vouch for a key only while this replica remembers every dot that actor ever minted there (INV2). Whenever memory
//! may be incomplete a fresh actor is durable before the next dot is minted.
//!
//! It does not detect lost writes itself: the replica compares the store with the high-water mark and calls [`Identity::new_actor`].

mod record;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::Rng;
use starling_ring::HostId;
use thiserror::Error;

pub use record::{IdentityRecord, hex};

use crate::files::Files;
use crate::planted::{Bug, Planted};
use crate::values::Actor;

/// The name of the identity's record.
pub const IDENTITY_FILE: &str = "IDENTITY";

/// Why a replica took a new actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActorChange {
    /// The last run ended without a clean stop, and the machine was restarted since.
    UncleanBoot,
    /// The store holds less than the high-water mark says it held.
    LostWrites,
    /// The store was written under another identity, or was replaced.
    StoreMismatch,
    /// The wall clock stepped back behind what was minted.
    ClockJumped,
    /// A client's or a peer's context knows dots of this actor that the store does not.
    AmnesiaRevealed,
    /// A write failed in a way that leaves its outcome unknown.
    AmbiguousWrite,
}

impl fmt::Display for ActorChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ActorChange::UncleanBoot => "the machine restarted after an unclean stop",
            ActorChange::LostWrites => "the store lost writes",
            ActorChange::StoreMismatch => "the store was written under another identity",
            ActorChange::ClockJumped => "the wall clock stepped back",
            ActorChange::AmnesiaRevealed => "others know writes of this node that it lost",
            ActorChange::AmbiguousWrite => "a write's outcome is unknown",
        })
    }
}

/// Why an identity could not be opened or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The directory belongs to another cluster.
    #[error("the data directory {} belongs to cluster {found}, not to {expected}", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to, hexadecimal.
        found: String,
        /// The cluster that was asked for, hexadecimal.
        expected: String,
    },
    /// The record cannot be understood.
    #[error("the identity in {} cannot be used: {reason}", path.display())]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong with the record.
        reason: &'static str,
    },
    /// The record cannot be read or written.
    #[error("cannot access the identity in {}: {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
}

/// The identity of a running replica. Every change is durable before it is visible.
pub struct Identity {
    files: Arc<dyn Files>,
    record: Mutex<IdentityRecord>,
    random: Mutex<Box<dyn Rng + Send>>,
    actor: AtomicU64,
    was_fresh: bool,
    change_at_open: Option<ActorChange>,
}

impl Identity {
    /// Opens the identity in `files` or makes a new one, and makes its next incarnation durable.
    ///
    /// The caller holds the directory's lock (that of the store in it). `boot_id` names the machine's boot, see [`machine_boot_id`].
    pub fn open_or_create(
        files: Arc<dyn Files>,
        boot_id: &str,
        mut random: Box<dyn Rng + Send>,
        planted: Planted,
    ) -> Result<Identity, IdentityError> {
        let stored =
            files.read(IDENTITY_FILE).map_err(|source| io_error(files.as_ref(), source))?;
        let was_fresh = stored.is_none();
        let mut change_at_open = None;
        let mut record = match stored {
            None => fresh_record(random.as_mut()),
            Some(bytes) => IdentityRecord::decode(&bytes)
                .map_err(|reason| IdentityError::Damaged { path: files.place(), reason })?,
        };
        let forgetful = !was_fresh && !record.clean && record.boot_id != boot_id;
        if forgetful && !planted.is(Bug::KeepActorAfterPowerLoss) {
            record.actor = random_actor(random.as_mut());
            change_at_open = Some(ActorChange::UncleanBoot);
        }
        record.incarnation += 1;
        record.boot_id = boot_id.to_owned();
        record.clean = false;
        write(files.as_ref(), &record)?;
        Ok(Identity {
            actor: AtomicU64::new(record.actor.0),
            files,
            record: Mutex::new(record),
            random: Mutex::new(random),
            was_fresh,
            change_at_open,
        })
    }

    /// The node's name for life.
    pub fn host_id(&self) -> HostId {
        self.record.lock().host_id
    }

    /// Who mints dots now.
    pub fn actor(&self) -> Actor {
        Actor(self.actor.load(Ordering::SeqCst))
    }

    /// This run's number, from 1.
    pub fn incarnation(&self) -> u64 {
        self.record.lock().incarnation
    }

    /// The cluster this replica belongs to, once it does.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.record.lock().cluster_id
    }

    /// A copy of everything remembered.
    pub fn record(&self) -> IdentityRecord {
        self.record.lock().clone()
    }

    /// Whether this start made the identity.
    pub fn was_fresh(&self) -> bool {
        self.was_fresh
    }

    /// Why opening took a new actor, if it did.
    pub fn change_at_open(&self) -> Option<ActorChange> {
        self.change_at_open
    }

    /// Binds the directory to a cluster, or confirms it; [`IdentityError::OtherCluster`] if it is bound to a different one. Blocks.
    pub fn join_cluster(&self, cluster_id: [u8; 16]) -> Result<(), IdentityError> {
        let mut record = self.record.lock();
        match record.cluster_id {
            Some(found) if found == cluster_id => Ok(()),
            Some(found) => Err(IdentityError::OtherCluster {
                path: self.files.place(),
                found: hex(&found),
                expected: hex(&cluster_id),
            }),
            None => {
                let joined = IdentityRecord { cluster_id: Some(cluster_id), ..record.clone() };
                write(self.files.as_ref(), &joined)?;
                *record = joined;
                Ok(())
            }
        }
    }

    /// Becomes the node of this name again, whose disk was lost. Durable when this returns. Blocks.
    pub fn take_back(
        &self,
        host_id: HostId,
        nonce: [u8; 32],
        incarnation: u64,
    ) -> Result<(), IdentityError> {
        let mut record = self.record.lock();
        let returned = IdentityRecord { host_id, nonce, incarnation, ..record.clone() };
        write(self.files.as_ref(), &returned)?;
        *record = returned;
        Ok(())
    }

    /// Takes a fresh actor, durable when this returns. Blocks.
    pub fn new_actor(&self, change: ActorChange) -> Result<Actor, IdentityError> {
        self.renew(&mut self.record.lock(), change)
    }

    /// [`Identity::new_actor`], unless `suspect` is the actor no more: whoever noticed the same fault first has done it. Blocks.
    pub fn replace_actor(
        &self,
        suspect: Actor,
        change: ActorChange,
    ) -> Result<Actor, IdentityError> {
        let mut record = self.record.lock();
        if record.actor != suspect {
            return Ok(record.actor);
        }
        self.renew(&mut record, change)
    }

    fn renew(
        &self,
        record: &mut IdentityRecord,
        change: ActorChange,
    ) -> Result<Actor, IdentityError> {
        let renewed =
            IdentityRecord { actor: random_actor(self.random.lock().as_mut()), ..record.clone() };
        write(self.files.as_ref(), &renewed)?;
        tracing::warn!(reason = %change, old = record.actor.0, new = renewed.actor.0, "this replica took a new actor");
        self.actor.store(renewed.actor.0, Ordering::SeqCst);
        *record = renewed;
        Ok(record.actor)
    }

    /// Notes that this run ends in good order: everything is synced, nothing will be minted. Blocks.
    pub fn mark_clean(&self) -> Result<(), IdentityError> {
        let mut record = self.record.lock();
        record.clean = true;
        write(self.files.as_ref(), &record)
    }
}

/// The id of the machine's current boot: it changes exactly when unsynced writes may have been lost with the machine's memory.
pub fn machine_boot_id() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

fn fresh_record(random: &mut dyn Rng) -> IdentityRecord {
    let mut nonce = [0; 32];
    random.fill_bytes(&mut nonce);
    let mut host_id = [0; 16];
    random.fill_bytes(&mut host_id);
    IdentityRecord {
        host_id: HostId(uuid::Builder::from_random_bytes(host_id).into_uuid()),
        nonce,
        actor: random_actor(random),
        incarnation: 0,
        boot_id: String::new(),
        cluster_id: None,
        clean: false,
    }
}

fn random_actor(random: &mut dyn Rng) -> Actor {
    Actor(random.next_u64())
}

fn write(files: &dyn Files, record: &IdentityRecord) -> Result<(), IdentityError> {
    files.replace(IDENTITY_FILE, &record.encode()).map_err(|source| io_error(files, source))
}

fn io_error(files: &dyn Files, source: io::Error) -> IdentityError {
    IdentityError::Io { path: files.place(), source }
}
