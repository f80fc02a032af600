//! The answering end of one connection between nodes.
//!
//! Everything read from a socket in one go is handled in one go: its mutations become one batch,
//! one wait for durability, one burst of acknowledgements.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use starling_protocol::{Frame, FrameDecoder, encode_parts, encode_raw};
use starling_ring::NodeIndex;
use starling_storage::{ApplyError, Carries, Envelope, Lookup, ReadError, StoreError, Tier};
use starling_storage::{keys, replica, values};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::end::{End, Misbehaviour, decode};
use super::link::PAYLOAD_BYTES_MAX;
use super::links::FRAME_BYTES_MAX;
use super::message::{ABSENT, BucketName, FRESH, HINT, Kind, ReplicaError};
use crate::coordinator::ReadAt;
use crate::membership::PeerEvent;
use crate::native::{Reply, Serving};
use crate::net::Stream;
use crate::outbound::Outbound;
use crate::overload::PerConnection;
use crate::time::now;

/// Answers that may wait for a peer that does not read.
const ANSWER_BYTES_MAX: usize = 64 << 20;
const READ_CHUNK: usize = 256 * 1024;

/// Answers a peer that was greeted until the connection ends. Returns why it did.
pub(super) async fn answer_all(
    stream: &mut Stream,
    received: BytesMut,
    peer: NodeIndex,
    serving: Arc<Serving>,
    stop: &CancellationToken,
) -> End {
    let Stream { reader, writer } = stream;
    let outbound = Arc::new(Outbound::new(ANSWER_BYTES_MAX));
    let in_flight = serving.in_flight.connection();
    let named = Mutex::default();
    let answerer = Answerer { peer, serving, in_flight, outbound: outbound.clone(), named };
    let end = tokio::select! {
        biased;
        () = stop.cancelled() => End::Stopping,
        end = answerer.read(reader, received) => end,
        written = outbound.write_to(writer) => written.map_or_else(End::Io, |()| End::Closed),
    };
    outbound.close();
    let member = answerer.serving.local.ring.member(peer);
    info!(peer = %member.host_id, address = %member.address, reason = %end, "peer left");
    end
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
    async fn read(&self, reader: &mut (impl AsyncRead + Unpin), mut received: BytesMut) -> End {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        loop {
            let mut mutations = Mutations::default();
            loop {
                match decoder.next(&mut received) {
                    Ok(Some(frame)) => {
                        if let Err(end) = self.take(frame, &mut mutations).await {
                            return end;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return Misbehaviour::Frame(error).into(),
                }
            }
            if !mutations.requests.is_empty() {
                self.apply(mutations).await;
            }
            self.outbound.has_room().await;
            received.reserve(READ_CHUNK);
            match reader.read_buf(&mut received).await {
                Ok(0) if received.is_empty() => return End::Closed,
                Ok(0) => return Misbehaviour::CutShort.into(),
                Ok(_) => self.serving.liveness.heard(self.peer),
                Err(error) => return error.into(),
            }
        }
    }

    /// Fails when the connection is of no more use.
    async fn take(&self, frame: Frame, mutations: &mut Mutations) -> Result<(), End> {
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
    async fn name_bucket(&self, frame: &Frame) -> Result<(), End> {
        let name: BucketName = decode(Kind::Bucket, frame)?;
        match self.serving.adopt_bucket(name.id, name.name).await {
            Ok(()) => {
                self.named.lock().insert(name.id);
            }
            Err(error) if error.is_final() => {
                // Not answered: the mutations that follow are refused one by one.
                warn!(%error, "a peer named a bucket that is not accepted here");
            }
            Err(error) => return Err(error.into()),
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
