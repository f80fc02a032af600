//! What a node's clock shows, told from its answers: a node says with some of them how long it has been up.
//!
//! Invariant: the estimate is not ahead of the node. An answer was on its way for a while, so what it says is
//! old; the quickest answer of the last seconds is the least old. Wall clocks play no part, and clocks that
//! run a little differently have no time to drift apart.

/// An answer counts for so long to twice as long.
const WINDOW_MS: u64 = 10_000;

/// See the module. Times are milliseconds: a node's since it was started, the caller's own since a moment of its choice.
#[derive(Debug, Default)]
pub struct NodeClock {
    window_began: u64,
    ahead: Option<i64>,
    ahead_before: Option<i64>,
}

impl NodeClock {
    /// At `now` an answer arrived that the node sent when it had been up for `uptime`.
    pub fn observe(&mut self, uptime: u64, now: u64) {
        if now.saturating_sub(self.window_began) >= WINDOW_MS {
            self.ahead_before = self.ahead.take();
            self.window_began = now;
        }
        let (Ok(uptime), Ok(now)) = (i64::try_from(uptime), i64::try_from(now)) else { return };
        let ahead = uptime.saturating_sub(now);
        self.ahead = Some(self.ahead.map_or(ahead, |known| known.max(ahead)));
    }

    /// For how long the node has been up at least; nothing before its first answer.
    #[must_use]
    pub fn uptime(&self, now: u64) -> Option<u64> {
        let ahead = self.ahead.max(self.ahead_before)?;
        now.checked_add_signed(ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeClock;

    #[test]
    fn the_estimate_follows_the_quickest_answer_and_is_never_ahead() {
        let mut clock = NodeClock::default();
        assert_eq!(clock.uptime(0), None);
        // The node has been up for 5 s when the connection begins; answers take 40, 3 and 90 ms.
        clock.observe(5_100, 140);
        assert_eq!(clock.uptime(140), Some(5_100));
        clock.observe(5_200, 203);
        clock.observe(5_300, 390);
        assert_eq!(clock.uptime(1_000), Some(5_997));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut clock = NodeClock::default();
        clock.observe(1_000, 0);
        // From here on the node's clock runs slow, as it seems from here.
        for s in [11, 22, 33] {
            clock.observe(1_000 + s * 999, s * 1_000);
        }
        assert_eq!(clock.uptime(33_000), Some(1_000 + 33_000 - 22));
    }
}
