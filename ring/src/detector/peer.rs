//! What the direct detector remembers of one peer.
//!
//! Silence counts only while an answer is owed: from the last sign of life on a link that is
//! pinged every second, from the first unanswered ping on an idle one, from the moment when the
//! connection broke without one. So a link that rested for an hour is not an hour silent.

use super::{Liveness, Millis};

/// Silence after which a peer is suspected and others are asked.
pub const SUSPECT_AFTER_MS: u64 = 2_500;
/// Silence after which the suspicion is believed.
pub const CONVICT_AFTER_MS: u64 = 5_000;
/// Pause between pings to a link in use.
pub(super) const PING_EVERY_MS: u64 = 1_000;
/// Pause between pings to a suspect.
const SUSPECT_PING_EVERY_MS: u64 = 500;
/// Pause between pings to a peer on its way back.
const RETURN_PING_EVERY_MS: u64 = 200;
/// A link counts as in use for so long after its last request.
const USED_FOR_MS: u64 = 60_000;
/// A sign of life just before a ping is where the silence begins.
const JUST_BEFORE_MS: u64 = 1_250;
/// Pause between questions to others about a suspect, and about a peer that only others reach.
const ASK_EVERY_MS: u64 = 1_000;
const ASK_AGAIN_EVERY_MS: u64 = 2_500;
/// How long "I reach it" holds. An asked peer may itself not have noticed yet, so that only an
/// answer given well after the silence began decides.
const REPORT_HOLDS_MS: u64 = 2_000;
const REPORT_HOLDS_LATER_MS: u64 = 6_000;
/// Successes that bring a peer back; doubled for each flap within [`FLAP_WINDOW_MS`].
const SUCCESSES: u32 = 3;
const FLAP_WINDOW_MS: u64 = 600_000;
/// Successes are counted at most this often, in practice with each ping on the way back: the
/// doubling ends at a minute.
const SUCCESS_EVERY_MS: u64 = 150;
const SUCCESSES_MAX: u32 = 300;
/// Frames of a node that said that it stops mean nothing for so long, unless it starts anew.
const LEAVING_FOR_MS: u64 = 10_000;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) liveness: Liveness,
    pub(super) connected: bool,
    incarnation: u64,
    heard_at: Option<Millis>,
    pinged_at: Option<Millis>,
    used_at: Option<Millis>,
    waiting_since: Option<Millis>,
    asked_at: Option<Millis>,
    /// When another node last said that it reaches the peer.
    reached_at: Option<Millis>,
    /// Successes that bring it back, and how many of them are still missing.
    needed: u32,
    missing: u32,
    success_at: Option<Millis>,
    flaps: u32,
    flapped_at: Option<Millis>,
    left_at: Option<Millis>,
}

impl Peer {
    /// Down, and up with the first frame on a connection to it.
    pub(super) fn unheard() -> Self {
        Self {
            liveness: Liveness::Down,
            connected: false,
            incarnation: 0,
            heard_at: None,
            pinged_at: None,
            used_at: None,
            waiting_since: None,
            asked_at: None,
            reached_at: None,
            needed: 1,
            missing: 1,
            success_at: None,
            flaps: 0,
            flapped_at: None,
            left_at: None,
        }
    }

    pub(super) fn silence(&self, now: Millis) -> u64 {
        self.waiting_since.map_or(0, |since| now.since(since))
    }

    pub(super) fn used(&mut self, now: Millis) {
        self.used_at = Some(now);
    }

    /// A sign of life arrived. Returns whether the peer is up thereby.
    pub(super) fn heard(&mut self, now: Millis) -> bool {
        if within(self.left_at, now, LEAVING_FOR_MS) {
            return false;
        }
        self.heard_at = Some(now);
        // Without a connection nothing can be asked: the next silence begins at once.
        self.waiting_since = if self.connected { None } else { Some(now) };
        match self.liveness {
            Liveness::Up | Liveness::Suspect => true,
            Liveness::Down | Liveness::UnreachableFromMe => {
                if !within(self.success_at, now, SUSPECT_AFTER_MS) {
                    self.missing = self.needed;
                }
                if !within(self.success_at, now, SUCCESS_EVERY_MS) {
                    self.success_at = Some(now);
                    self.missing = self.missing.saturating_sub(1);
                }
                // It may have reached this node first: until it is reached too, nothing can be asked.
                self.missing == 0 && self.connected
            }
        }
    }

