//! Keyspaces: what shares a replication strategy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{PartitionerKind, ReplicationStrategy};

/// What becomes of concurrent values in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BucketMode {
    /// They are kept and shown side by side.
    #[default]
    Siblings,
    /// A put replaces what its leader sees; readers see the newest.
    Lww,
}

/// A named set of buckets with one replication strategy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyspace {
    /// Its name, the part of a bucket's name before the dot.
    pub name: String,
    /// Where its replicas go.
    pub strategy: ReplicationStrategy,
    /// How its keys become tokens.
    pub partitioner: PartitionerKind,
    /// The modes of buckets that have one; others are [`BucketMode::Siblings`].
    pub buckets: BTreeMap<String, BucketMode>,
}
