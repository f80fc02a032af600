//! One key in a small world: three replicas, an outsider that coordinates too, clients that hold contexts, and everything that goes wrong.
//!
//! Each replica keeps encoded bytes, as RocksDB would, beside the history they must refine. The design is followed except for one
//! [`Shortcut`] at a time; a shortcut that loses or revives a write makes [`run`] report it.

use bytes::Bytes;
use starling_storage::values::{Actor, Causal, Context, OperationId, merge, put_delta};

use super::history::{EVENTS_MAX, Event, Events, History, list, only};
use crate::generate::Random;

/// One deviation from the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// The design itself.
    None,
    /// Dots stay unique, yet whoever lost its disk goes on under its old name.
    NoNewActor,
    /// The same for a lost tail of the log only.
    TailLossNoNewActor,
    /// A new name only once a client's context proves the loss.
    NewActorOnlyWhenRevealed,
    /// A range is cleaned up and acquired again under the old name.
    CleanupKeepsActor,
    /// A counter per key, which starts again with an empty key.
    PerKeyCounter,
    /// A coordinator that is no replica vouches.
    OutsiderVouches,
    /// A leader vouches for everything, siblings it knows included.
    VouchesForKnownSiblings,
    /// A put answers with all the leader has seen.
    FullContextReturned,
    /// Two puts on one key read the same state.
    NoKeyLock,
    /// Tombstones are dropped by one replica alone.
    UngatedReap,
    /// Messages from before a reap are still applied.
    UnfencedReap,
    /// A repair is minted when it is written back, not when it was read.
    RepairMintedAtWriteBack,
    /// A repair is minted at the last of its reads, not at the first.
    RepairMintedAtLastRead,
}

/// Writes that a state shows wrongly.
#[derive(Debug, Default)]
pub struct Violation {
    /// Live by the specification, missing from the state.
    pub lost: Vec<Event>,
    /// Replaced by the specification, live in the state.
    pub revived: Vec<Event>,
}

const REPLICAS: usize = 3;
const OUTSIDER: usize = 3;
const CLIENTS_MAX: usize = 12;

/// What a replica stores, and what it should mean.
#[derive(Clone, Default)]
struct Memory {
    bytes: Option<Bytes>,
    /// What `bytes` decode to, or the absent state.
    state: Causal,
    history: History,
}

#[derive(Default)]
struct Node {
    memory: Memory,
    actor: Actor,
    synced: Memory,
    synced_under_floor: u64,
}

struct Message {
    to: usize,
    operand: Bytes,
    history: History,
    mint: u64,
    is_repair: bool,
}

/// A coordinator between its reads and its write-back.
struct PausedRepair {
    state: Causal,
    history: History,
    first_read: u64,
    last_read: u64,
}

struct World {
    random: Random,
    shortcut: Shortcut,
    nodes: Vec<Node>,
    clients: Vec<(Context, Events)>,
    messages: Vec<Message>,
    repair: Option<PausedRepair>,
    /// Half of the traces are about deletes, repairs and reaps: where these meet, which is rare otherwise, the fences must hold.
    is_about_reaping: bool,
    clock: u64,
    floor: u64,
    events: Event,
    actors: u64,
}

/// Runs one trace and checks every replica after every step.
pub fn run(seed: u64, shortcut: Shortcut, steps: usize) -> Result<(), Violation> {
    let mut world = World::new(seed, shortcut);
    for _ in 0..steps {
        if world.events >= EVENTS_MAX {
            break;
        }
        world.clock += 1 + world.random.below(3);
        world.step();
        for node in &world.nodes[..REPLICAS] {
            node.memory.check()?;
        }
    }
    Ok(())
}

fn event_of(value: &[u8]) -> Event {
    Event::from_le_bytes(value.try_into().unwrap())
}

impl Memory {
    fn store(&mut self, bytes: Bytes, history: History) {
        self.state = Causal::decode(bytes.clone()).unwrap();
        self.bytes = Some(bytes);
        self.history = self.history.join(history);
    }

    /// A merge: the store joins bytes, and the specification follows.
    fn merge(&mut self, operand: &[u8], history: History) {
        self.store(merge(self.bytes.as_deref(), [operand]).into(), history);
    }

    /// The state is gone although its history happened.
    fn reap(&mut self) {
        self.bytes = None;
        self.state = Causal::absent();
    }

    fn check(&self) -> Result<(), Violation> {
        let live = self
            .state
            .siblings()
            .map(|(_, sibling)| only(event_of(&sibling.value)))
            .fold(0, |live, event| live | event);
        let expected = self.history.live;
        if live == expected {
            return Ok(());
        }
        Err(Violation { lost: list(expected & !live), revived: list(live & !expected) })
    }
}

impl World {
    fn new(seed: u64, shortcut: Shortcut) -> World {
        let node = |actor| Node { actor: Actor(actor), ..Node::default() };
        let mut random = Random(seed);
        let is_about_reaping = random.one_in(2);
        World {
            random,
            is_about_reaping,
            shortcut,
            nodes: (0..=OUTSIDER as u64).map(node).collect(),
            clients: vec![(Context::new(), 0)],
            messages: Vec::new(),
            repair: None,
            clock: 0,
            floor: 0,
            events: 0,
            actors: 10,
        }
    }