    /// Whether it is time for a ping.
    pub(super) fn wants_ping(&self, now: Millis) -> bool {
        let every = match self.liveness {
            Liveness::Up if within(self.used_at, now, USED_FOR_MS) => PING_EVERY_MS,
            Liveness::Up => return false,
            Liveness::Suspect => SUSPECT_PING_EVERY_MS,
            _ if within(self.heard_at, now, PING_EVERY_MS) => RETURN_PING_EVERY_MS,
            _ => PING_EVERY_MS,
        };
        self.connected && !within(self.pinged_at, now, every)
    }

    /// Whether a random probe would tell anything.
    pub(super) fn is_idle(&self, now: Millis) -> bool {
        self.connected && !within(self.pinged_at, now, PING_EVERY_MS)
    }

    pub(super) fn pinged(&mut self, now: Millis) {
        self.pinged_at = Some(now);
        let heard = self.heard_at.filter(|heard| now.since(*heard) <= JUST_BEFORE_MS);
        self.waiting_since.get_or_insert(heard.unwrap_or(now));
    }

    /// Whether it is time to ask others; notes that they are asked.
    pub(super) fn ask(&mut self, now: Millis) -> bool {
        let every = match self.liveness {
            Liveness::Suspect => ASK_EVERY_MS,
            Liveness::UnreachableFromMe => ASK_AGAIN_EVERY_MS,
            Liveness::Up | Liveness::Down => return false,
        };
        let due = !within(self.asked_at, now, every);
        if due {
            self.asked_at = Some(now);
        }
        due
    }

    pub(super) fn reached_by_other(&mut self, now: Millis) {
        self.reached_at = Some(now);
    }

    /// What its silence amounts to by now, if that is worse than what was believed.
    pub(super) fn verdict(&self, now: Millis) -> Option<Liveness> {
        let silence = self.silence(now);
        match self.liveness {
            Liveness::Up if silence >= SUSPECT_AFTER_MS => Some(Liveness::Suspect),
            Liveness::Suspect if silence >= CONVICT_AFTER_MS => {
                Some(if within(self.reached_at, now, REPORT_HOLDS_MS) {
                    Liveness::UnreachableFromMe
                } else {
                    Liveness::Down
                })
            }
            Liveness::UnreachableFromMe => {
                let lost = !within(self.reached_at, now, REPORT_HOLDS_LATER_MS);
                lost.then_some(Liveness::Down)
            }
            Liveness::Up | Liveness::Suspect | Liveness::Down => None,
        }
    }

    /// Notes a new belief. Returns whether it is another one.
    pub(super) fn believe(&mut self, now: Millis, liveness: Liveness) -> bool {
        let was = std::mem::replace(&mut self.liveness, liveness);
        let lost = matches!(liveness, Liveness::Down | Liveness::UnreachableFromMe);
        if lost && matches!(was, Liveness::Up | Liveness::Suspect) {
            let again = within(self.flapped_at, now, FLAP_WINDOW_MS);
            self.flaps = if again { self.flaps.saturating_add(1) } else { 1 };
            self.flapped_at = Some(now);
            self.needed =
                SUCCESSES.saturating_mul(1 << (self.flaps - 1).min(16)).min(SUCCESSES_MAX);
            self.missing = self.needed;
            self.success_at = None;
        }
        was != liveness
    }

    pub(super) fn link_up(&mut self, incarnation: u64) {
        self.connected = true;
        if incarnation == self.incarnation {
            return;
        }
        self.left_at = None;
        if self.incarnation != 0 {
            // It was restarted: that is no flapping link, and its past silence is explained.
            self.flaps = 0;
            self.flapped_at = None;
            self.needed = self.needed.min(SUCCESSES);
            self.missing = self.needed;
        }
        self.incarnation = incarnation;
    }

    pub(super) fn link_down(&mut self, now: Millis) {
        self.connected = false;
        self.waiting_since.get_or_insert(now);
    }

    /// It said in this incarnation that it stops. Returns whether that still holds: it may have been met in a later one, and its word be
    /// old news that came by another peer.
    pub(super) fn leaving(&mut self, now: Millis, incarnation: u64) -> bool {
        let holds = incarnation >= self.incarnation;
        if holds {
            self.left_at = Some(now);
        }
        holds
    }

    /// This node was paused: what the peer sent meanwhile lies in socket buffers.
    pub(super) fn forgive(&mut self, now: Millis) {
        self.waiting_since = if self.connected { None } else { Some(now) };
        self.reached_at = self.reached_at.map(|_| now);
    }
}

/// Whether `at` is less than `ms` ago.
fn within(at: Option<Millis>, now: Millis, ms: u64) -> bool {
    at.is_some_and(|at| now.since(at) < ms)
}
