//! Can this node reach that one? Any frame from a peer is a sign of life; silence is doubted, then
//! put to others, then believed.
//!
//! A refused reconnect convicts at once, because a kernel without a listener is proof. A pause of
//! this node itself convicts nobody (Lifeguard: Dadgar, Phillips, Currey 2017).

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::IteratorRandom;

use super::{Liveness, Millis};
use crate::HostId;

/// Silence after which a peer is suspected and others are asked.
pub const SUSPECT_AFTER_MS: u64 = 2_500;
/// Silence after which the suspicion is believed.
pub const CONVICT_AFTER_MS: u64 = 5_000;
/// Pause between pings to a link in use.
const PING_EVERY_MS: u64 = 1_000;
/// Pause between pings to a peer on its way back.
const RETURN_PING_EVERY_MS: u64 = 200;
/// A link counts as in use for so long after its last request.
const USED_FOR_MS: u64 = 60_000;
/// Peers asked about a suspect.
const ASKED: usize = 3;
/// A gap between ticks beyond which this node was paused itself.
const OWN_PAUSE_MS: u64 = 1_000;
/// Successes that bring a peer back; doubled for each flap within [`FLAP_WINDOW_MS`].
const SUCCESSES: u32 = 3;
const FLAP_WINDOW_MS: u64 = 600_000;
/// Successes are counted at most this often, so that the doubling caps at a minute.
const SUCCESS_EVERY_MS: u64 = 150;
const SUCCESSES_MAX: u32 = 400;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time passed. Expected a few times a second.
    Tick,
    /// Anything at all arrived from the peer.
    FrameFrom(HostId),
    /// A request went to the peer.
    Used(HostId),
    /// A connection to the peer stands, with its incarnation.
    LinkUp(HostId, u64),
    /// The connection ended, or could not be made.
    LinkDown {
        /// The peer.
        peer: HostId,
        /// Whether the peer's machine answered that nobody listens.
        refused: bool,
    },
    /// The peer says itself that it stops.
    Leaving(HostId),
    /// What another node says of a suspect.
    Report {
        /// The suspect.
        about: HostId,
        /// Whether the other reaches it.
        reachable: bool,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a ping.
    Ping(HostId),
    /// Ask these peers whether they reach the suspect.
    AskPeers {
        /// The suspect.
        about: HostId,
        /// Whom to ask.
        peers: Vec<HostId>,
    },
    /// The belief has changed.
    Liveness(HostId, Liveness),
}

/// See the module.
#[derive(Debug, Clone)]
pub struct DirectDetector {
    peers: BTreeMap<HostId, Peer>,
    ticked_at: Option<Millis>,
    probed_at: Millis,
}

#[derive(Debug, Clone)]
struct Peer {
    liveness: Liveness,
    heard_at: Millis,
    pinged_at: Millis,
    used_at: Option<Millis>,
    /// The first ping since the last sign of life.
    waiting_since: Option<Millis>,
    connected: bool,
    incarnation: u64,
    reached_by_others: bool,
    /// Successes still missing before a peer that was down counts as up again.
    missing: u32,
    success_at: Millis,
    flaps: u32,
    flapped_at: Millis,
}

