//! Where overviews and digests of a running node come from: the admin port's view of it.
//!
//! It reads and counts; it changes nothing. A digest scans on the pool for blocking work.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use starling_storage::StoreStatistics;
use starling_storage::keys::table_id;
use starling_storage::replica::Replica;
use starling_storage::values::digest;
use xxhash_rust::xxh3::Xxh3;

use super::{NodeState, Overview};
use crate::blocking::Blocking;
use crate::membership::Genesis;
use crate::native::{self, Serving};

/// See the module.
#[derive(Clone)]
pub struct Source {
    serving: Arc<OnceLock<Arc<Serving>>>,
    genesis: Arc<Genesis>,
    blocking: Blocking,
}

/// What a node holds of a bucket, in a form that two nodes can compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Keys scanned, those whose value is deleted included.
    pub keys: u64,
    /// The wrapping 128-bit sum of a hash of every key with its canonical state, in hexadecimal
    /// digits: the order of the scan does not matter.
    pub digest: String,
}

/// Why there is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DigestError {
    /// The node has no cluster yet.
    #[error("the node does not serve yet")]
    NotServing,
    /// No such bucket here.
    #[error("there is no bucket {name:?} on this node")]
    UnknownBucket {
        /// The name asked for.
        name: String,
    },
    /// The store failed.
    #[error("the store failed: {reason}")]
    Store {
        /// What it said.
        reason: String,
    },
}

impl Source {
    /// Views of a node whose cluster exists once `serving` is set.
    #[must_use]
    pub fn new(
        serving: Arc<OnceLock<Arc<Serving>>>,
        genesis: Arc<Genesis>,
        blocking: Blocking,
    ) -> Self {
        Self { serving, genesis, blocking }
    }

    /// The cluster as the node sees it now.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let Some(serving) = self.serving.get() else {
            return Overview::starting(
                self.genesis.missing().iter().map(ToString::to_string).collect(),
            );
        };
        let mut overview = Overview::new(&native::status(serving));
        if serving.is_stopping() {
            overview.state = NodeState::Stopping;
        }
        overview
    }

    /// How much the store holds; `None` before there is a cluster.
    pub async fn storage(&self) -> Option<StoreStatistics> {
        let replica = self.serving.get()?.replica.clone();
        Some(self.blocking.run(move || replica.store().statistics()).await)
    }

    /// Scans what the node holds of the bucket `name`.
    ///
    /// # Errors
    /// [`DigestError`].
    pub async fn digest(&self, name: String) -> Result<Digest, DigestError> {
        let serving = self.serving.get().ok_or(DigestError::NotServing)?;
        let table = table_id(&name);
        if serving.replica.buckets().name(table).as_deref() != Some(name.as_str()) {
            return Err(DigestError::UnknownBucket { name });
        }
        let replica = serving.replica.clone();
        self.blocking.run(move || scan(&replica, table)).await
    }
}

/// A table's keys are those that begin with its id.
fn scan(replica: &Replica, table: u32) -> Result<Digest, DigestError> {
    let end = table.checked_add(1).map(|next| next.to_be_bytes().to_vec()).unwrap_or_default();
    let (mut keys, mut sum) = (0, 0_u128);
    let scanned = replica.scan(&table.to_be_bytes(), &end, &mut |key, state| {
        // A state that has seen nothing is no different from no state at all.
        if digest(state) != 0 {
            let mut hash = Xxh3::new();
            hash.update(key);
            hash.update(state);
            sum = sum.wrapping_add(hash.digest128());
            keys += 1;
        }
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| DigestError::Store { reason: error.to_string() })?;
    Ok(Digest { keys, digest: format!("{sum:032x}") })
}
