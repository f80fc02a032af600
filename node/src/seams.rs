//! The outside world of a node, in one place: sockets, wall clock, randomness, blocking work, and
//! the store with its records. A test or a simulator brings its own; the node's code is the same.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::{StdRng, SysRng};
use rand::{Rng, RngExt, SeedableRng, TryRng};
use starling_storage::planted::Planted;
use starling_storage::{Files, MemoryFiles, MemoryStore, Store, SystemClock, WallClock};

use crate::blocking::Blocking;
use crate::config::Config;
use crate::disk::{self, LookUp};
use crate::net::{Network, TcpNetwork};

/// See the module.
#[derive(Clone)]
pub struct Seams {
    /// How streams are opened and accepted.
    pub network: Arc<dyn Network>,
    /// The time of day.
    pub wall_clock: Arc<dyn WallClock>,
    /// Every random choice of the node follows from this.
    pub seed: [u8; 32],
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// Where no thread may sync the log: a task does, at most so long after the last time.
    pub sync_every_max: Duration,
    /// The pause between two rounds of comparing with the other replicas, on average.
    pub compare_every: Duration,
    /// Where data is kept.
    pub data: Data,
    /// How much space there is for data, where that is limited.
    pub disk_space: Option<LookUp>,
    /// Names the machine's boot: an unclean stop with another one means that memory was lost.
    pub boot_id: String,
    /// Ends the process, or the one node of a test, for the given reason; the node must not go on.
    pub fatal: Fatal,
    /// What a test wants to be wrong.
    pub planted: Planted,
}

/// See [`Seams::fatal`].
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Where data is kept.
#[derive(Clone)]
pub enum Data {
    /// In RocksDB and files, in the configured directory.
    Disk,
    /// In memory that outlives the node: what a restarted test node finds again.
    Memory(Arc<MemoryStore>, Arc<MemoryFiles>),
}

impl Seams {
    /// The real world.
    ///
    /// # Errors
    /// When the operating system gives no randomness or no boot id.
    pub fn system(config: &Config) -> std::io::Result<Self> {
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(std::io::Error::other)?;
        Ok(Self {
            network: Arc::new(TcpNetwork),
            wall_clock: Arc::new(SystemClock),
            seed,
            blocking: Blocking::pool(config.blocking_threads),
            sync_every_max: Duration::ZERO,
            compare_every: crate::repair::COMPARE_EVERY,
            data: Data::Disk,
            disk_space: Some(disk::of_directory(config.data_dir.clone())),
            boot_id: starling_storage::identity::machine_boot_id()?,
            fatal: Arc::new(starling_storage::commit::abort_process),
            planted: Planted::NONE,
        })
    }

    /// A generator of its own for each purpose, so that one part's draws do not shift another's.
    #[must_use]
    pub fn random(&self, purpose: u64) -> StdRng {
        let mut root = StdRng::from_seed(self.seed);
        let mut seed = [0; 32];
        root.fill_bytes(&mut seed);
        let mut mixed = StdRng::from_seed(seed);
        let base: u64 = mixed.random();
        StdRng::seed_from_u64(base ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// The store and the records beside it.
pub type Opened = (Arc<dyn Store>, Arc<dyn Files>);
