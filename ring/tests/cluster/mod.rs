//! Clusters for tests, from a line per member.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use starling_ring::{
    Epoch, EpochHash, HostId, Keyspace, Member, NodeIndex, PartitionerKind, ReplicationStrategy,
    Ring,
};
use uuid::Uuid;

/// The keyspace of [`ring`].
pub const KEYSPACE: &str = "demo";

/// Members in these datacenters and racks, by host id.
pub fn members(places: &[(&str, &str)]) -> Vec<Member> {
    let member = |(number, (datacenter, rack)): (u16, &(&str, &str))| Member {
        host_id: HostId(Uuid::from_u128(u128::from(number))),
        address: SocketAddr::from(([10, 0, 0, 1], 7_000 + number)),
        client_address: SocketAddr::from(([10, 0, 0, 1], 9_000 + number)),
        datacenter: (*datacenter).to_owned(),
        rack: (*rack).to_owned(),
    };
    (0..).zip(places).map(member).collect()
}

/// A ring with one keyspace; `slots` names the owner of each, a power of two of them.
pub fn ring(members: Vec<Member>, slots: Vec<NodeIndex>, strategy: ReplicationStrategy) -> Ring {
    let slot_bits = u8::try_from(slots.len().ilog2()).expect("a grid has few bits");
    let keyspace = Keyspace {
        name: KEYSPACE.to_owned(),
        strategy,
        partitioner: PartitionerKind::Murmur3,
        buckets: BTreeMap::new(),
    };
    let epoch = Epoch {
        n: 1,
        parent_hash: EpochHash([0; 32]),
        members,
        slot_bits,
        slots,
        keyspaces: vec![keyspace],
        secret_hash: [0; 32],
    };
    Ring::new(Arc::new(epoch), [0; 16])
}

/// So many replicas in each of these datacenters.
pub fn topology(datacenters: &[(&str, u8)]) -> ReplicationStrategy {
    let datacenters = datacenters.iter().map(|(name, factor)| ((*name).to_owned(), *factor));
    ReplicationStrategy::NetworkTopology { datacenters: datacenters.collect() }
}