    fn step(&mut self) {
        if self.is_about_reaping && self.random.one_in(2) {
            return match self.random.below(8) {
                0 => self.put_once_or_twice(),
                1..=3 => self.deliver(),
                4 => self.reap(),
                5 => self.read_for_repair(),
                6 => self.write_repair_back(),
                _ => self.read(),
            };
        }
        match self.random.below(24) {
            0..=6 => self.put_once_or_twice(),
            7..=11 => self.deliver(),
            12 => self.drop_message(),
            13..=16 => self.read(),
            17 => self.lose_memory(),
            18 => self.reap(),
            19 => self.exchange(),
            20 => self.clean_up_range(),
            21 => self.sync(),
            22 => self.read_for_repair(),
            _ => self.write_repair_back(),
        }
    }

    fn put_once_or_twice(&mut self) {
        let leader = match self.random.one_in(8) {
            true => OUTSIDER,
            false => self.replica(),
        };
        let before = self.nodes[leader].memory.state.clone();
        let puts = if self.random.one_in(4) { 2 } else { 1 };
        for _ in 0..puts {
            self.put(leader, &before);
            self.clock += 1;
        }
    }

    fn put(&mut self, leader: usize, before: &Causal) {
        let (client, client_seen) = self.client();
        let current = self.nodes[leader].memory.state.clone();
        self.check_for_amnesia(leader, &client, &current);
        let me = self.nodes[leader].actor;
        let seq = match self.shortcut {
            Shortcut::PerKeyCounter => 1 + current.context().max_seq(me).max(client.max_seq(me)),
            _ => self.clock,
        };
        let vouched_from = match self.shortcut {
            Shortcut::NoKeyLock => before.clone(),
            Shortcut::VouchesForKnownSiblings => Causal::default(),
            Shortcut::OutsiderVouches => current.clone(),
            _ if leader == OUTSIDER => knows_all_below(me, seq),
            _ => current.clone(),
        };
        self.events += 1;
        let event = self.events;
        let is_delete = self.random.one_in(if self.is_about_reaping { 2 } else { 4 });
        let value = (!is_delete).then(|| Bytes::copy_from_slice(&event.to_le_bytes()));
        let history = History::write(client_seen, event, value.is_some());
        let operation = OperationId(u128::from(event).to_le_bytes());
        let delta = put_delta(&vouched_from, &client, me, seq, operation, value, false);
        let operand = delta.encode();

        let mut answer = delta.context().clone();
        if leader != OUTSIDER {
            let memory = &mut self.nodes[leader].memory;
            let joined = current.join_encoded(&delta, &operand);
            assert_eq!(merge(memory.bytes.as_deref(), [&operand[..]]), joined);
            memory.store(joined, history);
            if self.shortcut == Shortcut::FullContextReturned {
                answer = memory.state.context().clone();
            }
        }
        for to in (0..REPLICAS).filter(|to| *to != leader) {
            self.send(to, &operand, history, self.clock, false);
        }
        self.clients.push((answer, history.seen));
    }

