//! What a seed means: the size of the cluster, its limits, and every fault with its time.
//!
//! Everything random about a run comes from here or from generators seeded here, so that a seed says it all. Every fifth seed is about what
//! is deleted and forgotten ([`forgetting`]), each other one about a little of everything.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::check::Losses;

mod forgetting;

/// The first fault comes after the cluster had time to form.
const QUIET_FIRST: Duration = Duration::from_secs(8);

/// One seed in so many is about what is deleted and forgotten.
const FORGETTING_EVERY: u64 = 5;

/// See the module.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all of it comes from.
    pub seed: u64,
    /// Machines with a node.
    pub nodes: u8,
    /// Replicas of each key.
    pub replication_factor: u8,
    /// Racks the nodes are spread over.
    pub racks: u8,
    /// The ring has two to this power of slots.
    pub slot_bits: u8,
    /// Bytes of hints a node keeps.
    pub hints_bytes_max: u64,
    /// Clients that read and write.
    pub clients: u8,
    /// Their connections are never idle, so that a request may wait for its deadline: a node that is silent
    /// altogether is left earlier.
    pub busy: bool,
    /// What they wait between two operations, at most.
    pub think_max: Duration,
    /// Keys they share.
    pub keys: u8,
    /// The longest that a message travels.
    pub latency_max: Duration,
    /// The longest time between two syncs of each node's log.
    pub sync_every_max: Vec<Duration>,
    /// What clients mostly do.
    pub habit: Habit,
    /// The one node that the first client knows; the others know all.
    pub only_known: Option<u8>,
    /// Nothing goes wrong but the network, and hints have room: all replicas agree without a read.
    pub network_only: bool,
    /// Replicas compare what they hold; else only hints and reads mend what differs.
    pub repair: bool,
    /// How often, on average: often enough, and deletes are forgotten while what they replaced is still on its way.
    pub compare_every: Duration,
    /// When faults end and everything is healed.
    pub heal_at: Duration,
    /// What goes wrong, in order of time.
    pub faults: Vec<(Duration, Fault)>,
}

/// What the clients of a run mostly do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// A little of everything, on registers.
    Mixed,
    /// Puts that have seen nothing: values gather as a set, until somebody merges them.
    Append,
    /// Reads, and puts over what was read, which is often stale by then.
    Merge,
    /// Deletes and puts in turn.
    Recreate,
    /// From key to key, each in this time: what is put in one turn is deleted in the next, and then left alone for long enough to be forgotten.
    MoveOn(Duration),
}

/// Something that goes wrong. Nodes are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed; what it wrote is with the operating system.
    Kill(u8),
    /// The power fails, and so many of the batches that were not synced survive.
    PowerCut(u8, u8),
    /// The disk is lost: the node is gone, and will start with an empty one.
    Wipe(u8),
    /// The power of every machine fails, and nothing that was not synced survives.
    Blackout,
    /// Every dead node is started again.
    StartAll,
    /// A dead node is started again.
    Start(u8),
    /// Nothing passes between two nodes, either way; what was on its way is lost.
    Cut(u8, u8),
    /// Nothing passes from the first to the second.
    CutOneWay(u8, u8),
    /// Nothing passes between a node and any other.
    Isolate(u8),
    /// Messages between two nodes wait until the network is healed.
    Hold(u8, u8),
    /// Messages between a node and every other wait until the network is healed.
    HoldAll(u8),
    /// What waited between two nodes goes on.
    Release(u8, u8),
    /// What waited between a node and every other goes on.
    ReleaseAll(u8),
    /// Nothing passes between a client and a node.
    CutClient(u8, u8),
    /// A node reads nothing from some of its connections for so many milliseconds.
    Deaf(u8, u16),
    /// The connections that others have to a node end after the first so many milliseconds, and what they carry from now on is read there after the second.
    LeaveBehind(u8, u16, u16),
    /// The network is whole again.
    HealNetwork,
    /// Messages travel up to so many milliseconds.
    Latency(u16),
    /// A clock steps by so many milliseconds.
    ClockStep(u8, i32),
    /// A clock runs wrong by so many parts in a million.
    ClockDrift(u8, i32),
    /// The store is not in memory (or is again).
    Cold(u8, bool),
    /// The store refuses writes that cannot wait (or takes them again).
    Stalled(u8, bool),
    /// The disk has no space for data (or has again).
    Full(u8, bool),
    /// The next sync of the log fails.
    SyncFails(u8),
}

