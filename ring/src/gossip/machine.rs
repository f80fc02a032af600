//! The exchanges: whom to talk to, what to tell, what to believe.

use std::collections::BTreeSet;

use rand::Rng;
use rand::seq::IteratorRandom;

use super::message::{Delta, Digest, Message, NodeDelta, Shared};
use super::state::{Key, NodeState};
use crate::HostId;
use crate::detector::Millis;

/// Pause between rounds.
const ROUND_EVERY_MS: u64 = 1_000;
/// Random living peers talked to in each round.
const FANOUT: usize = 2;
/// No message carries more states than this.
const DELTA_BYTES_MAX: usize = 64 * 1024;

/// Who gossips, among whom.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// All members by their place in the epoch, this node among them.
    pub members: Vec<HostId>,
    /// This node's place.
    pub me: u16,
    /// How often this node has started, from 1.
    pub incarnation: u64,
    /// Drawn at this start.
    pub boot_nonce: u64,
    /// What peers must share.
    pub shared: Shared,
    /// The places of the contact points: one is talked to in each round besides.
    pub seeds: Vec<u16>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed. Expected at least once a second.
    Tick,
    /// A message arrived.
    Received {
        /// From whom.
        from: HostId,
        /// What it says.
        message: Message,
    },
    /// This node says something new of itself. `urgent` values are told at once.
    SetLocal {
        /// Under which key.
        key: Key,
        /// What.
        value: Vec<u8>,
        /// Whether to start a round for it.
        urgent: bool,
    },
    /// Whether a peer can be talked to.
    Reachable(HostId, bool),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a message.
    Send {
        /// To whom.
        to: HostId,
        /// What.
        message: Message,
    },
    /// A node's heartbeat has moved, over whichever way.
    Heartbeat(HostId),
    /// A node says something new.
    StateChanged(HostId),
    /// A peer does not share what it must; its message was dropped.
    Foreign {
        /// The peer.
        from: HostId,
        /// What it has.
        theirs: Shared,
    },
    /// This node must not go on.
    Fatal(Fatal),
}

/// Why a node must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// Somebody else lives under this node's name and incarnation.
    #[error("another node runs with this node's host id and incarnation {incarnation}: its data directory was copied; stop one of the two and wipe it")]
    ClonedDisk {
        /// The incarnation of both.
        incarnation: u64,
    },
    /// The cluster knows a later incarnation of this node.
    #[error("the cluster knows incarnation {theirs} of this node, which is at {mine}: its data directory was rolled back or copied; restore the newest copy, or wipe it and replace the node")]
    RolledBack {
        /// This node's incarnation.
        mine: u64,
        /// What the cluster knows.
        theirs: u64,
    },
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Gossip {
    config: GossipConfig,
    states: Vec<NodeState>,
    reachable: BTreeSet<u16>,
    round_at: Option<Millis>,
}

impl Gossip {
    /// A node that knows only itself.
    ///
    /// # Panics
    /// If `me` is no place among the members, or the incarnation is 0.
    #[must_use]
    pub fn new(config: GossipConfig) -> Self {
        assert!(usize::from(config.me) < config.members.len(), "a gossiping node is a member");
        assert!(config.incarnation > 0, "incarnations count from 1");
        let mut states = vec![NodeState::default(); config.members.len()];
        let me = &mut states[usize::from(config.me)];
        me.incarnation = config.incarnation;
        me.boot_nonce = config.boot_nonce;
        Self { config, states, reachable: BTreeSet::new(), round_at: None }
    }

    /// What is known of a member.
    #[must_use]
    pub fn state(&self, host: HostId) -> Option<&NodeState> {
        self.place(host).map(|place| &self.states[usize::from(place)])
    }

    /// Everything known, by member.
    pub fn states(&self) -> impl Iterator<Item = (HostId, &NodeState)> {
        self.config.members.iter().copied().zip(&self.states)
    }

    /// Takes in one event.
    pub fn step(&mut self, now: Millis, event: Event, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        match event {
            Event::Tick => {
                if self.round_at.is_none_or(|last| now.since(last) >= ROUND_EVERY_MS) {
                    self.round_at = Some(now);
                    self.round(rng, out);
                }
            }
            Event::Received { from, message } => self.received(from, message, out),
            Event::SetLocal { key, value, urgent } => {
                self.states[usize::from(self.config.me)].set(key, value);
                if urgent {
                    self.talk(self.some_reachable(rng), out);
                }
            }
            Event::Reachable(host, reachable) => {
                if let Some(place) = self.place(host) {
                    if reachable {
                        self.reachable.insert(place);
                    } else {
                        self.reachable.remove(&place);
                    }
                }
            }
        }
    }