    /// A client that knows more of me than I do. Under the design a new actor came first, so this may find nothing.
    fn check_for_amnesia(&mut self, leader: usize, client: &Context, current: &Causal) {
        let me = self.nodes[leader].actor;
        let below_floor = self.floor.saturating_sub(1);
        let is_revealed =
            leader != OUTSIDER && !client.actor_is_covered_by(me, current.context(), below_floor);
        match self.shortcut {
            Shortcut::None => assert!(!is_revealed, "a false alarm of amnesia"),
            Shortcut::NewActorOnlyWhenRevealed if is_revealed => self.new_actor(leader),
            _ => {}
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let at = self.random.index(self.messages.len());
        let is_duplicated = self.random.one_in(4);
        let message = &self.messages[at];
        if message.mint >= self.floor || self.shortcut == Shortcut::UnfencedReap {
            let memory = &mut self.nodes[message.to].memory;
            memory.merge(&message.operand, message.history);
        }
        if !is_duplicated {
            self.messages.swap_remove(at);
        }
    }

    fn drop_message(&mut self) {
        if !self.messages.is_empty() {
            let at = self.random.index(self.messages.len());
            self.messages.swap_remove(at);
        }
    }

    /// One to three replicas answer a client; sometimes they are repaired at once.
    fn read(&mut self) {
        let (first, count) = (self.replica(), 1 + self.random.index(REPLICAS));
        let read: Vec<usize> = (0..count).map(|n| (first + n) % REPLICAS).collect();
        let mut state_read = Causal::default();
        let mut history = History::default();
        for at in &read {
            state_read = state_read.join(&self.nodes[*at].memory.state);
            history = history.join(self.nodes[*at].memory.history);
        }
        if self.random.one_in(2) {
            let operand = state_read.encode();
            for at in &read {
                self.nodes[*at].memory.merge(&operand, history);
            }
        }
        self.clients.push((state_read.context().clone(), history.seen));
        if self.clients.len() > CLIENTS_MAX {
            let at = self.random.index(self.clients.len());
            self.clients.swap_remove(at);
        }
    }

    /// A replica loses its disk, or the tail of its log that was never synced.
    fn lose_memory(&mut self) {
        let at = self.replica();
        let is_tail = match self.shortcut {
            Shortcut::TailLossNoNewActor => true,
            Shortcut::None => self.random.one_in(2),
            _ => false,
        };
        let node = &mut self.nodes[at];
        // Behind the floor a replica is repaired before it serves, so what it kept from before does not count.
        node.memory = if is_tail && node.synced_under_floor >= self.floor {
            node.synced.clone()
        } else {
            Memory::default()
        };
        let keeps_actor = matches!(
            self.shortcut,
            Shortcut::NoNewActor
                | Shortcut::PerKeyCounter
                | Shortcut::TailLossNoNewActor
                | Shortcut::NewActorOnlyWhenRevealed
        );
        if !keeps_actor {
            self.new_actor(at);
        }
    }

    fn clean_up_range(&mut self) {
        if self.shortcut == Shortcut::TailLossNoNewActor {
            return;
        }
        let at = self.replica();
        self.nodes[at].memory = Memory::default();
        let keeps_actor = matches!(
            self.shortcut,
            Shortcut::CleanupKeepsActor | Shortcut::NoNewActor | Shortcut::PerKeyCounter
        );
        if !keeps_actor {
            self.new_actor(at);
        }
    }

    /// Everything in flight arrives, all replicas exchange, the floor rises, and a tombstone nobody needs any more is dropped.
    fn reap(&mut self) {
        if self.shortcut == Shortcut::UngatedReap {
            let at = self.replica();
            let memory = &mut self.nodes[at].memory;
            if memory.state.sibling_count() == 0 {
                memory.reap();
            }
            return;
        }
        if self.random.one_in(2) {
            return;
        }
        let mut all = Memory::default();
        for message in &self.messages {
            // Writes are waited for; a repair is nobody's promise, and is left to the fence.
            if message.mint >= self.floor && !message.is_repair {
                all.merge(&message.operand, message.history);
            }
        }
        for node in &self.nodes[..REPLICAS] {
            let bytes = node.memory.state.encode();
            all.merge(&bytes, node.memory.history);
        }
        self.floor = self.clock + 1;
        self.clock += 1;
        if all.state.sibling_count() == 0 {
            all.reap();
        }
        for node in &mut self.nodes[..REPLICAS] {
            node.memory = all.clone();
        }
    }

    fn exchange(&mut self) {
        let (from, to) = (self.replica(), self.replica());
        let Memory { bytes, history, .. } = self.nodes[from].memory.clone();
        let memory = &mut self.nodes[to].memory;
        match bytes {
            Some(bytes) => memory.merge(&bytes, history),
            None => memory.history = memory.history.join(history),
        }
    }

    fn sync(&mut self) {
        for node in &mut self.nodes[..REPLICAS] {
            if self.random.one_in(2) {
                node.synced = node.memory.clone();
                node.synced_under_floor = self.floor;
            }
        }
    }

    fn read_for_repair(&mut self) {
        let at = self.replica();
        let memory = &self.nodes[at].memory;
        let (read, history) = (memory.state.clone(), memory.history);
        self.repair = Some(match self.repair.take() {
            Some(paused) => PausedRepair {
                state: paused.state.join(&read),
                history: paused.history.join(history),
                first_read: paused.first_read,
                last_read: self.clock,
            },
            None => {
                PausedRepair { state: read, history, first_read: self.clock, last_read: self.clock }
            }
        });
    }

    fn write_repair_back(&mut self) {
        let Some(repair) = self.repair.take() else {
            return;
        };
        let mint = match self.shortcut {
            Shortcut::RepairMintedAtWriteBack => self.clock,
            Shortcut::RepairMintedAtLastRead => repair.last_read,
            _ => repair.first_read,
        };
        let to = self.replica();
        self.send(to, &repair.state.encode(), repair.history, mint, true);
    }

    fn send(&mut self, to: usize, operand: &Bytes, history: History, mint: u64, is_repair: bool) {
        self.messages.push(Message { to, operand: operand.clone(), history, mint, is_repair });
    }

    fn new_actor(&mut self, at: usize) {
        self.nodes[at].actor = Actor(self.actors);
        self.actors += 1;
    }

    fn client(&mut self) -> (Context, Events) {
        // The latest has often seen everything, so its delete leaves a tombstone.
        let at = match self.is_about_reaping && self.random.one_in(2) {
            true => self.clients.len() - 1,
            false => self.random.index(self.clients.len()),
        };
        self.clients[at].clone()
    }

    fn replica(&mut self) -> usize {
        self.random.index(REPLICAS)
    }
}

/// A state from which nobody vouches for anything: all that `actor` may have written below `seq` counts as known.
fn knows_all_below(actor: Actor, seq: u64) -> Causal {
    let mut context = Context::new();
    context.insert(actor, 0, seq - 1);
    Causal::from_parts(context, []).unwrap()
}
