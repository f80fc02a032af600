//! Which slots have the same replicas: such slots have one purge floor, raised by the first of their replicas. Pure.

use std::collections::{BTreeMap, BTreeSet};

use starling_ring::{NodeIndex, Ring, Slot, SlotGrid};

/// Slots that the same nodes replicate, in any keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The nodes, in order.
    pub members: Vec<NodeIndex>,
    /// The slots, in order.
    pub slots: Vec<u32>,
}

/// The groups of which `me` is a member.
pub fn groups_of(ring: &Ring, me: NodeIndex) -> Vec<Group> {
    let grid = SlotGrid::new(ring.epoch().slot_bits).expect("a decided epoch has a valid grid");
    let keyspaces = ring.epoch().keyspaces.iter();
    let placements: Vec<_> =
        keyspaces.filter_map(|keyspace| ring.keyspace(&keyspace.name)).collect();
    let mut groups: BTreeMap<Vec<NodeIndex>, Vec<u32>> = BTreeMap::new();
    for slot in 0..grid.count() {
        let token = grid.end_token(Slot(slot));
        let replicas = placements.iter().flat_map(|placement| placement.replicas(token));
        let members: BTreeSet<NodeIndex> = replicas.copied().collect();
        if members.contains(&me) {
            groups.entry(members.into_iter().collect()).or_default().push(slot);
        }
    }
    groups.into_iter().map(|(members, slots)| Group { members, slots }).collect()
}

impl Group {
    /// Up to where every member has every write: the least that any two of them, each for itself, say of their last comparison.
    pub fn agreed(&self, says: impl Fn(NodeIndex, NodeIndex) -> u64) -> u64 {
        let pairs = self.members.iter().flat_map(|one| {
            self.members.iter().filter(move |other| *other != one).map(|other| (*one, *other))
        });
        pairs.map(|(one, other)| says(one, other)).min().unwrap_or(0)
    }
}

/// Slots as ranges, both ends included: neighbours are many.
pub fn ranges(slots: &[u32]) -> Vec<(u32, u32)> {
    let runs = slots.chunk_by(|one, next| one + 1 == *next);
    runs.map(|run| (run[0], run[run.len() - 1])).collect()
}

#[cfg(test)]
mod tests {
    use super::{Group, NodeIndex, ranges};

    #[test]
    fn the_pair_that_lags_most_decides() {
        let members = vec![NodeIndex(0), NodeIndex(1), NodeIndex(4)];
        let group = Group { members, slots: vec![7] };
        assert_eq!(group.agreed(|_, _| 9), 9);
        let one_sided = |one: NodeIndex, other: NodeIndex| match (one.0, other.0) {
            (4, 1) => 3,
            _ => 9,
        };
        assert_eq!(group.agreed(one_sided), 3);
    }

    #[test]
    fn slots_are_told_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), [(0, 2), (5, 5), (7, 8)]);
        assert_eq!(ranges(&[]), []);
    }
}
