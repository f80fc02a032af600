//! Turns a key and a level into replicas and a count: the part of a request that needs no I/O.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use starling_protocol::DownReplica;
use starling_ring::{ConsistencyLevel, NodeIndex, Placement, Ring, Token};
use starling_storage::keys::storage_key;
use starling_storage::planted::Bug;

use super::quorum::{QuorumTracker, Tally};
use super::{Coordinator, RequestError};
use crate::internode::link;
use crate::internode::message::Kind;

/// A bucket that a connection has opened.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The table id.
    pub id: u32,
    /// `keyspace.bucket`.
    pub name: String,
    /// The keyspace, which the ring has.
    pub keyspace: String,
    /// Whether puts replace whatever the leader sees.
    pub lww: bool,
}

/// Where one key's request goes.
pub(super) struct Plan {
    ring: Arc<Ring>,
    pub(super) bucket: Arc<Bucket>,
    pub(super) token: Token,
    pub(super) storage_key: Bytes,
    pub(super) tracker: QuorumTracker,
    pub(super) level: ConsistencyLevel,
}

impl Plan {
    fn placement(&self) -> &Placement {
        self.ring.keyspace(&self.bucket.keyspace).expect("a plan is made from an existing keyspace")
    }

    /// The natural replicas, the preferred leader first.
    pub(super) fn replicas(&self) -> &[NodeIndex] {
        self.placement().replicas(self.token)
    }

    /// What has a replica join `operand`, which is made of states unless the flags say otherwise.
    pub(super) fn mutation<'a>(
        &'a self,
        operand: &'a [u8],
        mint: u64,
        budget: Duration,
    ) -> link::Request<'a> {
        link::Request {
            kind: Kind::Mutate,
            flags: 0,
            budget,
            mint,
            begin_by: None,
            header: &self.storage_key,
            operand,
            bucket: Some((self.bucket.id, &self.bucket.name)),
        }
    }

    /// The number of `node` among the replicas.
    pub(super) fn position(&self, node: NodeIndex) -> Option<usize> {
        self.replicas().iter().position(|replica| *replica == node)
    }
}

impl Coordinator {
    pub(super) fn plan(
        &self,
        bucket: &Arc<Bucket>,
        key: &[u8],
        level: ConsistencyLevel,
        one_short: Bug,
    ) -> Result<Plan, RequestError> {
        if key.is_empty() || key.len() > self.limits.key_bytes_max {
            return Err(RequestError::KeySize { len: key.len(), max: self.limits.key_bytes_max });
        }
        let ring = self.local.ring.clone();
        let Some(placement) = ring.keyspace(&bucket.keyspace) else {
            return Err(RequestError::UnknownKeyspace { name: bucket.keyspace.clone() });
        };
        let datacenter = &self.local.member().datacenter;
        let mut requirement = level.requirement(placement, datacenter)?;
        if self.planted.is(one_short) && requirement.total > 1 {
            requirement.total -= 1;
        }
        let token = placement.token(key);
        let tracker = QuorumTracker::new(
            &requirement,
            placement.replicas(token).iter().map(|node| ring.member(*node).datacenter.as_str()),
        );
        let storage_key = Bytes::from(storage_key(bucket.id, token.0, key));
        Ok(Plan { bucket: bucket.clone(), token, storage_key, tracker, level, ring })
    }

    /// Refuses at once a write that too few living replicas could take.
    pub(super) fn check_writable(&self, plan: &Plan) -> Result<(), RequestError> {
        self.check_available(plan, |node| self.liveness.is_reachable(node))
    }

    /// Refuses at once a read that too few living replicas could answer: one that lost writes takes writes, and answers no reads.
    pub(super) fn check_readable(&self, plan: &Plan) -> Result<(), RequestError> {
        self.check_available(plan, |node| self.can_be_read(node))
    }

    /// Refuses at once what must not be done while too many replicas are being rebuilt, reached or not.
    pub(super) fn check_whole(&self, plan: &Plan) -> Result<(), RequestError> {
        self.check_available(plan, |node| self.liveness.is_whole(node))
    }

    /// Whether `node` counts towards the quorum of a read.
    pub(super) fn can_be_read(&self, node: NodeIndex) -> bool {
        self.liveness.can_be_read(node)
            || self.planted.is(Bug::AnswerWhileRebuilding) && self.liveness.is_reachable(node)
    }

    fn check_available(
        &self,
        plan: &Plan,
        counts: impl Fn(NodeIndex) -> bool,
    ) -> Result<(), RequestError> {
        let replicas = plan.replicas();
        let reachable = plan.tracker.reachable_by(|index| counts(replicas[index]));
        reachable.map_err(|tally| self.unavailable(plan, tally, counts))
    }

    /// Names the replicas that do not count, so that a person knows where to look.
    pub(super) fn unavailable(
        &self,
        plan: &Plan,
        tally: Tally,
        counts: impl Fn(NodeIndex) -> bool,
    ) -> RequestError {
        let unreached = plan.replicas().iter().filter(|node| !counts(**node));
        let down = unreached.map(|node| DownReplica {
            address: plan.ring.member(*node).client_address,
            for_ms: u64::try_from(self.liveness.held_for(*node).as_millis()).unwrap_or(u64::MAX),
        });
        RequestError::Unavailable { level: plan.level, tally, down: down.collect() }
    }
}
