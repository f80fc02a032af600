//! The answering end of the connections between nodes.
//!
//! Everything read from a socket in one go is handled in one go: its mutations become one batch,
//! one wait for durability, one burst of acknowledgements.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use starling_protocol::{Frame, FrameDecoder, encode_parts, encode_raw};
use starling_ring::NodeIndex;
use starling_storage::{ApplyError, Carries, Envelope, Lookup, ReadError, StoreError, Tier};
use starling_storage::{keys, replica, values};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::handshake::{self, HandshakeError};
use super::link::PAYLOAD_BYTES_MAX;
use super::links::FRAME_BYTES_MAX;
use super::message::{ABSENT, BucketName, FRESH, HINT, Hello, Kind, Refusal, ReplicaError, Shadow};
use crate::coordinator::ReadAt;
use crate::membership::{Genesis, PeerEvent};
use crate::native::{Reply, Serving};
use crate::net::{Listener, Stream};
use crate::outbound::Outbound;
use crate::overload::PerConnection;
use crate::time::now;

/// Answers that may wait for a peer that does not read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const READ_CHUNK: usize = 256 * 1024;

/// Who answers: at first only for the creation of the cluster, then for everything.
#[derive(Clone)]
pub struct Answering {
    /// The way into the cluster, answering until and after it exists.
    pub genesis: Arc<Genesis>,
    /// Set once the cluster exists.
    pub serving: Arc<std::sync::OnceLock<Arc<Serving>>>,
}

/// Accepts peers until `stop`.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    answering: Answering,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, from)) => {
                let (answering, stop) = (answering.clone(), stop.clone());
                tasks.spawn(async move {
                    let talk = talk(stream, &answering, &stop);
                    if let Some(reason) = stop.run_until_cancelled(talk).await {
                        debug!(%from, %reason, "peer connection ended");
                    }
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Greets, then answers until the stream ends. Returns why it ended.
async fn talk(mut stream: Stream, answering: &Answering, stop: &CancellationToken) -> String {
    let mut received = BytesMut::new();
    let first = handshake::receive(&mut stream.reader, &mut received);
    let first = match tokio::time::timeout(handshake::HANDSHAKE_TIMEOUT, first).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(error)) => {
            // Whoever ends between two frames only looked whether the port is open.
            if matches!(error, HandshakeError::Frame(_)) || !received.is_empty() {
                crate::metrics::observe_bad_frame("peer");
            }
            return error.to_string();
        }
        Err(_) => return "no greeting in time".to_owned(),
    };
    match Kind::from_byte(first.kind) {
        Some(Kind::Shadow) => answer_shadow(&mut stream, answering, &first).await,
        Some(Kind::Hello) => match greet(&mut stream, answering, &first).await {
            Ok((peer, serving)) => answer_all(stream, received, peer, serving, stop).await,
            Err(reason) => reason,
        },
        _ => {
            crate::metrics::observe_bad_frame("peer");
            format!("unexpected first message (kind {:#04x})", first.kind)
        }
    }
}

