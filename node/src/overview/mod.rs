//! The cluster as one node sees it, in one structure: what `/status`, `starling status` and the
//! gauges of `/metrics` show.
//!
//! Views differ in a leaderless system, so it names the node whose view it is. It is built from
//! what the native protocol answers, so that client and server arrive at the same verdict.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use starling_protocol::{RepairView, SlotHealth, Status, StatusView};
use starling_ring::{NodeIndex, Ring, Slot, SlotGrid};
use uuid::Uuid;

mod source;

pub use source::{Digest, DigestError, Source};

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The cluster's name; none before there is a cluster.
    pub cluster: Option<String>,
    /// The cluster's id in hexadecimal digits; none before there is a cluster.
    pub cluster_id: Option<String>,
    /// The ring epoch; 0 before there is a cluster.
    pub epoch: u64,
    /// The node whose view this is; none before there is a cluster.
    pub node: Option<Uuid>,
    /// What it is doing.
    pub state: NodeState,
    /// What it waits for before it serves.
    pub waiting_for: Vec<String>,
    /// All members, by host id.
    pub nodes: Vec<NodeOverview>,
    /// How many slots have how many of their replicas up, counted for each keyspace.
    pub slots: SlotHealth,
    /// Writes that this node owes to others.
    pub hints_pending: u64,
    /// Requests that this node is working on.
    pub requests_in_flight: u64,
    /// How far the answering node's data is from that of its peers.
    pub repair: RepairView,
    /// The whole in one word.
    pub verdict: Verdict,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeOverview {
    /// Its id.
    pub host_id: Uuid,
    /// Where clients reach it.
    pub address: SocketAddr,
    /// Its datacenter.
    pub datacenter: String,
    /// Its rack.
    pub rack: String,
    /// What is believed of it.
    pub status: Status,
    /// The share of all data of which it holds a replica, 0 to 1.
    pub owns: f64,
    /// For how long it has been down, in milliseconds.
    pub down_for_ms: Option<u64>,
    /// Writes kept for it here.
    pub hints_pending: u64,
    /// Their bytes.
    pub hints_pending_bytes: u64,
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It has no cluster yet.
    Starting,
    /// It answers clients.
    Serving,
    /// It finishes what is in flight and takes nothing new.
    Stopping,
}

/// The whole in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every node is up.
    Healthy,
    /// Some node is not, and every slot still has a quorum.
    Degraded,
    /// Some slot has no quorum.
    BelowQuorum,
    /// There is no cluster yet.
    Starting,
}

impl Overview {
    /// What `status` says.
    #[must_use]
    pub fn new(status: &StatusView) -> Self {
        let nodes: Vec<_> = status.nodes.iter().map(NodeOverview::new).collect();
        let verdict = if status.slots.below_quorum > 0 {
            Verdict::BelowQuorum
        } else if nodes.iter().all(NodeOverview::is_up) {
            Verdict::Healthy
        } else {
            Verdict::Degraded
        };
        Self {
            cluster: Some(status.cluster.clone()),
            cluster_id: Some(hexadecimal(&status.cluster_id)),
            epoch: status.epoch,
            node: Some(status.node),
            state: NodeState::Serving,
            waiting_for: Vec::new(),
            nodes,
            slots: status.slots,
            hints_pending: status.hints_pending,
            requests_in_flight: status.requests_in_flight,
            repair: status.repair.clone(),
            verdict,
        }
    }

    /// A node that has no cluster yet.
    #[must_use]
    pub fn starting(waiting_for: Vec<String>) -> Self {
        Self {
            cluster: None,
            cluster_id: None,
            epoch: 0,
            node: None,
            state: NodeState::Starting,
            waiting_for,
            nodes: Vec::new(),
            slots: SlotHealth::default(),
            hints_pending: 0,
            requests_in_flight: 0,
            repair: RepairView::default(),
            verdict: Verdict::Starting,
        }
    }
}

impl NodeOverview {
    fn new(status: &starling_protocol::NodeStatus) -> Self {
        Self {
            host_id: status.host_id,
            address: status.address,
            datacenter: status.datacenter.clone(),
            rack: status.rack.clone(),
            status: status.status,
            owns: status.owns,
            down_for_ms: status.down_for_ms,
            hints_pending: status.hints_pending,
            hints_pending_bytes: status.hints_pending_bytes,
        }
    }

    /// Whether requests are sent to it.
    #[must_use]
    pub fn is_up(&self) -> bool {
        is_up(self.status)
    }

    /// Whether it can be asked about itself: one that is being rebuilt answers no reads, and all else.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.is_up() || self.status == Status::Rebuilding
    }
}

/// A suspected node is still asked, so it counts as up.
fn is_up(status: Status) -> bool {
    matches!(status, Status::Up | Status::Suspect)
}

impl NodeState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Serving, Self::Stopping];

    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Stopping => "stopping",
        }
    }
}

/// Counts the slots of every keyspace of `ring`, where `is_up` says of each member whether it is.
#[must_use]
pub fn slot_health(ring: &Ring, is_up: impl Fn(NodeIndex) -> bool) -> SlotHealth {
    let mut health = SlotHealth::default();
    let Ok(grid) = SlotGrid::new(ring.epoch().slot_bits) else { return health };
    for keyspace in &ring.epoch().keyspaces {
        let Some(placement) = ring.keyspace(&keyspace.name) else { continue };
        let required = usize::from(placement.replication_factor());
        for slot in 0..grid.count() {
            let replicas = placement.replicas(grid.end_token(Slot(slot)));
            let alive = replicas.iter().filter(|node| is_up(**node)).count();
            if alive >= required {
                health.full += 1;
            } else if alive > required / 2 {
                health.degraded += 1;
            } else {
                health.below_quorum += 1;
            }
        }
    }
    health
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::BelowQuorum => "below quorum",
            Self::Starting => "starting",
        })
    }
}

/// Bytes in hexadecimal digits.
fn hexadecimal(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        write!(out, "{byte:02x}").expect("writing to a String does not fail");
        out
    })
}
