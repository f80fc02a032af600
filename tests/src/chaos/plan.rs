//! What is done to the cluster, drawn from a seed. Pure: it does nothing itself.
//!
//! Invariant: an [`Ordeal`] that leaves a quorum of every key touches one node only; and no ordeal does two
//! things to one process. Each means comes up before any comes up again, kills twice as often.
//!
//! A node that loses its whole disk would be one more [`Means`], once a node can win back what it lost.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

/// A way to trouble a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Means {
    /// kill -9, and a start.
    Kill,
    /// A stop in good order, and a start.
    Restart,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// Links between nodes that carry nothing, in one direction or both.
    Cut,
    /// A wall clock that jumps, and jumps back.
    Clock,
    /// A filesystem without space.
    DiskFull,
    /// Syncs that fail with EIO.
    SyncError,
}

impl Means {
    /// Every one.
    pub const ALL: [Means; 7] = [
        Means::Kill,
        Means::Restart,
        Means::Pause,
        Means::Cut,
        Means::Clock,
        Means::DiskFull,
        Means::SyncError,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Means::Kill => "kill",
            Means::Restart => "restart",
            Means::Pause => "pause",
            Means::Cut => "cut",
            Means::Clock => "clock",
            Means::DiskFull => "disk-full",
            Means::SyncError => "sync-error",
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// No means has that name.
#[derive(Debug, thiserror::Error)]
#[error("accepted: kill, restart, pause, cut, clock, disk-full, sync-error")]
pub struct NoSuchMeans;

impl FromStr for Means {
    type Err = NoSuchMeans;

    fn from_str(name: &str) -> Result<Means, NoSuchMeans> {
        Means::ALL.into_iter().find(|means| means.name() == name).ok_or(NoSuchMeans)
    }
}

/// What exactly is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Kill(u8),
    Restart(u8),
    Pause(u8),
    /// From each first to its second.
    Cut(Vec<(u8, u8)>),
    Clock {
        node: u8,
        jump_ms: i64,
    },
    DiskFull(u8),
    SyncError(u8),
}

impl Deed {
    pub(super) fn means(&self) -> Means {
        match self {
            Deed::Kill(_) => Means::Kill,
            Deed::Restart(_) => Means::Restart,
            Deed::Pause(_) => Means::Pause,
            Deed::Cut(_) => Means::Cut,
            Deed::Clock { .. } => Means::Clock,
            Deed::DiskFull(_) => Means::DiskFull,
            Deed::SyncError(_) => Means::SyncError,
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let means = self.means();
        match self {
            Deed::Kill(node)
            | Deed::Restart(node)
            | Deed::Pause(node)
            | Deed::DiskFull(node)
            | Deed::SyncError(node) => write!(formatter, "{means} {node}"),
            Deed::Clock { node, jump_ms } => write!(formatter, "{means} {node} {jump_ms:+} ms"),
            Deed::Cut(links) => {
                write!(formatter, "{means}")?;
                links.iter().try_for_each(|(from, to)| write!(formatter, " {from}>{to}"))
            }
        }
    }
}

/// One deed and when, from the beginning of its ordeal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) deed: Deed,
    pub(super) begins: Duration,
    pub(super) ends: Duration,
}

/// Faults that overlap. After them everything is mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ordeal {
    /// Whether a quorum of every key stays up, so that requests have to be served.
    pub(super) leaves_quorum: bool,
    pub(super) faults: Vec<Fault>,
}

impl fmt::Display for Ordeal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            write!(formatter, "{}{}", if at == 0 { "" } else { ", " }, fault.deed)?;
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Plan {
    random: StdRng,
    nodes: u8,
    /// The one whose disk can be filled.
    small_disk: u8,
    means: Vec<Means>,
    deck: Vec<Means>,
    longest: Duration,
}

impl Plan {
    /// Ordeals for nodes `1..=nodes`, of which the last has the small disk. A fault lasts at most `longest`.
    pub(super) fn new(seed: u64, nodes: u8, means: Vec<Means>, longest: Duration) -> Plan {
        assert!(!means.is_empty(), "there is nothing to draw from");
        let random = StdRng::seed_from_u64(seed);
        Plan { random, nodes, small_disk: nodes, means, deck: Vec::new(), longest }
    }

    /// The next ordeal.
    pub(super) fn next(&mut self) -> Ordeal {
        let leaves_quorum = self.random.random_bool(0.8);
        let wanted = if leaves_quorum { 1 } else { self.random.random_range(2..=self.nodes) };
        let mut free: Vec<u8> = (1..=self.nodes).collect();
        free.shuffle(&mut self.random);
        let mut faults: Vec<Fault> = Vec::new();
        for _ in 0..wanted {
            let means = self.deal();
            let cut_already = faults.iter().any(|fault| fault.deed.means() == Means::Cut);
            if means == Means::Cut && cut_already {
                continue;
            }
            let node = match means {
                Means::DiskFull if !free.contains(&self.small_disk) => continue,
                Means::DiskFull => self.small_disk,
                _ => free[free.len() - 1],
            };
            if means != Means::Cut {
                free.retain(|other| *other != node);
            }
            let deed = self.deed(means, node, leaves_quorum);
            let latest_ms = if leaves_quorum { 0 } else { 1_000 };
            let begins = Duration::from_millis(self.random.random_range(0..=latest_ms));
            let ends = begins + self.lasting(means);
            faults.push(Fault { deed, begins, ends });
        }
        Ordeal { leaves_quorum, faults }
    }

