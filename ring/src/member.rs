//! Nodes as members of a cluster: their names, addresses and places.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A node's name for life: drawn when its data directory is made, never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostId(pub Uuid);

impl fmt::Display for HostId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for HostId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// A cluster's name for life: the first half of the hash of its first epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// A member's place in its epoch's list of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeIndex(pub u16);

/// A node that owns a part of the ring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub host_id: HostId,
    /// Where other nodes reach it.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    /// Its datacenter.
    pub datacenter: String,
    /// Its rack within the datacenter: what fails together.
    pub rack: String,
}

/// A node that may found a cluster, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Its name.
    pub host_id: HostId,
    /// Where other nodes reach it; one of the seeds.
    pub address: SocketAddr,
    /// Where clients reach it.
    pub client_address: SocketAddr,
    /// Its datacenter.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
    /// Drawn with its name: its share of the cluster's secret.
    pub nonce: [u8; 32],
    /// The hash of all configuration that founders must agree on.
    pub config_hash: [u8; 32],
    /// The hash of the seed list it was given: founders have the same. A member may be given another later.
    pub seeds_hash: [u8; 32],
}

impl Candidate {
    /// What the candidate is once the cluster is founded.
    #[must_use]
    pub fn to_member(&self) -> Member {
        Member {
            host_id: self.host_id,
            address: self.address,
            client_address: self.client_address,
            datacenter: self.datacenter.clone(),
            rack: self.rack.clone(),
        }
    }
}
