//! The order in which replicas are asked, and how often one more may be asked to be quicker.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use starling_ring::detector::Liveness;

use super::Coordinator;
use super::plan::Plan;

/// A later replica goes first only if it is better by more than this share, so that equally quick
/// replicas keep their order and with it their warm caches.
const BETTER_BY_PERCENT: u64 = 10;
/// One read in twenty may be asked of one replica more.
const HEDGES_PER_100: i64 = 5;
/// Hedges that may be saved up, in hundredths of a hedge.
const SAVED_MAX: i64 = 1_000;

impl Coordinator {
    /// Replicas of the plan in the order to ask them: itself, then the living before the
    /// suspected and the silent, the near before the far, the quick before the slow. The dead are left out, and those that lost writes.
    pub(super) fn preference(&self, plan: &Plan) -> Vec<usize> {
        let replicas = plan.replicas();
        let here = self.local.member();
        let mut order: Vec<(usize, _)> = replicas
            .iter()
            .enumerate()
            .filter(|(_, node)| self.can_be_read(**node))
            .map(|(index, node)| {
                let member = self.local.ring.member(*node);
                let same_datacenter = member.datacenter == here.datacenter;
                let same_rack = same_datacenter && member.rack == here.rack;
                let link = self.links.to(*node);
                let latency = link.map_or(0, |link| link.latency_us());
                let silent = link.is_some_and(|link| link.is_silent());
                let rank = (
                    Reverse(*node == self.local.me),
                    silent || self.liveness.of(*node) == Liveness::Suspect,
                    Reverse(same_datacenter),
                    Reverse(same_rack),
                );
                (index, (rank, latency))
            })
            .collect();
        order.sort_by_key(|(_, (rank, _))| *rank);
        let mut at = 1;
        while at < order.len() {
            let (before, this) = (&order[at - 1].1, &order[at].1);
            let much_quicker = this.1 * (100 + BETTER_BY_PERCENT) < before.1 * 100;
            if before.0 == this.0 && much_quicker {
                order.swap(at - 1, at);
                at = at.saturating_sub(1).max(1);
            } else {
                at += 1;
            }
        }
        order.into_iter().map(|(index, _)| index).collect()
    }
}

/// How long an answer usually takes, and how many hedged reads have been earned.
#[derive(Debug, Default)]
pub struct HedgeBudget {
    earned: AtomicI64,
    mean_us: AtomicU64,
    deviation_us: AtomicU64,
}

impl HedgeBudget {
    /// Records a read that took `took`.
    pub fn observe(&self, took: Duration) {
        let sample = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = self.mean_us.load(Ordering::Relaxed);
        let deviation = self.deviation_us.load(Ordering::Relaxed);
        self.mean_us.store(mean - mean / 64 + sample / 64, Ordering::Relaxed);
        let off = sample.abs_diff(mean);
        self.deviation_us.store(deviation - deviation / 64 + off / 64, Ordering::Relaxed);
        if self.earned.load(Ordering::Relaxed) < SAVED_MAX {
            self.earned.fetch_add(HEDGES_PER_100, Ordering::Relaxed);
        }
    }

    /// After how long a read is slower than about 99 in 100: mean plus four deviations, and never
    /// under a millisecond.
    #[must_use]
    pub fn delay(&self) -> Duration {
        let mean = self.mean_us.load(Ordering::Relaxed);
        let deviation = self.deviation_us.load(Ordering::Relaxed);
        Duration::from_micros(mean + 4 * deviation).max(Duration::from_millis(1))
    }

    /// Takes one hedge out of the budget, if there is one.
    #[must_use]
    pub fn spend(&self) -> bool {
        let enough = |earned: i64| (earned >= 100).then_some(earned - 100);
        self.earned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_ok()
    }
}
