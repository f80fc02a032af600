//! The epoch made ready for use: replicas of every slot, computed once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{
    BucketMode, Epoch, HostId, Keyspace, Member, NodeIndex, Partitioner, PartitionerKind,
    ReplicationStrategy, SlotGrid, Token,
};

/// Who owns what in one epoch.
#[derive(Debug)]
pub struct Ring {
    epoch: Arc<Epoch>,
    by_host: BTreeMap<HostId, NodeIndex>,
    placements: BTreeMap<String, Placement>,
}

/// Where one keyspace's keys live.
#[derive(Debug)]
pub struct Placement {
    keyspace: Keyspace,
    partitioner: Partitioner,
    grid: SlotGrid,
    replicas: Vec<Box<[NodeIndex]>>,
    per_datacenter: BTreeMap<String, u8>,
}

impl Ring {
    /// The ring of a decided epoch; `sip_key` keys the SipHash partitioner.
    ///
    /// # Panics
    /// On an epoch that could not have been decided: slots that do not fit its grid or members.
    #[must_use]
    pub fn new(epoch: Arc<Epoch>, sip_key: [u8; 16]) -> Self {
        let grid = SlotGrid::new(epoch.slot_bits).expect("a decided epoch has a valid grid");
        assert_eq!(epoch.slots.len(), grid.count() as usize, "every slot has an owner");
        let by_host = epoch.members.iter().map(|member| member.host_id).zip((0..).map(NodeIndex));
        let placements = epoch.keyspaces.iter().map(|keyspace| {
            (keyspace.name.clone(), Placement::new(keyspace, &epoch, grid, sip_key))
        });
        Self { by_host: by_host.collect(), placements: placements.collect(), epoch }
    }

    /// The epoch.
    #[must_use]
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// All members, by host id.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.epoch.members
    }

    /// The member at `index`.
    ///
    /// # Panics
    /// On an index of another epoch.
    #[must_use]
    pub fn member(&self, index: NodeIndex) -> &Member {
        &self.epoch.members[usize::from(index.0)]
    }

    /// The place of a host among the members.
    #[must_use]
    pub fn index_of(&self, host_id: HostId) -> Option<NodeIndex> {
        self.by_host.get(&host_id).copied()
    }

    /// The placement of a keyspace.
    #[must_use]
    pub fn keyspace(&self, name: &str) -> Option<&Placement> {
        self.placements.get(name)
    }

    /// The share of a keyspace's keys of which each member holds a replica, 0 to 1, by member;
    /// together they make the replication factor. Empty for an unknown keyspace.
    #[must_use]
    pub fn ownership(&self, keyspace: &str) -> Vec<f64> {
        let Some(placement) = self.placements.get(keyspace) else { return Vec::new() };
        let mut held = vec![0_u32; self.epoch.members.len()];
        for replica in placement.replicas.iter().flatten() {
            held[usize::from(replica.0)] += 1;
        }
        let slots = f64::from(placement.grid.count());
        held.into_iter().map(|slots_held| f64::from(slots_held) / slots).collect()
    }
}

impl Placement {
    fn new(keyspace: &Keyspace, epoch: &Epoch, grid: SlotGrid, sip_key: [u8; 16]) -> Self {
        let partitioner = match keyspace.partitioner {
            PartitionerKind::Sip => Partitioner::Sip { key: sip_key },
            PartitionerKind::Murmur3 => Partitioner::Murmur3,
        };
        let slots = &epoch.slots;
        let replicas = (0..slots.len()).map(|slot| {
            let clockwise = slots[slot..].iter().chain(&slots[..slot]).copied();
            keyspace.strategy.replicas(clockwise, &epoch.members).into_boxed_slice()
        });
        Self {
            partitioner,
            grid,
            replicas: replicas.collect(),
            per_datacenter: per_datacenter(&keyspace.strategy, &epoch.members),
            keyspace: keyspace.clone(),
        }
    }

    /// The keyspace's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.keyspace.name
    }

    /// Where its replicas go.
    #[must_use]
    pub fn strategy(&self) -> &ReplicationStrategy {
        &self.keyspace.strategy
    }

    /// The token of a partition key.
    #[must_use]
    pub fn token(&self, key: &[u8]) -> Token {
        self.partitioner.token(key)
    }

    /// The natural replicas of a token, the slot's owner first.
    #[must_use]
    pub fn replicas(&self, token: Token) -> &[NodeIndex] {
        &self.replicas[self.grid.slot_of(token).0 as usize]
    }

    /// The mode of a bucket, named without its keyspace.
    #[must_use]
    pub fn mode(&self, bucket: &str) -> BucketMode {
        self.keyspace.buckets.get(bucket).copied().unwrap_or_default()
    }

    /// Replicas of each key over all datacenters, as configured.
    #[must_use]
    pub fn replication_factor(&self) -> u8 {
        self.keyspace.strategy.replication_factor()
    }

    /// Replicas of each key in each datacenter, as configured. A simple strategy in one datacenter
    /// has all of them there; over several it promises nothing about any of them.
    #[must_use]
    pub fn per_datacenter(&self) -> &BTreeMap<String, u8> {
        &self.per_datacenter
    }
}

fn per_datacenter(strategy: &ReplicationStrategy, members: &[Member]) -> BTreeMap<String, u8> {
    match strategy {
        ReplicationStrategy::NetworkTopology { datacenters } => datacenters.clone(),
        ReplicationStrategy::Simple { replication_factor } => {
            let mut names = members.iter().map(|member| &member.datacenter);
            match names.next() {
                Some(only) if names.all(|name| name == only) => {
                    BTreeMap::from([(only.clone(), *replication_factor)])
                }
                _ => BTreeMap::new(),
            }
        }
    }
}
