//! How far this replica and each of its peers are from holding the same.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use starling_ring::NodeIndex;
use tokio::time::Instant;

use crate::time::now;

/// See the module. By peer.
#[derive(Debug, Default)]
pub struct Progress {
    pairs: Mutex<BTreeMap<NodeIndex, Pair>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    agreed_at: Option<Instant>,
    with_whole: bool,
    /// Every write up to here, as hybrid clocks count, is at both.
    through: u64,
    behind_keys: u64,
    behind_bytes: u64,
    slots_done: u64,
    slots_total: u64,
}

/// One pair as people see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairProgress {
    /// How long ago everything that differed at some moment had been exchanged. None if not yet since the start.
    pub agreed: Option<Duration>,
    /// Keys found to differ and not yet exchanged.
    pub behind_keys: u64,
    /// The bytes of their states, about.
    pub behind_bytes: u64,
    /// Slots that the session under way has compared.
    pub slots_done: u64,
    /// Of so many; 0 while none is under way.
    pub slots_total: u64,
}

impl Progress {
    pub(super) fn begin(&self, peer: NodeIndex, slots_total: u64) {
        self.change(peer, |pair| {
            *pair = Pair {
                agreed_at: pair.agreed_at,
                with_whole: pair.with_whole,
                through: pair.through,
                slots_total,
                ..Pair::default()
            }
        });
    }

    pub(super) fn compared(&self, peer: NodeIndex, slots: u64) {
        self.change(peer, |pair| pair.slots_done += slots);
    }

    pub(super) fn found_behind(&self, peer: NodeIndex, keys: u64, bytes: u64) {
        self.change(peer, |pair| {
            pair.behind_keys += keys;
            pair.behind_bytes += bytes;
        });
    }

    pub(super) fn exchanged(&self, peer: NodeIndex, keys: u64, bytes: u64) {
        self.change(peer, |pair| {
            pair.behind_keys = pair.behind_keys.saturating_sub(keys);
            pair.behind_bytes = pair.behind_bytes.saturating_sub(bytes);
        });
    }

    /// A session that began at `since` is over; `with_whole` says whether the peer held all that it acknowledged, `through` up to where
    /// both hold the same writes by now.
    pub(super) fn agreed(&self, peer: NodeIndex, since: Instant, with_whole: bool, through: u64) {
        self.change(peer, |pair| {
            let through = pair.through.max(through);
            *pair = Pair { agreed_at: Some(since), with_whole, through, ..Pair::default() };
        });
    }

    /// Up to where this node and each other agree.
    pub(super) fn through(&self) -> BTreeMap<NodeIndex, u64> {
        self.pairs.lock().iter().map(|(peer, pair)| (*peer, pair.through)).collect()
    }

    /// A session was broken off.
    pub(super) fn interrupted(&self, peer: NodeIndex) {
        self.change(peer, |pair| (pair.slots_done, pair.slots_total) = (0, 0));
    }

    /// Whether a session with `peer`, which was whole then, has been completed.
    pub(super) fn has_agreed_with_whole(&self, peer: NodeIndex) -> bool {
        self.pairs.lock().get(&peer).is_some_and(|pair| pair.agreed_at.is_some() && pair.with_whole)
    }

    /// The pair of this node and `peer`.
    pub fn of(&self, peer: NodeIndex) -> PairProgress {
        let pair = self.pairs.lock().get(&peer).copied().unwrap_or_default();
        PairProgress {
            agreed: pair.agreed_at.map(|at| now().saturating_duration_since(at)),
            behind_keys: pair.behind_keys,
            behind_bytes: pair.behind_bytes,
            slots_done: pair.slots_done,
            slots_total: pair.slots_total,
        }
    }

    fn change(&self, peer: NodeIndex, change: impl FnOnce(&mut Pair)) {
        change(self.pairs.lock().entry(peer).or_default());
    }
}

/// The replicas of a slot, as far as it matters which of them may have acknowledged a write among themselves.
#[derive(Debug, Clone, Copy)]
pub struct SlotReplicas<'a> {
    /// All of them.
    pub replicas: &'a [NodeIndex],
    /// Whether writes are acknowledged in one datacenter alone, too.
    pub local_levels: bool,
}