async fn answer_shadow(stream: &mut Stream, answering: &Answering, frame: &Frame) -> String {
    let Ok(shadow) = starling_protocol::decode_header::<Shadow>(&frame.header) else {
        crate::metrics::observe_bad_frame("peer");
        return "its shadow message is not understood".to_owned();
    };
    let asking = shadow.me.as_ref().map(|asking| asking.address);
    let mut reply = answering.genesis.shadow_from(shadow);
    if let (Some(address), Some(serving)) = (asking, answering.serving.get()) {
        reply.met_incarnation = serving.met_incarnation(address);
    }
    match handshake::send(&mut stream.writer, Kind::Shadow, &reply).await {
        Ok(()) => "shadow answered".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn greet(
    stream: &mut Stream,
    answering: &Answering,
    frame: &Frame,
) -> Result<(NodeIndex, Arc<Serving>), String> {
    let hello: Hello = starling_protocol::decode_header(&frame.header).map_err(|error| {
        crate::metrics::observe_bad_frame("peer");
        error.to_string()
    })?;
    let judged = match answering.serving.get() {
        None => Err(Refusal::NotReady),
        Some(serving) => handshake::judge(&hello, &serving.local).map(|()| serving.clone()),
    };
    match judged {
        Ok(serving) => {
            let whole = serving.liveness.is_whole(serving.local.me);
            let welcome = serving.local.hello(hello.host_id, whole);
            let sent = handshake::send(&mut stream.writer, Kind::Welcome, &welcome).await;
            sent.map_err(|error| error.to_string())?;
            let peer = serving.local.ring.index_of(hello.host_id).expect("judged to be a member");
            serving.report(PeerEvent::Greeted {
                peer: hello.host_id,
                incarnation: hello.incarnation,
                boot_nonce: hello.boot_nonce,
                whole: hello.whole,
            });
            Ok((peer, serving))
        }
        Err(refusal) => {
            if refusal != Refusal::NotReady {
                warn!(peer = %hello.host_id, %refusal, "refused a peer");
            }
            let sent = handshake::send(&mut stream.writer, Kind::Refused, &refusal).await;
            Err(sent.map_or_else(|error| error.to_string(), |()| refusal.to_string()))
        }
    }
}

async fn answer_all(
    stream: Stream,
    received: BytesMut,
    peer: NodeIndex,
    serving: Arc<Serving>,
    stop: &CancellationToken,
) -> String {
    let Stream { mut reader, mut writer } = stream;
    let outbound = Arc::new(Outbound::new(ANSWER_BYTES_MAX));
    let in_flight = serving.in_flight.connection();
    let named = Mutex::default();
    let answerer = Answerer { peer, serving, in_flight, outbound: outbound.clone(), named };
    let reason = tokio::select! {
        biased;
        () = stop.cancelled() => "the node is stopping".to_owned(),
        reason = answerer.read(&mut reader, received) => reason,
        written = outbound.write_to(&mut writer) => match written {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        },
    };
    outbound.close();
    let member = answerer.serving.local.ring.member(peer);
    info!(peer = %member.host_id, address = %member.address, %reason, "peer left");
    reason
}

struct Answerer {
    peer: NodeIndex,
    serving: Arc<Serving>,
    /// The writes that it forwards.
    in_flight: PerConnection,
    outbound: Arc<Outbound>,
    /// The tables whose buckets the peer has named, and this node knows by the same name.
    named: Mutex<BTreeSet<u32>>,
}

/// The mutations of one read, and the requests they answer.
#[derive(Default)]
struct Mutations {
    requests: Vec<u64>,
    entries: Vec<Envelope>,
}

impl Answerer {
    async fn read(&self, reader: &mut (impl AsyncRead + Unpin), mut received: BytesMut) -> String {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        loop {
            let mut mutations = Mutations::default();
            loop {
                match decoder.next(&mut received) {
                    Ok(Some(frame)) => {
                        if let Err(reason) = self.take(frame, &mut mutations).await {
                            return reason;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        crate::metrics::observe_bad_frame("peer");
                        return error.to_string();
                    }
                }
            }
            if !mutations.requests.is_empty() {
                self.apply(mutations).await;
            }
            self.outbound.has_room().await;
            received.reserve(READ_CHUNK);
            match reader.read_buf(&mut received).await {
                Ok(0) if received.is_empty() => return "closed by the peer".to_owned(),
                Ok(0) => {
                    crate::metrics::observe_bad_frame("peer");
                    return "closed in the middle of a frame".to_owned();
                }
                Ok(_) => self.serving.liveness.heard(self.peer),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Fails when the connection is of no more use.
    async fn take(&self, frame: Frame, mutations: &mut Mutations) -> Result<(), String> {
        let id = frame.request_id;
        match Kind::from_byte(frame.kind) {
            Some(Kind::Mutate) => match self.admit(&frame) {
                Ok(()) => {
                    mutations.requests.push(id);
                    mutations.entries.push(envelope(frame));
                }
                Err(error) => self.fail(id, &error),
            },
            Some(kind @ (Kind::Read | Kind::Digest)) => self.look_up(id, kind, frame.header),
            Some(Kind::Bucket) => return self.name_bucket(&frame).await,
            Some(Kind::Ping) => self.pong(id),
            Some(Kind::Gossip | Kind::Probe) => self.to_membership(id, &frame),
            Some(Kind::Forward) => self.forwarded(id, frame),
            Some(Kind::Repair) => self.repair(id, &frame),
            _ => {
                crate::metrics::observe_bad_frame("peer");
                self.fail(id, &ReplicaError::BadRequest);
            }
        }
        Ok(())
    }

    /// Refuses what must not be applied: a stopping node's mutations, those of a bucket that the
    /// two nodes do not know by the same name, and fresh ones from a clock too far ahead.
    fn admit(&self, frame: &Frame) -> Result<(), ReplicaError> {
        if self.serving.is_stopping() {
            return Err(ReplicaError::ShuttingDown);
        }
        let table = keys::decode(&frame.header).map_err(|_| ReplicaError::BadRequest)?.table;
        if !self.named.lock().contains(&table) {
            let reason = format!("table {table:#010x} has no agreed name on this connection");
            return Err(ReplicaError::Bucket { reason });
        }
        if frame.flags & FRESH != 0 {
            self.serving.observe_mint(frame.mint)?;
        }
        Ok(())
    }

    async fn apply(&self, mutations: Mutations) {
        let Mutations { requests, entries } = mutations;
        let began = now();
        let mut applied = self.serving.replica.apply(&entries);
        if matches!(applied, Err(ApplyError::Store(StoreError::Stalled))) {
            let replica = self.serving.replica.clone();
            applied = self.serving.blocking.run(move || replica.apply_waiting(&entries)).await;
        }
        match applied {
            Ok(()) => self.acknowledge(requests, began),
            Err(ApplyError::BadOperands { bad }) => {
                warn!(peer = self.peer.0, refused = bad.len(), first = %bad[0].reason, "refused mutations");
                let refused: BTreeSet<usize> = bad.iter().map(|operand| operand.index).collect();
                let whole = |place: &usize| !refused.contains(place);
                for operand in &bad {
                    self.fail(requests[operand.index], &refusal(operand.reason));
                }
                let taken = (0..requests.len()).filter(whole).map(|place| requests[place]);
                self.acknowledge(taken.collect(), began);
            }
            Err(ApplyError::Store(StoreError::NoRoom)) => {
                requests.iter().for_each(|id| self.fail(*id, &ReplicaError::DiskFull));
            }
            Err(error) => {
                warn!(%error, "cannot apply a peer's mutations");
                let error = replica_error(&error);
                requests.iter().for_each(|id| self.fail(*id, &error));
            }
        }
    }

    fn acknowledge(&self, requests: Vec<u64>, began: Instant) {
        let outbound = self.outbound.clone();
        self.serving.replica.commit().on_durable(Box::new(move || {
            crate::metrics::observe_replica_writes(requests.len(), began.elapsed());
            let _peer_is_gone = outbound.push(|out| {
                for id in requests {
                    encode_raw(out, Kind::Ack as u8, 0, id, 0, 0, &[], &[]);
                }
            });
        }));
    }

    fn look_up(&self, id: u64, kind: Kind, key: Bytes) {
        crate::metrics::observe_replica_read();
        if !self.serving.replica.may_answer() {
            return self.fail(id, &ReplicaError::Rebuilding);
        }
        let read_at = ReadAt::now(&self.serving.replica, &key);
        match self.serving.replica.read(&key, Tier::Cached) {
            Ok(Lookup::NotCached) => {
                let (serving, outbound) = (self.serving.clone(), self.outbound.clone());
                tokio::spawn(async move {
                    let (replica, began) = (serving.replica.clone(), now());
                    let found = serving.blocking.run(move || replica.read(&key, Tier::Any)).await;
                    crate::metrics::observe_replica_disk_read(began.elapsed());
                    answer_lookup(&outbound, id, kind, read_at, found);
                });
            }
            found => answer_lookup(&self.outbound, id, kind, read_at, found),
        }
    }

    /// A bucket is named once on a connection. Where that fails for a reason that may pass, the connection
    /// ends, so that the peer names it again.
    async fn name_bucket(&self, frame: &Frame) -> Result<(), String> {
        let name =
            starling_protocol::decode_header::<BucketName>(&frame.header).map_err(|error| {
                crate::metrics::observe_bad_frame("peer");
                format!("a bucket's name is not understood: {error}")
            })?;
        match self.serving.adopt_bucket(name.id, name.name).await {
            Ok(()) => {
                self.named.lock().insert(name.id);
            }
            Err(error) if error.is_final() => {
                // Not answered: the mutations that follow are refused one by one.
                warn!(%error, "a peer named a bucket that is not accepted here");
            }
            Err(error) => return Err(format!("cannot take note of a bucket: {error}")),
        }
        Ok(())
    }

    fn pong(&self, id: u64) {
        let clock = self.serving.wall_clock_us().to_le_bytes();
        let uptime_ms = self.serving.liveness.uptime_ms();
        let _peer_is_gone = self.outbound.push(|out| {
            encode_raw(out, Kind::Pong as u8, 0, id, 0, uptime_ms, &clock, &[]);
        });
    }

    fn to_membership(&self, id: u64, frame: &Frame) {
        let from = self.serving.local.ring.member(self.peer).host_id;
        if frame.kind == Kind::Gossip as u8 {
            match starling_protocol::decode_header(&frame.header) {
                Ok(message) => self.serving.report(PeerEvent::Gossip { from, message }),
                Err(error) => {
                    crate::metrics::observe_bad_frame("peer");
                    warn!(peer = %from, %error, "a gossip message is not understood");
                }
            }
            return;
        }
        let about = starling_protocol::decode_header(&frame.header);
        let reachable = about
            .ok()
            .and_then(|host| self.serving.local.ring.index_of(host))
            .is_some_and(|node| self.serving.liveness.is_reachable(node));
        let _peer_is_gone = self.outbound.push(|out| {
            encode_raw(out, Kind::Probed as u8, 0, id, 0, 0, &[u8::from(reachable)], &[]);
        });
    }

    fn repair(&self, id: u64, frame: &Frame) {
        let request = match starling_protocol::decode_header(&frame.header) {
            Ok(request) => request,
            Err(error) => {
                crate::metrics::observe_bad_frame("peer");
                warn!(peer = self.peer.0, %error, "a question of anti-entropy is not understood");
                return self.fail(id, &ReplicaError::BadRequest);
            }
        };
        let (peer, serving, outbound) = (self.peer, self.serving.clone(), self.outbound.clone());
        tokio::spawn(async move {
            let (answer, operand, mint) = serving.repair.answer(peer, request).await;
            let _peer_is_gone = outbound.push(|out| {
                encode_parts(out, Kind::Repaired as u8, 0, id, 0, mint, &answer, &operand);
            });
        });
    }

    fn forwarded(&self, id: u64, frame: Frame) {
        let (serving, outbound) = (self.serving.clone(), self.outbound.clone());
        let share = match serving.admit(&self.in_flight, &frame) {
            Ok(share) => share,
            Err(error) => return answer_forwarded(&outbound, id, &Reply::error(error)),
        };
        tokio::spawn(async move {
            let _share = share;
            let reply = serving.execute_forwarded(&frame).await;
            answer_forwarded(&outbound, id, &reply);
        });
    }

    fn fail(&self, id: u64, error: &ReplicaError) {
        fail(&self.outbound, id, error);
    }
}

fn answer_forwarded(outbound: &Outbound, id: u64, reply: &Reply) {
    let _peer_is_gone = outbound.push(|out| {
        encode_parts(out, Kind::Forwarded as u8, 0, id, 0, 0, &reply.response, &reply.operand);
    });
}

fn fail(outbound: &Outbound, id: u64, error: &ReplicaError) {
    crate::metrics::observe_replica_dropped(error);
    let _peer_is_gone = outbound.push(|out| {
        encode_parts(out, Kind::Failed as u8, 0, id, 0, 0, error, &[]);
    });
}

fn answer_lookup(
    outbound: &Outbound,
    id: u64,
    kind: Kind,
    read_at: ReadAt,
    found: Result<Lookup, ReadError>,
) {
    let ReadAt { mint, floor } = read_at;
    let state = match found {
        Ok(Lookup::Found(state)) => Some(state),
        Ok(Lookup::Absent | Lookup::NotCached) => None,
        Err(error) => {
            warn!(%error, "cannot read from the store");
            return fail(outbound, id, &ReplicaError::Store { reason: error.to_string() });
        }
    };
    // A larger frame would end the connection, each time that it is asked for.
    if state.as_ref().is_some_and(|state| kind != Kind::Digest && state.len() > PAYLOAD_BYTES_MAX) {
        let reason = format!("a value of over {PAYLOAD_BYTES_MAX} bytes cannot be sent");
        return fail(outbound, id, &ReplicaError::Store { reason });
    }
    let _peer_is_gone = outbound.push(|out| {
        if kind == Kind::Digest {
            let digest = state.as_deref().map_or(0, values::digest).to_le_bytes();
            encode_raw(out, Kind::DigestIs as u8, 0, id, 0, mint, &[], &digest);
        } else {
            let flags = if state.is_none() { ABSENT } else { 0 };
            encode_raw(
                out,
                Kind::State as u8,
                flags,
                id,
                0,
                mint,
                &floor.to_le_bytes(),
                state.as_deref().unwrap_or(&[]),
            );
        }
    });
}

fn envelope(frame: Frame) -> Envelope {
    let carries = if frame.flags & (FRESH | HINT) == 0 { Carries::State } else { Carries::Write };
    Envelope { key: frame.header, operand: frame.operand, mint: frame.mint, carries }
}

fn refusal(reason: replica::Refusal) -> ReplicaError {
    match reason {
        replica::Refusal::Damaged(_) => ReplicaError::Damaged,
        replica::Refusal::Late { mint, floor } => ReplicaError::Late { mint, floor },
    }
}

fn replica_error(error: &ApplyError) -> ReplicaError {
    match error {
        ApplyError::Store(StoreError::Stalled) => ReplicaError::Overloaded,
        ApplyError::Store(StoreError::NoRoom) => ReplicaError::DiskFull,
        other => ReplicaError::Store { reason: other.to_string() },
    }
}
