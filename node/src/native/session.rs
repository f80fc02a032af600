//! One client's connection: frames in, a task per request, answers out in any order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use starling_protocol::{
    Frame, FrameDecoder, FrameError, Request, Response, WIRE_VERSION, WireError, kind,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::data::{Asked, Data};
use super::reply::Reply;
use super::service::Service;
use crate::coordinator::Bucket;
use crate::net::Stream;
use crate::outbound::{self, Outbound};
use crate::overload::PerConnection;
use crate::time::now;

/// A client that has not said hello after this long is closed.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest frame before hello.
const HELLO_FRAME_MAX: usize = 16 * 1024;
/// Answers that may wait for a client that does not read; then its requests are not read either.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const READ_CHUNK: usize = 64 * 1024;
/// How often a large frame that is not whole looks for room.
const ROOM_INTERVAL: Duration = Duration::from_millis(20);

/// How a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The client closed it.
    Client,
    /// The node stops.
    Stopped,
    /// The client did not take its answers.
    Unread,
    /// A large frame found no room in the memory for requests in time.
    NoRoom,
    /// The client sent what no client sends.
    Misbehaved(String),
    /// The stream failed.
    Io(io::Error),
}

struct Session {
    service: Arc<Service>,
    in_flight: PerConnection,
    outbound: Arc<Outbound>,
    /// Those opened: at most as many as the node has.
    buckets: BTreeMap<u32, Arc<Bucket>>,
    greeted: bool,
    /// The frame before was the greeting: from here on frames may be large.
    just_greeted: bool,
}

pub(super) async fn run(stream: Stream, service: Arc<Service>, stop: CancellationToken) -> End {
    let Stream { mut reader, mut writer } = stream;
    let outbound = Arc::new(Outbound::impatient(ANSWER_BYTES_MAX));
    let mut session = Session {
        in_flight: service.connection(),
        service,
        outbound: outbound.clone(),
        buckets: BTreeMap::new(),
        greeted: false,
        just_greeted: false,
    };
    let writing = outbound.write_to(&mut writer);
    tokio::pin!(writing);
    let end = tokio::select! {
        biased;
        end = session.read(&mut reader) => end,
        written = &mut writing => match written {
            Ok(()) => End::Client,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => End::Unread,
            Err(error) => End::Io(error),
        },
        () = stop.cancelled() => End::Stopped,
    };
    outbound.close();
    if !matches!(end, End::Io(_) | End::Unread) {
        // What is already answered still leaves, if the client takes it within a second.
        let _unsent = tokio::time::timeout(Duration::from_secs(1), writing).await;
    }
    end
}

