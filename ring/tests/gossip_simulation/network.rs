//! A simulated network of gossiping nodes: virtual time, random latency, random loss, frozen and
//! killed nodes. Deterministic for a seed.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_ring::detector::{AccrualDetector, Millis};
use starling_ring::gossip::{Boot, Effect, Event, Gossip, GossipConfig, Key, Message, Shared};
use starling_ring::{ClusterId, HostId};
use uuid::Uuid;

/// One gossip round.
pub const ROUND_MS: u64 = 1_000;
const LATENCY_MS: std::ops::RangeInclusive<u64> = 1..=20;

enum Item {
    Tick(usize),
    Deliver { from: usize, to: usize, message: Message },
}

/// A value that one node set, on its way to all others.
pub struct Update {
    pub owner: usize,
    value: Vec<u8>,
    set_at: u64,
    known_by: BTreeSet<usize>,
    pub rounds: Option<u64>,
}

/// Somebody was believed to be down who was not.
#[derive(Debug, PartialEq, Eq)]
pub struct FalseConviction {
    pub at_ms: u64,
    pub by: usize,
    pub of: usize,
}

pub struct Network {
    pub nodes: Vec<Gossip>,
    /// One for each node if detection is simulated too.
    pub accruals: Vec<AccrualDetector>,
    pub updates: Vec<Update>,
    pub false_convictions: Vec<FalseConviction>,
    /// Whose heartbeats each node has heard at least once.
    heard: Vec<bool>,
    pub fatal: Vec<(usize, Effect)>,
    /// Bytes sent by each node since the measurement began.
    pub sent_bytes: Vec<u64>,
    pub largest_message_bytes: u64,
    measuring: bool,
    pub now_ms: u64,
    pub loss: f64,
    dead: Vec<bool>,
    frozen: Vec<bool>,
    held: BTreeMap<usize, Vec<Item>>,
    queue: BTreeMap<(u64, u64), Item>,
    scheduled: u64,
    rng: StdRng,
}

pub fn host(place: usize) -> HostId {
    HostId(Uuid::from_u128(place as u128 + 1))
}

pub fn shared() -> Shared {
    Shared { cluster_id: ClusterId([7; 16]), wire_version: 1, slot_bits: 12, epoch: 1 }
}

/// A node that has not spoken yet.
pub fn node(place: usize, members: usize, boot: Boot) -> Gossip {
    Gossip::new(GossipConfig {
        members: (0..members).map(host).collect(),
        me: u16::try_from(place).expect("simulations are small"),
        incarnation: boot.incarnation,
        boot_nonce: boot.nonce,
        shared: shared(),
        seeds: vec![0, 1, 2],
    })
}

impl Network {
    /// `size` nodes that know nothing of one another but can all be reached.
    pub fn new(size: usize, loss: f64, seed: u64) -> Self {
        let boot = |place| Boot { incarnation: 300, nonce: place as u64 };
        let mut network = Self {
            nodes: (0..size).map(|place| node(place, size, boot(place))).collect(),
            accruals: Vec::new(),
            updates: Vec::new(),
            false_convictions: Vec::new(),
            heard: vec![false; size * size],
            fatal: Vec::new(),
            sent_bytes: vec![0; size],
            largest_message_bytes: 0,
            measuring: false,
            now_ms: 0,
            loss,
            dead: vec![false; size],
            frozen: vec![false; size],
            held: BTreeMap::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            rng: StdRng::seed_from_u64(seed),
        };
        for place in 0..size {
            for other in (0..size).filter(|other| *other != place) {
                network.feed(place, Event::Reachable(host(other), true));
            }
            let phase = network.rng.random_range(0..ROUND_MS);
            network.schedule(phase, Item::Tick(place));
        }
        network
    }

    /// Simulates failure detection too.
    pub fn detect(&mut self) {
        self.accruals = vec![AccrualDetector::default(); self.nodes.len()];
    }

