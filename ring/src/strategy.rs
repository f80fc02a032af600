//! Where the replicas of a slot go: Cassandra's two walks around the ring.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Member, NodeIndex};

/// How many replicas a keyspace has, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationStrategy {
    /// The next distinct nodes clockwise, wherever they are.
    Simple {
        /// How many.
        replication_factor: u8,
    },
    /// So many in each datacenter, over distinct racks first, as Cassandra's
    /// `NetworkTopologyStrategy` (CASSANDRA-3831).
    NetworkTopology {
        /// How many in each datacenter.
        datacenters: BTreeMap<String, u8>,
    },
}

impl ReplicationStrategy {
    /// Replicas of each key, over all datacenters.
    #[must_use]
    pub fn replication_factor(&self) -> u8 {
        match self {
            Self::Simple { replication_factor } => *replication_factor,
            Self::NetworkTopology { datacenters } => {
                datacenters.values().fold(0, |sum, factor| sum.saturating_add(*factor))
            }
        }
    }

    /// The replicas of a slot, given the slots' owners clockwise from its own. Fewer than the
    /// replication factor only where there are fewer nodes.
    pub fn replicas(
        &self,
        owners_clockwise: impl Iterator<Item = NodeIndex>,
        members: &[Member],
    ) -> Vec<NodeIndex> {
        match self {
            Self::Simple { replication_factor } => {
                simple(owners_clockwise, usize::from(*replication_factor).min(members.len()))
            }
            Self::NetworkTopology { datacenters } => {
                network_topology(owners_clockwise, members, datacenters)
            }
        }
    }
}

fn simple(owners: impl Iterator<Item = NodeIndex>, wanted: usize) -> Vec<NodeIndex> {
    let mut replicas = Vec::with_capacity(wanted);
    for owner in owners {
        if replicas.len() == wanted {
            break;
        }
        if !replicas.contains(&owner) {
            replicas.push(owner);
        }
    }
    replicas
}

/// How far the walk has come within one datacenter (`DatacenterEndpoints` in Cassandra 4).
struct Walk {
    left: usize,
    racks_seen: BTreeSet<String>,
    /// Where there are fewer racks than replicas, so many racks may be used again: by the first
    /// nodes met.
    repeats_left: usize,
}

fn network_topology(
    owners: impl Iterator<Item = NodeIndex>,
    members: &[Member],
    datacenters: &BTreeMap<String, u8>,
) -> Vec<NodeIndex> {
    let mut walks: BTreeMap<&str, Walk> = datacenters
        .iter()
        .map(|(name, factor)| (name.as_str(), Walk::new(name, usize::from(*factor), members)))
        .collect();
    let total: usize = walks.values().map(|walk| walk.left).sum();
    let mut replicas: Vec<NodeIndex> = Vec::with_capacity(total);
    for owner in owners {
        if replicas.len() == total {
            break;
        }
        let member = &members[usize::from(owner.0)];
        if let Some(walk) = walks.get_mut(member.datacenter.as_str())
            && !replicas.contains(&owner)
            && walk.takes(&member.rack)
        {
            replicas.push(owner);
        }
    }
    replicas
}

impl Walk {
    fn new(datacenter: &str, factor: usize, members: &[Member]) -> Self {
        let here = || members.iter().filter(|member| member.datacenter == datacenter);
        let racks: BTreeSet<&str> = here().map(|member| member.rack.as_str()).collect();
        Self {
            left: factor.min(here().count()),
            racks_seen: BTreeSet::new(),
            repeats_left: factor.saturating_sub(racks.len()),
        }
    }

    /// Whether a node of `rack`, met for the first time, becomes a replica.
    fn takes(&mut self, rack: &str) -> bool {
        if self.left == 0 {
            return false;
        }
        if self.racks_seen.contains(rack) {
            if self.repeats_left == 0 {
                return false;
            }
            self.repeats_left -= 1;
        } else {
            self.racks_seen.insert(rack.to_owned());
        }
        self.left -= 1;
        true
    }
}