    fn round(&mut self, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        self.states[usize::from(self.config.me)].heartbeat += 1;
        let mut partners = self.some_reachable(rng);
        let places = 0..u16::try_from(self.config.members.len()).unwrap_or(u16::MAX);
        let unreachable =
            places.filter(|place| *place != self.config.me && !self.reachable.contains(place));
        partners.extend(unreachable.choose(rng));
        let seeds = self.config.seeds.iter().copied().filter(|seed| *seed != self.config.me);
        partners.extend(seeds.choose(rng));
        partners.sort_unstable();
        partners.dedup();
        self.talk(partners, out);
    }

    fn some_reachable(&self, rng: &mut impl Rng) -> Vec<u16> {
        self.reachable.iter().copied().sample(rng, FANOUT)
    }

    fn talk(&self, partners: Vec<u16>, out: &mut Vec<Effect>) {
        if partners.is_empty() {
            return;
        }
        let digests = self.digests();
        for place in partners {
            let message = Message::Syn { shared: self.config.shared, digests: digests.clone() };
            out.push(Effect::Send { to: self.config.members[usize::from(place)], message });
        }
    }

    fn digests(&self) -> Vec<Digest> {
        self.states.iter().map(NodeState::digest).collect()
    }

    fn received(&mut self, from: HostId, message: Message, out: &mut Vec<Effect>) {
        let (Message::Syn { shared, .. } | Message::SynAck { shared, .. } | Message::Ack { shared, .. }) =
            &message;
        if *shared != self.config.shared {
            out.push(Effect::Foreign { from, theirs: *shared });
            return;
        }
        let shared = self.config.shared;
        match message {
            Message::Syn { digests, .. } => {
                self.hear(&digests, out);
                let delta = self.missing(&digests);
                let message = Message::SynAck { shared, digests: self.digests(), delta };
                out.push(Effect::Send { to: from, message });
            }
            Message::SynAck { digests, delta, .. } => {
                self.hear(&digests, out);
                let reply = self.missing(&digests);
                self.apply(delta, out);
                if !reply.is_empty() {
                    out.push(Effect::Send { to: from, message: Message::Ack { shared, delta: reply } });
                }
            }
            Message::Ack { delta, .. } => self.apply(delta, out),
        }
    }

    fn hear(&mut self, digests: &[Digest], out: &mut Vec<Effect>) {
        let me = usize::from(self.config.me);
        let others = self.states.iter_mut().zip(digests).enumerate();
        for (place, (state, digest)) in others.filter(|(place, _)| *place != me) {
            if state.hear(digest) {
                out.push(Effect::Heartbeat(self.config.members[place]));
            }
        }
    }

    /// What a reader at `digests` lacks, up to the size of a message.
    fn missing(&self, digests: &[Digest]) -> Delta {
        let mut bytes = 0;
        let mut delta = Delta::new();
        for (index, (state, digest)) in (0..).zip(self.states.iter().zip(digests)) {
            if let Some(missing) = state.missing(index, digest) {
                bytes += missing.size();
                if bytes > DELTA_BYTES_MAX && !delta.is_empty() {
                    break;
                }
                delta.push(missing);
            }
        }
        delta
    }

    fn apply(&mut self, delta: Delta, out: &mut Vec<Effect>) {
        for node in delta {
            let place = usize::from(node.index);
            let Some(host) = self.config.members.get(place).copied() else { continue };
            if node.index == self.config.me {
                self.check_self(&node, out);
                continue;
            }
            let state = &mut self.states[place];
            let before = (state.incarnation, state.heartbeat);
            let version = state.version;
            if !state.apply(node) {
                continue;
            }
            if (state.incarnation, state.heartbeat) > before {
                out.push(Effect::Heartbeat(host));
            }
            if state.version != version || state.incarnation != before.0 {
                out.push(Effect::StateChanged(host));
            }
        }
    }

    /// Somebody tells this node about itself.
    fn check_self(&self, told: &NodeDelta, out: &mut Vec<Effect>) {
        let mine = self.config.incarnation;
        if told.incarnation > mine {
            out.push(Effect::Fatal(Fatal::RolledBack { mine, theirs: told.incarnation }));
        } else if told.incarnation == mine && told.boot_nonce != self.config.boot_nonce {
            out.push(Effect::Fatal(Fatal::ClonedDisk { incarnation: mine }));
        }
    }

    fn place(&self, host: HostId) -> Option<u16> {
        let place = self.config.members.iter().position(|member| *member == host)?;
        u16::try_from(place).ok()
    }
}
