//! Who owns which slot.
//!
//! The claim is a fixed pattern of laps: in each lap every member owns one slot, so that the
//! clockwise walk soon meets all of them, and eight different permutations in turn bound the
//! number of peers a member shares data with. Racks alternate within a lap, so that neighbours
//! are seldom of one rack. It is computed once, by whoever proposes an epoch; its result is what
//! is committed.

use std::collections::BTreeMap;

use crate::{Member, NodeIndex, SlotGrid};

const PERMUTATIONS: usize = 8;

/// The owner of each slot: balanced to within one slot, the same for the same members.
#[must_use]
pub fn claim(members: &[Member], grid: SlotGrid) -> Vec<NodeIndex> {
    if members.is_empty() {
        return Vec::new();
    }
    let by_rack = alternate_racks(members);
    let laps: Vec<Vec<NodeIndex>> =
        (0..PERMUTATIONS.min(members.len())).map(|lap| rotate_racks(&by_rack, lap)).collect();
    let slots = grid.count() as usize;
    laps.iter().cycle().flatten().copied().take(slots).collect()
}

/// The members of each rack, the racks by datacenter and name.
fn alternate_racks(members: &[Member]) -> Vec<Vec<NodeIndex>> {
    let mut racks: BTreeMap<(&str, &str), Vec<NodeIndex>> = BTreeMap::new();
    for (index, member) in (0..).zip(members) {
        let rack = (member.datacenter.as_str(), member.rack.as_str());
        racks.entry(rack).or_default().push(NodeIndex(index));
    }
    racks.into_values().collect()
}

/// One lap: the racks in turn, each giving its members in an order that differs by lap, the larger
/// racks' surplus spread evenly.
fn rotate_racks(racks: &[Vec<NodeIndex>], lap: usize) -> Vec<NodeIndex> {
    let largest = racks.iter().map(Vec::len).max().unwrap_or(0);
    let mut order: Vec<(usize, usize, NodeIndex)> = Vec::new();
    for (place, rack) in racks.iter().enumerate() {
        for (at, node) in rack.iter().enumerate() {
            // Turned against the walk: its first node is not the last lap's last, which the walk
            // would pass over to the profit of the next.
            let turned = (at + rack.len() - lap % rack.len()) % rack.len();
            // The middle of this member's share of the lap, in units that all racks divide.
            let position = (2 * turned + 1) * largest / rack.len();
            order.push((position, place, *node));
        }
    }
    order.sort_unstable();
    order.into_iter().map(|(_, _, node)| node).collect()
}
