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

/// Whether a replica that lost writes holds again all that was acknowledged, as far as its peers hold it: `pairs` says of each slot's other
/// replicas whether a session with them has been completed while they were whole, and whether they are known not to be.
///
/// Any write quorum has a member among a majority. While fewer than a majority of a slot's replicas have lost writes, each acknowledged
/// write is at one that is whole.
pub fn may_be_whole<'a>(
    slots: impl Iterator<Item = &'a [NodeIndex]>,
    me: NodeIndex,
    has_agreed: impl Fn(NodeIndex) -> bool,
    has_lost: impl Fn(NodeIndex) -> bool,
) -> bool {
    slots.filter(|replicas| replicas.contains(&me)).all(|replicas| {
        let others = || replicas.iter().copied().filter(|node| *node != me);
        let lost = 1 + others().filter(|node| has_lost(*node)).count();
        lost < replicas.len() / 2 + 1 && others().all(|node| has_agreed(node) || has_lost(node))
    })
}

#[cfg(test)]
mod tests {
    use super::{NodeIndex, may_be_whole};

    const N: [NodeIndex; 5] =
        [NodeIndex(0), NodeIndex(1), NodeIndex(2), NodeIndex(3), NodeIndex(4)];

    fn whole(replicas: usize, agreed: &[u16], lost: &[u16]) -> bool {
        let is_in = |of: &[u16], node: NodeIndex| of.contains(&node.0);
        let slots = [&N[..replicas]];
        may_be_whole(slots.into_iter(), N[0], |node| is_in(agreed, node), |node| is_in(lost, node))
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
    fn other_slots_do_not_matter() {
        let slots = [&N[1..4]];
        assert!(may_be_whole(slots.into_iter(), N[0], |_| false, |_| true));
    }
}
