//! Brings back what a snapshot holds: a state is joined into what the replicas have, as it is, dots and all.

use std::sync::Arc;

use bytes::Bytes;
use starling_ring::ConsistencyLevel;
use starling_storage::clock::SKEW_MAX_US;
use starling_storage::planted::Bug;
use starling_storage::values::Causal;
use tokio::time::Instant;

use super::plan::Bucket;
use super::quorum::Verdict;
use super::spread::Spread;
use super::write::TOO_LATE;
use super::{Coordinator, RequestError};
use crate::time::now;

/// A state to bring back.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// Where.
    pub bucket: Arc<Bucket>,
    /// The partition key.
    pub key: Bytes,
    /// How many replicas must have it.
    pub level: ConsistencyLevel,
    /// The state, encoded.
    pub state: Bytes,
    /// When it is too late to begin: the client may have repeated it elsewhere by now, and the key have been deleted since.
    pub begin_by: Instant,
    /// When the answer stops being worth having.
    pub deadline: Instant,
}

impl Coordinator {
    /// Joins a state into what all replicas of its key have. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`RequestError`]; it may be in parts done on `Timeout` and `WriteFailed`, and is not otherwise.
    pub async fn restore(&self, request: RestoreRequest) -> Result<(), RequestError> {
        let plan = self.plan(&request.bucket, &request.key, request.level, Bug::WriteOneShort)?;
        self.check_writable(&plan)?;
        // A replica that is being rebuilt drops what a peer lacks and must have seen deleted, old as the dots of a snapshot are. In the
        // middle of a restore it would have the value dropped everywhere.
        let every =
            self.plan(&request.bucket, &request.key, ConsistencyLevel::All, Bug::WriteOneShort)?;
        self.check_whole(&every)?;
        self.check_state(&request.state)?;
        if !self.liveness.may_lead() {
            // As a late hint it would pass for newer than it is.
            let reason = "this node's clock is off".to_owned();
            return Err(RequestError::NoLeader { reason });
        }
        // What is restored is new here, however old its dots are.
        let mint = self.replica.clock().read();
        // Only then: whoever sleeps from here on wakes up with a mint that is old enough to be refused.
        if now() >= request.begin_by {
            crate::metrics::observe_shed("too_late");
            return Err(RequestError::Overloaded { reason: TOO_LATE });
        }
        let spread = Spread {
            state: &request.state,
            mint,
            holds: &vec![false; plan.replicas().len()],
            hinted: true,
            deadline: request.deadline,
        };
        let (gather, decision) = self.spread(&plan, spread).await;
        match tokio::time::timeout_at(request.deadline, decision).await {
            Ok(Ok(Verdict::Met)) => Ok(()),
            Ok(_) => Err(RequestError::WriteFailed { tally: gather.tally() }),
            Err(_) => Err(RequestError::Timeout { tally: gather.tally(), write: true }),
        }
    }

    /// A dot from the future may be minted again some day.
    fn check_state(&self, state: &Bytes) -> Result<(), RequestError> {
        let decoded = Causal::decode(state.clone());
        let decoded =
            decoded.map_err(|error| RequestError::BadState { reason: error.to_string() })?;
        let ahead_us = decoded.context().newest_seq().saturating_sub(self.replica.clock().now_us());
        if ahead_us > SKEW_MAX_US {
            return Err(RequestError::ClockSkew { ahead_us });
        }
        Ok(())
    }
}
