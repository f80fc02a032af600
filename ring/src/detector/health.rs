//! How far a node must doubt itself before it doubts others (Lifeguard: Dadgar, Phillips, Currey
//! 2017). It rises with own late ticks and with probes that fail on most links at once, and falls
//! by one with every second in which neither happens.

use super::{Millis, OWN_PAUSE_MS};

/// The score of a node that can hardly trust itself. A sound one has 0.
pub const HEALTH_WORST: u8 = 8;
/// How often the probes are looked at.
const JUDGE_EVERY_MS: u64 = 1_000;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct LocalHealth {
    score: u8,
    ticked_at: Option<Millis>,
    judged_at: Millis,
}

impl LocalHealth {
    /// From 0, sound, to [`HEALTH_WORST`].
    #[must_use]
    pub fn score(&self) -> u8 {
        self.score
    }

    /// Time passed. Returns whether this node was paused since the last call: then it must not
    /// convict anybody now.
    pub fn tick(&mut self, now: Millis) -> bool {
        let gap = self.ticked_at.map_or(0, |last| now.since(last));
        self.ticked_at = Some(now);
        if gap <= OWN_PAUSE_MS {
            return false;
        }
        self.raise(gap / OWN_PAUSE_MS);
        self.judged_at = now;
        true
    }

    /// How many of the probed links have left a probe of more than a second ago unanswered. May
    /// be called at every tick; looks once a second.
    pub fn probes(&mut self, now: Millis, failed: usize, probed: usize) {
        if now.since(self.judged_at) < JUDGE_EVERY_MS {
            return;
        }
        self.judged_at = now;
        // One silent peer is that peer's fault, most of several are this node's.
        if probed >= 2 && failed * 2 > probed {
            self.raise(1);
        } else {
            self.score = self.score.saturating_sub(1);
        }
    }

    fn raise(&mut self, by: u64) {
        let score = u64::from(self.score).saturating_add(by).min(u64::from(HEALTH_WORST));
        self.score = u8::try_from(score).unwrap_or(HEALTH_WORST);
    }
}
