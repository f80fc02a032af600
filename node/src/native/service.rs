//! What a node does for its clients, whichever connection they come by: theirs, or a peer's that
//! forwards their write.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use starling_protocol::{
    ContextToken, Frame, Request, Response, SnapshotView, WIRE_VERSION, WireError,
};
use starling_ring::NodeIndex;
use starling_storage::values::OperationId;
use starling_storage::{BucketError, ClockError, Replica, WallClock};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::errors::{consistency, wire_error};
use super::views;
use crate::blocking::Blocking;
use crate::coordinator::{
    Bucket, Coordinator, Leader, ReadRequest, RequestError, RestoreRequest, WriteRequest,
};
use crate::internode::message::{Kind, ReplicaError};
use crate::local::Local;
use crate::membership::{LivenessTable, PeerEvent};
use crate::metrics::{Op, observe_request};
use crate::overload::{Held, InFlight, Overload, PerConnection, Share};
use crate::repair::Repair;
use crate::time::now;

/// No client waits longer than this, whatever its frames say.
const BUDGET_MAX: Duration = Duration::from_secs(60);

/// An answer and its operand.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The header.
    pub response: Response,
    /// The operand: the siblings of a value.
    pub operand: Bytes,
    /// The memory of the states behind it, until it is sent.
    pub(super) _held: Option<Arc<Held>>,
}

/// The client port's view of the node: before the cluster exists it can only say so.
pub struct Service {
    serving: Arc<OnceLock<Arc<Serving>>>,
    waiting_for: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    frame_bytes_max: usize,
    in_flight: InFlight,
}

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

    /// Answers a write that a peer could not lead. It is led here or refused: never handed on again.
    pub async fn execute_forwarded(&self, frame: &Frame) -> Reply {
        let request: Request = match starling_protocol::decode_header(&frame.header) {
            Ok(request) => request,
            Err(error) => {
                return Reply::error(WireError::BadRequest { message: error.to_string() });
            }
        };
        let (Request::Put { bucket, .. } | Request::Delete { bucket, .. }) = &request else {
            return Reply::error(WireError::BadRequest {
                message: "only writes are forwarded".into(),
            });
        };
        let Some(name) = self.replica.buckets().name(*bucket) else {
            return Reply::error(WireError::UnknownBucket { id: *bucket });
        };
        match self.open_bucket(&name).await {
            Ok(bucket) => self.write(&Arc::new(bucket), request, frame, false).await,
            Err(error) => Reply::error(error),
        }
    }

    async fn execute(
        &self,
        bucket: &Arc<Bucket>,
        request: Request,
        frame: &Frame,
        share: &Share,
    ) -> Reply {
        match request {
            Request::Get { .. } => self.read(bucket, request, frame, share).await,
            Request::Restore { key, level, .. } => {
                let deadline = deadline(frame, self.coordinator.limits().write_timeout);
                let restored = self.coordinator.restore(RestoreRequest {
                    bucket: bucket.clone(),
                    key,
                    level: consistency(level),
                    state: frame.operand.clone(),
                    begin_by: self.begin_by(frame, deadline),
                    deadline,
                });
                match restored.await {
                    Ok(()) => Reply::of(Response::Restored),
                    Err(error) => Reply::error(wire_error(&error)),
                }
            }
            _ => self.write(bucket, request, frame, true).await,
        }
    }

    /// When it is too late to begin with a write: its frame says so by this node's own clock.
    fn begin_by(&self, frame: &Frame, deadline: Instant) -> Instant {
        match frame.mint {
            0 => deadline,
            uptime_ms => deadline.min(self.liveness.at_uptime_ms(uptime_ms)),
        }
    }

    async fn read(
        &self,
        bucket: &Arc<Bucket>,
        request: Request,
        frame: &Frame,
        share: &Share,
    ) -> Reply {
        let Request::Get { key, level, floor, .. } = request else {
            unreachable!("only gets are read");
        };
        let (began, held) = (now(), Arc::new(share.hold()));
        let read = ReadRequest {
            bucket: bucket.clone(),
            key,
            level: consistency(level),
            floor: floor.map(|token| token.0),
            held: held.clone(),
            deadline: deadline(frame, self.coordinator.limits().read_timeout),
        };
        let level = read.level;
        let result = self.coordinator.read(read).await;
        observe_request(
            Op::Read,
            level,
            result.as_ref().err(),
            now().saturating_duration_since(began),
        );
        match result {
            Ok(found) => {
                let lens =
                    found.values.iter().map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX));
                let sibling_lens = lens.collect();
                let context = ContextToken(found.context);
                Reply {
                    response: Response::Value { sibling_lens, context },
                    operand: concat(found.values),
                    _held: Some(held),
                }
            }
            Err(error) => Reply::error(wire_error(&error)),
        }
    }

    async fn write(
        &self,
        bucket: &Arc<Bucket>,
        request: Request,
        frame: &Frame,
        may_forward: bool,
    ) -> Reply {
        let began = now();
        let deadline = deadline(frame, self.coordinator.limits().write_timeout);
        let (key, level, context, operation, value) = match request {
            Request::Put { key, level, context, operation, .. } => {
                (key, level, context, operation, Some(frame.operand.clone()))
            }
            Request::Delete { key, level, context, operation, .. } => {
                (key, level, Some(context), operation, None)
            }
            _ => unreachable!("only puts and deletes are written"),
        };
        let op = if value.is_some() { Op::Write } else { Op::Delete };
        let level = consistency(level);
        let failed = |error: &RequestError| {
            observe_request(op, level, Some(error), now().saturating_duration_since(began));
            Reply::error(wire_error(error))
        };
        let begin_by = self.begin_by(frame, deadline);
        match self.coordinator.leader(bucket, &key) {
            Ok(Leader::Here) => {}
            Ok(Leader::There(leaders)) if may_forward => {
                let (header, operand) = (&frame.header, &frame.operand);
                let coordinator = &self.coordinator;
                let sent =
                    coordinator.forward(bucket, &leaders, header, operand, begin_by, deadline);
                return match sent.await {
                    // Its leader counts what became of it.
                    Ok(answer) => forwarded(&answer),
                    Err(error) => failed(&error),
                };
            }
            Ok(Leader::There(_)) => {
                let reason = "it is no replica of the key, or its clock is off".to_owned();
                return failed(&RequestError::NoLeader { reason });
            }
            Err(error) => return failed(&error),
        }
        let write = WriteRequest {
            bucket: bucket.clone(),
            key,
            level,
            context: context.map(|token| token.0),
            operation: OperationId(operation),
            value,
            begin_by,
            deadline,
        };
        match self.coordinator.write(write).await {
            Ok(context) => {
                observe_request(op, level, None, now().saturating_duration_since(began));
                Reply::of(Response::Written { context: ContextToken(context) })
            }
            Err(error) => failed(&error),
        }
    }
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
        match self.ready() {
            Ok(serving) => Reply::of(views::hello(serving, self.frame_bytes_max)),
            Err(error) => Reply::error(error),
        }
    }

    pub(super) fn topology(&self) -> Reply {
        match self.ready() {
            Ok(serving) => Reply::of(Response::Topology(views::topology(serving))),
            Err(error) => Reply::error(error),
        }
    }

    pub(super) fn status(&self) -> Reply {
        match self.ready() {
            Ok(serving) => Reply::of(Response::Status(views::status(serving))),
            Err(error) => Reply::error(error),
        }
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
        snapshots(match self.ready() {
            Ok(serving) => serving.create_snapshot(name).await,
            Err(error) => Err(error),
        })
    }

    pub(super) async fn snapshots(&self) -> Reply {
        snapshots(match self.ready() {
            Ok(serving) => serving.snapshots().await,
            Err(error) => Err(error),
        })
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
        request: Request,
        frame: &Frame,
        share: &Share,
    ) -> Reply {
        match self.ready() {
            Ok(serving) => serving.execute(bucket, request, frame, share).await,
            Err(error) => Reply::error(error),
        }
    }
}

