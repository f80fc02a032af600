//! One simulated machine: what survives a crash of the node on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use starling_node::blocking::Blocking;
use starling_node::config::{Config, Listen};
use starling_node::disk::{LookUp, Space};
use starling_node::{Data, Node, Seams};
use starling_ring::{BucketMode, Keyspace, PartitionerKind, ReplicationStrategy};
use starling_storage::planted::Planted;
use starling_storage::{MemoryFiles, MemoryStore};

use super::clock::SimClock;
use super::network::SimNetwork;
use super::scenario::Scenario;

const NATIVE_PORT: u16 = 9050;
/// Where nodes listen for one another.
pub const INTERNODE_PORT: u16 = 7000;
const ADMIN_PORT: u16 = 9180;
const DISK_BYTES: u64 = 1 << 30;
/// The keyspace of every run.
pub const KEYSPACE: &str = "sim";

/// See the module. Numbers begin with 1.
pub struct Machine {
    number: u8,
    config: Config,
    seed: u64,
    disk: Mutex<Disk>,
    /// Its wall clock.
    pub clock: Arc<SimClock>,
    boots: AtomicU64,
    starts: AtomicU64,
    fatal: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
    planted: Planted,
    sync_every_max: Duration,
    compare_every: Duration,
    network: SimNetwork,
}

#[derive(Clone)]
struct Disk {
    store: Arc<MemoryStore>,
    files: Arc<MemoryFiles>,
}

impl Machine {
    /// Machine `number` of a run, with nothing on its disk.
    pub fn new(number: u8, scenario: &Scenario, planted: Planted) -> Arc<Machine> {
        Arc::new(Machine {
            number,
            config: config(number, scenario),
            seed: scenario.seed,
            disk: Mutex::new(Disk::empty()),
            clock: Arc::default(),
            boots: AtomicU64::new(0),
            starts: AtomicU64::new(0),
            fatal: Arc::default(),
            is_full: Arc::default(),
            planted,
            sync_every_max: scenario.sync_every_max[usize::from(number) - 1],
            compare_every: scenario.compare_every,
            network: SimNetwork::default(),
        })
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        address(self.number)
    }

    /// Where clients connect.
    pub fn native(&self) -> SocketAddr {
        SocketAddr::from((self.address(), NATIVE_PORT))
    }

    /// Hears nothing of what others say over some of their connections before the run has lasted so long.
    pub fn be_deaf(&self, until: Duration) {
        self.network.be_deaf(until);
    }

    /// Leaves behind what other nodes have connected so far: they see its end at `ends`, and what they had sent over it is heard at `heard`.
    pub fn leave_behind(&self, ends: Duration, heard: Duration) {
        self.network.leave_behind(ends, heard);
    }

    /// Its store as it is on disk now.
    pub fn store(&self) -> Arc<MemoryStore> {
        self.disk.lock().store.clone()
    }

    /// Runs the node until its runtime is dropped.
    pub async fn run(self: Arc<Machine>) -> turmoil::Result {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8] = self.number;
        seed[16..24].copy_from_slice(&start.to_le_bytes());
        let Disk { store, files } = self.disk.lock().clone();
        let fatal = self.fatal.clone();
        let seams = Seams {
            network: Arc::new(self.network.clone()),
            wall_clock: self.clock.clone(),
            seed,
            blocking: Blocking::Inline,
            sync_every_max: self.sync_every_max,
            compare_every: self.compare_every,
            data: Data::Memory(store, files),
            disk_space: Some(self.disk_space()),
            boot_id: format!("boot-{}-{}", self.number, self.boots.load(Ordering::Relaxed)),
            fatal: Arc::new(move |_| fatal.store(true, Ordering::Relaxed)),
            planted: self.planted,
        };
        let _node = Node::start(self.config.clone(), seams).await?;
        std::future::pending().await
    }

    /// The power fails: what was not synced is gone but for the first `kept` batches, and the next boot is another.
    pub fn lose_power(&self, kept: usize) {
        self.disk.lock().store.crash_keeping(kept);
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    /// The disk has no space left for data, or all of it again.
    pub fn fill_disk(&self, full: bool) {
        self.is_full.store(full, Ordering::Relaxed);
    }

    fn disk_space(&self) -> LookUp {
        let is_full = self.is_full.clone();
        Arc::new(move || {
            let free = if is_full.load(Ordering::Relaxed) { 0 } else { DISK_BYTES };
            Ok(Space { free, total: DISK_BYTES })
        })
    }

    /// The disk is replaced by an empty one.
    pub fn lose_disk(&self) {
        *self.disk.lock() = Disk::empty();
    }

    /// Whether the node has asked to be ended since this was last asked.
    pub fn take_fatal(&self) -> bool {
        self.fatal.swap(false, Ordering::Relaxed)
    }
}

impl Disk {
    fn empty() -> Disk {
        Disk { store: Arc::new(MemoryStore::new()), files: Arc::new(MemoryFiles::new()) }
    }
}

/// The address of machine `number`.
pub fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, number))
}

fn config(number: u8, scenario: &Scenario) -> Config {
    let at = address(number);
    let seeds: BTreeSet<SocketAddr> = (1..=scenario.nodes)
        .map(|seed| SocketAddr::from((address(seed), INTERNODE_PORT)))
        .collect();
    let defaults = Config::dev(Path::new("/nowhere"));
    Config {
        cluster_name: "sim".to_owned(),
        listen: Listen {
            native: SocketAddr::from((at, NATIVE_PORT)),
            internode: SocketAddr::from((at, INTERNODE_PORT)),
            admin: SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)),
        },
        rack: format!("r{}", number % scenario.racks),
        seeds,
        slot_bits: scenario.slot_bits,
        insecure: true,
        hints_bytes_max: scenario.hints_bytes_max,
        disk_reserve_bytes: DISK_BYTES / 8,
        repair_bytes_max: if scenario.repair { 32 << 20 } else { 0 },
        keyspaces: vec![Keyspace {
            name: KEYSPACE.to_owned(),
            strategy: ReplicationStrategy::Simple {
                replication_factor: scenario.replication_factor,
            },
            partitioner: PartitionerKind::default(),
            buckets: [("registers".to_owned(), BucketMode::Siblings)].into(),
        }],
        ..defaults
    }
}