impl Scenario {
    /// The scenario of a seed.
    pub fn new(seed: u64) -> Scenario {
        let mut random = StdRng::seed_from_u64(seed);
        if seed.is_multiple_of(FORGETTING_EVERY) {
            return Scenario::forgetting(seed, &mut random);
        }
        let nodes = *[3, 3, 3, 4, 5, 5, 7].choose(&mut random).expect("not empty");
        let replication_factor = if random.random_ratio(1, 8) && nodes >= 5 { 5 } else { 3 };
        // Each disk has its own pace: what a fast one acknowledged, a slow one may not have synced.
        let sync_every_max = (0..nodes)
            .map(|_| *[2, 10, 100, 500, 2_000].choose(&mut random).expect("some"))
            .map(Duration::from_millis)
            .collect();
        let habits = [Habit::Mixed, Habit::Mixed, Habit::Append, Habit::Merge, Habit::Recreate];
        let habit = *habits.choose(&mut random).expect("not empty");
        let network_only = random.random_ratio(1, 4);
        let hints_bytes_max = *[0, 4 << 10, 64 << 10, 64 << 20].choose(&mut random).expect("some");
        let repair = random.random_ratio(2, 3);
        let compare_ms = *[10_000, 2_000, 200, 200].choose(&mut random).expect("not empty");
        let hints_bytes_max = if network_only && !repair { 64 << 20 } else { hints_bytes_max };
        let latency_ms_max = *[2, 10, 50].choose(&mut random).expect("not empty");
        // Where messages take long, others are read and written meanwhile.
        let (is_slow, is_eager) = (latency_ms_max == 50, random.random());
        let heal_at = QUIET_FIRST + Duration::from_secs(random.random_range(20..60));
        let mut scenario = Scenario {
            seed,
            nodes,
            replication_factor,
            racks: *[1, 2, 3, nodes].choose(&mut random).expect("not empty"),
            slot_bits: random.random_range(4..=8),
            hints_bytes_max,
            clients: random.random_range(2..=5),
            busy: random.random_ratio(1, 3),
            // Many keys are seldom read: what mends them is not a client that happens to come by.
            keys: if random.random_ratio(1, 3) { 48 } else { random.random_range(1..=8) },
            think_max: Duration::from_millis(if is_slow && is_eager { 10 } else { 150 }),
            latency_max: Duration::from_millis(latency_ms_max),
            sync_every_max,
            habit,
            only_known: None,
            network_only,
            repair,
            compare_every: Duration::from_millis(compare_ms),
            heal_at,
            faults: Vec::new(),
        };
        scenario.draw_faults(&mut random);
        scenario
    }

    /// When machines lose what they hold.
    pub fn losses(&self) -> Losses {
        let times = |of: &dyn Fn(&Fault) -> bool| {
            let faults = self.faults.iter().filter(|(_, fault)| of(fault));
            faults.map(|(at, _)| *at).collect()
        };
        Losses {
            power: times(&|fault| matches!(fault, Fault::PowerCut(..) | Fault::Blackout)),
            disks: times(&|fault| matches!(fault, Fault::Wipe(_))),
        }
    }

