//! What nodes say to one another: one kind byte per message, over the frames of the protocol crate.
//!
//! The hot messages (mutate, read, digest and their answers) carry the storage key as the header
//! and the value's encoded state as the operand, both as slices of the receive buffer. All others
//! carry a bincode header. A state is never re-encoded on its way.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_protocol::Frame;
use starling_ring::{Candidate, ClusterId, HostId, gossip};

/// The version of everything in this module; both ends of a connection must have the same.
pub const WIRE_VERSION: u16 = 2;

/// Frame flag: the operand was minted by this very write, so its mint may move the receiver's
/// clock and is refused when it is too far ahead. Absent on repairs and hints.
pub const FRESH: u8 = 1;

/// Frame flag: the operand is the delta of one write, kept as a hint; without this or [`FRESH`] it is made of states that were read.
pub const HINT: u8 = 2;

/// The kind byte of an internode frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Opens a connection; header [`Hello`].
    Hello = 0x40,
    /// Accepts it; header [`Hello`] of the accepting side.
    Welcome = 0x41,
    /// Refuses it; header [`Refusal`].
    Refused = 0x42,
    /// Asks for, and carries, what is known before the cluster exists; header [`Shadow`].
    Shadow = 0x43,
    /// Names a bucket once per connection, before its first mutation; header [`BucketName`].
    Bucket = 0x44,
    /// Join the operand into the key. Answered by `Ack` or `Failed`.
    Mutate = 0x45,
    /// Send the state of the key. Answered by `State`.
    Read = 0x46,
    /// Send the 128-bit digest of the key's state. Answered by `DigestIs`.
    Digest = 0x47,
    /// A client's write for another leader; header = the client's header, operand = its operand, mint = the receiver's uptime in
    /// milliseconds by which it must have begun.
    Forward = 0x48,
    /// Are you there, and what is your clock? Answered by `Pong`.
    Ping = 0x49,
    /// A gossip message; no answer of its own.
    Gossip = 0x4a,
    /// Can you reach this host? header [`HostId`]. Answered by `Probed`.
    Probe = 0x4b,
    /// A question of anti-entropy; header [`crate::repair`]'s. Answered by `Repaired`.
    Repair = 0x4c,
    /// The mutation is durable here.
    Ack = 0x60,
    /// The request failed here; header [`ReplicaError`].
    Failed = 0x61,
    /// The operand is the state; the flag [`ABSENT`] says that there is none. The header is the purge floor of the key's slot, 8 bytes
    /// little-endian.
    State = 0x62,
    /// The operand is the digest, 16 bytes little-endian.
    DigestIs = 0x63,
    /// The answer to `Forward`: a client response header and operand.
    Forwarded = 0x64,
    /// The header is the clock in microseconds, 8 bytes little-endian; mint = the sender's uptime in milliseconds.
    Pong = 0x65,
    /// One header byte: 1 if the host is reachable.
    Probed = 0x66,
    /// The answer to `Repair`.
    Repaired = 0x67,
}

/// Frame flag of [`Kind::State`]: nothing is stored under the key.
pub const ABSENT: u8 = 1;

/// The operand of an answer to [`Kind::Read`], or nothing where the peer has nothing.
#[must_use]
pub fn state_of(frame: &Frame) -> Option<Bytes> {
    (frame.flags & ABSENT == 0).then(|| frame.operand.clone())
}

impl Kind {
    /// The kind of a byte off the wire, if there is one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0x40 => Self::Hello,
            0x41 => Self::Welcome,
            0x42 => Self::Refused,
            0x43 => Self::Shadow,
            0x44 => Self::Bucket,
            0x45 => Self::Mutate,
            0x46 => Self::Read,
            0x47 => Self::Digest,
            0x48 => Self::Forward,
            0x49 => Self::Ping,
            0x4a => Self::Gossip,
            0x4b => Self::Probe,
            0x4c => Self::Repair,
            0x60 => Self::Ack,
            0x61 => Self::Failed,
            0x62 => Self::State,
            0x63 => Self::DigestIs,
            0x64 => Self::Forwarded,
            0x65 => Self::Pong,
            0x66 => Self::Probed,
            0x67 => Self::Repaired,
            _ => return None,
        })
    }
}

