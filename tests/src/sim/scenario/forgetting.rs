//! Seeds about deletes and how they are forgotten: replicas compare all the time, and clients delete what they have put and go on to the next
//! key, so that a purge floor rises within a second or two. Meanwhile single messages are late by more than that, while all others pass:
//!
//! - What one client reads, it reads through a node that holds no replica of it, and whose links to the replicas falter: it has the state of one
//!   replica long before that of another.
//! - Connections between nodes end, and what they carried is heard long after what was sent over the next ones.
//! - The link between two replicas pauses while both are in touch with the third, which raises the floor.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Fault, Habit, QUIET_FIRST, Scenario};

impl Scenario {
    /// The scenario of a seed of this kind.
    pub(super) fn forgetting(seed: u64, random: &mut StdRng) -> Scenario {
        let nodes = *[4, 5, 5].choose(random).expect("not empty");
        let mut milliseconds =
            |of: &[u64]| Duration::from_millis(*of.choose(random).expect("not empty"));
        let sync_every_max = (0..nodes).map(|_| milliseconds(&[2, 10])).collect();
        let latency_max = milliseconds(&[5, 20, 100]);
        let compare_every = milliseconds(&[20, 20, 50]);
        let turn = 8 * latency_max + milliseconds(&[200, 500]);
        let heal_at = QUIET_FIRST + Duration::from_secs(random.random_range(15..25));
        let mut scenario = Scenario {
            seed,
            nodes,
            replication_factor: 3,
            racks: *[1, nodes].choose(random).expect("not empty"),
            slot_bits: 4,
            hints_bytes_max: *[0, 64 << 20].choose(random).expect("not empty"),
            clients: 4,
            busy: false,
            keys: 48,
            think_max: Duration::from_millis(*[10, 30].choose(random).expect("not empty")),
            latency_max,
            sync_every_max,
            habit: Habit::MoveOn(turn),
            only_known: Some(random.random_range(1..=nodes)),
            network_only: false,
            repair: true,
            compare_every,
            heal_at,
            faults: Vec::new(),
        };
        scenario.draw_delays(random);
        scenario
    }

    fn draw_delays(&mut self, random: &mut StdRng) {
        let mut at = QUIET_FIRST;
        loop {
            at += Duration::from_millis(random.random_range(200..=2_500));
            if at >= self.heal_at {
                break;
            }
            self.draw_delay(at, random);
        }
        self.faults.retain(|(at, _)| *at < self.heal_at);
        self.faults.sort_by_key(|(at, _)| *at);
    }

    fn draw_delay(&mut self, at: Duration, random: &mut StdRng) {
        let known = self.only_known.expect("these scenarios have one");
        let node = random.random_range(1..=self.nodes);
        let [one, other] = self.two_others(known, random);
        let over = at + Duration::from_millis(random.random_range(1_000..=6_000));
        match random.random_range(0..13) {
            0..=4 => self.draw_falter(known, other, at, over, random),
            5..=6 => {
                let ends = random.random_range(50..600);
                let heard = random.random_range(1_500..8_000);
                self.faults.push((at, Fault::LeaveBehind(node, ends, heard)));
            }
            7..=9 => self.draw_pauses(one, other, at, over, random),
            10..=11 => self.draw_rift(other, known, at, random),
            _ => {
                self.faults.push((at, Fault::Kill(node)));
                self.faults.push((over, Fault::Start(node)));
            }
        }
    }

    fn two_others(&self, node: u8, random: &mut StdRng) -> [u8; 2] {
        let mut others: Vec<u8> = (1..=self.nodes).filter(|other| *other != node).collect();
        others.shuffle(random);
        [others[0], others[1]]
    }

    /// The link between two nodes passes for a moment only, long enough for an answer to one question and seldom to the next; then it waits for
    /// longer than a purge floor takes to rise; and so on in turns. A read at ALL gets states that are as much apart.
    fn draw_falter(
        &mut self,
        node: u8,
        other: u8,
        from: Duration,
        to: Duration,
        random: &mut StdRng,
    ) {
        let latency_ms_max = self.latency_max.as_millis() as u64;
        let mut at = from;
        while at < to {
            for (held_ms, passes_ms_max) in
                [(200..1_000, latency_ms_max), (800..3_500, 20 * latency_ms_max)]
            {
                let held = random.random_range(held_ms);
                self.hold(node, other, at, held);
                let passes = random.random_range(1..=passes_ms_max);
                at += Duration::from_millis(held + passes);
            }
        }
    }

    /// The link between two nodes waits and passes in turns, less long than it takes for a hint to be kept of what one of them does not
    /// acknowledge.
    fn draw_pauses(
        &mut self,
        node: u8,
        other: u8,
        from: Duration,
        to: Duration,
        random: &mut StdRng,
    ) {
        let mut at = from;
        while at < to {
            let held = random.random_range(200..1_000);
            self.hold(node, other, at, held);
            at += Duration::from_millis(held + random.random_range(50..400));
        }
    }

    fn hold(&mut self, node: u8, other: u8, at: Duration, ms: u64) {
        self.faults.push((at, Fault::Hold(node, other)));
        self.faults.push((at + Duration::from_millis(ms), Fault::Release(node, other)));
    }
}
