//! Answers a client's request by asking replicas: plans it, counts answers against the
//! consistency level, repairs what a read finds stale, leaves hints for what a write missed.
//!
//! Invariant: `Unavailable`, `Overloaded` and every refusal come before anything is written; after
//! that the only failures are those that say the outcome is unknown.

mod error;
mod forward;
mod late_hints;
mod leading;
mod plan;
mod quorum;
mod read;
mod read_gather;
mod restore;
mod routing;
mod spread;
mod write;
mod write_gather;

use std::sync::Arc;
use std::time::Duration;

use starling_ring::{ConsistencyLevel, NodeIndex};
use starling_storage::context_token::TokenKey;
use starling_storage::planted::Planted;
use starling_storage::replica::Replica;
use starling_storage::values::{Context, OperationId};
use tokio::time::Instant;

use crate::blocking::Blocking;
use crate::internode::Links;
use crate::local::Local;
use crate::membership::LivenessTable;
use crate::overload::Held;
use leading::Leading;

pub use late_hints::LateHints;

pub use error::RequestError;
pub use forward::Leader;
pub use plan::Bucket;
pub use quorum::{QuorumTracker, Tally, Verdict};
pub use read::ReadResult;
pub use read_gather::ReadAt;
pub use restore::RestoreRequest;
pub use routing::HedgeBudget;

/// Limits a coordinator enforces.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a key.
    pub key_bytes_max: usize,
    /// Bytes of a value.
    pub value_bytes_max: usize,
    /// How long a read may take when the client does not say.
    pub read_timeout: Duration,
    /// How long a write may take when the client does not say.
    pub write_timeout: Duration,
}

/// See the module. Shared by all client connections.
pub struct Coordinator {
    local: Arc<Local>,
    links: Arc<Links>,
    liveness: Arc<LivenessTable>,
    replica: Arc<Replica>,
    leading: Leading,
    late_hints: LateHints,
    blocking: Blocking,
    token_key: TokenKey,
    limits: Limits,
    hedging: HedgeBudget,
    planted: Planted,
}

/// A value to store, or its deletion.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// The partition key.
    pub key: bytes::Bytes,
    /// How many replicas must have it.
    pub level: ConsistencyLevel,
    /// What the client read before, sealed; nothing for a blind put.
    pub context: Option<bytes::Bytes>,
    /// Names this put across retries.
    pub operation: OperationId,
    /// The value; none deletes.
    pub value: Option<bytes::Bytes>,
    /// When it is too late to begin: the client may have repeated it elsewhere by now.
    pub begin_by: Instant,
    /// When the answer stops being worth having.
    pub deadline: Instant,
}

/// A key to read.
#[derive(Debug)]
pub struct ReadRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// The partition key.
    pub key: bytes::Bytes,
    /// How many replicas must agree.
    pub level: ConsistencyLevel,
    /// The answer must have seen this sealed context.
    pub floor: Option<bytes::Bytes>,
    /// Charged for what the replicas answer.
    pub held: Arc<Held>,
    /// When the answer stops being worth having.
    pub deadline: Instant,
}

/// What a coordinator is made of.
pub struct Parts {
    /// This node and its cluster.
    pub local: Arc<Local>,
    /// The way to the others.
    pub links: Arc<Links>,
    /// Who is up.
    pub liveness: Arc<LivenessTable>,
    /// This node's own data.
    pub replica: Arc<Replica>,
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// What it enforces.
    pub limits: Limits,
    /// What a test wants to be wrong.
    pub planted: Planted,
}

impl Coordinator {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let token_key = TokenKey(parts.local.secret.token_mac_key());
        Self {
            token_key,
            local: parts.local,
            links: parts.links,
            liveness: parts.liveness,
            leading: Leading::new(parts.replica.clone(), parts.blocking.clone()),
            late_hints: LateHints::new(parts.replica.clone(), parts.blocking.clone()),
            replica: parts.replica,
            blocking: parts.blocking,
            limits: parts.limits,
            hedging: HedgeBudget::default(),
            planted: parts.planted,
        }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether `node` is this node, or one to which there is a connection at this moment.
    #[must_use]
    pub fn is_linked(&self, node: NodeIndex) -> bool {
        self.links.to(node).is_none_or(|link| link.is_connected())
    }

    /// Hints on their way into the store.
    #[must_use]
    pub fn late_hints(&self) -> &LateHints {
        &self.late_hints
    }

    /// Seals a context for the client that read or wrote `key`.
    fn seal(&self, bucket: &Bucket, key: &[u8], context: &Context) -> bytes::Bytes {
        starling_storage::context_token::seal(&self.token_key, bucket.id, key, context)
    }

    /// Opens a client's token for `key`.
    fn unseal(&self, bucket: &Bucket, key: &[u8], token: &[u8]) -> Result<Context, RequestError> {
        starling_storage::context_token::open(&self.token_key, bucket.id, key, token)
            .map_err(|error| RequestError::BadContext { reason: error.to_string() })
    }
}
