//! Consistency levels: how many replicas must answer, and where.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Placement;

/// How many replicas must answer. The names and meanings are Cassandra's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsistencyLevel {
    /// Any node at all. Not supported yet.
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
    /// Linearizable. Not supported yet.
    Serial,
    /// Linearizable within the coordinator's datacenter. Not supported yet.
    LocalSerial,
    /// This many replicas: an explicit R or W.
    Count(u8),
}

/// What a level asks for in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Answers needed over all.
    pub total: u8,
    /// Answers needed in each of these datacenters; empty when the level does not speak of them.
    pub per_datacenter: BTreeMap<String, u8>,
}

/// Why a level cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsistencyError {
    /// The level exists but is not built.
    #[error("consistency level {level} is not supported yet")]
    NotSupportedYet {
        /// The level.
        level: ConsistencyLevel,
    },
    /// The level asks for more replicas than there are.
    #[error("the level needs {required} replicas, the keyspace keeps {replication_factor}")]
    NotEnoughReplicas {
        /// Replicas asked for.
        required: u8,
        /// Replicas kept.
        replication_factor: u8,
    },
    /// A count of nothing.
    #[error("a level of 0 replicas is no level")]
    Zero,
    /// The keyspace keeps nothing in the coordinator's datacenter.
    #[error("the keyspace keeps no replicas in datacenter {datacenter:?}")]
    NoReplicasHere {
        /// The coordinator's datacenter.
        datacenter: String,
    },
}

/// A text names no consistency level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is no consistency level; accepted are any, one, two, three, quorum, all, local_one, local_quorum, each_quorum, serial, local_serial, or a number of replicas"
)]
pub struct LevelNameError {
    /// The text.
    pub found: String,
}

const NAMES: [(&str, ConsistencyLevel); 11] = [
    ("ANY", ConsistencyLevel::Any),
    ("ONE", ConsistencyLevel::One),
    ("TWO", ConsistencyLevel::Two),
    ("THREE", ConsistencyLevel::Three),
    ("QUORUM", ConsistencyLevel::Quorum),
    ("ALL", ConsistencyLevel::All),
    ("LOCAL_ONE", ConsistencyLevel::LocalOne),
    ("LOCAL_QUORUM", ConsistencyLevel::LocalQuorum),
    ("EACH_QUORUM", ConsistencyLevel::EachQuorum),
    ("SERIAL", ConsistencyLevel::Serial),
    ("LOCAL_SERIAL", ConsistencyLevel::LocalSerial),
];

impl fmt::Display for ConsistencyLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Count(count) = self {
            return write!(formatter, "{count}");
        }
        let name = NAMES.iter().find(|(_, level)| level == self);
        formatter.write_str(name.expect("every level but a count has a name").0)
    }
}

impl FromStr for ConsistencyLevel {
    type Err = LevelNameError;

    fn from_str(text: &str) -> Result<Self, LevelNameError> {
        if let Some((_, level)) = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Ok(*level);
        }
        match text.parse::<u8>() {
            Ok(count) if count > 0 => Ok(Self::Count(count)),
            _ => Err(LevelNameError { found: text.to_owned() }),
        }
    }
}

impl ConsistencyLevel {
    /// What the level asks for in `placement`, for a coordinator in `local_datacenter`. Quorums
    /// count the configured replicas, not the living ones.
    ///
    /// # Errors
    /// [`ConsistencyError`].
    pub fn requirement(
        self,
        placement: &Placement,
        local_datacenter: &str,
    ) -> Result<Requirement, ConsistencyError> {
        let replication_factor = placement.replication_factor();
        let total = match self {
            Self::Any | Self::Serial | Self::LocalSerial => {
                return Err(ConsistencyError::NotSupportedYet { level: self });
            }
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Quorum => quorum(replication_factor),
            Self::All => replication_factor,
            Self::Count(0) => return Err(ConsistencyError::Zero),
            Self::Count(count) => count,
            Self::LocalOne => return local(placement, local_datacenter, |_| 1),
            Self::LocalQuorum => return local(placement, local_datacenter, quorum),
            Self::EachQuorum => return Ok(each_quorum(placement)),
        };
        if total > replication_factor {
            return Err(ConsistencyError::NotEnoughReplicas {
                required: total,
                replication_factor,
            });
        }
        Ok(Requirement { total, per_datacenter: BTreeMap::new() })
    }
}

fn quorum(replicas: u8) -> u8 {
    replicas / 2 + 1
}

fn local(
    placement: &Placement,
    datacenter: &str,
    of: impl Fn(u8) -> u8,
) -> Result<Requirement, ConsistencyError> {
    match placement.per_datacenter().get(datacenter).copied() {
        None | Some(0) => {
            Err(ConsistencyError::NoReplicasHere { datacenter: datacenter.to_owned() })
        }
        Some(replicas) => {
            let total = of(replicas);
            Ok(Requirement {
                total,
                per_datacenter: BTreeMap::from([(datacenter.to_owned(), total)]),
            })
        }
    }
}

fn each_quorum(placement: &Placement) -> Requirement {
    let per_datacenter: BTreeMap<String, u8> = placement
        .per_datacenter()
        .iter()
        .filter(|(_, replicas)| **replicas > 0)
        .map(|(name, replicas)| (name.clone(), quorum(*replicas)))
        .collect();
    let total = per_datacenter.values().fold(0_u8, |sum, needed| sum.saturating_add(*needed));
    Requirement { total, per_datacenter }
}
