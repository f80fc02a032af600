//! The exchanges: whom to talk to, what to tell, what to believe.

use std::collections::BTreeSet;

use rand::seq::IteratorRandom;
use rand::{Rng, RngExt};

use super::event::{Effect, Event, Fatal, GossipConfig};
use super::message::{Boot, DELTA_BYTES_MAX, Delta, Digest, Message, NodeDelta};
use super::state::{Key, Merged, NodeState, VALUE_BYTES_MAX};
use crate::HostId;
use crate::detector::Millis;

/// Pause between rounds.
const ROUND_EVERY_MS: u64 = 1_000;
/// Random living peers talked to in each round.
const FANOUT: usize = 2;

/// See the module.
#[derive(Debug, Clone)]
pub struct Gossip {
    config: GossipConfig,
    /// By place in the epoch.
    states: Vec<NodeState>,
    reachable: BTreeSet<u16>,
    round_at: Option<Millis>,
}

impl Gossip {
    /// A node that knows only itself.
    ///
    /// # Panics
    /// If the members are not in rising order, `me` is no place among them, or the incarnation is 0.
    #[must_use]
    pub fn new(config: GossipConfig) -> Self {
        let mut states = vec![NodeState::default(); config.members.len()];
        assert!(config.members.is_sorted(), "an epoch lists its members by host id");
        assert!(usize::from(config.me) < config.members.len(), "a gossiping node is a member");
        assert!(config.incarnation > 0, "incarnations count from 1");
        states[usize::from(config.me)] = NodeState::born(config.incarnation, config.boot_nonce);
        Self { config, states, reachable: BTreeSet::new(), round_at: None }
    }

    /// What is known of a member. A member that was never heard of has incarnation 0.
    #[must_use]
    pub fn state(&self, host: HostId) -> Option<&NodeState> {
        self.place(host).map(|place| &self.states[usize::from(place)])
    }

    /// Everything known, by member.
    pub fn states(&self) -> impl Iterator<Item = (HostId, &NodeState)> {
        self.config.members.iter().copied().zip(&self.states)
    }

