//! What a node is told before it starts: a TOML file, then the environment, then flags.
//!
//! Two stages. [`mod@file`] holds what was written, key by key, each with its place in the text;
//! [`resolve`] turns that into what is meant, a [`Config`] whose every field has a value and whose
//! invariants hold: the seed list names this node, addresses off loopback were asked for, limits
//! fit one another. The rest of the node sees only [`Config`].
//!
//! Nothing is ignored in silence: an unknown key refuses to start, and so does a value out of range.
//! It does not read the data directory, open ports or ask other nodes whether they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_ring::{BucketMode, Keyspace, PartitionerKind, ReplicationStrategy};
use xxhash_rust::xxh3::xxh3_128_with_seed;

mod check;
mod error;
mod file;
mod keys;
mod keyspaces;
mod resolve;
mod secret;
mod show;
mod source;
mod value;

pub use error::{ConfigError, Diagnostic};
pub use keys::{KEYS, Key, KeyDefault};
pub use secret::SecretError;
pub(crate) use show::keyspace_table;
pub use source::Overrides;
pub use value::{Durability, LogFormat, LogLevel};

/// The seeds of the two halves of [`Config::cluster_hash`].
const CLUSTER_HASH_SEEDS: [u64; 2] = [0x5374_6172_6c69_6e67, 0x636c_7573_7465_7221];

/// What a node needs to know to run. Made by [`Config::load`] or [`Config::dev`]; the fields are
/// public so that a test may start from one of these and change what it is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The cluster's name, for people; every node of a cluster has the same.
    pub cluster_name: String,
    /// Everything the node keeps is below this directory. Created when missing.
    pub data_dir: PathBuf,
    /// Where the node listens.
    pub listen: Listen,
    /// The datacenter that this node is in.
    pub datacenter: String,
    /// The rack (or zone) that this node is in: replicas are spread over racks.
    pub rack: String,
    /// The internode addresses of every first member, this node's among them. After genesis they are
    /// remembered beside the data.
    pub seeds: BTreeSet<SocketAddr>,
    /// The token space is cut into `2^slot_bits` slots. Between 4 and 16; fixed at genesis.
    pub slot_bits: u8,
    /// Where the cluster's secret is read from at every start, see [`Config::secret`].
    pub secret_file: Option<PathBuf>,
    /// Whether addresses off loopback are allowed without encryption.
    pub insecure: bool,
    /// When a write counts as kept.
    pub durability: Durability,
    /// Bytes of stored blocks kept in memory.
    pub block_cache_bytes: u64,
    /// Bytes of writes kept in memory before they go to a sorted file.
    pub memtable_bytes: u64,
    /// Bytes a second that the store may write to sort and merge its files.
    pub compaction_bytes_max: u64,
    /// Bytes of hints kept for all nodes that are away together; beyond them the oldest go.
    pub hints_bytes_max: u64,
    /// Bytes that writes leave free on the disk, though at most an eighth of it; 0 for none.
    pub disk_reserve_bytes: u64,
    /// Bytes a second that comparing with other replicas may read and send; 0 never compares unless writes were lost.
    pub repair_bytes_max: u64,
    /// Buckets whose deletes are forgotten after a time, whether or not every replica has them.
    pub gc_grace: BTreeMap<String, Duration>,
    /// Threads that run the node; by default one for each core.
    pub worker_threads: usize,
    /// Threads that wait for the disk.
    pub blocking_threads: usize,
    /// What one request, one connection and the whole node may hold.
    pub limits: Limits,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// The keyspaces that exist at genesis, by name.
    pub keyspaces: Vec<Keyspace>,
    /// What is logged, and how.
    pub log: Log,
    /// Notes for whoever starts the node: environment variables that look like ours and are no key.
    pub warnings: Vec<String>,
}

/// Where the node listens. The first two are also how others reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Clients.
    pub native: SocketAddr,
    /// The other nodes.
    pub internode: SocketAddr,
    /// `/health`, `/metrics` and `/status`; always on loopback.
    pub admin: SocketAddr,
}

