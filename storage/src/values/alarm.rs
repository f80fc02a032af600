//! Things that cannot happen while every replica is sound, counted and logged when they do.
//!
//! Invariant: raising an alarm never fails and never changes a result. The counts are per process, because the merge operator that raises
//! them has no handle to anything.

use std::sync::atomic::{AtomicU64, Ordering};

use super::dot::Dot;

static DOT_CONFLICTS: AtomicU64 = AtomicU64::new(0);
static OPAQUE_MERGES: AtomicU64 = AtomicU64::new(0);

/// How often each alarm was raised since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// Joins that met one dot with two different values: two replicas minted as the same actor, or memory was corrupted.
    pub dot_conflicts: u64,
    /// Merges that met an operand they could not read and kept it as opaque bytes.
    pub opaque_merges: u64,
}

/// The alarms raised by this process so far.
pub fn alarms() -> Alarms {
    Alarms {
        dot_conflicts: DOT_CONFLICTS.load(Ordering::Relaxed),
        opaque_merges: OPAQUE_MERGES.load(Ordering::Relaxed),
    }
}

pub(super) fn dot_conflict(dot: Dot) {
    if is_worth_a_line(DOT_CONFLICTS.fetch_add(1, Ordering::Relaxed)) {
        tracing::error!(%dot, "one dot carries two values; keeping the larger");
    }
}

pub(super) fn opaque_merge(undecodable: usize) {
    if is_worth_a_line(OPAQUE_MERGES.fetch_add(1, Ordering::Relaxed)) {
        tracing::error!(
            undecodable,
            "a merge met operands it cannot read; keeping them as opaque bytes"
        );
    }
}

/// A damaged key is merged again at every read and compaction: log the first occurrences, then ever fewer.
fn is_worth_a_line(before: u64) -> bool {
    before < 16 || before.is_power_of_two()
}