    fn draw_faults(&mut self, random: &mut StdRng) {
        let calm = random.random_range(1..=4_u64);
        let mut at = QUIET_FIRST;
        loop {
            at += Duration::from_millis(random.random_range(100..=2_000 * calm));
            if at >= self.heal_at {
                break;
            }
            self.draw_fault(at, random);
        }
        // One disk at most: what a quorum acknowledged survives that.
        if !self.network_only && random.random_ratio(1, 3) {
            let node = random.random_range(1..=self.nodes);
            let after = self.heal_at - QUIET_FIRST;
            let at = QUIET_FIRST + after.mul_f64(random.random_range(0.0..0.9));
            self.faults.push((at, Fault::Wipe(node)));
            let over = at + Duration::from_millis(random.random_range(50..=8_000));
            self.faults.push((over, Fault::Start(node)));
        }
        self.faults.retain(|(at, _)| *at < self.heal_at);
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_fault(&mut self, at: Duration, random: &mut StdRng) {
        let node = random.random_range(1..=self.nodes);
        let other = (node + random.random_range(1..self.nodes) - 1) % self.nodes + 1;
        let over = at + Duration::from_millis(random.random_range(50..=12_000));
        let kinds = if self.network_only { 9..30 } else { 0..41 };
        let (fault, end) = match random.random_range(kinds) {
            0..=5 => (Fault::Kill(node), Fault::Start(node)),
            6..=7 => (Fault::PowerCut(node, random.random_range(0..8)), Fault::Start(node)),
            // Back before anybody has missed it.
            8 => {
                self.faults.push((at, Fault::PowerCut(node, 0)));
                self.faults.push((at + Duration::from_millis(50), Fault::Start(node)));
                return;
            }
            9..=10 => (Fault::Cut(node, other), Fault::HealNetwork),
            11..=12 => (Fault::CutOneWay(node, other), Fault::HealNetwork),
            13 => (Fault::Isolate(node), Fault::HealNetwork),
            14 => (Fault::HoldAll(node), Fault::HealNetwork),
            15..=16 => (Fault::Hold(node, other), Fault::HealNetwork),
            17..=18 => {
                let client = random.random_range(1..=self.clients);
                (Fault::CutClient(client, node), Fault::HealNetwork)
            }
            19 => (Fault::Latency(random.random_range(1..=800)), Fault::HealNetwork),
            20..=21 => return self.draw_stutter(node, at, over, random),
            22..=23 => {
                self.faults.push((at, Fault::Deaf(node, random.random_range(500..15_000))));
                return;
            }
            24..=26 => return self.draw_aside(node, other, at, random),
            27..=29 => return self.draw_rift(node, other, at, random),
            30..=31 => {
                let by = *[-3_600_000, -1_000, -200, 100, 300, 1_000, 3_600_000]
                    .choose(random)
                    .expect("not empty");
                (Fault::ClockStep(node, by), Fault::ClockStep(node, -by))
            }
            32 => {
                let ppm = random.random_range(-100_000..=100_000);
                (Fault::ClockDrift(node, ppm), Fault::ClockDrift(node, 0))
            }
            33 => (Fault::Cold(node, true), Fault::Cold(node, false)),
            34..=35 => (Fault::Full(node, true), Fault::Full(node, false)),
            36 => (Fault::Stalled(node, true), Fault::Stalled(node, false)),
            37..=38 => (Fault::Blackout, Fault::StartAll),
            // Disks fail, and then the power: what they did not sync is lost.
            39 => {
                self.faults.push((at, Fault::SyncFails(other)));
                self.faults.push((over, Fault::Blackout));
                (Fault::SyncFails(node), Fault::StartAll)
            }
            _ => (Fault::SyncFails(node), Fault::Start(node)),
        };
        self.faults.push((at, fault));
        self.faults.push((over, end));
    }

    /// A node speaks with one other only, and what it says to the rest waits: less long than it waits for answers itself.
    fn draw_aside(&mut self, node: u8, other: u8, from: Duration, random: &mut StdRng) {
        for third in (1..=self.nodes).filter(|third| ![node, other].contains(third)) {
            self.faults.push((from, Fault::Hold(node, third)));
        }
        let over = from + Duration::from_millis(random.random_range(500..1_900));
        self.faults.push((over, Fault::ReleaseAll(node)));
    }

    /// What a node says arrives at one other only, and that one stutters: it has seen what the rest has not.
    fn draw_rift(&mut self, node: u8, other: u8, from: Duration, random: &mut StdRng) {
        for third in (1..=self.nodes).filter(|third| ![node, other].contains(third)) {
            self.faults.push((from, Fault::CutOneWay(node, third)));
        }
        let over = from + Duration::from_millis(random.random_range(500..5_000));
        self.draw_stutter(other, from, over, random);
    }

    /// A node's messages wait and go on in turns: what it answers a client overtakes what it sends its peers.
    fn draw_stutter(&mut self, node: u8, from: Duration, to: Duration, random: &mut StdRng) {
        let mut at = from;
        while at < to {
            let held = Duration::from_millis(random.random_range(20..400));
            self.faults.push((at, Fault::HoldAll(node)));
            self.faults.push((at + held, Fault::ReleaseAll(node)));
            at += held + Duration::from_millis(random.random_range(5..60));
        }
        self.faults.push((to, Fault::HealNetwork));
    }
}
