//! One run: builds what the seed says, lets faults happen, heals everything, and judges.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use starling_ring::Ring;
use starling_storage::keys::{storage_key, table_id};
use starling_storage::planted::Planted;
use starling_storage::{Family, Store, values};
use tokio::time::sleep;
use turmoil::{Builder, Sim};
use xxhash_rust::xxh3::xxh3_64;

use super::check::{Violation, check};
use super::history::{Level, Operation, What};
use super::machine::{KEYSPACE, Machine};
use super::scenario::{Fault, Habit, Scenario};
use super::workload::{Record, Worker, elapsed, name};

/// After all is healed every operation succeeds within this.
const LIVE_WITHIN: Duration = Duration::from_secs(30);
/// After that a client that went through it all works as if nothing had been.
const RECOVERED_WITHIN: Duration = Duration::from_secs(12);
const HEALED: &str = "what is healed works again";
/// After that every hint is handed over.
const SETTLED_WITHIN: Duration = Duration::from_secs(15);
/// After that replicas have compared, and hold the same.
const COMPARED_WITHIN: Duration = Duration::from_secs(45);
/// Much later than any run should take.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What it was.
    pub scenario: Scenario,
    /// Everything the clients did.
    pub operations: Vec<Operation>,
    /// The promises that were broken.
    pub violations: Vec<Violation>,
    /// A hash of everything that could be seen of the run: the same seed gives the same.
    pub trace: u64,
}

/// What the auditing client learns at the end.
#[derive(Default)]
struct Audit {
    ring: Option<Arc<Ring>>,
    violations: Vec<Violation>,
}

thread_local! {
    /// What panicked on this thread: tasks that panic end in silence otherwise.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn notice_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            report(panic);
        }));
    });
    PANICS.take();
}

/// Runs a seed on this thread, with a bug in every node if one is planted.
pub fn run(seed: u64, planted: Planted) -> Outcome {
    notice_panics();
    let scenario = Scenario::new(seed);
    let machines: Vec<_> =
        (1..=scenario.nodes).map(|number| Machine::new(number, &scenario, planted)).collect();
    let mut sim = build(&scenario);
    for machine in &machines {
        let machine = machine.clone();
        sim.host(machine.address(), move || machine.clone().run());
    }
    let record = Arc::new(Record::default());
    let audit = Arc::new(Mutex::new(Audit::default()));
    add_clients(&mut sim, &scenario, &machines, &record, &audit);
    let mut stage = Stage { machines: &machines, scenario: &scenario, next: 0, healed: false };
    let mut violations = Vec::new();
    let mut settled = false;
    loop {
        stage.act(&mut sim);
        if !settled && sim.elapsed() >= scenario.heal_at + agree_within(&scenario) {
            settled = true;
            if (scenario.network_only || scenario.repair)
                && let Some(ring) = &audit.lock().ring
            {
                let unread = "replicas agree without a read";
                violations.extend(check_replicas(unread, ring, &machines, scenario.keys));
            }
        }
        match sim.step() {
            Ok(false) => {}
            Ok(true) => break,
            Err(error) => {
                violations
                    .push(broken("every node starts and every client ends", error.to_string()));
                break;
            }
        }
    }
    let operations = record.operations();
    violations.extend(check(&operations, scenario.heal_at, &scenario.losses()));
    let audit = std::mem::take(&mut *audit.lock());
    violations.extend(audit.violations);
    if let Some(ring) = audit.ring {
        let read = "replicas agree in the end";
        violations.extend(check_replicas(read, &ring, &machines, scenario.keys));
    }
    let panics = PANICS.take().into_iter();
    violations.extend(panics.map(|panic| broken("nothing panics", panic)));
    let trace = trace(&operations, &machines);
    Outcome { scenario, operations, violations, trace }
}

/// After everything is healed replicas hold the same within this, without a read.
fn agree_within(scenario: &Scenario) -> Duration {
    if scenario.repair { COMPARED_WITHIN } else { SETTLED_WITHIN }
}

fn build(scenario: &Scenario) -> Sim<'static> {
    Builder::new()
        .rng_seed(scenario.seed)
        .epoch(SystemTime::UNIX_EPOCH)
        .simulation_duration(GIVE_UP_AFTER)
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(scenario.latency_max)
        .tcp_capacity(1 << 16)
        .enable_random_order()
        .build()
}