fn snapshots(found: Result<Vec<SnapshotView>, WireError>) -> Reply {
    match found {
        Ok(found) => Reply::of(Response::Snapshots(found)),
        Err(error) => Reply::error(error),
    }
}

fn deadline(frame: &Frame, default: Duration) -> Instant {
    now() + budget(frame, default)
}

/// How long the answer is worth waiting for.
fn budget(frame: &Frame, default: Duration) -> Duration {
    let asked = Duration::from_millis(u64::from(frame.budget_ms));
    if asked.is_zero() { default } else { asked.min(BUDGET_MAX) }
}

fn concat(mut values: Vec<Bytes>) -> Bytes {
    if values.len() == 1 {
        return values.remove(0);
    }
    let mut all = BytesMut::with_capacity(values.iter().map(Bytes::len).sum());
    values.iter().for_each(|value| all.extend_from_slice(value));
    all.freeze()
}

fn forwarded(answer: &Frame) -> Reply {
    if answer.kind != Kind::Forwarded as u8 {
        return Reply::error(WireError::Internal {
            message: "the leader's answer is not understood".into(),
        });
    }
    match starling_protocol::decode_header(&answer.header) {
        Ok(response) => Reply { response, operand: answer.operand.clone(), _held: None },
        Err(error) => Reply::error(WireError::Internal { message: error.to_string() }),
    }
}
