//! Consistency levels as they travel: the protocol crate knows their names, not their meaning.

use serde::{Deserialize, Serialize};

/// A consistency level, named as in Cassandra, or an explicit count of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Any node at all, a hint included.
    Any,
    /// One replica.
    One,
    /// Two replicas.
    Two,
    /// Three replicas.
    Three,
    /// More than half of all replicas.
    Quorum,
    /// Every replica.
    All,
    /// One replica of the coordinator's datacenter.
    LocalOne,
    /// More than half of the replicas of the coordinator's datacenter.
    LocalQuorum,
    /// More than half of the replicas of each datacenter.
    EachQuorum,
    /// Linearizable.
    Serial,
    /// Linearizable within the coordinator's datacenter.
    LocalSerial,
    /// This many replicas.
    Count(u8),
}