    /// Counts bytes from here on.
    pub fn measure(&mut self) {
        self.measuring = true;
        self.sent_bytes.fill(0);
    }

    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), item) = entry.remove_entry();
            self.now_ms = at;
            self.happen(item);
        }
        self.now_ms = until;
    }

    /// Runs until all updates are known to all, at most so long. Returns the rounds each took.
    pub fn run_until_known(&mut self, rounds_max: u64) -> Vec<u64> {
        for _ in 0..rounds_max * 4 {
            if self.updates.iter().all(|update| update.rounds.is_some()) {
                break;
            }
            self.run_for(ROUND_MS / 4);
        }
        let rounds = self.updates.iter().map(|update| update.rounds.unwrap_or(u64::MAX));
        let mut rounds: Vec<u64> = rounds.collect();
        rounds.sort_unstable();
        rounds
    }

    /// Lets `owner` say something new, without urgency: the rounds are measured.
    pub fn update(&mut self, owner: usize) {
        let value = format!("update {}", self.updates.len()).into_bytes();
        let known_by = BTreeSet::from([owner]);
        let set_at = self.now_ms;
        self.updates.push(Update { owner, value: value.clone(), set_at, known_by, rounds: None });
        self.say(owner, value);
    }

    /// Lets a node say something that nobody waits for.
    pub fn say(&mut self, place: usize, value: Vec<u8>) {
        self.feed(place, Event::SetLocal { key: Key::Load, value, urgent: false });
    }

    /// `count` nodes say something new at random moments of one second.
    pub fn update_many(&mut self, count: usize) {
        let apart = self.nodes.len() / count;
        for nth in 0..count {
            self.update(nth * apart);
            self.run_for(ROUND_MS / count as u64);
        }
    }

    pub fn kill(&mut self, place: usize) {
        self.dead[place] = true;
    }

    pub fn freeze(&mut self, place: usize) {
        self.frozen[place] = true;
    }

    /// Thaws a node. Its timer fires at once, what it missed lies in its socket buffers.
    pub fn thaw(&mut self, place: usize) {
        self.frozen[place] = false;
        let mut held = self.held.remove(&place).unwrap_or_default();
        held.sort_by_key(|item| matches!(item, Item::Deliver { .. }));
        for item in held {
            self.schedule(self.now_ms, item);
        }
    }

    /// Runs until each node knows something of everybody, at most so long. Returns whether it came
    /// to that.
    pub fn run_until_met(&mut self, rounds_max: u64) -> bool {
        (0..rounds_max).any(|_| {
            self.run_for(ROUND_MS);
            self.nodes.iter().all(|node| node.states().all(|(_, state)| state.version > 0))
        })
    }

    pub fn is_convicted(&self, by: usize, of: usize) -> bool {
        self.accruals[by].is_down(Millis(self.now_ms), host(of), 0)
    }

    fn schedule(&mut self, at: u64, item: Item) {
        self.queue.insert((at, self.scheduled), item);
        self.scheduled += 1;
    }

    fn happen(&mut self, item: Item) {
        let (Item::Tick(place) | Item::Deliver { to: place, .. }) = item;
        if self.dead[place] {
            return;
        }
        if self.frozen[place] {
            self.held.entry(place).or_default().push(item);
            return;
        }
        match item {
            Item::Tick(place) => {
                self.schedule(self.now_ms + ROUND_MS, Item::Tick(place));
                if let Some(accrual) = self.accruals.get_mut(place) {
                    accrual.tick(Millis(self.now_ms));
                }
                self.feed(place, Event::Tick);
            }
            Item::Deliver { from, to, message } => {
                self.feed(to, Event::Received { from: host(from), message });
            }
        }
    }

    fn feed(&mut self, place: usize, event: Event) {
        let mut effects = Vec::new();
        self.nodes[place].step(Millis(self.now_ms), event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(place, index(to), message),
                Effect::Heartbeat(of) => self.heartbeat(place, index(of)),
                Effect::StateChanged(of) => self.learned(place, index(of)),
                Effect::Foreign { .. } | Effect::Fatal(_) => self.fatal.push((place, effect)),
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if self.measuring {
            let bytes = encoded_bytes(&message);
            self.sent_bytes[from] += bytes;
            self.largest_message_bytes = self.largest_message_bytes.max(bytes);
        }
        if !self.rng.random_bool(self.loss) {
            let at = self.now_ms + self.rng.random_range(LATENCY_MS);
            self.schedule(at, Item::Deliver { from, to, message });
        }
    }

    /// Convictions end with a heartbeat: looking just before each finds every false one.
    fn heartbeat(&mut self, by: usize, of: usize) {
        let now = Millis(self.now_ms);
        let Some(accrual) = self.accruals.get_mut(by) else { return };
        let known = std::mem::replace(&mut self.heard[by * self.nodes.len() + of], true);
        if known && accrual.is_down(now, host(of), 0) {
            self.false_convictions.push(FalseConviction { at_ms: now.0, by, of });
        }
        accrual.heartbeat(now, host(of));
    }

    fn learned(&mut self, by: usize, of: usize) {
        let said = self.nodes[by].state(host(of)).and_then(|state| state.value(Key::Load));
        for update in self.updates.iter_mut().filter(|update| update.owner == of) {
            if update.rounds.is_none() && said == Some(update.value.as_slice()) {
                update.known_by.insert(by);
                if update.known_by.len() == self.nodes.len() {
                    update.rounds = Some((self.now_ms - update.set_at).div_ceil(ROUND_MS));
                }
            }
        }
    }
}

/// Bytes on the wire, in the encoding that the nodes use.
pub fn encoded_bytes(message: &Message) -> u64 {
    let mut size = bincode::enc::write::SizeWriter::default();
    bincode::serde::encode_into_writer(message, &mut size, bincode::config::standard())
        .expect("a message can be encoded");
    size.bytes_written as u64
}

fn index(host: HostId) -> usize {
    usize::try_from(host.0.as_u128() - 1).expect("simulations are small")
}
