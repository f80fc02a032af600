//! Can this node reach that one? Any frame from a peer is a sign of life; silence is doubted, then
//! put to others, then believed.
//!
//! A refused reconnect convicts at once, because a kernel without a listener is proof. A pause of
//! this node itself convicts nobody.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::{IteratorRandom, SliceRandom};

use super::peer::{PING_EVERY_MS, Peer};
use super::{Liveness, LocalHealth, Millis};
use crate::HostId;

/// Peers asked about a suspect.
const ASKED: usize = 3;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time passed. Expected a few times a second, after whatever arrived before it.
    Tick,
    /// Anything at all arrived from the peer. Telling it once per tick is enough.
    FrameFrom(HostId),
    /// A request went to the peer. Telling it once in a while is enough.
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
    /// The peer says itself that it stops, in this incarnation.
    Leaving(HostId, u64),
    /// What another node says of a suspect.
    Report {
        /// The suspect.
        about: HostId,
        /// Whether the other reaches it: hears from it, without a doubt of its own.
        reachable: bool,
    },
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a ping; its answer is a frame like any other.
    Ping(HostId),
    /// Ask these peers whether they reach the suspect, and bring each answer as a report.
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
    health: LocalHealth,
    /// The peers still to be probed before all are shuffled again: each gets its turn.
    to_probe: Vec<HostId>,
    probed_at: Option<Millis>,
}

impl DirectDetector {
    /// A detector over `peers`, without this node itself, all of them down until heard of.
    #[must_use]
    pub fn new(peers: impl IntoIterator<Item = HostId>) -> Self {
        let peers = peers.into_iter().map(|host| (host, Peer::unheard())).collect();
        Self { peers, health: LocalHealth::default(), to_probe: Vec::new(), probed_at: None }
    }

    /// What is believed of a peer; an unknown one is down.
    #[must_use]
    pub fn liveness(&self, host: &HostId) -> Liveness {
        self.peers.get(host).map_or(Liveness::Down, |peer| peer.liveness)
    }

    /// How far this node must doubt itself, from 0 to [`super::HEALTH_WORST`].
    #[must_use]
    pub fn local_health(&self) -> u8 {
        self.health.score()
    }

    /// Takes in one event. Events about unknown peers are ignored.
    pub fn step(&mut self, now: Millis, event: Event, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        let host = match event {
            Event::Tick => return self.tick(now, rng, out),
            Event::FrameFrom(host)
            | Event::Used(host)
            | Event::LinkUp(host, _)
            | Event::LinkDown { peer: host, .. }
            | Event::Leaving(host, _)
            | Event::Report { about: host, .. } => host,
        };
        let Some(peer) = self.peers.get_mut(&host) else { return };
        let belief = match event {
            Event::FrameFrom(_) => peer.heard(now).then_some(Liveness::Up),
            Event::LinkUp(_, incarnation) => {
                peer.link_up(incarnation);
                let heard = peer.heard(now);
                peer.pinged(now);
                out.push(Effect::Ping(host));
                heard.then_some(Liveness::Up)
            }
            Event::LinkDown { refused, .. } => {
                peer.link_down(now);
                refused.then_some(Liveness::Down)
            }
            Event::Leaving(_, incarnation) => {
                peer.leaving(now, incarnation).then_some(Liveness::Down)
            }
            Event::Used(_) => {
                peer.used(now);
                None
            }
            Event::Report { reachable, .. } => {
                if reachable {
                    peer.reached_by_other(now);
                }
                None
            }
            Event::Tick => None,
        };
        if let Some(liveness) = belief {
            turn(now, host, peer, liveness, out);
        }
    }

    fn tick(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        if self.health.tick(now) {
            for peer in self.peers.values_mut() {
                peer.forgive(now);
            }
        } else {
            self.judge(now, rng, out);
        }
        for (host, peer) in &mut self.peers {
            if peer.wants_ping(now) {
                peer.pinged(now);
                out.push(Effect::Ping(*host));
            }
        }
        if self.probed_at.is_none_or(|at| now.since(at) >= PING_EVERY_MS) {
            self.probed_at = Some(now);
            self.probe(now, rng, out);
        }
    }

    fn judge(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        let (mut probed, mut silent) = (0, 0);
        let mut suspects = Vec::new();
        for (host, peer) in &mut self.peers {
            if matches!(peer.liveness, Liveness::Up | Liveness::Suspect) {
                probed += 1;
                silent += usize::from(peer.silence(now) > 2 * PING_EVERY_MS);
            }
            if let Some(liveness) = peer.verdict(now) {
                turn(now, *host, peer, liveness, out);
            }
            if peer.ask(now) {
                suspects.push(*host);
            }
        }
        self.health.probes(now, silent, probed);
        for about in suspects {
            let up = self.peers.iter().filter(|(_, peer)| peer.liveness == Liveness::Up);
            let peers = up.map(|(host, _)| *host).sample(rng, ASKED);
            if !peers.is_empty() {
                out.push(Effect::AskPeers { about, peers });
            }
        }
    }

    /// Pings the next peer of the shuffled round that is not pinged anyway.
    fn probe(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        if self.to_probe.is_empty() {
            self.to_probe.extend(self.peers.keys());
            self.to_probe.shuffle(rng);
        }
        while let Some(host) = self.to_probe.pop() {
            if let Some(peer) = self.peers.get_mut(&host).filter(|peer| peer.is_idle(now)) {
                peer.pinged(now);
                return out.push(Effect::Ping(host));
            }
        }
    }
}

fn turn(now: Millis, host: HostId, peer: &mut Peer, liveness: Liveness, out: &mut Vec<Effect>) {
    if peer.believe(now, liveness) {
        out.push(Effect::Liveness(host, liveness));
    }
}
