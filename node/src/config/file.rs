//! What was written: the shape of the file, nothing defaulted, every value with its place.
//!
//! Unknown keys are refused here once more, although `source` names them better before.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;
use starling_ring::{BucketMode, PartitionerKind};
use toml::Spanned;

use super::value::{Durability, Graces, LogFormat, LogLevel, Replication, Size, Span};

/// A key that may be written, with its place in the text.
pub(super) type Maybe<T> = Option<Spanned<T>>;

/// See the module.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    pub cluster_name: Maybe<String>,
    pub data_dir: Maybe<PathBuf>,
    pub datacenter: Maybe<String>,
    pub rack: Maybe<String>,
    pub seeds: Maybe<Vec<SocketAddr>>,
    pub secret_file: Maybe<PathBuf>,
    pub insecure: Maybe<bool>,
    pub slot_bits: Maybe<u8>,
    pub durability: Maybe<Durability>,
    pub block_cache: Maybe<Size>,
    pub memtable: Maybe<Size>,
    pub compaction_max: Maybe<Size>,
    pub hints_max: Maybe<Size>,
    pub disk_reserve: Maybe<Size>,
    pub repair_max: Maybe<Size>,
    pub gc_grace: Maybe<Graces>,
    pub worker_threads: Maybe<usize>,
    pub blocking_threads: Maybe<usize>,
    #[serde(default)]
    pub listen: WrittenListen,
    #[serde(default)]
    pub limits: WrittenLimits,
    #[serde(default)]
    pub timeouts: WrittenTimeouts,
    #[serde(default)]
    pub log: WrittenLog,
    #[serde(default)]
    pub keyspaces: BTreeMap<Spanned<String>, WrittenKeyspace>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenListen {
    pub address: Maybe<IpAddr>,
    pub native_port: Maybe<u16>,
    pub internode_port: Maybe<u16>,
    pub admin: Maybe<SocketAddr>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLimits {
    pub key_max: Maybe<Size>,
    pub value_max: Maybe<Size>,
    pub connections_max: Maybe<usize>,
    pub in_flight_max: Maybe<Size>,
    pub link_max: Maybe<Size>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTimeouts {
    pub connect: Maybe<Span>,
    pub read: Maybe<Span>,
    pub write: Maybe<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenLog {
    pub level: Maybe<LogLevel>,
    pub format: Maybe<LogFormat>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenKeyspace {
    pub replication: Maybe<Replication>,
    pub partitioner: Maybe<PartitionerKind>,
    #[serde(default)]
    pub buckets: BTreeMap<Spanned<String>, BucketMode>,
}