fn add_clients(
    sim: &mut Sim<'static>,
    scenario: &Scenario,
    machines: &[Arc<Machine>],
    record: &Arc<Record>,
    audit: &Arc<Mutex<Audit>>,
) {
    let nodes: Vec<_> = machines.iter().map(|machine| machine.native()).collect();
    for number in 1..=scenario.clients {
        let (scenario, nodes) = (scenario.clone(), nodes.clone());
        let (record, audit) = (record.clone(), audit.clone());
        sim.client(client_name(number), async move {
            let mut worker = Worker::connect(number, &scenario, nodes, record).await;
            if scenario.busy {
                worker.keep_busy(scenario.heal_at);
            }
            if let Habit::MoveOn(turn) = scenario.habit {
                worker.keep_reading(&scenario, turn);
            }
            worker.work(scenario.heal_at, scenario.think_max).await;
            sleep(RECOVERED_WITHIN).await;
            if worker.read(0, Level::Quorum).await.is_none() {
                let what = format!("client {number} cannot read at QUORUM");
                audit.lock().violations.push(broken(HEALED, what));
            }
            Ok(())
        });
    }
    let (scenario, record, audit) = (scenario.clone(), record.clone(), audit.clone());
    sim.client("auditor", async move {
        sleep(scenario.heal_at).await;
        let mut auditor = Worker::connect(0, &scenario, nodes, record).await;
        audit.lock().ring = Some(auditor.ring());
        sleep(agree_within(&scenario) + Duration::from_millis(10)).await;
        // The first look repairs; hints may come after it, and what they bring the second look repairs.
        for looks in 1..=2 {
            let look_until = agree_within(&scenario) + SETTLED_WITHIN * looks + LIVE_WITHIN;
            for key in 0..usize::from(scenario.keys) {
                while auditor.read(key, Level::All).await.is_none() {
                    if elapsed() > scenario.heal_at + look_until {
                        let what = format!("{} cannot be read at ALL", name(key));
                        audit.lock().violations.push(broken(HEALED, what));
                        return Ok(());
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            }
            sleep(SETTLED_WITHIN).await;
        }
        Ok(())
    });
}

/// Makes faults happen when it is their time.
struct Stage<'a> {
    machines: &'a [Arc<Machine>],
    scenario: &'a Scenario,
    next: usize,
    healed: bool,
}

impl Stage<'_> {
    fn act(&mut self, sim: &mut Sim<'_>) {
        let now = sim.elapsed();
        for (number, machine) in (1..).zip(self.machines) {
            if machine.take_fatal() {
                tracing::info!(node = number, "gives up");
                self.end(sim, number);
            }
        }
        while let Some((at, fault)) = self.scenario.faults.get(self.next)
            && *at <= now
        {
            tracing::info!(?fault, "fault");
            self.next += 1;
            self.inflict(sim, *fault, now);
        }
        if !self.healed && now >= self.scenario.heal_at {
            self.healed = true;
            self.heal(sim);
        }
    }

    fn machine(&self, node: u8) -> &Arc<Machine> {
        &self.machines[usize::from(node) - 1]
    }

    fn inflict(&self, sim: &mut Sim<'_>, fault: Fault, now: Duration) {
        let address = |node| self.machine(node).address();
        match fault {
            Fault::Kill(node) => self.end(sim, node),
            Fault::PowerCut(node, kept) => {
                self.end(sim, node);
                self.machine(node).lose_power(usize::from(kept));
            }
            Fault::Wipe(node) => {
                self.end(sim, node);
                self.machine(node).lose_disk();
            }
            Fault::Blackout => {
                for node in 1..=self.scenario.nodes {
                    self.end(sim, node);
                    self.machine(node).lose_power(0);
                }
            }
            Fault::StartAll => (1..=self.scenario.nodes).for_each(|node| self.start(sim, node)),
            Fault::Start(node) => self.start(sim, node),
            Fault::Cut(a, b) => sim.partition(address(a), address(b)),
            Fault::CutOneWay(from, to) => sim.partition_oneway(address(from), address(to)),
            Fault::Isolate(node) => {
                for other in self.others(node) {
                    sim.partition(address(node), address(other));
                }
            }
            Fault::CutClient(client, node) => sim.partition(client_name(client), address(node)),
            Fault::Hold(a, b) => sim.hold(address(a), address(b)),
            Fault::HoldAll(node) => {
                for other in self.others(node) {
                    sim.hold(address(node), address(other));
                }
            }
            Fault::Release(a, b) => sim.release(address(a), address(b)),
            Fault::ReleaseAll(node) => {
                for other in self.others(node) {
                    sim.release(address(node), address(other));
                }
            }
            Fault::Deaf(node, ms) => {
                self.machine(node).be_deaf(now + Duration::from_millis(u64::from(ms)));
            }
            Fault::LeaveBehind(node, ends, heard) => {
                let after = |ms| now + Duration::from_millis(u64::from(ms));
                self.machine(node).leave_behind(after(ends), after(heard));
            }
            Fault::HealNetwork => self.heal_network(sim),
            Fault::Latency(max) => {
                sim.set_max_message_latency(Duration::from_millis(u64::from(max)));
            }
            Fault::ClockStep(node, by) => {
                self.machine(node).clock.step(now, i64::from(by) * 1_000);
            }
            Fault::ClockDrift(node, ppm) => self.machine(node).clock.drift(now, i64::from(ppm)),
            Fault::Cold(node, cold) => self.machine(node).store().make_cold(cold),
            Fault::Stalled(node, stalled) => self.machine(node).store().make_stalled(stalled),
            Fault::Full(node, full) => self.machine(node).fill_disk(full),
            Fault::SyncFails(node) => self.machine(node).store().make_sync_fail(true),
        }
    }

    fn others(&self, node: u8) -> impl Iterator<Item = u8> {
        (1..=self.scenario.nodes).filter(move |other| *other != node)
    }

    fn end(&self, sim: &mut Sim<'_>, node: u8) {
        if sim.is_host_running(self.machine(node).address()) {
            sim.crash(self.machine(node).address());
        }
    }

    fn start(&self, sim: &mut Sim<'_>, node: u8) {
        let machine = self.machine(node);
        machine.store().make_sync_fail(false);
        if !sim.is_host_running(machine.address()) {
            sim.bounce(machine.address());
        }
    }

    fn heal_network(&self, sim: &mut Sim<'_>) {
        sim.set_max_message_latency(self.scenario.latency_max);
        for a in 1..=self.scenario.nodes {
            for client in 1..=self.scenario.clients {
                sim.repair(client_name(client), self.machine(a).address());
            }
            for b in a + 1..=self.scenario.nodes {
                let (a, b) = (self.machine(a).address(), self.machine(b).address());
                sim.repair(a, b);
                sim.release(a, b);
            }
        }
    }

    fn heal(&self, sim: &mut Sim<'_>) {
        tracing::info!("everything is healed");
        self.heal_network(sim);
        for (node, machine) in (1..).zip(self.machines) {
            machine.clock.repair();
            machine.be_deaf(Duration::ZERO);
            machine.leave_behind(Duration::ZERO, Duration::ZERO);
            machine.store().make_cold(false);
            machine.store().make_stalled(false);
            machine.fill_disk(false);
            self.start(sim, node);
        }
    }
}

