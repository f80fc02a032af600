//! The machine under one node of an [`crate::InProcess`] cluster.
//!
//! Invariant: at most one node runs on a machine, and when [`Machine::crash`] or [`Machine::stop`] returns
//! nothing of it is left: not a task, not a socket, not the lock of its store.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_node::blocking::Blocking;
use starling_node::disk::{LookUp, Space};
use starling_node::net::Network;
use starling_node::overview::{Digest, Overview};
use starling_node::time::now;
use starling_node::{Config, Data, Node, Seams};
use starling_storage::planted::Planted;
use starling_storage::{MemoryFiles, MemoryStore, RocksOptions, RocksStore, Store};
use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};

use crate::cluster::{LOOK_EVERY, READY_WITHIN};
use crate::faults::Faults;
use crate::stepped_clock::SteppedClock;

/// How long what is left of a node may take to end.
const END_WITHIN: Duration = Duration::from_secs(30);
const BLOCKING_THREADS: usize = 4;
/// What a test does not fill.
const ROOMY: u64 = 1 << 40;

/// What a machine keeps its data on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// The store in memory, which knows what a power cut takes.
    Memory,
    /// RocksDB in a temporary folder.
    Folder,
}

/// See the module.
pub struct Machine {
    compare_every: Duration,
    planted: Planted,
    number: u8,
    config: Config,
    network: Arc<dyn Network>,
    faults: Faults,
    clock: Arc<SteppedClock>,
    data: Data,
    space: Arc<Mutex<Space>>,
    boots: u32,
    starts: u8,
    running: Option<Running>,
    /// Why the node said that it must not go on.
    fatal: Arc<Mutex<Option<String>>>,
}

struct Running {
    node: Node,
    runtime: Runtime,
}

impl Machine {
    /// A machine that has never run.
    pub(crate) fn new(
        number: u8,
        config: Config,
        network: Arc<dyn Network>,
        faults: Faults,
        clock: Arc<SteppedClock>,
        disk: Disk,
    ) -> Machine {
        let data = match disk {
            Disk::Memory => empty_memory(),
            Disk::Folder => Data::Disk,
        };
        let (running, fatal) = (None, Arc::default());
        let (compare_every, planted) = (starling_node::repair::COMPARE_EVERY, Planted::NONE);
        Machine {
            compare_every,
            planted,
            number,
            config,
            network,
            faults,
            clock,
            data,
            space: Arc::new(Mutex::new(Space { free: ROOMY, total: ROOMY })),
            boots: 1,
            starts: 0,
            running,
            fatal,
        }
    }

    /// Its number in the cluster, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What its node is told.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its node compares what it holds so often, from its next start on.
    pub fn compare_every(&mut self, every: Duration) {
        self.compare_every = every;
    }

    /// Its node has this bug, from its next start on.
    pub fn plant(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Its wall clock.
    pub fn clock(&self) -> &SteppedClock {
        &self.clock
    }

    /// Whether its node runs.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Why its node said that it must not go on, if it did since the last start.
    pub fn fatal(&self) -> Option<String> {
        self.fatal.lock().clone()
    }

    /// Starts the node; it may not serve yet when this returns.
    ///
    /// # Panics
    /// If it runs, or does not start.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "node {} runs", self.number);
        self.starts = self.starts.wrapping_add(1);
        *self.fatal.lock() = None;
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("the system has threads left");
        let started = runtime.spawn(Node::start(self.config.clone(), self.seams()));
        let started = started.await.expect("a start does not panic");
        let node = started.unwrap_or_else(|error| panic!("node {}: {error}", self.number));
        self.running = Some(Running { node, runtime });
    }

    /// Returns when the node serves.
    ///
    /// # Panics
    /// If it never does.
    pub async fn ready(&self) {
        let ready = timeout(READY_WITHIN, self.node().ready()).await;
        let ready = ready.unwrap_or_else(|_| panic!("node {} is never ready", self.number));
        ready.unwrap_or_else(|reason| panic!("node {}: {reason}", self.number));
    }