    /// Takes in one event.
    ///
    /// # Panics
    /// If the node itself says something longer than [`VALUE_BYTES_MAX`].
    pub fn step(&mut self, now: Millis, event: Event, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, rng, out),
            Event::Received { from, message } => self.received(from, message, out),
            Event::SetLocal { key, value, urgent } => self.say(key, value, urgent, rng, out),
            Event::Reachable(host, reachable) => match self.place(host) {
                Some(place) if reachable && place != self.config.me => {
                    self.reachable.insert(place);
                }
                Some(place) => {
                    self.reachable.remove(&place);
                }
                None => {}
            },
            Event::Met(host, boot) => self.met(host, boot, out),
        }
    }

    /// Remembers a start of a peer that may end before it has gossiped: what it wrote in that start a copy of its disk from before lacks.
    fn met(&mut self, host: HostId, boot: Boot, out: &mut Vec<Effect>) {
        let Some(place) = self.place(host).filter(|place| *place != self.config.me) else { return };
        let state = &mut self.states[usize::from(place)];
        if boot.incarnation > state.incarnation {
            *state = NodeState::born(boot.incarnation, boot.nonce);
            out.push(Effect::StateChanged(host));
        }
    }

    fn tick(&mut self, now: Millis, rng: &mut impl Rng, out: &mut Vec<Effect>) {
        let late = self.round_at.map(|at| now.since(at));
        match late {
            Some(..ROUND_EVERY_MS) => return,
            // Late ticks must not slow the rounds down, but missed rounds are not made up for.
            Some(late) if late < 2 * ROUND_EVERY_MS => {
                self.round_at = self.round_at.map(|at| Millis(at.0 + ROUND_EVERY_MS));
            }
            _ => self.round_at = Some(now),
        }
        self.me_mut().beat();
        let partners = self.partners(rng);
        if !partners.is_empty() {
            let digests = self.digests();
            for place in partners {
                let boot = self.boot();
                let shared = self.config.shared;
                self.send(place, Message::Syn { shared, boot, digests: digests.clone() }, out);
            }
        }
    }

    /// Whom to talk to in a round: some of the living; with odds that grow with their number, one
    /// of the dead; and if no seed is among them, now and then a seed. The odds (Cassandra's) keep
    /// a few seeds of a large cluster from being talked to by everybody in each round.
    fn partners(&self, rng: &mut impl Rng) -> Vec<u16> {
        let mut partners = self.some_reachable(rng);
        let members = self.config.members.len();
        let alive = self.reachable.len();
        let dead = members - 1 - alive;
        if rng.random_range(0..=alive) < dead {
            let unreachable = (0..)
                .take(members)
                .filter(|place| *place != self.config.me && !self.reachable.contains(place));
            partners.extend(unreachable.choose(rng));
        }
        let seeds = || self.config.seeds.iter().copied().filter(|seed| *seed != self.config.me);
        if !seeds().any(|seed| partners.contains(&seed))
            && rng.random_range(0..members) < self.config.seeds.len()
        {
            partners.extend(seeds().choose(rng));
        }
        partners
    }

    fn some_reachable(&self, rng: &mut impl Rng) -> Vec<u16> {
        self.reachable.iter().copied().sample(rng, FANOUT)
    }

    fn say(
        &mut self,
        key: Key,
        value: Vec<u8>,
        urgent: bool,
        rng: &mut impl Rng,
        out: &mut Vec<Effect>,
    ) {
        assert!(value.len() <= VALUE_BYTES_MAX, "what a node says of itself is short");
        if self.me_mut().set(key, value) && urgent {
            let all_of_me = self.states[usize::from(self.config.me)].after(self.config.me, 0);
            for place in self.some_reachable(rng) {
                let delta = vec![all_of_me.clone()];
                self.send(place, Message::Ack { shared: self.config.shared, delta }, out);
            }
        }
    }

    fn received(&mut self, from: HostId, message: Message, out: &mut Vec<Effect>) {
        let shared = self.config.shared;
        if *message.shared() != shared {
            out.push(Effect::Foreign { from, theirs: *message.shared() });
            return;
        }
        let Some(from) = self.place(from) else { return };
        match message {
            Message::Syn { boot, digests, .. } => {
                self.hear(&digests, out);
                let mut delta = self.missing(&digests);
                self.expose_clone(from, boot, &mut delta, out);
                self.send(from, Message::SynAck { shared, digests: self.digests(), delta }, out);
            }
            Message::SynAck { digests, delta, .. } => {
                self.hear(&digests, out);
                let mut reply = self.missing(&digests);
                reply.extend(self.merge(delta, out));
                cap(&mut reply);
                if !reply.is_empty() {
                    self.send(from, Message::Ack { shared, delta: reply }, out);
                }
            }
            Message::Ack { delta, .. } => {
                let mut reply = self.merge(delta, out);
                cap(&mut reply);
                if !reply.is_empty() {
                    self.send(from, Message::Ack { shared, delta: reply }, out);
                }
            }
        }
    }

    /// Moves the heartbeats of all others on.
    fn hear(&mut self, digests: &[Digest], out: &mut Vec<Effect>) {
        let me = usize::from(self.config.me);
        for (place, (state, digest)) in self.states.iter_mut().zip(digests).enumerate() {
            if place != me && state.hear(digest) {
                out.push(Effect::Heartbeat(self.config.members[place]));
            }
        }
    }

    /// What a reader at `digests` lacks, up to the size of a message. Each node begins with its
    /// own place, so that a reader far behind gets different parts from different peers.
    fn missing(&self, digests: &[Digest]) -> Delta {
        let places = self.states.len().min(digests.len());
        let me = usize::from(self.config.me).min(places);
        let mut bytes = 0;
        let mut delta = Delta::new();
        for place in (me..places).chain(0..me) {
            let index = u16::try_from(place).expect("an epoch has at most 65,536 members");
            if let Some(missing) = self.states[place].missing(index, &digests[place]) {
                bytes += missing.size();
                if bytes > DELTA_BYTES_MAX {
                    break;
                }
                delta.push(missing);
            }
        }
        delta
    }

    /// Tells a peer what is known of it if that is another start under the same number: two nodes
    /// run from one disk, and each of them believes only what it hears of itself.
    fn expose_clone(&self, from: u16, boot: Boot, delta: &mut Delta, out: &mut Vec<Effect>) {
        let known = &self.states[usize::from(from)];
        if known.incarnation != boot.incarnation || known.boot_nonce == boot.nonce {
            return;
        }
        if from == self.config.me {
            out.push(Effect::Fatal(Fatal::ClonedDisk { incarnation: boot.incarnation }));
        } else {
            delta.retain(|told| told.index != from);
            delta.insert(0, known.after(from, 0));
            cap(delta);
        }
    }

    /// Believes what may be believed. Returns what the sender must learn in return: the starts of
    /// nodes that it is so far behind on that its digest seemed ahead.
    fn merge(&mut self, delta: Delta, out: &mut Vec<Effect>) -> Delta {
        let mut reply = Delta::new();
        for told in delta {
            let (index, place) = (told.index, usize::from(told.index));
            let Some(host) = self.config.members.get(place).copied() else { continue };
            let merged = if index == self.config.me {
                self.check_self(&told, out)
            } else {
                self.states[place].merge(told)
            };
            if matches!(merged, Merged::Heartbeat | Merged::Values { heartbeat: true }) {
                out.push(Effect::Heartbeat(host));
            }
            match merged {
                Merged::Values { .. } => out.push(Effect::StateChanged(host)),
                Merged::SenderIsBehind => reply.push(self.states[place].after(index, 0)),
                Merged::Heartbeat | Merged::Nothing => {}
            }
        }
        reply
    }

    /// Somebody tells this node about itself: it believes nothing of it, but may learn that it has
    /// a double, or that the other remembers one of its former starts.
    fn check_self(&self, told: &NodeDelta, out: &mut Vec<Effect>) -> Merged {
        let mine = self.config.incarnation;
        if told.incarnation > mine {
            out.push(Effect::Fatal(Fatal::RolledBack { mine, theirs: told.incarnation }));
        } else if told.incarnation == mine && told.boot_nonce != self.config.boot_nonce {
            out.push(Effect::Fatal(Fatal::ClonedDisk { incarnation: mine }));
        }
        if told.incarnation < mine { Merged::SenderIsBehind } else { Merged::Nothing }
    }

    fn send(&self, to: u16, message: Message, out: &mut Vec<Effect>) {
        out.push(Effect::Send { to: self.config.members[usize::from(to)], message });
    }

    fn digests(&self) -> Vec<Digest> {
        self.states.iter().map(NodeState::digest).collect()
    }

    fn boot(&self) -> Boot {
        Boot { incarnation: self.config.incarnation, nonce: self.config.boot_nonce }
    }

    fn me_mut(&mut self) -> &mut NodeState {
        &mut self.states[usize::from(self.config.me)]
    }

    fn place(&self, host: HostId) -> Option<u16> {
        let place = self.config.members.binary_search(&host).ok()?;
        u16::try_from(place).ok()
    }
}

/// Drops what does not fit into a message.
fn cap(delta: &mut Delta) {
    let mut bytes = 0;
    delta.retain(|node| {
        bytes += node.size();
        bytes <= DELTA_BYTES_MAX
    });
}
