//! What a node's clock shows, told from its answers: a node says with each how long it has been up.
//!
//! Invariant: the estimate is not ahead of the node. An answer was on its way for a while, so what it says is
//! old; the quickest answer of the last seconds is the least old. Wall clocks play no part, and clocks that
//! run a little differently have no time to drift apart.

use std::time::Duration;

use tokio::time::Instant;

/// An answer counts for so long to twice as long.
const WINDOW: Duration = Duration::from_secs(10);

/// See the module. Times are milliseconds.
#[derive(Debug)]
pub(crate) struct NodeClock {
    began: Instant,
    window_began: Instant,
    ahead: Option<i64>,
    ahead_before: Option<i64>,
}

impl NodeClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, window_began: now, ahead: None, ahead_before: None }
    }

    /// An answer arrived that the node sent when it had been up for `uptime_ms`.
    pub(crate) fn observe(&mut self, uptime_ms: u64, now: Instant) {
        if now.saturating_duration_since(self.window_began) >= WINDOW {
            self.ahead_before = self.ahead.take();
            self.window_began = now;
        }
        let Ok(uptime_ms) = i64::try_from(uptime_ms) else { return };
        let ahead = uptime_ms.saturating_sub(self.since_began(now));
        self.ahead = Some(self.ahead.map_or(ahead, |known| known.max(ahead)));
    }

    /// For how long the node has been up at least; nothing before its first answer.
    pub(crate) fn uptime_ms(&self, now: Instant) -> Option<u64> {
        let ahead = self.ahead.max(self.ahead_before)?;
        u64::try_from(self.since_began(now).saturating_add(ahead)).ok()
    }

    fn since_began(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.began).as_millis();
        i64::try_from(since).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::NodeClock;
    use crate::connection::now;

    #[test]
    fn the_estimate_follows_the_quickest_answer_and_is_never_ahead() {
        let began = now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut clock = NodeClock::new(began);
        assert_eq!(clock.uptime_ms(began), None);
        // The node has been up for 5 s when the connection begins; answers take 40, 3 and 90 ms.
        clock.observe(5_100, at(140));
        assert_eq!(clock.uptime_ms(at(140)), Some(5_100));
        clock.observe(5_200, at(203));
        clock.observe(5_300, at(390));
        assert_eq!(clock.uptime_ms(at(1_000)), Some(5_997));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let began = now();
        let at = |s| began + Duration::from_secs(s);
        let mut clock = NodeClock::new(began);
        clock.observe(1_000, at(0));
        // From here on the node's clock runs slow, as it seems from here.
        for s in [11, 22, 33] {
            clock.observe(1_000 + s * 999, at(s));
        }
        assert_eq!(clock.uptime_ms(at(33)), Some(1_000 + 33_000 - 22));
    }
}