    /// The running node.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&self) -> &Node {
        &self.running.as_ref().expect("the node runs").node
    }

    /// The cluster as the node sees it.
    pub fn overview(&self) -> Overview {
        self.node().overview().overview()
    }

    /// The count of keys and the scan hash of a bucket.
    ///
    /// # Panics
    /// If the node cannot tell.
    pub async fn digest(&self, bucket: &str) -> Digest {
        let digest = self.node().overview().digest(bucket.to_owned()).await;
        digest.unwrap_or_else(|error| panic!("node {}: {error}", self.number))
    }

    /// Stops the node in good order.
    ///
    /// # Panics
    /// If its stop is not clean.
    pub async fn stop(&mut self) {
        let Running { node, runtime } = self.running.take().expect("the node runs");
        let stopped = runtime.spawn(node.stop()).await.expect("a stop does not panic");
        stopped.unwrap_or_else(|error| panic!("node {}: {error}", self.number));
        end(runtime).await;
    }

    /// Ends the node in the middle of whatever it does, as kill -9 would: what it has written stays.
    pub async fn crash(&mut self) {
        let Running { node, runtime } = self.running.take().expect("the node runs");
        self.faults.sever(self.config.listen.internode.ip());
        drop(node);
        end(runtime).await;
        self.until_released().await;
    }

    /// A crash that takes what was not synced, and a new boot.
    ///
    /// # Panics
    /// If the data is not in memory: a real disk keeps what was written.
    pub async fn power_cut(&mut self) {
        // From here on the store is as the disk was when the power went.
        self.memory().make_sync_fail(true);
        self.crash().await;
        self.memory().crash();
        self.memory().make_sync_fail(false);
        self.boots += 1;
    }

    fn memory(&self) -> &MemoryStore {
        match &self.data {
            Data::Memory(store, _) => store,
            Data::Disk => panic!("only memory can be cut off its power"),
        }
    }

    /// Loses everything but the address, as a new disk would.
    pub fn wipe(&mut self) {
        assert!(self.running.is_none(), "node {} runs", self.number);
        match &mut self.data {
            Data::Disk => fs::remove_dir_all(&self.config.data_dir).expect("it is this test's"),
            memory => *memory = empty_memory(),
        }
    }

    /// Loses the store, and keeps the records beside it.
    pub fn wipe_store(&mut self) {
        assert!(self.running.is_none(), "node {} runs", self.number);
        match &mut self.data {
            Data::Disk => fs::remove_dir_all(self.store_dir()).expect("it is this test's"),
            Data::Memory(store, _) => *store = Arc::new(MemoryStore::new()),
        }
    }

    /// Copies the folder of a stopped node, with the store and the records.
    pub fn copy_to(&self, copy: &Path) {
        assert!(self.running.is_none(), "node {} runs", self.number);
        copy_folder(&self.config.data_dir, copy);
    }

    /// Takes back everything from a copy.
    pub fn restore(&mut self, copy: &Path) {
        self.wipe();
        copy_folder(copy, &self.config.data_dir);
    }

    /// Takes back the store from a copy, not the records beside it.
    pub fn restore_store(&mut self, copy: &Path) {
        self.wipe_store();
        copy_folder(&copy.join("store"), &self.store_dir());
    }

    /// The store of a node that does not run.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn store(&self) -> Arc<dyn Store> {
        assert!(self.running.is_none(), "node {} runs", self.number);
        match &self.data {
            Data::Memory(store, _) => store.clone(),
            Data::Disk => {
                let store = RocksStore::open(&self.store_dir(), &RocksOptions::default());
                Arc::new(store.expect("the store of a stopped node opens"))
            }
        }
    }

    /// Waits until nothing of an ended node holds the store: its commit thread is no task, and may
    /// still be in a sync.
    async fn until_released(&self) {
        let until = now() + END_WITHIN;
        let is_held = || match &self.data {
            Data::Memory(store, _) => Arc::strong_count(store) > 1,
            Data::Disk => RocksStore::open(&self.store_dir(), &RocksOptions::default()).is_err(),
        };
        while is_held() {
            assert!(now() < until, "something of node {} is left", self.number);
            sleep(LOOK_EVERY / 10).await;
        }
    }

    fn store_dir(&self) -> PathBuf {
        self.config.data_dir.join("store")
    }

    /// How much space the node finds on its disk from now on.
    pub fn set_space(&self, space: Space) {
        *self.space.lock() = space;
    }

    fn disk_space(&self) -> LookUp {
        let space = self.space.clone();
        Arc::new(move || Ok(*space.lock()))
    }

    fn seams(&self) -> Seams {
        let mut seed = [0; 32];
        (seed[0], seed[1]) = (self.number, self.starts);
        let (fatal, number) = (self.fatal.clone(), self.number);
        Seams {
            network: self.network.clone(),
            wall_clock: self.clock.clone(),
            seed,
            blocking: Blocking::pool(BLOCKING_THREADS),
            sync_every_max: Duration::ZERO,
            compare_every: self.compare_every,
            data: self.data.clone(),
            disk_space: Some(self.disk_space()),
            planted: self.planted,
            boot_id: format!("boot-{}", self.boots),
            fatal: Arc::new(move |reason| {
                eprintln!("node {number} must not go on: {reason}");
                fatal.lock().get_or_insert_with(|| reason.to_owned());
            }),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that failed: its runtime may not be waited for here.
        if let Some(Running { node, runtime }) = self.running.take() {
            drop(node);
            runtime.shutdown_background();
        }
    }
}

fn empty_memory() -> Data {
    Data::Memory(Arc::new(MemoryStore::new()), Arc::new(MemoryFiles::new()))
}

/// Ends a runtime with all its tasks, and waits for that.
async fn end(runtime: Runtime) {
    let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(END_WITHIN)).await;
    ended.expect("ending tasks does not panic");
}

/// Copies a folder with everything in it.
///
/// # Panics
/// If it cannot be read, or the copy not be written.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the temporary folder can be written");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let path = entry.expect("it can be listed").path();
        let copy = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_folder(&path, &copy);
        } else {
            fs::copy(&path, &copy).expect("the temporary folder can be written");
        }
    }
}
