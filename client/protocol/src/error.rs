//! Errors as they travel to clients: each with a stable code, what it means for a write, and what
//! to do about it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a failed request may have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Surely nothing: safe to repeat, or to give up.
    NotDone,
    /// It may have been applied, or may yet be.
    Unknown,
}

/// A replica that the node takes for down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownReplica {
    /// Where clients would reach it.
    pub address: SocketAddr,
    /// For how long, in milliseconds.
    pub for_ms: u64,
}

/// Why a node did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Too few replicas are up for the level.
    #[error("unavailable: {level} needs {required} replicas, {alive} {} up{}", is_are(*alive), Listed(down))]
    Unavailable {
        /// The level.
        level: String,
        /// Replicas needed.
        required: u8,
        /// Replicas up.
        alive: u8,
        /// The key's replicas that are not.
        down: Vec<DownReplica>,
    },
    /// Too few replicas answered in time.
    #[error("timeout: {received} of {required} replicas answered in time")]
    Timeout {
        /// Answers received.
        received: u8,
        /// Answers needed.
        required: u8,
        /// Whether it was a write.
        write: bool,
    },
    /// Replicas that were up failed or were lost while they were read.
    #[error("read failed: {received} of {required} replicas answered, {failed} failed")]
    ReadFailed {
        /// Answers received.
        received: u8,
        /// Answers needed.
        required: u8,
        /// Replicas that failed.
        failed: u8,
    },
    /// Replicas refused or were lost after the write had begun.
    #[error("write failed: {received} of {required} replicas took it, {failed} failed")]
    WriteFailed {
        /// Acknowledgements received.
        received: u8,
        /// Acknowledgements needed.
        required: u8,
        /// Replicas that failed.
        failed: u8,
    },
    /// No replica of the key can lead the write at present.
    #[error("no replica of the key can lead the write: {reason}")]
    NoLeader {
        /// Why the candidates cannot.
        reason: String,
    },
    /// The write was handed to a replica, which gave no answer.
    #[error("the replica that led the write gave no answer in time")]
    LeaderLost,
    /// The node has reached a limit.
    #[error("overloaded: {reason}")]
    Overloaded {
        /// Which limit.
        reason: String,
    },
    /// The node has not joined a cluster yet.
    #[error("not ready: waiting for {}", waiting_for.join(", "))]
    NotReady {
        /// What it waits for.
        waiting_for: Vec<String>,
    },
    /// The request was not understood.
    #[error("bad request: {message}")]
    BadRequest {
        /// What is wrong with it.
        message: String,
    },
    /// The key is empty or too long.
    #[error("the key has {len} bytes; 1 to {max} are accepted")]
    KeyTooLarge {
        /// Bytes given.
        len: u64,
        /// Bytes accepted.
        max: u64,
    },
    /// The value is too long.
    #[error("the value has {len} bytes; at most {max} are accepted")]
    ValueTooLarge {
        /// Bytes given.
        len: u64,
        /// Bytes accepted.
        max: u64,
    },
    /// The key with all its siblings would be too large.
    #[error("the key would have {len} bytes with all its siblings; at most {max} are accepted")]
    ObjectTooLarge {
        /// Bytes there would be.
        len: u64,
        /// Bytes accepted.
        max: u64,
    },
    /// The key has as many siblings as it may.
    #[error("the key would have {count} siblings; at most {max} are accepted")]
    TooManySiblings {
        /// Siblings there would be.
        count: u32,
        /// Siblings accepted.
        max: u32,
    },
    /// No such keyspace.
    #[error("there is no keyspace {name:?}")]
    UnknownKeyspace {
        /// The name asked for.
        name: String,
    },
    /// The name cannot name a bucket.
    #[error("{name:?} cannot name a bucket: {reason}")]
    BadBucketName {
        /// The name given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The bucket was not opened on this connection.
    #[error("bucket {id:#010x} was not opened on this connection")]
    UnknownBucket {
        /// The id used.
        id: u32,
    },
    /// No more buckets can be made on first use.
    #[error("there are {max} buckets already")]
    TooManyBuckets {
        /// Buckets accepted.
        max: u32,
    },
    /// Two names share one table id.
    #[error("the bucket {name:?} shares its table id with {other:?}")]
    BucketIdCollision {
        /// The name asked for.
        name: String,
        /// The name that has the id.
        other: String,
    },
    /// The context is forged, damaged, or of another key or cluster.
    #[error("the causal context is not accepted: {reason}")]
    BadContext {
        /// What is wrong with it.
        reason: String,
    },
    /// The replicas that answered have not seen the floor yet.
    #[error("the replicas that answered have not seen the given context yet")]
    FloorNotMet,
    /// The context of a write is dated too far in the future.
    #[error("clock skew: the context is dated {ahead_ms} ms ahead of the node's clock")]
    ClockSkew {
        /// By how much.
        ahead_ms: u64,
    },
    /// Known, but not built yet.
    #[error("{what} is not supported yet")]
    NotSupportedYet {
        /// What is not.
        what: String,
    },
    /// The level asks for more replicas than the keyspace keeps.
    #[error("the level needs {required} replicas; the keyspace keeps {replication_factor}")]
    NotEnoughReplicas {
        /// Replicas needed.
        required: u8,
        /// Replicas kept.
        replication_factor: u8,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
    /// The disk of the replica that would lead the write is nearly full.
    #[error("the disk of the replica that would lead the write is nearly full")]
    DiskFull,
    /// The node has no snapshot to show for it.
    #[error("no snapshot: {reason}")]
    Snapshot {
        /// Why not, and what to do.
        reason: String,
    },
    /// The node failed; a write's outcome is unknown.
    #[error("the node failed: {message}")]
    Internal {
        /// What it said.
        message: String,
    },
}

/// Replicas that are down, as the end of a sentence.
struct Listed<'a>(&'a [DownReplica]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, DownReplica { address, for_ms }) in self.0.iter().enumerate() {
            let before = if index == 0 { "; down: " } else { ", " };
            let held = Duration::from_millis(*for_ms).as_secs();
            write!(f, "{before}{address} ({held} s)")?;
        }
        Ok(())
    }
}

