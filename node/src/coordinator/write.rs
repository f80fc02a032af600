//! A write, top to bottom: plan, refuse early, take the context, write here, send the delta to the
//! others, wait for the level.

use std::time::Duration;

use bytes::Bytes;
use starling_ring::HostId;
use starling_storage::planted::Bug;
use starling_storage::values::Context;
use starling_storage::{NotLeading, Put, PutError, PutRequest, StoreError};

use super::plan::Plan;
use super::quorum::Verdict;
use super::write_gather::WriteGather;
use super::{Coordinator, RequestError, WriteRequest};
use crate::internode::link::OVERDUE;
use crate::internode::message::FRESH;
use crate::internode::{Waiter, link};
use crate::time::now;

/// Why a write is refused that its client may have repeated elsewhere by now.
pub(super) const TOO_LATE: &str = "it lay for too long before it could begin";
/// A replica's answer is awaited at least until its hint is due, whatever the client waits for.
const ANSWER_BUDGET_MIN: Duration = OVERDUE.saturating_add(Duration::from_millis(500));

impl Coordinator {
    /// Stores or deletes a value with this node as the leader; the node must be a replica of the
    /// key. Returns the sealed context of the write.
    ///
    /// # Errors
    /// [`RequestError`]; the outcome is unknown only on `Timeout`, `WriteFailed` and `Store`.
    pub async fn write(&self, request: WriteRequest) -> Result<Bytes, RequestError> {
        self.check_value(&request)?;
        let plan = self.plan(&request.bucket, &request.key, request.level, Bug::WriteOneShort)?;
        let Some(me) = plan.position(self.local.me) else {
            return Err(RequestError::NoLeader { reason: "it is no replica of the key".into() });
        };
        self.check_writable(&plan)?;
        let context = self.context_of(&request)?;
        let down = self.replicas_down(&plan);
        let put = self.put_here(&plan, &request, context, &down).await?;
        let token = self.seal(&request.bucket, &request.key, &put.context);
        self.replicate(&plan, &request, put, me, &down).await?;
        Ok(token)
    }

    fn check_value(&self, request: &WriteRequest) -> Result<(), RequestError> {
        let len = request.value.as_ref().map_or(0, Bytes::len);
        let max = self.limits.value_bytes_max;
        if len > max { Err(RequestError::ValueTooLarge { len, max }) } else { Ok(()) }
    }

    /// What the write replaces: what its token says, nothing without one.
    fn context_of(&self, request: &WriteRequest) -> Result<Context, RequestError> {
        request.context.as_ref().map_or(Ok(Context::default()), |token| {
            self.unseal(&request.bucket, &request.key, token)
        })
    }

    fn replicas_down(&self, plan: &Plan) -> Vec<bool> {
        plan.replicas().iter().map(|node| !self.liveness.is_reachable(*node)).collect()
    }

    /// Leads the write in this node's own store.
    async fn put_here(
        &self,
        plan: &Plan,
        request: &WriteRequest,
        context: Context,
        down: &[bool],
    ) -> Result<Put, RequestError> {
        let hints = plan.replicas().iter().zip(down).filter(|(_, down)| **down);
        let hints: Vec<HostId> =
            hints.map(|(node, _)| self.local.ring.member(*node).host_id).collect();
        let hint_count = hints.len();
        let put = PutRequest {
            table: request.bucket.id,
            key: plan.storage_key.clone(),
            client: context,
            operation: request.operation,
            value: request.value.clone(),
            lww: request.bucket.lww,
            hints,
        };
        let put = self.leading.put(put, request.begin_by).await;
        let put = put.map_err(|error| put_error(&error))?;
        crate::metrics::observe_hints_stored(hint_count);
        Ok(put)
    }

    async fn replicate(
        &self,
        plan: &Plan,
        request: &WriteRequest,
        put: Put,
        me: usize,
        down: &[bool],
    ) -> Result<(), RequestError> {
        let hint = self.hint_for(plan, put.mint, &put.delta);
        let (gather, decision) =
            WriteGather::new(plan.tracker.clone(), down, Some(hint), self.planted);
        let durable = gather.clone();
        self.replica.commit().on_durable(Box::new(move || durable.record(me, true)));
        let budget = request.deadline.saturating_duration_since(now()).max(ANSWER_BUDGET_MIN);
        let mutation =
            link::Request { flags: FRESH, ..plan.mutation(&put.delta, put.mint, budget) };
        for (index, node) in plan.replicas().iter().enumerate() {
            if index != me && !down[index] {
                self.ask_node(*node, &mutation, Waiter::new(gather.clone(), number(index)));
            }
        }
        match tokio::time::timeout_at(request.deadline, decision).await {
            Ok(Ok(Verdict::Met)) => Ok(()),
            Err(_) if self.planted.is(Bug::DeadlineCountsAsAck) => Ok(()),
            _ if self.planted.is(Bug::UnknownIsNotDone) => {
                let counts = |node| self.liveness.is_reachable(node);
                Err(self.unavailable(plan, gather.tally(), counts))
            }
            Ok(_) => Err(RequestError::WriteFailed { tally: gather.tally() }),
            Err(_) => Err(RequestError::Timeout { tally: gather.tally(), write: true }),
        }
    }

    pub(super) fn ask_node(
        &self,
        node: starling_ring::NodeIndex,
        request: &link::Request<'_>,
        waiter: Waiter,
    ) {
        let link = self.links.to(node).expect("every member but this node has a link");
        link.send(request, waiter);
    }
}

/// The number of a replica on the wire of a gather: a slot has at most 255.
pub(super) fn number(index: usize) -> u8 {
    u8::try_from(index).expect("a slot has at most 255 replicas")
}

fn put_error(error: &PutError) -> RequestError {
    match error {
        PutError::TooManySiblings { count, max } => {
            RequestError::TooManySiblings { count: *count, max: *max }
        }
        PutError::ObjectTooLarge { bytes, max } => {
            RequestError::ObjectTooLarge { len: *bytes, max: *max }
        }
        PutError::ClockSkew { ahead_us, .. } => RequestError::ClockSkew { ahead_us: *ahead_us },
        PutError::NotLeading(NotLeading::TooLate) => RequestError::Overloaded { reason: TOO_LATE },
        PutError::NotLeading(reason) => RequestError::NoLeader { reason: reason.to_string() },
        PutError::Store(StoreError::Stalled) => {
            RequestError::Overloaded { reason: "the store is behind with flushing" }
        }
        PutError::Store(StoreError::NoRoom) => {
            crate::metrics::observe_shed("disk_full");
            RequestError::DiskFull
        }
        other => RequestError::Store { reason: other.to_string() },
    }
}
