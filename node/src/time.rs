//! Monotonic time for drivers, through tokio so that a paused or simulated runtime governs it.
//! Wall-clock time lives in the storage crate's clock, not here.

use tokio::time::Instant;

/// The present moment of the runtime's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place where the node reads monotonic time")]
pub fn now() -> Instant {
    Instant::now()
}