/// Whether all replicas of each key hold the same, byte for byte.
fn check_replicas(
    promise: &'static str,
    ring: &Ring,
    machines: &[Arc<Machine>],
    keys: u8,
) -> Vec<Violation> {
    let placement = ring.keyspace(KEYSPACE).expect("every run has the keyspace");
    let table = table_id(&format!("{KEYSPACE}.registers"));
    let mut violations = Vec::new();
    for key in 0..usize::from(keys) {
        let token = placement.token(name(key).as_bytes());
        let stored = storage_key(table, token.0, name(key).as_bytes());
        let states = placement.replicas(token).iter().map(|node| {
            let address = ring.member(*node).address.ip();
            let machine = machines.iter().find(|machine| machine.address() == address);
            let store = machine.expect("members are machines").store();
            (address, state(store.as_ref(), &stored))
        });
        let mut states: Vec<_> = states.collect();
        // Replicas forget a delete within moments of one another.
        if states.iter().any(|(_, state)| state.is_none()) {
            for (_, state) in &mut states {
                *state = state.take().filter(|state| values::tombstone(state).is_none());
            }
        }
        if states.iter().any(|(_, state)| *state != states[0].1) {
            let evidence = format!("{}: {states:?}", name(key));
            violations.push(broken(promise, evidence));
        }
    }
    violations
}

fn state(store: &dyn Store, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    let scanned = store.scan(Family::Data, key, &[], &mut |at, state| {
        found = (at == key).then(|| state.to_vec());
        ControlFlow::Break(())
    });
    scanned.expect("a store in memory can be read");
    found
}

fn client_name(number: u8) -> String {
    format!("client-{number}")
}

fn broken(promise: &'static str, evidence: String) -> Violation {
    Violation { promise, key: None, evidence }
}

fn trace(operations: &[Operation], machines: &[Arc<Machine>]) -> u64 {
    let mut seen = Vec::new();
    for operation in operations {
        seen.extend_from_slice(operation.to_string().as_bytes());
        if let What::Write(write) = &operation.what {
            seen.extend_from_slice(format!("{write:?}").as_bytes());
        }
    }
    for machine in machines {
        let scanned = machine.store().scan(Family::Data, &[], &[], &mut |key, state| {
            seen.extend_from_slice(key);
            seen.extend_from_slice(state);
            ControlFlow::Continue(())
        });
        scanned.expect("a store in memory can be read");
    }
    xxh3_64(&seen)
}