impl Session {
    async fn read(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> End {
        let hello_by = now() + HELLO_TIMEOUT;
        let mut received = BytesMut::new();
        let mut decoder = FrameDecoder::new(HELLO_FRAME_MAX);
        let mut receiving = self.in_flight.receiving();
        let mut begun = now();
        loop {
            loop {
                match decoder.next(&mut received) {
                    Ok(Some(frame)) => {
                        begun = now();
                        receiving.holds(received.len());
                        if let Err(end) = self.take(frame).await {
                            return end;
                        }
                        if std::mem::take(&mut self.just_greeted) {
                            decoder = FrameDecoder::new(self.service.frame_bytes_max());
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return self.damaged(&error).await,
                }
            }
            let full_at = now();
            self.outbound.has_room().await;
            begun += full_at.elapsed();
            // A frame that is begun must go on; where none is, a client may be silent for as long as it likes.
            let begins = received.is_empty();
            let whole_by = begun + outbound::within(received.len());
            while !receiving.holds(received.len() + READ_CHUNK) {
                if now() >= whole_by {
                    return End::NoRoom;
                }
                tokio::time::sleep(ROOM_INTERVAL).await;
            }
            received.reserve(READ_CHUNK);
            let read = reader.read_buf(&mut received);
            let read = match (self.greeted, begins) {
                (true, true) => Ok(read.await),
                (true, false) => tokio::time::timeout_at(whole_by, read).await,
                (false, _) => tokio::time::timeout_at(hello_by, read).await,
            };
            let Ok(read) = read else {
                return End::Misbehaved(match self.greeted {
                    true => "half a frame, and not the rest in time".into(),
                    false => "no hello in time".into(),
                });
            };
            if begins {
                begun = now();
            }
            match read {
                Ok(0) if received.is_empty() => return End::Client,
                Ok(0) => {
                    crate::metrics::observe_bad_frame("client");
                    return End::Misbehaved("closed in the middle of a frame".into());
                }
                Ok(_) => {}
                Err(error) => return End::Io(error),
            }
        }
    }

    /// A stream that has lost its framing cannot be trusted with another frame: the client is told
    /// why, and closed. Requests already taken are still answered.
    async fn damaged(&self, error: &FrameError) -> End {
        crate::metrics::observe_bad_frame("client");
        self.answer(0, &Reply::error(WireError::BadRequest { message: error.to_string() })).await;
        End::Misbehaved(error.to_string())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), End> {
        let id = frame.request_id;
        if frame.kind != kind::REQUEST {
            crate::metrics::observe_bad_frame("client");
            let message = format!("unknown message kind {:#04x}", frame.kind);
            self.answer(id, &Reply::error(WireError::BadRequest { message })).await;
            return Ok(());
        }
        let request: Request = match starling_protocol::decode_header(&frame.header) {
            Ok(request) => request,
            Err(error) => {
                crate::metrics::observe_bad_frame("client");
                let message = format!("the request header is not understood: {error}");
                self.answer(id, &Reply::error(WireError::BadRequest { message })).await;
                return Ok(());
            }
        };
        if !self.greeted && !matches!(request, Request::Hello { .. }) {
            crate::metrics::observe_bad_frame("client");
            let message = "the first request was not hello".to_owned();
            self.answer(id, &Reply::error(WireError::BadRequest { message: message.clone() }))
                .await;
            return Err(End::Misbehaved(message));
        }
        if let Request::Hello { wire_version, client } = &request
            && *wire_version != WIRE_VERSION
        {
            // What else it says may decode, and mean something else.
            crate::metrics::observe_bad_frame("client");
            self.answer(id, &self.service.hello(*wire_version, client)).await;
            return Err(End::Misbehaved(format!("wire version {wire_version}")));
        }
        match Asked::of(request, &frame.operand) {
            Asked::Data { bucket, data } => self.dispatch_data(id, bucket, data, frame).await,
            Asked::Other(request) => self.dispatch(id, request).await,
        }
        Ok(())
    }

    async fn dispatch(&mut self, id: u64, request: Request) {
        let service = self.service.clone();
        match request {
            Request::Hello { wire_version, client } => {
                let reply = service.hello(wire_version, &client);
                if matches!(reply.response, Response::Hello { .. }) {
                    (self.greeted, self.just_greeted) = (true, true);
                }
                self.answer(id, &reply).await;
            }
            Request::OpenBucket { name } => {
                let reply = match self.open(&name).await {
                    Ok(bucket) => Reply::of(Response::BucketOpened {
                        bucket: bucket.id,
                        keyspace: bucket.keyspace.clone(),
                        lww: bucket.lww,
                    }),
                    Err(error) => Reply::error(error),
                };
                self.answer(id, &reply).await;
            }
            Request::Topology => self.answer(id, &service.topology()).await,
            Request::Status => {
                let outbound = self.outbound.clone();
                tokio::spawn(async move {
                    send(&outbound, id, service.uptime_ms(), &service.status()).await;
                });
            }
            Request::AcceptLoss => self.answer(id, &service.accept_loss().await).await,
            Request::CreateSnapshot { name } => {
                let outbound = self.outbound.clone();
                tokio::spawn(async move {
                    let reply = service.create_snapshot(name).await;
                    send(&outbound, id, service.uptime_ms(), &reply).await;
                });
            }
            Request::Snapshots => self.answer(id, &service.snapshots().await).await,
            _ => {
                let error = WireError::NotSupportedYet { what: "this request".into() };
                self.answer(id, &Reply::error(error)).await;
            }
        }
    }

    /// Starts a read or a write on a task of its own, if there is room for it.
    async fn dispatch_data(&self, id: u64, bucket: u32, data: Data, frame: Frame) {
        let service = &self.service;
        let Some(bucket) = self.buckets.get(&bucket).cloned() else {
            return self.answer(id, &Reply::error(WireError::UnknownBucket { id: bucket })).await;
        };
        let admitted = service.admit(&self.in_flight, &frame);
        let mut share = match admitted {
            Ok(share) => share,
            Err(error) => return self.answer(id, &Reply::error(error)).await,
        };
        let (service, outbound) = (service.clone(), self.outbound.clone());
        tokio::spawn(async move {
            let reply = service.execute(&bucket, data, &frame, &share).await;
            share.completed();
            let sent = send(&outbound, id, service.uptime_ms(), &reply).await;
            if reply.operand.len() > ANSWER_BYTES_MAX
                && let Some(end) = sent
            {
                // Until then the memory is used.
                outbound.written(end).await;
            }
            drop((reply, share));
        });
    }

    async fn open(&mut self, name: &str) -> Result<Arc<Bucket>, WireError> {
        let bucket = Arc::new(self.service.open_bucket(name).await?);
        self.buckets.insert(bucket.id, bucket.clone());
        Ok(bucket)
    }

    async fn answer(&self, id: u64, reply: &Reply) {
        send(&self.outbound, id, self.service.uptime_ms(), reply).await;
    }
}

/// Queues an answer as soon as there is room for it, and returns its place. A client that is gone gets none.
async fn send(outbound: &Outbound, id: u64, uptime_ms: u64, reply: &Reply) -> Option<u64> {
    let Reply { response, operand, .. } = reply;
    let encode = |out: &mut BytesMut| {
        starling_protocol::encode_parts(
            out,
            kind::RESPONSE,
            0,
            id,
            0,
            uptime_ms,
            response,
            operand,
        );
    };
    outbound.push_when_room(encode).await.ok()
}
