//! The way in for clients, which answers also before there is a cluster, and while the node stops.

use std::sync::{Arc, OnceLock};

use starling_protocol::{Frame, Response, WIRE_VERSION, WireError};

use super::data::Data;
use super::reply::Reply;
use super::serving::Serving;
use super::views;
use crate::coordinator::Bucket;
use crate::overload::{InFlight, PerConnection, Share};

/// The client port's view of the node: before the cluster exists it can only say so.
pub struct Service {
    serving: Arc<OnceLock<Arc<Serving>>>,
    waiting_for: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    frame_bytes_max: usize,
    in_flight: InFlight,
}

impl Service {
    /// A service that answers `NotReady`, naming what `waiting_for` says, until `serving` is set.
    pub fn new(
        serving: Arc<OnceLock<Arc<Serving>>>,
        waiting_for: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
        value_bytes_max: usize,
        in_flight: InFlight,
    ) -> Self {
        // A frame holds a value, its key, its context and the rest of the header.
        let frame_bytes_max = value_bytes_max + (1 << 20);
        Self { serving, waiting_for, frame_bytes_max, in_flight }
    }

    pub(super) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    pub(super) fn connection(&self) -> PerConnection {
        self.in_flight.connection()
    }

    fn ready(&self) -> Result<&Arc<Serving>, WireError> {
        let serving = self.serving.get();
        let serving =
            serving.ok_or_else(|| WireError::NotReady { waiting_for: (self.waiting_for)() })?;
        if serving.is_stopping() { Err(WireError::ShuttingDown) } else { Ok(serving) }
    }

    /// For how long this node has known its cluster, in milliseconds: what the clocks of clients follow.
    pub(super) fn uptime_ms(&self) -> u64 {
        self.serving.get().map_or(0, |serving| serving.liveness.uptime_ms())
    }

    pub(super) fn hello(&self, wire_version: u16, client: &str) -> Reply {
        if wire_version != WIRE_VERSION {
            let message = format!("wire version {wire_version}; this node speaks {WIRE_VERSION}");
            return Reply::error(WireError::BadRequest { message });
        }
        tracing::debug!(%client, "client connected");
        self.ready().map(|serving| views::hello(serving, self.frame_bytes_max)).into()
    }

    pub(super) fn topology(&self) -> Reply {
        self.ready().map(|serving| Response::Topology(views::topology(serving))).into()
    }

    pub(super) fn status(&self) -> Reply {
        self.ready().map(|serving| Response::Status(views::status(serving))).into()
    }

    pub(super) async fn accept_loss(&self) -> Reply {
        let accepted = match self.ready() {
            Ok(serving) => serving.repair.accept_loss().await,
            Err(error) => return Reply::error(error),
        };
        match accepted {
            Ok(()) => self.status(),
            Err(error) => Reply::error(WireError::Internal { message: error.to_string() }),
        }
    }

    pub(super) async fn create_snapshot(&self, name: String) -> Reply {
        let made = match self.ready() {
            Ok(serving) => serving.create_snapshot(name).await,
            Err(error) => Err(error),
        };
        made.map(Response::Snapshots).into()
    }

    pub(super) async fn snapshots(&self) -> Reply {
        let found = match self.ready() {
            Ok(serving) => serving.snapshots().await,
            Err(error) => Err(error),
        };
        found.map(Response::Snapshots).into()
    }

    pub(super) async fn open_bucket(&self, name: &str) -> Result<Bucket, WireError> {
        self.ready()?.open_bucket(name).await
    }

    /// Room for a read or a write, or why there is none.
    pub(super) fn admit(&self, from: &PerConnection, frame: &Frame) -> Result<Share, WireError> {
        self.ready()?.admit(from, frame)
    }

    pub(super) async fn execute(
        &self,
        bucket: &Arc<Bucket>,
        data: Data,
        frame: &Frame,
        share: &Share,
    ) -> Reply {
        match self.ready() {
            Ok(serving) => serving.execute(bucket, data, frame, share).await,
            Err(error) => Reply::error(error),
        }
    }
}
