//! What clients and nodes say to one another: one bincode header each way, inside a [`crate::Frame`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::WireError;
use crate::level::Level;
use crate::token::ContextToken;

/// The version of the messages in this module.
pub const WIRE_VERSION: u16 = 1;

/// Kind bytes of the native protocol's frames. Those from 0x40 up belong to the nodes.
pub mod kind {
    /// The header is a [`super::Request`].
    pub const REQUEST: u8 = 1;
    /// The header is a [`super::Response`].
    pub const RESPONSE: u8 = 2;
}

/// From a client. The frame's operand is the value of a put, empty otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Must come first. Answered by `Response::Hello`.
    Hello {
        /// [`WIRE_VERSION`] of the client.
        wire_version: u16,
        /// Name and version of the client, for the log.
        client: String,
    },
    /// Opens, and makes if need be, the bucket `keyspace.bucket` for this connection.
    OpenBucket {
        /// `keyspace.bucket`.
        name: String,
    },
    /// Reads a key.
    Get {
        /// From `BucketOpened`.
        bucket: u32,
        /// 1 to 65,535 bytes.
        key: Bytes,
        /// How many replicas must agree.
        level: Level,
        /// The answer must have seen this.
        floor: Option<ContextToken>,
    },
    /// Stores the frame's operand.
    Put {
        /// From `BucketOpened`.
        bucket: u32,
        /// 1 to 65,535 bytes.
        key: Bytes,
        /// How many replicas must have it.
        level: Level,
        /// What the put replaces; without one it stands beside whatever is there.
        context: Option<ContextToken>,
        /// Drawn by the client, the same for every retry of this put.
        operation: [u8; 16],
    },
    /// Deletes what the context covers.
    ///
    /// No write says "whatever is there": a request that lay in a socket buffer while its node was
    /// stopped would remove what was written in the meantime.
    Delete {
        /// From `BucketOpened`.
        bucket: u32,
        /// 1 to 65,535 bytes.
        key: Bytes,
        /// How many replicas must have it.
        level: Level,
        /// What the delete removes.
        context: ContextToken,
        /// Drawn by the client, the same for every retry of this delete.
        operation: [u8; 16],
    },
    /// Asks who owns what.
    Topology,
    /// Asks how the node sees the cluster.
    Status,
    /// An operator's word that what the node and its peers hold is all there is: a node that lost writes serves again.
    /// Answered by `Response::Status`.
    AcceptLoss,
    /// Makes a snapshot of what the node holds. Answered by `Response::Snapshots` with it alone.
    CreateSnapshot {
        /// 1 to 64 letters, digits, dots, dashes and underscores; no dot first.
        name: String,
    },
    /// Asks for the node's snapshots. Answered by `Response::Snapshots`.
    Snapshots,
    /// Joins a state, the operand, into what the cluster has of the key. Answered by `Response::Restored`.
    Restore {
        /// From `BucketOpened`.
        bucket: u32,
        /// 1 to 65,535 bytes.
        key: Bytes,
        /// How many replicas must have it.
        level: Level,
    },
}

/// From a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// The node greets.
    Hello {
        /// The cluster.
        cluster_id: [u8; 16],
        /// Its name.
        cluster: String,
        /// The node.
        host_id: Uuid,
        /// The ring epoch it has.
        epoch: u64,
        /// The largest frame it takes, in bytes.
        max_frame: u32,
        /// The largest value it takes, in bytes.
        max_value: u32,
    },
    /// The bucket can be used on this connection.
    BucketOpened {
        /// The id to use in requests; the same on every node.
        bucket: u32,
        /// The part of the name before the dot.
        keyspace: String,
        /// Whether the last write wins in it.
        lww: bool,
    },
    /// What is stored. The operand is the siblings one after another, newest first.
    Value {
        /// The length of each sibling.
        sibling_lens: Vec<u32>,
        /// To be passed to the next put.
        context: ContextToken,
    },
    /// The write is as durable as its level says.
    Written {
        /// The context of this write: what replaces it, and nothing it did not see.
        context: ContextToken,
    },
    /// Who owns what.
    Topology(TopologyView),
    /// How the node sees the cluster.
    Status(StatusView),
    /// The request failed.
    Error(WireError),
    /// The node's snapshots, by name.
    Snapshots(Vec<SnapshotView>),
    /// Enough replicas hold the restored state.
    Restored,
}

