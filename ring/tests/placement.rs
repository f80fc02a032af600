//! Where replicas go: Cassandra's two walks around the ring, by its drivers' own cases, by an
//! independent telling of the older algorithm, and by the laws that both must keep.

mod cluster;

use std::collections::BTreeSet;

use cluster::{KEYSPACE, members, ring, topology};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert, prop_assert_eq, proptest};
use starling_ring::{Member, NodeIndex, ReplicationStrategy, Ring, SlotGrid, Token};

const DATACENTERS: [&str; 3] = ["dc1", "dc2", "dc3"];
const RACKS: [&str; 4] = ["r1", "r2", "r3", "r4"];

fn simple(replication_factor: u8) -> ReplicationStrategy {
    ReplicationStrategy::Simple { replication_factor }
}

/// The replicas of a walk over nodes with one token each, from the first one's.
fn walk(strategy: &ReplicationStrategy, members: &[Member], from: u16) -> Vec<u16> {
    let count = u16::try_from(members.len()).expect("few members");
    let owners = (0..count).map(|step| NodeIndex((from + step) % count));
    strategy.replicas(owners, members).into_iter().map(|node| node.0).collect()
}

fn check(strategy: &ReplicationStrategy, places: &[(&str, &str)], expected: &[&[u16]]) {
    let members = members(places);
    for (from, replicas) in (0..).zip(expected) {
        assert_eq!(walk(strategy, &members, from), *replicas, "{strategy:?} from node {from}");
    }
}

#[test]
fn the_simple_walk_takes_the_next_nodes() {
    let places = [("dc1", "r1"), ("dc1", "r1"), ("dc2", "r1"), ("dc2", "r2")];
    check(&simple(3), &places, &[&[0, 1, 2], &[1, 2, 3], &[2, 3, 0], &[3, 0, 1]]);
    check(&simple(1), &places, &[&[0], &[1], &[2], &[3]]);
    check(&simple(9), &places, &[&[0, 1, 2, 3], &[1, 2, 3, 0]]);
}

/// The cases of the DataStax C++ driver's tests of its replication strategies, where it keeps
/// Cassandra's order too.
#[test]
fn the_topology_walk_takes_a_rack_before_a_rack_again() {
    let (one, two) = (("dc1", "r1"), ("dc1", "r2"));
    let (three, four) = (("dc2", "r1"), ("dc2", "r2"));
    check(
        &topology(&[("dc1", 2), ("dc2", 2)]),
        &[one, one, two, two, three, three, four, four],
        &[
            &[0, 2, 4, 6],
            &[1, 2, 4, 6],
            &[2, 4, 6, 0],
            &[3, 4, 6, 0],
            &[4, 6, 0, 2],
            &[5, 6, 0, 2],
            &[6, 0, 2, 4],
            &[7, 0, 2, 4],
        ],
    );
    check(
        &topology(&[("dc1", 2), ("dc2", 1)]),
        &[one, one, one, three, three, three],
        &[&[0, 1, 3], &[1, 2, 3], &[2, 3, 0], &[3, 0, 1], &[4, 0, 1], &[5, 0, 1]],
    );
}

/// `DatacenterEndpoints` of Cassandra 4: with fewer racks than replicas, the first nodes met fill up.
#[test]
fn too_few_racks_are_filled_up_by_the_first_nodes_met() {
    let (one, two) = (("dc1", "r1"), ("dc1", "r2"));
    let places = [one, one, one, two];
    check(&topology(&[("dc1", 3)]), &places, &[&[0, 1, 3], &[1, 2, 3], &[2, 3, 0], &[3, 0, 1]]);
    check(&topology(&[("dc1", 2)]), &places, &[&[0, 3], &[1, 3], &[2, 3], &[3, 0]]);
    check(&topology(&[("dc1", 9)]), &places, &[&[0, 1, 2, 3]]);
}

#[test]
fn a_datacenter_without_nodes_or_replicas_gets_none() {
    let places = [("dc1", "r1"), ("dc2", "r1")];
    check(&topology(&[("dc1", 1), ("dc3", 2)]), &places, &[&[0], &[0]]);
    check(&topology(&[("dc1", 0), ("dc2", 1)]), &places, &[&[1], &[1]]);
    check(&topology(&[]), &places, &[&[]]);
}

/// A cluster of 1 to 12 nodes, the owner of each of 64 slots, and a strategy.
fn clusters() -> impl Strategy<Value = (Vec<Member>, Vec<NodeIndex>, ReplicationStrategy)> {
    let places = vec((0..DATACENTERS.len(), 0..RACKS.len()), 1..=12);
    let strategy = proptest::prop_oneof![
        (1..=7_u8).prop_map(simple),
        vec(0..=4_u8, DATACENTERS.len()).prop_map(|factors| {
            let each: Vec<(&str, u8)> = DATACENTERS.into_iter().zip(factors).collect();
            topology(&each)
        }),
    ];
    (places, vec(any::<u16>(), 64), strategy).prop_map(|(places, owners, strategy)| {
        let places: Vec<(&str, &str)> =
            places.into_iter().map(|(dc, rack)| (DATACENTERS[dc], RACKS[rack])).collect();
        let count = u16::try_from(places.len()).expect("few members");
        // Everybody owns a slot; who owns the rest is arbitrary.
        let mut slots: Vec<NodeIndex> =
            owners.into_iter().map(|owner| NodeIndex(owner % count)).collect();
        (0..count).for_each(|node| slots[usize::from(node) * 5] = NodeIndex(node));
        (members(&places), slots, strategy)
    })
}