    fn deal(&mut self) -> Means {
        if self.deck.is_empty() {
            self.deck.clone_from(&self.means);
            self.deck.extend(self.means.iter().filter(|means| **means == Means::Kill));
            self.deck.shuffle(&mut self.random);
        }
        self.deck.pop().expect("it was filled above")
    }

    fn deed(&mut self, means: Means, node: u8, leaves_quorum: bool) -> Deed {
        match means {
            Means::Kill => Deed::Kill(node),
            Means::Restart => Deed::Restart(node),
            Means::Pause => Deed::Pause(node),
            Means::DiskFull => Deed::DiskFull(node),
            Means::SyncError => Deed::SyncError(node),
            Means::Clock => {
                let jumps_ms = [-3_600_000, -1_000, 1_000, 3_600_000];
                Deed::Clock { node, jump_ms: jumps_ms[self.random.random_range(0..jumps_ms.len())] }
            }
            Means::Cut if leaves_quorum => Deed::Cut(self.cut_around(node)),
            Means::Cut => Deed::Cut(self.cut_anywhere()),
        }
    }

    /// Links of one node: all, those to it, those from it, or one.
    fn cut_around(&mut self, node: u8) -> Vec<(u8, u8)> {
        let others = (1..=self.nodes).filter(|other| *other != node);
        let to = others.clone().map(|other| (other, node));
        let from = others.map(|other| (node, other));
        match self.random.random_range(0..4) {
            0 => to.chain(from).collect(),
            1 => to.collect(),
            2 => from.collect(),
            _ => {
                let mut links: Vec<_> = to.chain(from).collect();
                vec![links.swap_remove(self.random.random_range(0..links.len()))]
            }
        }
    }

    /// Two sides that do not hear each other, or any links at all.
    fn cut_anywhere(&mut self) -> Vec<(u8, u8)> {
        let mut nodes: Vec<u8> = (1..=self.nodes).collect();
        nodes.shuffle(&mut self.random);
        let (sides, share) = (self.random.random_bool(0.5), self.random.random_range(0.1..0.6));
        let (one, other) = nodes.split_at(usize::from(self.nodes / 2));
        let mut links = Vec::new();
        for from in &nodes {
            for to in nodes.iter().filter(|to| *to != from) {
                let apart = one.contains(from) && other.contains(to)
                    || one.contains(to) && other.contains(from);
                if if sides { apart } else { self.random.random_bool(share) } {
                    links.push((*from, *to));
                }
            }
        }
        links
    }

    fn lasting(&mut self, means: Means) -> Duration {
        let (shortest_ms, longest_ms) = match means {
            // Some are back before anybody knows, some are given up by then.
            Means::Kill | Means::Restart => (20, 1_000),
            Means::SyncError => (300, 1_500),
            Means::Pause => (1_000, 10_000),
            Means::Cut | Means::Clock => (500, 10_000),
            // It takes a while until what was allocated before is used up.
            Means::DiskFull => (3_000, 10_000),
        };
        let longest_ms = (self.longest.as_millis() as u64).clamp(shortest_ms, longest_ms);
        Duration::from_millis(self.random.random_range(shortest_ms..=longest_ms))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::{Deed, Means, Ordeal, Plan};

    fn plan(seed: u64) -> Plan {
        Plan::new(seed, 5, Means::ALL.to_vec(), Duration::from_secs(10))
    }

    fn touched(ordeal: &Ordeal) -> Vec<u8> {
        let nodes = ordeal.faults.iter().filter_map(|fault| match &fault.deed {
            Deed::Kill(node)
            | Deed::Restart(node)
            | Deed::Pause(node)
            | Deed::DiskFull(node)
            | Deed::SyncError(node)
            | Deed::Clock { node, .. } => Some(*node),
            Deed::Cut(_) => None,
        });
        nodes.collect()
    }

    #[test]
    fn a_seed_is_a_plan() {
        let ordeals = |seed| {
            std::iter::repeat_with(move || seed).scan(plan(seed), |plan, _| Some(plan.next()))
        };
        assert!(ordeals(1).take(200).eq(ordeals(1).take(200)));
        assert!(!ordeals(1).take(20).eq(ordeals(2).take(20)));
    }

    #[test]
    fn a_quorum_is_left_where_that_is_said() {
        let mut plan = plan(3);
        let mut kinds = BTreeSet::new();
        for _ in 0..1_000 {
            let ordeal = plan.next();
            let nodes = touched(&ordeal);
            assert_eq!(nodes.iter().collect::<BTreeSet<_>>().len(), nodes.len(), "{ordeal}");
            assert!(ordeal.faults.iter().all(|fault| fault.begins < fault.ends));
            kinds.insert((ordeal.leaves_quorum, nodes.len().min(2)));
            let cut = ordeal.faults.iter().find_map(|fault| match &fault.deed {
                Deed::Cut(links) => Some(links.clone()),
                _ => None,
            });
            if ordeal.leaves_quorum {
                assert_eq!(ordeal.faults.len(), 1, "{ordeal}");
                let common = |node: u8| cut.iter().flatten().all(|(a, b)| *a == node || *b == node);
                assert!((1..=5).any(common), "{ordeal}");
            }
        }
        assert!(kinds.contains(&(true, 1)) && kinds.contains(&(false, 2)), "{kinds:?}");
    }

    #[test]
    fn every_means_comes_up_before_any_does_again() {
        let mut plan = plan(4);
        for _ in 0..20 {
            let mut dealt: Vec<_> = (0..=Means::ALL.len()).map(|_| plan.deal()).collect();
            dealt.sort_unstable();
            assert_eq!(dealt, [&[Means::Kill][..], &Means::ALL].concat());
        }
    }
}