impl DirectDetector {
    /// A detector over `peers`, all of them down until they are heard of.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = HostId>) -> Self {
        let peers = peers.into_iter().map(|host| (host, Peer::unheard())).collect();
        Self { peers, ticked_at: None, probed_at: Millis(0) }
    }

    /// What is believed of a peer; an unknown one is down.
    #[must_use]
    pub fn liveness(&self, host: &HostId) -> Liveness {
        self.peers.get(host).map_or(Liveness::Down, |peer| peer.liveness)
    }

    /// Takes in one event.
    pub fn step(&mut self, now: Millis, event: Event, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, rng, out),
            Event::FrameFrom(host) => self.heard(now, host, out),
            Event::Used(host) => {
                if let Some(peer) = self.peers.get_mut(&host) {
                    peer.used_at = Some(now);
                }
            }
            Event::LinkUp(host, incarnation) => {
                if let Some(peer) = self.peers.get_mut(&host) {
                    peer.link_up(now, incarnation);
                    out.push(Effect::Ping(host));
                }
                self.heard(now, host, out);
            }
            Event::LinkDown { peer: host, refused } => {
                if let Some(peer) = self.peers.get_mut(&host) {
                    peer.connected = false;
                    if refused {
                        peer.become_down(now, Liveness::Down, host, out);
                    }
                }
            }
            Event::Leaving(host) => {
                if let Some(peer) = self.peers.get_mut(&host) {
                    peer.become_down(now, Liveness::Down, host, out);
                }
            }
            Event::Report { about, reachable } => {
                if let Some(peer) = self.peers.get_mut(&about) {
                    peer.reached_by_others |= reachable;
                }
            }
        }
    }

    fn heard(&mut self, now: Millis, host: HostId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(&host) else { return };
        peer.heard_at = now;
        peer.waiting_since = None;
        match peer.liveness {
            Liveness::Up => {}
            Liveness::Suspect => peer.turn(Liveness::Up, host, out),
            Liveness::Down | Liveness::UnreachableFromMe => {
                if peer.missing > 0 && now.since(peer.success_at) >= SUCCESS_EVERY_MS {
                    peer.success_at = now;
                    peer.missing -= 1;
                }
                if peer.missing == 0 {
                    peer.turn(Liveness::Up, host, out);
                }
            }
        }
    }

    fn tick(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        let was_paused = self.ticked_at.is_some_and(|last| now.since(last) > OWN_PAUSE_MS);
        self.ticked_at = Some(now);
        if was_paused {
            // Whatever the peers sent meanwhile lies in socket buffers: silence proves nothing.
            for peer in self.peers.values_mut() {
                peer.heard_at = now;
                peer.waiting_since = None;
            }
        }
        self.convict(now, rng, out);
        for (host, peer) in &mut self.peers {
            let every = if peer.liveness == Liveness::Up { PING_EVERY_MS } else { RETURN_PING_EVERY_MS };
            let used = peer.used_at.is_some_and(|at| now.since(at) <= USED_FOR_MS);
            let wanted = used || peer.liveness != Liveness::Up;
            if peer.connected && wanted && now.since(peer.pinged_at) >= every {
                peer.ping(now);
                out.push(Effect::Ping(*host));
            }
        }
        if now.since(self.probed_at) >= PING_EVERY_MS {
            self.probed_at = now;
            let idle = self.peers.iter_mut().filter(|(_, peer)| {
                peer.connected && now.since(peer.pinged_at) >= PING_EVERY_MS
            });
            if let Some((host, peer)) = idle.choose(rng) {
                peer.ping(now);
                out.push(Effect::Ping(*host));
            }
        }
    }

    fn convict(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        let up: Vec<HostId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.liveness == Liveness::Up)
            .map(|(host, _)| *host)
            .collect();
        for (host, peer) in &mut self.peers {
            let silence = peer.silence(now);
            match peer.liveness {
                Liveness::Up if silence >= SUSPECT_AFTER_MS => {
                    peer.reached_by_others = false;
                    peer.turn(Liveness::Suspect, *host, out);
                    let peers = up.iter().copied().filter(|other| other != host);
                    let peers = peers.sample(rng, ASKED);
                    if !peers.is_empty() {
                        out.push(Effect::AskPeers { about: *host, peers });
                    }
                }
                Liveness::Suspect if silence >= CONVICT_AFTER_MS => {
                    let verdict = if peer.reached_by_others {
                        Liveness::UnreachableFromMe
                    } else {
                        Liveness::Down
                    };
                    peer.become_down(now, verdict, *host, out);
                }
                _ => {}
            }
        }
    }
}

impl Peer {
    fn unheard() -> Self {
        Self {
            liveness: Liveness::Down,
            heard_at: Millis(0),
            pinged_at: Millis(0),
            used_at: None,
            waiting_since: None,
            connected: false,
            incarnation: 0,
            reached_by_others: false,
            missing: 1,
            success_at: Millis(0),
            flaps: 0,
            flapped_at: Millis(0),
        }
    }

    /// Milliseconds of silence that mean something. An idle link is silent by itself: there it
    /// counts from the first ping that was not answered.
    fn silence(&self, now: Millis) -> u64 {
        let in_use = self.used_at.is_some_and(|at| now.since(at) <= USED_FOR_MS);
        if in_use || !self.connected {
            now.since(self.heard_at)
        } else {
            self.waiting_since.map_or(0, |since| now.since(since))
        }
    }

    fn ping(&mut self, now: Millis) {
        self.pinged_at = now;
        self.waiting_since.get_or_insert(now);
    }

    fn link_up(&mut self, now: Millis, incarnation: u64) {
        self.connected = true;
        self.ping(now);
        if incarnation != self.incarnation && self.incarnation != 0 {
            // It was restarted: that is no flapping link, and its past silence is explained.
            self.flaps = 0;
            self.missing = self.missing.min(SUCCESSES);
        }
        self.incarnation = incarnation;
    }

    fn turn(&mut self, liveness: Liveness, host: HostId, out: &mut Vec<Effect>) {
        if self.liveness != liveness {
            self.liveness = liveness;
            out.push(Effect::Liveness(host, liveness));
        }
    }

    fn become_down(&mut self, now: Millis, verdict: Liveness, host: HostId, out: &mut Vec<Effect>) {
        if matches!(self.liveness, Liveness::Up | Liveness::Suspect) {
            let again = now.since(self.flapped_at) < FLAP_WINDOW_MS && self.flaps > 0;
            self.flaps = if again { self.flaps + 1 } else { 1 };
            self.flapped_at = now;
            let doubled = SUCCESSES.saturating_mul(1 << (self.flaps - 1).min(16));
            self.missing = doubled.min(SUCCESSES_MAX);
        }
        self.turn(verdict, host, out);
    }
}