fn replicas(ring: &Ring, slot: u32) -> &[NodeIndex] {
    let grid = SlotGrid::new(ring.epoch().slot_bits).expect("the epoch has a grid");
    let end = grid.end_token(starling_ring::Slot(slot));
    ring.keyspace(KEYSPACE).expect("the ring has the keyspace").replicas(end)
}

fn racks_of<'a>(nodes: &[&'a Member]) -> BTreeSet<&'a str> {
    nodes.iter().map(|member| member.rack.as_str()).collect()
}

/// Cassandra's algorithm before version 4: nodes of a rack seen already are put aside until every
/// rack of the datacenter was seen. It chooses the same nodes in another order.
fn older_walk(
    owners: &[NodeIndex],
    members: &[Member],
    dc: &str,
    factor: u8,
) -> BTreeSet<NodeIndex> {
    let here: Vec<&Member> = members.iter().filter(|member| member.datacenter == dc).collect();
    let (racks, wanted) = (racks_of(&here).len(), usize::from(factor).min(here.len()));
    let (mut chosen, mut aside, mut seen) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for owner in owners {
        let member = &members[usize::from(owner.0)];
        if member.datacenter != dc || chosen.len() == wanted || chosen.contains(owner) {
            continue;
        }
        if seen.len() == racks || seen.insert(member.rack.as_str()) {
            chosen.insert(*owner);
        } else if !aside.contains(owner) {
            aside.push(*owner);
        }
        if seen.len() == racks {
            let room = wanted - chosen.len();
            chosen.extend(aside.drain(..room.min(aside.len())));
        }
    }
    chosen
}

proptest! {
    #[test]
    fn replicas_are_distinct_enough_and_over_distinct_racks((members, slots, strategy) in clusters()) {
        let ring = ring(members.clone(), slots.clone(), strategy.clone());
        for slot in 0..64_u32 {
            let replicas = replicas(&ring, slot);
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), replicas.len(), "a node twice");
            match &strategy {
                ReplicationStrategy::Simple { replication_factor } => {
                    prop_assert_eq!(replicas.len(), usize::from(*replication_factor).min(members.len()));
                    prop_assert_eq!(replicas[0], slots[slot as usize], "the owner leads");
                }
                ReplicationStrategy::NetworkTopology { datacenters } => {
                    for (name, factor) in datacenters {
                        let there: Vec<&Member> =
                            members.iter().filter(|member| member.datacenter == *name).collect();
                        let taken: Vec<&Member> = replicas
                            .iter()
                            .map(|node| ring.member(*node))
                            .filter(|member| member.datacenter == *name)
                            .collect();
                        prop_assert_eq!(taken.len(), usize::from(*factor).min(there.len()));
                        let racks = racks_of(&there).len().min(usize::from(*factor));
                        prop_assert_eq!(racks_of(&taken).len(), racks, "racks are shared needlessly");
                    }
                }
            }
        }
    }

    #[test]
    fn the_topology_walk_chooses_what_cassandras_older_one_chose((members, slots, strategy) in clusters()) {
        if let ReplicationStrategy::NetworkTopology { datacenters } = &strategy {
            let ring = ring(members.clone(), slots.clone(), strategy.clone());
            for slot in 0..64_usize {
                let owners = [&slots[slot..], &slots[..slot]].concat();
                let expected: BTreeSet<NodeIndex> = datacenters
                    .iter()
                    .flat_map(|(name, factor)| older_walk(&owners, &members, name, *factor))
                    .collect();
                let found = replicas(&ring, u32::try_from(slot).expect("64 slots"));
                prop_assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), expected);
            }
        }
    }

    #[test]
    fn doubling_the_slots_moves_nothing((members, slots, strategy) in clusters(), tokens in vec(any::<i64>(), 50)) {
        let doubled: Vec<NodeIndex> = slots.iter().flat_map(|owner| [*owner, *owner]).collect();
        let coarse = ring(members.clone(), slots, strategy.clone());
        let fine = ring(members, doubled, strategy);
        let of = |ring: &Ring, token| {
            ring.keyspace(KEYSPACE).expect("the ring has the keyspace").replicas(Token(token)).to_vec()
        };
        for token in tokens {
            prop_assert_eq!(of(&coarse, token), of(&fine, token));
        }
    }

    #[test]
    fn a_slot_that_changes_hands_moves_only_its_two_owners(
        (members, slots, strategy) in clusters(), slot in 0..64_usize, to in any::<u16>(),
    ) {
        let to = NodeIndex(to % u16::try_from(members.len()).expect("few members"));
        let from = slots[slot];
        let mut after = slots.clone();
        after[slot] = to;
        // With both in one rack the walk meets the same racks in the same order.
        let [one, other] = [from, to].map(|node| &members[usize::from(node.0)]);
        if (&one.datacenter, &one.rack) == (&other.datacenter, &other.rack) && after.contains(&from) {
            let (before, after) = (ring(members.clone(), slots, strategy.clone()), ring(members, after, strategy));
            for slot in 0..64 {
                let [was, is] = [&before, &after].map(|ring| replicas(ring, slot).iter().copied().collect::<BTreeSet<_>>());
                let came: Vec<_> = is.difference(&was).collect();
                prop_assert!(came.len() <= 1, "{} replicas came to slot {slot}", came.len());
            }
        }
    }

    #[test]
    fn ownership_counts_every_replica_once((members, slots, strategy) in clusters()) {
        let ring = ring(members.clone(), slots, strategy);
        let owned = ring.ownership(KEYSPACE);
        let held: usize = (0..64).map(|slot| replicas(&ring, slot).len()).sum();
        let held = u32::try_from(held).expect("few replicas");
        prop_assert_eq!(owned.len(), members.len());
        prop_assert!((owned.iter().sum::<f64>() - f64::from(held) / 64.0).abs() < 1e-9);
    }
}