/// The first header in each direction of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`WIRE_VERSION`] of the sender.
    pub wire_version: u16,
    /// The cluster the sender belongs to.
    pub cluster_id: ClusterId,
    /// Who is speaking.
    pub host_id: HostId,
    /// Who is meant; a node with another id answers [`Refusal::WrongHost`].
    pub meant_for: HostId,
    /// The sender's incarnation: how often it has started.
    pub incarnation: u64,
    /// Drawn at each start, to tell a cloned disk from a restart.
    pub boot_nonce: u64,
    /// The highest ring epoch the sender has.
    pub epoch: u64,
    /// Whether the sender holds every write that it acknowledged: gossip says so too, a moment later.
    pub whole: bool,
}

/// Why a connection was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The other side speaks another version.
    #[error("it speaks wire version {theirs}")]
    WireVersion {
        /// The refusing side's version.
        theirs: u16,
    },
    /// The two belong to different clusters.
    #[error("it belongs to cluster {theirs}")]
    WrongCluster {
        /// The refusing side's cluster.
        theirs: ClusterId,
    },
    /// Another node answers at this address.
    #[error("host {actual} answers at that address")]
    WrongHost {
        /// Who answered.
        actual: HostId,
    },
    /// The speaker is not a member of the cluster.
    #[error("it does not count {host_id} among the cluster's members")]
    NotAMember {
        /// The refused speaker.
        host_id: HostId,
    },
    /// The cluster does not exist yet.
    #[error("it has not joined a cluster yet")]
    NotReady,
}

/// What a node knows before, and of, the creation of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// [`WIRE_VERSION`] of the sender.
    pub wire_version: u16,
    /// The sender itself.
    pub me: Option<Candidate>,
    /// Every seed the sender knows of, itself included.
    pub candidates: Vec<Candidate>,
    /// The cluster, if the sender has already committed its first epoch.
    pub cluster_id: Option<ClusterId>,
    /// The highest incarnation in which the sender met the node at the asking address; 0 for none.
    pub met_incarnation: u64,
}

/// Binds a bucket's id to its name for the rest of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketName {
    /// The table id that storage keys carry.
    pub id: u32,
    /// `keyspace.bucket`.
    pub name: String,
}

/// Gossip travels as it is.
pub type GossipMessage = gossip::Message;

/// Why a replica did not do what it was asked. Nothing was applied, unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// Too much is queued there.
    #[error("the replica is overloaded")]
    Overloaded,
    /// The write's clock is too far ahead of the replica's.
    #[error("the write is {ahead_us} us ahead of the replica's clock")]
    ClockSkew {
        /// By how much.
        ahead_us: u64,
    },
    /// The operand did not decode or its checksum was wrong.
    #[error("the operand is damaged")]
    Damaged,
    /// The bucket was not named on this connection, or its id means another name there.
    #[error("the bucket is not known: {reason}")]
    Bucket {
        /// What the registry said.
        reason: String,
    },
    /// The store failed.
    #[error("the store failed: {reason}")]
    Store {
        /// What the store said.
        reason: String,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    ShuttingDown,
    /// The replica lost writes and is being rebuilt: what it does not have says nothing.
    #[error("the replica lost writes and is being rebuilt")]
    Rebuilding,
    /// The request was not understood.
    #[error("the request was not understood")]
    BadRequest,
    /// It was made before what it may lack was forgotten here: it could bring back what was deleted.
    #[error("it comes too late: made at {mint}, and from before {floor} nothing is taken any more")]
    Late {
        /// When it was made.
        mint: u64,
        /// What it would have to reach.
        floor: u64,
    },
    /// The replica's disk is nearly full. Nothing was applied.
    #[error("the replica's disk is nearly full")]
    DiskFull,
}
