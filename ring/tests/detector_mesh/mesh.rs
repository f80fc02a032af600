//! A simulated full mesh of links. Frames take a random time; a frozen node's frames wait for it.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_ring::HostId;
use starling_ring::detector::{DirectDetector, Effect, Event, Liveness, Millis};
use uuid::Uuid;

pub const TICK_MS: u64 = 100;

#[derive(Clone, Copy)]
enum Frame {
    Ping,
    Pong,
    Ask { about: usize },
    Answer { about: usize, reachable: bool },
}

enum Item {
    Tick(usize),
    Deliver { from: usize, to: usize, frame: Frame },
}

/// Somebody took a peer for down or unreachable.
#[derive(Debug, PartialEq, Eq)]
pub struct Conviction {
    pub at_ms: u64,
    pub by: usize,
    pub of: usize,
}

pub struct Mesh {
    nodes: Vec<DirectDetector>,
    pub convictions: Vec<Conviction>,
    pub jitter_ms: u64,
    now_ms: u64,
    frozen: BTreeSet<usize>,
    cut: BTreeSet<(usize, usize)>,
    held: BTreeMap<usize, Vec<Item>>,
    queue: BTreeMap<(u64, u64), Item>,
    scheduled: u64,
    rng: StdRng,
}

fn host(place: usize) -> HostId {
    HostId(Uuid::from_u128(place as u128))
}

fn index(host: HostId) -> usize {
    usize::try_from(host.0.as_u128()).expect("simulations are small")
}

impl Mesh {
    /// `size` nodes that are connected to one another, every link in use.
    pub fn new(size: usize, seed: u64) -> Self {
        let others = |place| (0..size).filter(move |other| *other != place).map(host);
        let mut mesh = Self {
            nodes: (0..size).map(|place| DirectDetector::new(others(place))).collect(),
            convictions: Vec::new(),
            jitter_ms: 20,
            now_ms: 0,
            frozen: BTreeSet::new(),
            cut: BTreeSet::new(),
            held: BTreeMap::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            rng: StdRng::seed_from_u64(seed),
        };
        for place in 0..size {
            for other in (0..size).filter(|other| *other != place) {
                mesh.feed(place, Event::LinkUp(host(other), 1));
            }
            let phase = mesh.rng.random_range(0..TICK_MS);
            mesh.schedule(phase, Item::Tick(place));
        }
        mesh
    }

    pub fn liveness(&self, by: usize, of: usize) -> Liveness {
        self.nodes[by].liveness(&host(of))
    }

    pub fn freeze(&mut self, place: usize) {
        self.frozen.insert(place);
    }

    /// Thaws a node. Its timer and what lies in its socket buffers come in the order of arrival.
    pub fn thaw(&mut self, place: usize) {
        self.frozen.remove(&place);
        for item in self.held.remove(&place).unwrap_or_default() {
            self.schedule(self.now_ms, item);
        }
    }

    /// From now on nothing passes between two nodes.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut.extend([(one, other), (other, one)]);
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

    fn happen(&mut self, item: Item) {
        let (Item::Tick(place) | Item::Deliver { to: place, .. }) = item;
        if self.frozen.contains(&place) {
            self.held.entry(place).or_default().push(item);
            return;
        }
        match item {
            Item::Tick(place) => {
                self.schedule(self.now_ms + TICK_MS, Item::Tick(place));
                for other in (0..self.nodes.len()).filter(|other| *other != place) {
                    self.feed(place, Event::Used(host(other)));
                }
                self.feed(place, Event::Tick);
            }
            Item::Deliver { from, to, frame } => {
                self.feed(to, Event::FrameFrom(host(from)));
                match frame {
                    Frame::Ping => self.send(to, from, Frame::Pong),
                    Frame::Ask { about } => {
                        let reachable = self.liveness(to, about) == Liveness::Up;
                        self.send(to, from, Frame::Answer { about, reachable });
                    }
                    Frame::Answer { about, reachable } => {
                        self.feed(to, Event::Report { about: host(about), reachable });
                    }
                    Frame::Pong => {}
                }
            }
        }
    }

    fn feed(&mut self, place: usize, event: Event) {
        let mut effects = Vec::new();
        self.nodes[place].step(Millis(self.now_ms), event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ping(to) => self.send(place, index(to), Frame::Ping),
                Effect::AskPeers { about, peers } => {
                    for peer in peers {
                        self.send(place, index(peer), Frame::Ask { about: index(about) });
                    }
                }
                Effect::Liveness(of, Liveness::Down | Liveness::UnreachableFromMe) => {
                    let of = index(of);
                    self.convictions.push(Conviction { at_ms: self.now_ms, by: place, of });
                }
                Effect::Liveness(..) => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, frame: Frame) {
        if !self.cut.contains(&(from, to)) {
            let at = self.now_ms + 1 + self.rng.random_range(0..self.jitter_ms);
            self.schedule(at, Item::Deliver { from, to, frame });
        }
    }

    fn schedule(&mut self, at: u64, item: Item) {
        self.queue.insert((at, self.scheduled), item);
        self.scheduled += 1;
    }
}
