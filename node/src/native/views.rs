//! The ring and the node's beliefs in the shape that clients get them.

use starling_protocol::{
    KeyspaceView, MemberView, NodeStatus, PairView, RepairView, Response, Status, StatusView,
    StrategyView, TopologyView,
};
use starling_ring::detector::Liveness;
use starling_ring::{BucketMode, NodeIndex, PartitionerKind, ReplicationStrategy};

use super::serving::Serving;

pub(super) fn hello(serving: &Serving, frame_bytes_max: usize) -> Response {
    let local = &serving.local;
    Response::Hello {
        cluster_id: local.cluster_id.0,
        cluster: local.cluster_name.clone(),
        host_id: local.host_id.0,
        epoch: local.ring.epoch().n,
        max_frame: u32::try_from(frame_bytes_max).unwrap_or(u32::MAX),
        max_value: u32::try_from(serving.coordinator.limits().value_bytes_max).unwrap_or(u32::MAX),
    }
}

pub(super) fn topology(serving: &Serving) -> TopologyView {
    let local = &serving.local;
    let epoch = local.ring.epoch();
    let members = members(serving).map(|(node, member)| MemberView {
        host_id: member.host_id.0,
        client_address: member.client_address,
        internode_address: member.address,
        datacenter: member.datacenter.clone(),
        rack: member.rack.clone(),
        status: status_of(serving, node),
    });
    let keyspaces = epoch.keyspaces.iter().map(|keyspace| {
        let lww = keyspace.buckets.iter().filter(|(_, mode)| **mode == BucketMode::Lww);
        KeyspaceView {
            name: keyspace.name.clone(),
            strategy: strategy(&keyspace.strategy),
            murmur3: keyspace.partitioner == PartitionerKind::Murmur3,
            lww_buckets: lww.map(|(name, _)| name.clone()).collect(),
        }
    });
    TopologyView {
        epoch: epoch.n,
        slot_bits: epoch.slot_bits,
        slots: epoch.slots.iter().map(|owner| owner.0).collect(),
        members: members.collect(),
        keyspaces: keyspaces.collect(),
        sip_key: local.secret.partitioner_key(),
    }
}

/// The cluster as this node sees it: what `starling status` and the admin port show.
#[must_use]
pub fn status(serving: &Serving) -> StatusView {
    let local = &serving.local;
    let hints = serving.replica.hints();
    let nodes = members(serving).map(|(node, member)| {
        let liveness = serving.liveness.of(node);
        let down = matches!(liveness, Liveness::Down | Liveness::UnreachableFromMe);
        let (hints_pending, hints_pending_bytes) = hints.pending(member.host_id);
        let down_for = down.then(|| serving.liveness.held_for(node).as_millis());
        NodeStatus {
            host_id: member.host_id.0,
            address: member.client_address,
            datacenter: member.datacenter.clone(),
            rack: member.rack.clone(),
            status: status_of(serving, node),
            owns: owns(serving, node),
            down_for_ms: down_for.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
            hints_pending,
            hints_pending_bytes,
        }
    });
    StatusView {
        cluster: local.cluster_name.clone(),
        cluster_id: local.cluster_id.0,
        epoch: local.ring.epoch().n,
        node: local.host_id.0,
        nodes: nodes.collect(),
        requests_in_flight: serving.in_flight.requests() as u64,
        hints_pending: hints.targets().into_iter().map(|target| hints.pending(target).0).sum(),
        slots: crate::overview::slot_health(&local.ring, |node| serving.liveness.can_be_read(node)),
        repair: repair(serving),
    }
}

fn repair(serving: &Serving) -> RepairView {
    let others = members(serving).filter(|(node, _)| *node != serving.local.me);
    let pairs = others.map(|(node, member)| {
        let pair = serving.repair.pair(node);
        PairView {
            peer: member.host_id.0,
            agreed_ms_ago: pair
                .agreed
                .map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            behind_keys: pair.behind_keys,
            behind_bytes: pair.behind_bytes,
            slots_done: pair.slots_done,
            slots_total: pair.slots_total,
        }
    });
    RepairView { rebuilding: !serving.repair.is_whole(), pairs: pairs.collect() }
}

fn members(serving: &Serving) -> impl Iterator<Item = (NodeIndex, &starling_ring::Member)> {
    let members = serving.local.ring.members().iter();
    (0..).map(NodeIndex).zip(members)
}

/// The largest share over all keyspaces.
fn owns(serving: &Serving, node: NodeIndex) -> f64 {
    let ring = &serving.local.ring;
    let keyspaces = ring.epoch().keyspaces.iter();
    let shares = keyspaces.map(|keyspace| {
        ring.ownership(&keyspace.name).get(usize::from(node.0)).copied().unwrap_or(0.0)
    });
    shares.fold(0.0, f64::max)
}

/// A node believed to be up to which there is no connection at this moment is in doubt too.
fn status_of(serving: &Serving, node: NodeIndex) -> Status {
    match serving.liveness.of(node) {
        Liveness::Up if !serving.liveness.is_whole(node) => Status::Rebuilding,
        Liveness::Up if serving.coordinator.is_linked(node) => Status::Up,
        Liveness::Up | Liveness::Suspect => Status::Suspect,
        Liveness::UnreachableFromMe => Status::Unreachable,
        Liveness::Down => Status::Down,
    }
}

fn strategy(strategy: &ReplicationStrategy) -> StrategyView {
    match strategy {
        ReplicationStrategy::Simple { replication_factor } => {
            StrategyView::Simple { replication_factor: *replication_factor }
        }
        ReplicationStrategy::NetworkTopology { datacenters } => {
            StrategyView::NetworkTopology { datacenters: datacenters.clone() }
        }
    }
}
