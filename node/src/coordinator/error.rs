//! Why a coordinated request failed, and whether it may have taken effect.

use starling_protocol::DownReplica;
use starling_ring::{ConsistencyError, ConsistencyLevel};

use super::quorum::Tally;

/// The failure of a read or a write. `Timeout`, `WriteFailed`, `LeaderLost` and `Store` leave the
/// outcome of a write unknown; every other variant says that nothing was done.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too few replicas are up; nothing was sent.
    #[error("{level} needs {} replicas, {} are up", tally.required, tally.received)]
    Unavailable {
        /// The level asked for.
        level: ConsistencyLevel,
        /// Required, and alive in place of received.
        tally: Tally,
        /// The replicas that are not reached.
        down: Vec<DownReplica>,
    },
    /// The deadline passed before enough replicas answered.
    #[error("{} of {} replicas answered in time", tally.received, tally.required)]
    Timeout {
        /// Required and received.
        tally: Tally,
        /// Whether it was a write, whose outcome is then unknown.
        write: bool,
    },
    /// Too many replicas failed, refused or were lost while they were read.
    #[error("{} of {} replicas answered, {} failed", tally.received, tally.required, tally.failed)]
    ReadFailed {
        /// Required, received and failed.
        tally: Tally,
    },
    /// Too many replicas failed or refused after the write had begun.
    #[error("{} of {} replicas took the write, {} failed", tally.received, tally.required, tally.failed)]
    WriteFailed {
        /// Required, received and failed.
        tally: Tally,
    },
    /// Too much is in flight or queued; nothing was done.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// Which limit.
        reason: &'static str,
    },
    /// The level cannot be used like this.
    #[error(transparent)]
    Level(#[from] ConsistencyError),
    /// No such keyspace.
    #[error("there is no keyspace {name:?}")]
    UnknownKeyspace {
        /// The name asked for.
        name: String,
    },
    /// The key is empty or too long.
    #[error("the key has {len} bytes; 1 to {max} are accepted")]
    KeySize {
        /// Bytes given.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// The value is too long.
    #[error("the value has {len} bytes; at most {max} are accepted")]
    ValueTooLarge {
        /// Bytes given.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// The key with all its siblings would be too large.
    #[error("the key would have {len} bytes with all its siblings; at most {max} are accepted")]
    ObjectTooLarge {
        /// Bytes there would be.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// The key already has as many siblings as it may.
    #[error("the key would have {count} siblings; at most {max} are accepted")]
    TooManySiblings {
        /// Siblings there would be.
        count: usize,
        /// Siblings accepted.
        max: usize,
    },
    /// The token was forged, is of another key or cluster, or is damaged.
    #[error("the causal context is not accepted: {reason}")]
    BadContext {
        /// What is wrong with it.
        reason: String,
    },
    /// The disk of the replica that would lead is nearly full: not done.
    #[error("the disk of the replica that would lead the write is nearly full")]
    DiskFull,
    /// Not the encoding of a state.
    #[error("the state is not accepted: {reason}")]
    BadState {
        /// Why.
        reason: String,
    },
    /// All reachable replicas together have not seen what the floor demands.
    #[error("the replicas that answered have not seen the given context yet")]
    FloorNotMet,
    /// The context of a write is dated too far in the future: some clock is off.
    #[error("clock skew: the context is dated {ahead_us} us ahead of this node's clock")]
    ClockSkew {
        /// By how much.
        ahead_us: u64,
    },
    /// No replica of the key can lead a write at present.
    #[error("no replica of the key can lead the write: {reason}")]
    NoLeader {
        /// Why the candidates cannot.
        reason: String,
    },
    /// A write was handed to a replica, which gave no answer.
    #[error("the replica that led the write gave no answer in time")]
    LeaderLost,
    /// The local store failed; a write's outcome is unknown.
    #[error("the store failed: {reason}")]
    Store {
        /// What the store said.
        reason: String,
    },
}
