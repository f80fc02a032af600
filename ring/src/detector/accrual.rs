//! Is that node part of the cluster's life? From the arrival times of its gossiped heartbeats: a
//! node is down when its silence is many times what it usually is (phi accrual: Hayashibara et al.
//! 2004, in the linear form that Cassandra uses).

use std::collections::BTreeMap;

use super::Millis;
use crate::HostId;

/// Silence of so many mean intervals convicts.
const MEANS: u64 = 10;
/// No silence shorter than this convicts.
const SILENCE_MIN_MS: u64 = 5_000;
/// Weight of a new interval in the mean: one in so many.
const WINDOW: u64 = 64;
/// Longer intervals are pauses, not samples.
const INTERVAL_MAX_MS: u64 = 10_000;
/// The mean before anything is known: the gossip interval.
const INTERVAL_FIRST_MS: u64 = 1_000;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct AccrualDetector {
    arrivals: BTreeMap<HostId, Arrivals>,
}

#[derive(Debug, Clone)]
struct Arrivals {
    last: Millis,
    mean_ms: u64,
}

impl AccrualDetector {
    /// A newer heartbeat of `host` has arrived, over whichever way.
    pub fn heartbeat(&mut self, now: Millis, host: HostId) {
        let Some(known) = self.arrivals.get_mut(&host) else {
            self.arrivals.insert(host, Arrivals { last: now, mean_ms: INTERVAL_FIRST_MS });
            return;
        };
        let interval = now.since(known.last);
        if interval <= INTERVAL_MAX_MS {
            known.mean_ms = (known.mean_ms * (WINDOW - 1) + interval) / WINDOW;
        }
        known.last = now;
    }

    /// Whether `host` has been silent for too long. `local_health` is 0 for a sound node up to 8
    /// for one that is late itself, and stretches its patience.
    #[must_use]
    pub fn is_down(&self, now: Millis, host: HostId, local_health: u8) -> bool {
        let Some(known) = self.arrivals.get(&host) else { return true };
        let patience = (MEANS * known.mean_ms).max(SILENCE_MIN_MS);
        now.since(known.last) >= patience * (1 + u64::from(local_health.min(8)))
    }
}