/// The ring as clients need it to route by token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopologyView {
    /// The ring epoch.
    pub epoch: u64,
    /// log2 of the number of slots.
    pub slot_bits: u8,
    /// The owner of each slot, an index into `members`.
    pub slots: Vec<u16>,
    /// All members, by host id.
    pub members: Vec<MemberView>,
    /// All keyspaces.
    pub keyspaces: Vec<KeyspaceView>,
    /// The key of the SipHash partitioner.
    pub sip_key: [u8; 16],
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub host_id: Uuid,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    /// Where its peers reach it.
    pub internode_address: SocketAddr,
    /// Its datacenter.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
    /// How the answering node sees it.
    pub status: Status,
}

/// One keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyspaceView {
    /// Its name.
    pub name: String,
    /// Where its replicas go.
    pub strategy: StrategyView,
    /// Whether it is placed by Murmur3 instead of SipHash.
    pub murmur3: bool,
    /// Its buckets in which the last write wins.
    pub lww_buckets: Vec<String>,
}

/// Where replicas go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyView {
    /// On the next distinct nodes of the ring.
    Simple {
        /// How many.
        replication_factor: u8,
    },
    /// So many in each datacenter, over distinct racks first.
    NetworkTopology {
        /// How many in each.
        datacenters: BTreeMap<String, u8>,
    },
}

/// A snapshot of what one node held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its name.
    pub name: String,
    /// Where it is, on the node's machine.
    pub directory: String,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What its files take. They share disk with the node's until it rewrites those.
    pub bytes: u64,
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: [u8; 16],
    /// The ring epoch.
    pub epoch: u64,
    /// Who answers.
    pub node: Uuid,
    /// All members, by host id.
    pub nodes: Vec<NodeStatus>,
    /// Writes the answering node owes to others.
    pub hints_pending: u64,
    /// Requests that the answering node is working on.
    pub requests_in_flight: u64,
    /// How many slots have how many of their replicas up.
    pub slots: SlotHealth,
    /// How far the answering node's data is from that of its peers.
    pub repair: RepairView,
}

/// How far one node's data is from that of its peers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairView {
    /// Whether the node lost writes and answers no reads before it has them back.
    pub rebuilding: bool,
    /// The node and each of the others, by host id.
    pub pairs: Vec<PairView>,
}

/// One pair of nodes that compare what they hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairView {
    /// The other node.
    pub peer: Uuid,
    /// How long ago everything that differed at some moment had been exchanged, in milliseconds. None if not since the node's start.
    pub agreed_ms_ago: Option<u64>,
    /// Keys found to differ and not yet exchanged.
    pub behind_keys: u64,
    /// The bytes of their values, about.
    pub behind_bytes: u64,
    /// Slots that the comparison under way has done, of all tables.
    pub slots_done: u64,
    /// Of so many; 0 while none is under way.
    pub slots_total: u64,
}

/// Slots of all keyspaces by how many of their replicas are up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHealth {
    /// All of them.
    pub full: u64,
    /// A quorum, and not all.
    pub degraded: u64,
    /// Fewer than a quorum.
    pub below_quorum: u64,
}

impl SlotHealth {
    /// How many slots there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.full + self.degraded + self.below_quorum
    }
}

/// One member as another sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id.
    pub host_id: Uuid,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Its datacenter.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
    /// Its state.
    pub status: Status,
    /// The share of all data of which it holds a replica, 0 to 1.
    pub owns: f64,
    /// For how long it has been down, in milliseconds.
    pub down_for_ms: Option<u64>,
    /// Writes that the answering node keeps for it.
    pub hints_pending: u64,
    /// Their bytes.
    pub hints_pending_bytes: u64,
}

/// What one node believes of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It answers.
    Up,
    /// It has been silent for a moment.
    Suspect,
    /// Others reach it, this node does not.
    Unreachable,
    /// Nobody reaches it.
    Down,
    /// It is not a full member yet.
    Joining,
    /// It lost writes, and answers no reads before its peers have given them back.
    Rebuilding,
}
