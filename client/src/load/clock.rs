//! The generator's clock: the only place of the module that reads time.

use std::time::Instant;

/// The present moment of the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "measuring latency is what a load generator is for")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Whole microseconds between two moments; zero if they are in the wrong order.
pub(crate) fn micros_between(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}
