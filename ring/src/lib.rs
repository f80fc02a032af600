//! Starling's ring: who is a member, who owns which key, who is alive. Pure: no I/O, no clock, no
//! randomness of its own.
//!
//! - [`member`], [`token`], [`slots`]: nodes, places on the ring, the grid of slots
//! - [`partitioner`]: from keys to tokens
//! - [`strategy`], [`mod@claim`]: who owns a slot, where its replicas go
//! - [`keyspace`], [`consistency`]: what is replicated how, and how many must answer
//! - [`secret`], [`epoch`], [`genesis`]: how a cluster comes to be
//! - [`placement`]: an epoch ready for use
//! - [`gossip`], [`detector`]: how nodes learn of one another, and of one another's failure

pub mod claim;
pub mod consistency;
pub mod detector;
pub mod epoch;
pub mod genesis;
pub mod gossip;
pub mod keyspace;
pub mod member;
pub mod partitioner;
pub mod placement;
pub mod secret;
pub mod slots;
pub mod strategy;
pub mod token;

pub use claim::claim;
pub use consistency::{ConsistencyError, ConsistencyLevel, LevelNameError, Requirement};
pub use epoch::{Epoch, EpochHash};
pub use genesis::{Genesis, GenesisError};
pub use keyspace::{BucketMode, Keyspace};
pub use member::{Candidate, ClusterId, HostId, Member, NodeIndex};
pub use partitioner::{Partitioner, PartitionerKind};
pub use placement::{Placement, Ring};
pub use secret::ClusterSecret;
pub use slots::{Slot, SlotBitsError, SlotGrid};
pub use strategy::ReplicationStrategy;
pub use token::Token;
