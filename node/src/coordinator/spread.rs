//! A state on its way to replicas that lack it: what a read's repair and a restore have in common.

use std::sync::Arc;

use bytes::Bytes;
use starling_storage::Hint;
use starling_storage::replica::{Carries, Envelope};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Coordinator;
use super::plan::Plan;
use super::quorum::Verdict;
use super::write::number;
use super::write_gather::{HintFor, WriteGather};
use crate::internode::{LinkError, ReplySink, Waiter};
use crate::time::now;

/// A state, and who needs it.
pub(super) struct Spread<'a> {
    /// Encoded.
    pub(super) state: &'a Bytes,
    /// The clock, no later than its reading.
    pub(super) mint: u64,
    /// By replica: these have it.
    pub(super) holds: &'a [bool],
    /// Whether replicas that do not take it get a hint. A repair leaves none: the next read repairs again.
    pub(super) hinted: bool,
    pub(super) deadline: Instant,
}

impl Coordinator {
    /// Has all replicas of the plan's key join a state. The verdict comes once enough hold it, or cannot any more.
    pub(super) async fn spread(
        &self,
        plan: &Plan,
        spread: Spread<'_>,
    ) -> (Arc<WriteGather>, oneshot::Receiver<Verdict>) {
        let Spread { state, mint, holds, hinted, deadline } = spread;
        let nobody_has_a_hint = vec![false; holds.len()];
        let hint = hinted.then(|| self.hint_for(plan, mint, state));
        let (gather, decision) =
            WriteGather::new(plan.tracker.clone(), &nobody_has_a_hint, hint, self.planted);
        let mutation = plan.mutation(state, mint, deadline.saturating_duration_since(now()));
        for (index, node) in plan.replicas().iter().enumerate() {
            if holds[index] {
                gather.record(index, true);
            } else if *node == self.local.me {
                let envelope = Envelope {
                    key: plan.storage_key.clone(),
                    operand: state.clone(),
                    mint,
                    carries: Carries::State,
                };
                self.apply_here(envelope, index, gather.clone()).await;
            } else if self.liveness.is_reachable(*node) {
                self.ask_node(*node, &mutation, Waiter::new(gather.clone(), number(index)));
            } else {
                gather.reply(number(index), Err(LinkError::NotSent("it is down")));
            }
        }
        (gather, decision)
    }

    /// The hint for whichever replica of the plan's key does not take `operand`.
    pub(super) fn hint_for(&self, plan: &Plan, mint: u64, operand: &Bytes) -> HintFor {
        let hosts = plan.replicas().iter().map(|node| self.local.ring.member(*node).host_id);
        HintFor {
            hints: self.late_hints.clone(),
            hosts: hosts.collect(),
            envelope: Hint {
                table: plan.bucket.id,
                mint,
                key: plan.storage_key.clone(),
                operand: operand.clone(),
            },
        }
    }

    async fn apply_here(&self, envelope: Envelope, index: usize, gather: Arc<WriteGather>) {
        let replica = self.replica.clone();
        let applied = self.blocking.run(move || replica.apply_repair(&[envelope])).await;
        match applied {
            Ok(()) => {
                self.replica.commit().on_durable(Box::new(move || gather.record(index, true)));
            }
            Err(error) => {
                tracing::error!(%error, "cannot apply a state");
                gather.record(index, false);
            }
        }
    }
}
