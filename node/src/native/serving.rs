//! What a member of a cluster serves with, and what it lets in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use starling_protocol::{Frame, WireError};
use starling_ring::NodeIndex;
use starling_storage::{BucketError, ClockError, Replica, WallClock};
use tokio::sync::mpsc;

use crate::blocking::Blocking;
use crate::coordinator::{Bucket, Coordinator};
use crate::internode::message::ReplicaError;
use crate::local::Local;
use crate::membership::{LivenessTable, PeerEvent};
use crate::overload::{InFlight, Overload, PerConnection, Share};
use crate::repair::Repair;

/// No client waits longer than this, whatever its frames say.
const BUDGET_MAX: Duration = Duration::from_secs(60);

/// The node once its cluster exists.
pub struct Serving {
    /// This node.
    pub local: Arc<Local>,
    /// Coordinates clients' requests.
    pub coordinator: Arc<Coordinator>,
    /// What clients and peers may have in flight here.
    pub in_flight: InFlight,
    /// This node's own data.
    pub replica: Arc<Replica>,
    /// Who is up.
    pub liveness: Arc<LivenessTable>,
    /// Where blocking work runs.
    pub blocking: Blocking,
    /// The wall clock.
    pub wall_clock: Arc<dyn WallClock>,
    /// Where peers' messages for the membership go.
    pub membership: mpsc::Sender<PeerEvent>,
    /// Compares this node's data with its peers'.
    pub repair: Arc<Repair>,
    /// Where its snapshots go; none if it keeps its data in memory.
    pub data_dir: Option<PathBuf>,
    /// Set while the node stops.
    pub stopping: AtomicBool,
}

impl Serving {
    /// Whether the node stops and takes nothing new.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Passes on what concerns the membership. Dropped when its queue is full: what peers say they
    /// say again within a second, and a stop that was not announced shows by the silence.
    pub fn report(&self, event: PeerEvent) {
        let _can_be_missed = self.membership.try_send(event);
    }

    /// The highest incarnation in which the member at an internode address was met; 0 for none.
    #[must_use]
    pub fn met_incarnation(&self, address: SocketAddr) -> u64 {
        let members = (0..).map(NodeIndex).zip(self.local.ring.members());
        let node = members.filter(|(_, member)| member.address == address).map(|(node, _)| node);
        node.map(|node| self.liveness.incarnation(node)).max().unwrap_or(0)
    }

    /// Microseconds of the wall clock.
    #[must_use]
    pub fn wall_clock_us(&self) -> u64 {
        self.wall_clock.now_us()
    }

    /// Lets the mint of a fresh write move this node's clock.
    ///
    /// # Errors
    /// `ClockSkew` when it is too far ahead.
    pub fn observe_mint(&self, mint: u64) -> Result<(), ReplicaError> {
        match self.replica.clock().observe(mint) {
            Err(ClockError::Skew { ahead_us, .. }) => Err(ReplicaError::ClockSkew { ahead_us }),
            _ => Ok(()),
        }
    }

    /// Takes a peer's word for what a table id means.
    ///
    /// # Errors
    /// The registry's: the id means another name here.
    pub async fn adopt_bucket(&self, id: u32, name: String) -> Result<(), BucketError> {
        if self.replica.buckets().name(id).as_deref() == Some(name.as_str()) {
            return Ok(());
        }
        let replica = self.replica.clone();
        self.blocking.run(move || replica.buckets().adopt(id, &name)).await
    }

    /// The bucket called `keyspace.bucket`, made on first use.
    ///
    /// # Errors
    /// A bad name, an unknown keyspace, or a full registry.
    pub async fn open_bucket(&self, name: &str) -> Result<Bucket, WireError> {
        let Some((keyspace, bucket)) = name.split_once('.') else {
            return Err(WireError::BadBucketName {
                name: name.to_owned(),
                reason: "it is written keyspace.bucket".to_owned(),
            });
        };
        let Some(placement) = self.local.ring.keyspace(keyspace) else {
            return Err(WireError::UnknownKeyspace { name: keyspace.to_owned() });
        };
        let lww = placement.mode(bucket) == starling_ring::BucketMode::Lww;
        let (replica, owned) = (self.replica.clone(), name.to_owned());
        let opened = self.blocking.run(move || replica.buckets().open(&owned)).await;
        let id = opened.map_err(|error| super::errors::bucket_error(name, &error))?;
        Ok(Bucket { id, name: name.to_owned(), keyspace: keyspace.to_owned(), lww })
    }

    /// Room for a read or a write, or why there is none.
    ///
    /// # Errors
    /// The node is stopping, or has too much in flight.
    pub fn admit(&self, from: &PerConnection, frame: &Frame) -> Result<Share, WireError> {
        if self.is_stopping() {
            return Err(WireError::ShuttingDown);
        }
        let limits = self.coordinator.limits();
        let budget = budget(frame, limits.read_timeout.min(limits.write_timeout));
        let bytes = frame.header.len() + frame.operand.len();
        from.admit(bytes, budget).map_err(|overload| {
            crate::metrics::observe_shed(match overload {
                Overload::Bytes => "in_flight_bytes",
                Overload::Queue => "queue",
            });
            WireError::Overloaded { reason: overload.to_string() }
        })
    }
}

/// How long the answer is worth waiting for.
pub(super) fn budget(frame: &Frame, default: Duration) -> Duration {
    let asked = Duration::from_millis(u64::from(frame.budget_ms));
    if asked.is_zero() { default } else { asked.min(BUDGET_MAX) }
}
