//! What a node knows of itself and its cluster once the cluster exists. Fixed for the life of the
//! process as long as the epoch is.

use std::sync::Arc;

use starling_ring::{ClusterId, ClusterSecret, HostId, Member, NodeIndex, Ring};

use crate::internode::message::{Hello, WIRE_VERSION};

/// See the module.
#[derive(Debug)]
pub struct Local {
    /// This node's id, kept in its data directory.
    pub host_id: HostId,
    /// This node's place in the epoch.
    pub me: NodeIndex,
    /// How often this node has started.
    pub incarnation: u64,
    /// Drawn at this start.
    pub boot_nonce: u64,
    /// The cluster's id: a hash of its first epoch.
    pub cluster_id: ClusterId,
    /// The cluster's name, for people.
    pub cluster_name: String,
    /// Who owns what.
    pub ring: Arc<Ring>,
    /// What the keys of tokens and partitioner derive from.
    pub secret: ClusterSecret,
}

impl Local {
    /// This node's own entry in the epoch.
    #[must_use]
    pub fn member(&self) -> &Member {
        self.ring.member(self.me)
    }

    /// The greeting for the node `meant_for`, from one that is `whole` or not.
    #[must_use]
    pub fn hello(&self, meant_for: HostId, whole: bool) -> Hello {
        Hello {
            wire_version: WIRE_VERSION,
            cluster_id: self.cluster_id,
            host_id: self.host_id,
            meant_for,
            incarnation: self.incarnation,
            boot_nonce: self.boot_nonce,
            epoch: self.ring.epoch().n,
            whole,
        }
    }
}
