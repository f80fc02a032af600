//! Why replicas do not come to hold the same: by who could not do what.
//!
//! Nothing here is lost: a session, a floor or a sweep that fails is tried again in the next round, so these are read by people.

use starling_ring::HostId;
use starling_storage::replica::ReadError;
use starling_storage::{ApplyError, OpenError, StoreError};

use crate::internode::LinkError;

/// Why a question to another replica brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// It did not arrive, or its answer did not.
    #[error("no answer to {question:?}: {source}")]
    Link {
        /// See [`super::RepairRequest::name`].
        question: &'static str,
        /// What became of it.
        source: LinkError,
    },
    /// The replica says that it cannot.
    #[error("{question:?} was refused: {reason}")]
    Refused {
        /// See [`super::RepairRequest::name`].
        question: &'static str,
        /// Its own words.
        reason: String,
    },
    /// What came answers another question, or is not well formed.
    #[error("the answer to {question:?} is not understood; do both nodes run the same release?")]
    NotUnderstood {
        /// See [`super::RepairRequest::name`].
        question: &'static str,
    },
}

/// Why this replica cannot do its part of a comparison. A peer that asked is told so as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    /// It has no name here: a peer's mistake must not cost memory.
    #[error("table {table:#010x} is not known")]
    UnknownTable {
        /// The table.
        table: u32,
    },
    /// The ring has fewer.
    #[error("there is no slot {slot}")]
    NoSlot {
        /// The slot.
        slot: u32,
    },
    /// Another session has begun to read the slot anew.
    #[error("the leaves of slot {slot} are being read")]
    LeavesBeingRead {
        /// The slot.
        slot: u32,
    },
    /// One question must not cost too much.
    #[error("{count} {what}; {max} are answered")]
    TooMany {
        /// Slots, or ranges.
        what: &'static str,
        /// Asked for.
        count: usize,
        /// Answered.
        max: usize,
    },
    /// It may hold less than what the session began with.
    #[error("this node has been started anew since the session began")]
    StartedAnew,
    /// The floors that came with the question, or the question about them.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a comparison with a peer did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The peer did not do its part.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// This replica did not do its own.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The peer's floors cannot be taken over.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// So much changed there that it was never read in one go.
    #[error("{} slots of table {table:#010x} cannot be read, the first is {}", slots.len(), slots[0])]
    Unread {
        /// The table.
        table: u32,
        /// At least one.
        slots: Vec<u32>,
    },
    /// The peer sent a key that it was not asked for.
    #[error("the peer sent a key that was not asked for")]
    NotAskedFor,
    /// The peer may take the same state the next time.
    #[error("a state was sent and not taken: {0}")]
    NotTaken(LinkError),
    /// The peer's states cannot be joined here.
    #[error("cannot apply the peer's states: {0}")]
    Apply(#[from] ApplyError),
}

impl From<ReadError> for SessionError {
    fn from(error: ReadError) -> Self {
        Self::Answer(error.into())
    }
}

/// Why a purge floor does not rise now, or is not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum FloorError {
    /// A member of the group is down or cut off.
    #[error("{host_id} cannot be reached")]
    Unreachable {
        /// The member.
        host_id: HostId,
    },
    /// A member of the group did not do its part.
    #[error("{host_id}: {source}")]
    Member {
        /// The member.
        host_id: HostId,
        /// What became of the question.
        source: AskError,
    },
    /// A floor ahead of a clock would have that node's states refused until it is there.
    #[error("the clocks of the members of a group are {apart_us} us apart")]
    ClocksApart {
        /// By how much.
        apart_us: u64,
    },
    /// What this replica holds says nothing of what was acknowledged.
    #[error("this node has lost writes")]
    LostWrites,
    /// It leads no writes, and promises nothing of them.
    #[error("this node's clock is too far from its peers'")]
    ClockOff,
    /// Some clock is off. Durable once it is taken: a broken clock's would stop this node's at every start.
    #[error("the floor is {ahead_us} us ahead of this node's clock")]
    AheadOfClock {
        /// By how much.
        ahead_us: u64,
    },
    /// What one of the two has led may be missing at the other.
    #[error("this node and {host_id} have not compared so far")]
    NotCompared {
        /// The other.
        host_id: HostId,
    },
    /// They hold writes from below the floor.
    #[error("this node keeps {hints} hints for {host_id}")]
    KeepsHints {
        /// Their target.
        host_id: HostId,
        /// How many.
        hints: u64,
    },
    /// The asking node takes this one for a replica that it is not.
    #[error("slot {slot} has no replica here")]
    NoReplica {
        /// The slot.
        slot: u32,
    },
    /// Only what was promised is adopted.
    #[error("this node has not promised {writes} for slot {slot}")]
    NotPromised {
        /// The slot.
        slot: u32,
        /// The floor.
        writes: u64,
    },
    /// The peer's floors do not fit the ring.
    #[error("the peer's floors are of other slots than the ring's")]
    OtherSlots,
    /// It cannot be kept.
    #[error("cannot note a floor: {0}")]
    Store(#[from] StoreError),
    /// This node has lost memory and cannot note that.
    #[error("cannot note that this node has lost writes: {0}")]
    Forget(#[from] OpenError),
}
