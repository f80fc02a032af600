//! What one replica keeps: causal values, their keys, the store beneath them, the clock that dates them, the identity that signs them, and
//! the hints it holds for others.
//!
//! Rooms, from the bottom up:
//!
//! - [`values`]: the causal value and its join, delta and canonical bytes; pure.
//! - [`keys`], [`context_token`]: order-preserving storage keys, and the sealed context a client carries; pure.
//! - [`files`]: small named records on disk, each durable when its write returns.
//! - [`store`]: the ordered, mergeable key-value store; RocksDB in production, an in-memory map in simulation.
//! - [`clock`]: the hybrid logical clock and its durable lease.
//! - [`identity`]: who this replica is, and when it has to become somebody new.
//! - [`commit`]: group durability, and the high-water mark that reveals lost writes.
//! - [`hints`], [`buckets`]: what is owed to unreachable replicas; which table id means which bucket.
//! - [`leaves`]: what has changed since it was last compared with other replicas. [`floors`]: up to when its deletes may be forgotten.
//! - [`replica`]: the one place where a write is led or applied.
//! - [`planted`]: bugs that tests plant, to see that they are found.
//!
//! Invariant of the crate: a replica's state for a key only ever grows in the join order, and a dot is minted at most once.
//!
//! It does no networking, spawns no async task and knows no consistency level; everything blocking is marked as such.

pub mod buckets;
pub mod clock;
pub mod commit;
pub mod context_token;
pub mod files;
pub mod floors;
pub mod hints;
pub mod identity;
pub mod keys;
pub mod leaves;
pub mod planted;
pub mod replica;
pub mod store;
pub mod values;

pub use buckets::{BucketError, BucketRegistry};
pub use clock::{Clock, ClockError, Hlc, ManualClock, SystemClock, WallClock};
pub use commit::{CommitLoop, Durability, HighWater};
pub use files::{DiskFiles, Files, MemoryFiles};
pub use hints::{Hint, HintError, HintLimits, Hints, OwedHint};
pub use identity::{ActorChange, Identity, IdentityError};
pub use replica::{
    ApplyError, BadOperand, Carries, Envelope, NotLeading, OpenError, OpenReport, Put, PutError,
    PutRequest, ReadError, Replica, ReplicaConfig, ReplicaLimits, StopError,
};
pub use store::{
    Batch, Family, Lookup, MemoryStore, RocksOptions, RocksStore, Store, StoreError,
    StoreStatistics, Tier, Visitor,
};
