//! Is that node part of the cluster's life? From the arrival times of its gossiped heartbeats: a
//! node is down when its silence is many times what it usually is (phi accrual: Hayashibara et al.
//! 2004, in the linear form that Cassandra uses).

use std::collections::BTreeMap;

use super::{HEALTH_WORST, Millis, OWN_PAUSE_MS};
use crate::HostId;

/// Silence of so many mean intervals convicts.
const MEANS: u64 = 10;
/// No silence shorter than this convicts.
const SILENCE_MS_MIN: u64 = 5_000;
/// Weight of a new interval in the mean: one in so many.
const WINDOW: u64 = 64;
/// Longer intervals are outages, not samples.
const INTERVAL_MS_MAX: u64 = 10_000;
/// The mean before anything is known: the gossip interval.
const INTERVAL_MS_FIRST: u64 = 1_000;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct AccrualDetector {
    arrivals: BTreeMap<HostId, Arrivals>,
    ticked_at: Option<Millis>,
}

#[derive(Debug, Clone)]
struct Arrivals {
    last: Millis,
    /// The interval that ends next was interrupted by a pause of this node: no sample.
    interrupted: bool,
    /// [`WINDOW`] times the mean interval.
    window_ms: u64,
}

impl AccrualDetector {
    /// Time passed; expected a few times a second, and before [`Self::is_down`] is asked. After a
    /// pause of this node all silences are counted anew.
    pub fn tick(&mut self, now: Millis) {
        let paused = self.ticked_at.is_some_and(|last| now.since(last) > OWN_PAUSE_MS);
        self.ticked_at = Some(now);
        if paused {
            for known in self.arrivals.values_mut() {
                known.last = now;
                known.interrupted = true;
            }
        }
    }

    /// A newer heartbeat of `host` has arrived, over whichever way.
    pub fn heartbeat(&mut self, now: Millis, host: HostId) {
        let first =
            Arrivals { last: now, interrupted: true, window_ms: WINDOW * INTERVAL_MS_FIRST };
        let known = self.arrivals.entry(host).or_insert(first);
        let interval = now.since(known.last);
        if !known.interrupted && interval <= INTERVAL_MS_MAX {
            known.window_ms += interval;
            known.window_ms -= known.window_ms / (WINDOW + 1);
        }
        known.interrupted = false;
        known.last = now;
    }

    /// Whether `host` has been silent for too long, or was never heard of. `local_health` is
    /// [`super::LocalHealth::score`]: a node that is late itself has more patience.
    #[must_use]
    pub fn is_down(&self, now: Millis, host: HostId, local_health: u8) -> bool {
        let Some(known) = self.arrivals.get(&host) else { return true };
        let patience = (MEANS * known.window_ms / WINDOW).max(SILENCE_MS_MIN);
        now.since(known.last) >= patience * (1 + u64::from(local_health.min(HEALTH_WORST)))
    }
}