/// Whether the replica `me` that lost writes holds again all that was acknowledged, as far as its peers hold it: `has_agreed` says with which
/// of them a session has been completed while they were whole, `has_lost` who is known not to be whole.
///
/// Any write quorum has a member among a majority, of a slot's replicas or of those in one datacenter. While fewer than a majority of either
/// have lost writes, each acknowledged write is at one that is whole.
pub fn may_be_whole<'a>(
    slots: impl Iterator<Item = SlotReplicas<'a>>,
    me: NodeIndex,
    datacenter_of: impl Fn(NodeIndex) -> &'a str,
    has_agreed: impl Fn(NodeIndex) -> bool,
    has_lost: impl Fn(NodeIndex) -> bool,
) -> bool {
    let lost = |node: NodeIndex| node == me || has_lost(node);
    let most_kept = |replicas: &mut dyn Iterator<Item = NodeIndex>| {
        let (all, lost) =
            replicas.fold((0, 0), |(all, gone), node| (all + 1, gone + usize::from(lost(node))));
        lost < all / 2 + 1
    };
    slots.filter(|slot| slot.replicas.contains(&me)).all(|slot| {
        let replicas = || slot.replicas.iter().copied();
        let everywhere = most_kept(&mut replicas());
        let in_each = !slot.local_levels
            || replicas().filter(|node| lost(*node)).all(|gone| {
                let datacenter = datacenter_of(gone);
                most_kept(&mut replicas().filter(|node| datacenter_of(*node) == datacenter))
            });
        everywhere && in_each && replicas().all(|node| has_agreed(node) || lost(node))
    })
}

#[cfg(test)]
mod tests {
    use super::{NodeIndex, SlotReplicas, may_be_whole};

    const N: [NodeIndex; 6] =
        [NodeIndex(0), NodeIndex(1), NodeIndex(2), NodeIndex(3), NodeIndex(4), NodeIndex(5)];

    fn whole(replicas: usize, agreed: &[u16], lost: &[u16]) -> bool {
        whole_in(&["dc1"; 6][..replicas], agreed, lost)
    }

    /// Of a slot with a replica in each of these datacenters.
    fn whole_in(datacenters: &[&'static str], agreed: &[u16], lost: &[u16]) -> bool {
        let is_in = |of: &[u16], node: NodeIndex| of.contains(&node.0);
        let slot = SlotReplicas { replicas: &N[..datacenters.len()], local_levels: true };
        may_be_whole(
            [slot].into_iter(),
            N[0],
            |node| datacenters[usize::from(node.0)],
            |node| is_in(agreed, node),
            |node| is_in(lost, node),
        )
    }

    #[test]
    fn all_others_have_to_be_joined() {
        assert!(!whole(3, &[], &[]));
        assert!(!whole(3, &[1], &[]));
        assert!(whole(3, &[1, 2], &[]));
        assert!(whole(2, &[1], &[]));
    }

    #[test]
    fn a_majority_that_lost_writes_waits_for_a_person() {
        assert!(!whole(1, &[], &[]), "there is nobody to ask");
        assert!(!whole(3, &[1, 2], &[2]));
        assert!(whole(5, &[1, 2, 3], &[4]), "one more that lost writes has nothing to add");
        assert!(!whole(5, &[1, 2, 3], &[3, 4]));
    }

    #[test]
    fn a_majority_of_one_datacenter_may_be_all_that_acknowledged_a_write() {
        const TWO: [&str; 6] = ["dc1", "dc2", "dc1", "dc2", "dc1", "dc2"];
        assert!(whole_in(&TWO, &[1, 2, 3, 4, 5], &[]));
        assert!(whole_in(&TWO, &[2, 3, 4, 5], &[1]), "one of each");
        assert!(!whole_in(&TWO, &[1, 3, 4, 5], &[2]), "two of dc1");
        assert!(!whole_in(&["dc1", "dc2", "dc2"], &[1, 2], &[]), "all of dc1");
    }

    #[test]
    fn other_slots_do_not_matter() {
        let slot = SlotReplicas { replicas: &N[1..4], local_levels: true };
        assert!(may_be_whole([slot].into_iter(), N[0], |_| "dc1", |_| false, |_| true));
    }
}