/// What one request, one connection and the whole node may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest key, in bytes; at most 65,535.
    pub key_bytes_max: u32,
    /// The longest value, in bytes; a frame must hold it.
    pub value_bytes_max: u32,
    /// How many clients may be connected.
    pub connections_max: usize,
    /// Bytes of client requests being worked on at a time; beyond them the answer is `Overloaded`.
    pub in_flight_bytes_max: u64,
    /// Bytes queued for one other node; beyond them it is hinted instead.
    pub link_bytes_max: u64,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting to another node.
    pub connect: Duration,
    /// A read, when the client does not say.
    pub read: Duration,
    /// A write, when the client does not say.
    pub write: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// For people or for machines.
    pub format: LogFormat,
}

impl Config {
    /// Reads `path`, lays `overrides` over it and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the file, the line, what was found and what is accepted.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(path, &text, overrides)
    }

    /// [`Config::load`] of a text that is already in memory; `path` is for the messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str, overrides: &Overrides) -> Result<Self, ConfigError> {
        let layers = source::Layers::read(Some((path, text)), overrides)?;
        resolve::resolve(&resolve::defaults(), &layers)
    }

    /// One node on its own for development: loopback, default ports, keyspace `demo` with one
    /// replica, everything in `data_dir`.
    #[must_use]
    pub fn dev(data_dir: &Path) -> Self {
        let defaults = resolve::defaults();
        Self {
            cluster_name: "dev".to_owned(),
            data_dir: data_dir.to_owned(),
            seeds: BTreeSet::from([defaults.listen.internode]),
            keyspaces: vec![Keyspace {
                name: "demo".to_owned(),
                strategy: ReplicationStrategy::Simple { replication_factor: 1 },
                partitioner: PartitionerKind::default(),
                buckets: BTreeMap::new(),
            }],
            ..defaults
        }
    }

    /// [`Config::dev`] with overrides laid over it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn dev_with(data_dir: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let layers = source::Layers::read(None, overrides)?;
        resolve::resolve(&Self::dev(data_dir), &layers)
    }

    /// A hash over what all nodes of a cluster must agree on: name, slots, keyspaces. Two nodes
    /// whose hashes differ refuse each other at genesis. It guards against mistakes, not against
    /// an attacker.
    #[must_use]
    pub fn cluster_hash(&self) -> [u8; 32] {
        hash(&self.agreed())
    }

    /// A hash over the seeds, in any order. Founders whose hashes differ would found several clusters.
    #[must_use]
    pub fn seeds_hash(&self) -> [u8; 32] {
        let mut seeds = Vec::new();
        self.seeds.iter().for_each(|seed| put(&mut seeds, seed.to_string().as_bytes()));
        hash(&seeds)
    }

    /// What [`Config::cluster_hash`] covers, each part preceded by its length, keyspaces by name.
    fn agreed(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self.cluster_name.as_bytes());
        put(&mut out, &[self.slot_bits]);
        let mut keyspaces: Vec<&Keyspace> = self.keyspaces.iter().collect();
        keyspaces.sort_by(|a, b| a.name.cmp(&b.name));
        for keyspace in keyspaces {
            put(&mut out, keyspace.name.as_bytes());
            match &keyspace.strategy {
                ReplicationStrategy::Simple { replication_factor } => {
                    put(&mut out, &[0, *replication_factor]);
                }
                ReplicationStrategy::NetworkTopology { datacenters } => {
                    put(&mut out, &[1, u8::try_from(datacenters.len()).unwrap_or(u8::MAX)]);
                    for (datacenter, replication_factor) in datacenters {
                        put(&mut out, datacenter.as_bytes());
                        put(&mut out, &[*replication_factor]);
                    }
                }
            }
            put(&mut out, &[u8::from(keyspace.partitioner == PartitionerKind::Murmur3)]);
            put(&mut out, &(keyspace.buckets.len() as u64).to_be_bytes());
            for (bucket, mode) in &keyspace.buckets {
                put(&mut out, bucket.as_bytes());
                put(&mut out, &[u8::from(*mode == BucketMode::Lww)]);
            }
        }
        out
    }
}

fn hash(agreed: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (half, seed) in hash.chunks_exact_mut(16).zip(CLUSTER_HASH_SEEDS) {
        half.copy_from_slice(&xxh3_128_with_seed(agreed, seed).to_be_bytes());
    }
    hash
}

fn put(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}
