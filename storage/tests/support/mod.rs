//! A replica on memory or RocksDB with a manual clock, and the shorthand the tests share.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "test code; each test binary uses a part of this"
)]

use std::sync::Arc;

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_ring::{HostId, SlotGrid};
use starling_storage::hints::HintLimits;
use starling_storage::planted::Planted;
use starling_storage::replica::OpenError;
use starling_storage::values::{Causal, Context, OperationId};
use starling_storage::{
    Carries, Durability, Envelope, Files, Identity, Lookup, ManualClock, MemoryFiles, MemoryStore,
    Put, PutError, PutRequest, Replica, ReplicaConfig, ReplicaLimits, Store, Tier,
};
use uuid::Uuid;

pub const HOUR_US: i64 = 3_600_000_000;
pub const START_US: u64 = 1_000_000 * HOUR_US as u64;

/// The parts of a replica that outlive its process.
pub struct Machine {
    pub store: Arc<MemoryStore>,
    pub files: Arc<MemoryFiles>,
    pub wall: Arc<ManualClock>,
    pub boot: u32,
    seed: u64,
}

impl Machine {
    pub fn new(seed: u64) -> Machine {
        Machine {
            store: Arc::new(MemoryStore::new()),
            files: Arc::new(MemoryFiles::new()),
            wall: Arc::new(ManualClock::new(START_US)),
            boot: 1,
            seed,
        }
    }

    /// Starts the replica's process.
    pub fn start(&mut self) -> Replica {
        self.open().unwrap()
    }

    /// Tries to.
    pub fn open(&mut self) -> Result<Replica, OpenError> {
        self.seed += 1;
        try_open(self.store.clone(), self.files.clone(), self.wall.clone(), self.boot, self.seed)
    }

    /// Cuts the power: what was not synced is gone, and the machine boots anew.
    pub fn power_cut(&mut self) {
        self.store.crash();
        self.boot += 1;
    }
}

pub fn identity(files: Arc<dyn Files>, boot: u32, seed: u64) -> Arc<Identity> {
    let random = Box::new(StdRng::seed_from_u64(seed));
    Arc::new(
        Identity::open_or_create(files, &format!("boot-{boot}"), random, Planted::NONE).unwrap(),
    )
}

pub fn open(
    store: Arc<dyn Store>,
    files: Arc<dyn Files>,
    wall: Arc<ManualClock>,
    boot: u32,
    seed: u64,
) -> Replica {
    try_open(store, files, wall, boot, seed).unwrap()
}

fn try_open(
    store: Arc<dyn Store>,
    files: Arc<dyn Files>,
    wall: Arc<ManualClock>,
    boot: u32,
    seed: u64,
) -> Result<Replica, OpenError> {
    let identity = identity(files.clone(), boot, seed);
    Replica::open(ReplicaConfig {
        store,
        files,
        identity,
        wall,
        durability: Durability::Inline,
        limits: ReplicaLimits::default(),
        hint_limits: HintLimits { bytes_max: 256 << 20 },
        grid: SlotGrid::new(4).expect("four bits are allowed"),
        observe_sync: |_| {},
        fatal: Box::new(|reason| panic!("fatal: {reason}")),
        planted: Planted::NONE,
    })
}

pub fn request(
    key: &[u8],
    client: &Context,
    operation: u8,
    value: Option<&'static [u8]>,
) -> PutRequest {
    PutRequest {
        table: 1,
        key: Bytes::copy_from_slice(key),
        client: client.clone(),
        operation: OperationId([operation; 16]),
        value: value.map(Bytes::from_static),
        lww: false,
        hints: Vec::new(),
    }
}

pub fn put(
    replica: &Replica,
    key: &[u8],
    client: &Context,
    operation: u8,
    value: &'static [u8],
) -> Result<Put, PutError> {
    replica.put(&request(key, client, operation, Some(value)), Tier::Any)
}

pub fn sync(replica: &Replica) {
    replica.commit().on_durable(Box::new(|| {}));
}

/// The state of a key.
pub fn state(replica: &Replica, key: &[u8]) -> Causal {
    match replica.read(key, Tier::Any).unwrap() {
        Lookup::Found(bytes) => Causal::decode(bytes).unwrap(),
        Lookup::Absent => Causal::default(),
        Lookup::NotCached => panic!("Tier::Any always answers"),
    }
}

/// The values a reader sees, newest first.
pub fn values(replica: &Replica, key: &[u8]) -> Vec<Bytes> {
    let state = state(replica, key);
    let visible = state.visible(false);
    visible.iter().map(|sibling| sibling.value.clone()).collect()
}

pub fn host(id: u128) -> HostId {
    HostId(Uuid::from_u128(id))
}

/// A state or delta from elsewhere, as fresh as can be.
pub fn envelope(key: Bytes, operand: Bytes) -> Envelope {
    Envelope { key, operand, mint: u64::MAX, carries: Carries::State }
}
