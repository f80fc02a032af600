//! What gossiping nodes send. Nodes are named by their place in the epoch that both must share, so
//! that a digest of a thousand nodes takes about 5 KB.

use serde::{Deserialize, Serialize};

use super::state::{Key, VALUE_BYTES_MAX};
use crate::ClusterId;

/// No message carries more bytes of states than this; the rest follows with later exchanges.
pub const DELTA_BYTES_MAX: usize = 64 * 1024;

/// What two nodes must agree on before they believe one another's states. The partitioners are not
/// here because the cluster id is a hash over them.
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

/// One start of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// How often the node has started.
    pub incarnation: u64,
    /// Drawn at that start: two nonces in one incarnation are two nodes.
    pub nonce: u64,
}

/// How far a node has read another: five bytes on the wire at low versions.
///
/// The low parts suffice: heartbeats are compared within one version only, which ends after
/// some thousand of them; and a reader that seems to be ahead because it is
/// more than 127 starts behind shows itself by telling an old incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u8, [u8; 2], u32)", into = "(u8, [u8; 2], u32)")]
pub struct Digest {
    /// The low byte of the incarnation.
    pub incarnation_lo: u8,
    /// The low half of the heartbeat.
    pub heartbeat_lo: u16,
    /// The highest version read; 0 if nothing is known of the node, whatever the rest says.
    pub version: u32,
}

impl From<(u8, [u8; 2], u32)> for Digest {
    fn from((incarnation_lo, heartbeat_lo, version): (u8, [u8; 2], u32)) -> Self {
        Self { incarnation_lo, heartbeat_lo: u16::from_le_bytes(heartbeat_lo), version }
    }
}

impl From<Digest> for (u8, [u8; 2], u32) {
    fn from(digest: Digest) -> Self {
        // Bytes, because a variable-length integer would take three for most heartbeats.
        (digest.incarnation_lo, digest.heartbeat_lo.to_le_bytes(), digest.version)
    }
}

/// One step of an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// How far I have read everybody.
    Syn {
        /// What must agree.
        shared: Shared,
        /// Which start of the sender speaks: a third party tells a clone of it by this.
        boot: Boot,
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
    /// What you lack. Also sent unasked, with what is urgent.
    Ack {
        /// What must agree.
        shared: Shared,
        /// What the other lacks.
        delta: Delta,
    },
}

impl Message {
    /// What the sender takes for agreed.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        match self {
            Self::Syn { shared, .. } | Self::SynAck { shared, .. } | Self::Ack { shared, .. } => {
                shared
            }
        }
    }
}

/// States, of several nodes, from some version on.
pub type Delta = Vec<NodeDelta>;

/// One node's state from some version on.
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
    /// Everything after this version is here. A reader that has not come so far must not skip.
    pub after: u32,
    /// How far its reader has then come.
    pub version: u32,
    /// (key, version, value), by key.
    pub values: Vec<(Key, u32, Vec<u8>)>,
}

impl NodeDelta {
    /// The most bytes that it takes on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        const REST_MAX: usize = 48;
        const VALUE_REST_MAX: usize = 16;
        REST_MAX
            + self.values.iter().map(|(_, _, value)| value.len() + VALUE_REST_MAX).sum::<usize>()
    }

    /// Whether a peer that follows the protocol can have sent this.
    pub(super) fn is_sound(&self) -> bool {
        let in_order = |one: &(Key, u32, Vec<u8>), other: &(Key, u32, Vec<u8>)| one.0 < other.0;
        self.incarnation > 0
            && self.after < self.version
            && self.values.is_sorted_by(in_order)
            && self.values.iter().all(|(_, version, value)| {
                *version > self.after && *version <= self.version && value.len() <= VALUE_BYTES_MAX
            })
    }
}
