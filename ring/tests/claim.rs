//! The claim gives everybody its share: of the slots, of the replicas, and of the neighbours.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use cluster::{KEYSPACE, members, ring, topology};
use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};
use starling_ring::{Member, NodeIndex, ReplicationStrategy, Ring, Slot, SlotGrid, claim};

const RACKS: [&str; 5] = ["r1", "r2", "r3", "r4", "r5"];
const SLOT_BITS: u8 = 12;

fn grid() -> SlotGrid {
    SlotGrid::new(SLOT_BITS).expect("12 bits are accepted")
}

/// So many members, dealt to so many racks of one datacenter.
fn dealt(count: usize, racks: usize) -> Vec<Member> {
    let places: Vec<_> = (0..count).map(|member| ("dc1", RACKS[member % racks])).collect();
    members(&places)
}

fn claimed(members: &[Member], strategy: ReplicationStrategy) -> Ring {
    ring(members.to_vec(), claim(members, grid()), strategy)
}

/// The standard deviation of what members hold, and the most that one holds, relative to their mean.
fn spread(owned: &[f64]) -> (f64, f64) {
    let count = f64::from(u32::try_from(owned.len()).expect("few members"));
    let mean = owned.iter().sum::<f64>() / count;
    let variance = owned.iter().map(|one| (one - mean).powi(2)).sum::<f64>() / count;
    let most = owned.iter().copied().fold(0.0, f64::max);
    (variance.sqrt() / mean, most / mean)
}

#[test]
fn replicas_spread_as_evenly_as_designed() {
    // What 4,096 equal slots can do at replication factor 3: random tokens reach 5% and 1.09.
    for (count, racks, deviation_max, most_max) in [
        (12, 3, 0.0016, 1.0021),
        (48, 3, 0.0057, 1.010),
        (12, 1, 0.0016, 1.0021),
        (48, 1, 0.0057, 1.010),
        (3, 1, 0.0, 1.0),
        (3, 3, 0.0, 1.0),
        (6, 2, 0.01, 1.02),
    ] {
        let placed = claimed(&dealt(count, racks), topology(&[("dc1", 3)]));
        let (deviation, most) = spread(&placed.ownership(KEYSPACE));
        assert!(
            deviation <= deviation_max && most <= most_max,
            "{count} members in {racks} racks: {deviation:.5}, {most:.5}"
        );
    }
}

#[test]
fn a_member_shares_data_with_few_others() {
    // Eight laps, each with two neighbours on either side, bound whose failure burdens whom.
    for racks in [1, 3] {
        let count = 96;
        let placed = claimed(&dealt(count, racks), topology(&[("dc1", 3)]));
        let placement = placed.keyspace(KEYSPACE).expect("the ring has the keyspace");
        let mut peers: BTreeMap<NodeIndex, BTreeSet<NodeIndex>> = BTreeMap::new();
        for slot in 0..grid().count() {
            let replicas = placement.replicas(grid().end_token(Slot(slot)));
            for node in replicas {
                peers
                    .entry(*node)
                    .or_default()
                    .extend(replicas.iter().filter(|peer| *peer != node));
            }
        }
        assert_eq!(peers.len(), count);
        let most = peers.values().map(BTreeSet::len).max().expect("there are members");
        assert!(most <= 8 * 4, "{most} of {count} share data with one, in {racks} racks");
    }
}

#[test]
fn nobody_owns_nothing() {
    assert_eq!(claim(&[], grid()), Vec::new());
}

#[test]
fn racks_of_one_size_alternate_from_slot_to_slot() {
    for (count, racks) in [(6, 2), (12, 3), (20, 5), (5, 5)] {
        let members = dealt(count, racks);
        let rack_of = |owner: &NodeIndex| members[usize::from(owner.0)].rack.as_str();
        for neighbours in claim(&members, grid()).windows(racks) {
            let met: BTreeSet<&str> = neighbours.iter().map(rack_of).collect();
            assert_eq!(met.len(), racks, "{count} members in {racks} racks");
        }
    }
}

proptest! {
    #[test]
    fn slots_are_shared_to_within_one(places in vec((0..2_usize, 0..RACKS.len()), 1..200), bits in 8..=16_u8) {
        let places: Vec<_> = places.iter().map(|(dc, rack)| (["dc1", "dc2"][*dc], RACKS[*rack])).collect();
        let members = members(&places);
        let grid = SlotGrid::new(bits).expect("these bits are accepted");
        let slots = claim(&members, grid);
        prop_assert_eq!(slots.len(), grid.count() as usize);
        let mut owned = vec![0_u32; members.len()];
        slots.iter().for_each(|owner| owned[usize::from(owner.0)] += 1);
        let (least, most) = (owned.iter().min(), owned.iter().max());
        let apart = most.zip(least).map(|(most, least)| most - least);
        prop_assert!(apart <= Some(1), "{owned:?}");
        prop_assert_eq!(claim(&members, grid), slots, "the same members, another claim");
    }
}
