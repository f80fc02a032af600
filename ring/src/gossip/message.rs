//! What gossiping nodes send. Nodes are named by their place in the epoch that both must share.

use serde::{Deserialize, Serialize};

use super::state::Key;
use crate::ClusterId;

/// What two nodes must agree on before they believe one another's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The version of these messages.
    pub wire_version: u16,
    /// log2 of the number of slots.
    pub slot_bits: u8,
    /// The epoch whose member list the digests follow.
    pub epoch: u64,
}

/// How far a node has read another: about five bytes on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The low byte of the incarnation.
    pub incarnation_lo: u8,
    /// The low half of the heartbeat.
    pub heartbeat_lo: u16,
    /// The highest version read.
    pub version: u32,
}

/// One step of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// How far I have read everybody.
    Syn {
        /// What must agree.
        shared: Shared,
        /// By place in the epoch.
        digests: Vec<Digest>,
    },
    /// What you lack, and how far I have read.
    SynAck {
        /// What must agree.
        shared: Shared,
        /// By place in the epoch.
        digests: Vec<Digest>,
        /// What the other lacks.
        delta: Delta,
    },
    /// What you lack.
    Ack {
        /// What must agree.
        shared: Shared,
        /// What the other lacks.
        delta: Delta,
    },
}

/// States, of several nodes, from some version on.
pub type Delta = Vec<NodeDelta>;

/// One node's state from some version on, its values by rising version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDelta {
    /// The node's place in the epoch.
    pub index: u16,
    /// Its incarnation.
    pub incarnation: u64,
    /// Its nonce in that incarnation.
    pub boot_nonce: u64,
    /// Its heartbeat.
    pub heartbeat: u32,
    /// (key, version, value).
    pub values: Vec<(Key, u32, Vec<u8>)>,
}

impl NodeDelta {
    /// About how many bytes it takes on the wire.
    pub(super) fn size(&self) -> usize {
        32 + self.values.iter().map(|(_, _, value)| value.len() + 12).sum::<usize>()
    }
}
