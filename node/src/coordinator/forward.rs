//! Hands a write to a node that can lead it, when this one cannot.

use std::sync::Arc;

use bytes::Bytes;
use starling_protocol::Frame;
use starling_ring::NodeIndex;
use starling_ring::detector::Liveness;
use tokio::time::Instant;

use super::plan::Bucket;
use super::{Coordinator, RequestError};
use crate::internode::LinkError;
use crate::internode::link;
use crate::internode::message::Kind;
use crate::time::now;

/// Who leads the writes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This node.
    Here,
    /// Another replica: these, in the order to try them.
    There(Vec<NodeIndex>),
}

impl Coordinator {
    /// Who leads a write to `key`: this node if it is a replica and its clock is sound, else the
    /// first natural replica that is up, the suspected ones last.
    ///
    /// # Errors
    /// An unknown keyspace.
    pub fn leader(&self, bucket: &Arc<Bucket>, key: &[u8]) -> Result<Leader, RequestError> {
        let Some(placement) = self.local.ring.keyspace(&bucket.keyspace) else {
            return Err(RequestError::UnknownKeyspace { name: bucket.keyspace.clone() });
        };
        let replicas = placement.replicas(placement.token(key));
        if replicas.contains(&self.local.me) && self.liveness.may_lead() {
            return Ok(Leader::Here);
        }
        let mut others: Vec<NodeIndex> = replicas
            .iter()
            .copied()
            .filter(|node| *node != self.local.me && self.liveness.is_reachable(*node))
            .collect();
        others.sort_by_key(|node| self.liveness.of(*node) == Liveness::Suspect);
        Ok(Leader::There(others))
    }

    /// Sends a client's request, as it came, to the first of `leaders` that can be reached, and
    /// returns its answer frame. The next one is tried only while nothing was sent. A leader does not begin it after `begin_by`.
    ///
    /// # Errors
    /// `NoLeader` when nobody was reached, `LeaderLost` when somebody may have done it.
    pub async fn forward(
        &self,
        bucket: &Bucket,
        leaders: &[NodeIndex],
        header: &Bytes,
        operand: &Bytes,
        begin_by: Instant,
        deadline: Instant,
    ) -> Result<Frame, RequestError> {
        for node in leaders {
            let Some(link) = self.links.to(*node) else { continue };
            let request = link::Request {
                kind: Kind::Forward,
                flags: 0,
                budget: deadline.saturating_duration_since(now()),
                mint: 0,
                // The frame may come to lie in the socket of a leader that is stopped, until after its client has written elsewhere.
                begin_by: Some(begin_by),
                header,
                operand,
                bucket: Some((bucket.id, &bucket.name)),
            };
            match link.call(&request).await {
                Ok(answer) => return Ok(answer),
                Err(LinkError::NotSent(_)) => {}
                Err(LinkError::Refused(error)) => {
                    return Err(RequestError::NoLeader { reason: error.to_string() });
                }
                Err(LinkError::ConnectionLost | LinkError::Deadline | LinkError::Garbled(_)) => {
                    return Err(RequestError::LeaderLost);
                }
            }
        }
        Err(RequestError::NoLeader { reason: "none of its replicas can be reached".into() })
    }
}
