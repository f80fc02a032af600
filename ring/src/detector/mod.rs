//! Failure detection: two questions, two answers.
//!
//! - [`DirectDetector`]: can this node reach that one? It routes requests, from direct evidence.
//! - [`AccrualDetector`]: is that node part of the cluster's life? From gossiped heartbeats.
//! - [`LocalHealth`]: is it perhaps this node itself that is late?
//!
//! All are pure: they take the time with each event and answer with effects.

mod accrual;
mod direct;
mod health;
mod peer;

pub use accrual::AccrualDetector;
pub use direct::{DirectDetector, Effect, Event};
pub use health::{HEALTH_WORST, LocalHealth};
pub use peer::{CONVICT_AFTER_MS, SUSPECT_AFTER_MS};

use serde::{Deserialize, Serialize};

/// A gap between ticks beyond which this node was paused itself, so that silence proves nothing.
const OWN_PAUSE_MS: u64 = 1_000;

/// Milliseconds since the node started: the clock of these state machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// Milliseconds from `earlier` to here, 0 if it is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What one node believes of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Liveness {
    /// It answers.
    Up,
    /// It has been silent for a moment; requests still go there, after the others.
    Suspect,
    /// Others reach it, this node does not.
    UnreachableFromMe,
    /// Nobody reaches it.
    Down,
}