fn is_are(count: u8) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

impl WireError {
    /// The stable code. S1: availability; S2: the request; S3: causality and clocks; S4: snapshots; S9: the node.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "S101",
            Self::Unavailable { .. } => "S102",
            Self::Timeout { .. } => "S103",
            Self::WriteFailed { .. } => "S104",
            Self::Overloaded { .. } => "S105",
            Self::ShuttingDown => "S106",
            Self::NoLeader { .. } => "S107",
            Self::LeaderLost => "S109",
            Self::ReadFailed { .. } => "S110",
            Self::DiskFull => "S111",
            Self::BadRequest { .. } => "S201",
            Self::KeyTooLarge { .. } => "S202",
            Self::ValueTooLarge { .. } => "S203",
            Self::UnknownKeyspace { .. } => "S204",
            Self::BadBucketName { .. } => "S205",
            Self::UnknownBucket { .. } => "S206",
            Self::TooManyBuckets { .. } => "S207",
            Self::BucketIdCollision { .. } => "S208",
            Self::NotSupportedYet { .. } => "S209",
            Self::NotEnoughReplicas { .. } => "S210",
            Self::TooManySiblings { .. } => "S301",
            Self::BadContext { .. } => "S302",
            Self::FloorNotMet => "S303",
            Self::ClockSkew { .. } => "S304",
            Self::ObjectTooLarge { .. } => "S305",
            Self::Snapshot { .. } => "S401",
            Self::Internal { .. } => "S901",
        }
    }

    /// What the request may have done.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout { write: true, .. }
            | Self::WriteFailed { .. }
            | Self::LeaderLost
            | Self::Internal { .. } => Outcome::Unknown,
            _ => Outcome::NotDone,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "start the nodes it waits for, or look at its log",
            Self::Unavailable { .. } => "look at `starling status`, or retry at a lower level",
            Self::Timeout { write: false, .. } | Self::ReadFailed { .. } => {
                "look at `starling status`, or retry"
            }
            Self::Timeout { .. } | Self::WriteFailed { .. } | Self::LeaderLost => {
                "read the key, then decide: a repeated put may stand beside the first"
            }
            Self::Overloaded { .. } => "retry after a pause, or send less at once",
            Self::ShuttingDown => "retry on another node",
            Self::NoLeader { .. } => {
                "retry after a pause; look at `starling status` and at the nodes' clocks"
            }
            Self::BadRequest { .. } => "check the versions of client and node",
            Self::KeyTooLarge { .. } => "use a key of the accepted size",
            Self::ValueTooLarge { .. } => {
                "split the value, or raise limits.value_max in the configuration"
            }
            Self::UnknownKeyspace { .. } => "use a keyspace of the cluster's configuration",
            Self::BadBucketName { .. } => "name buckets keyspace.bucket",
            Self::UnknownBucket { .. } => "open the bucket on this connection first",
            Self::TooManyBuckets { .. } => "use fewer buckets and longer keys",
            Self::BucketIdCollision { .. } => "choose another bucket name",
            Self::NotSupportedYet { .. } => "use another level or request",
            Self::NotEnoughReplicas { .. } => "use a lower level, or a keyspace with more replicas",
            Self::TooManySiblings { .. } | Self::ObjectTooLarge { .. } => {
                "read the key, and put with the context you got"
            }
            Self::BadContext { .. } => {
                "copy all of what a read or write of this very key printed as its context"
            }
            Self::FloorNotMet => "retry, or read at a higher level",
            Self::ClockSkew { .. } => "check that the nodes' clocks are synchronised",
            Self::DiskFull => "free space on the nodes' disks, or lower disk_reserve",
            Self::Snapshot { .. } => "as it says, or look at the node's log",
            Self::Internal { .. } => "look at the node's log",
        }
    }
}
