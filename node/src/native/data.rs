//! Clients' reads and writes: taken apart once, and done, whichever connection they come by: theirs, or a peer's that forwards their write.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use starling_protocol::{ContextToken, Frame, Request, Response, WireError};
use starling_ring::ConsistencyLevel;
use starling_storage::values::OperationId;
use tokio::time::Instant;

use super::errors::{consistency, wire_error};
use super::reply::Reply;
use super::serving::{Serving, budget};
use crate::coordinator::{Bucket, Leader, ReadRequest, RequestError, RestoreRequest, WriteRequest};
use crate::internode::message::Kind;
use crate::metrics::{Op, observe_request};
use crate::overload::Share;
use crate::time::now;

/// What a client asks for.
pub(super) enum Asked {
    /// Something of the keys in a bucket.
    Data {
        /// The bucket's id, which may be unknown.
        bucket: u32,
        /// What.
        data: Data,
    },
    /// Anything else.
    Other(Request),
}

/// A request for data.
pub(super) enum Data {
    Get(Get),
    Write(Write),
    Restore(Restore),
}

pub(super) struct Get {
    key: Bytes,
    level: ConsistencyLevel,
    floor: Option<Bytes>,
}

/// A put or a delete.
pub(super) struct Write {
    key: Bytes,
    level: ConsistencyLevel,
    context: Option<Bytes>,
    operation: OperationId,
    /// None deletes.
    value: Option<Bytes>,
}

pub(super) struct Restore {
    key: Bytes,
    level: ConsistencyLevel,
    state: Bytes,
}

impl Asked {
    /// Takes a request apart; `operand` is its frame's.
    pub(super) fn of(request: Request, operand: &Bytes) -> Self {
        let (bucket, data) = match request {
            Request::Get { bucket, key, level, floor } => {
                let floor = floor.map(|token| token.0);
                (bucket, Data::Get(Get { key, level: consistency(level), floor }))
            }
            Request::Put { bucket, key, level, context, operation } => {
                let write = Write {
                    key,
                    level: consistency(level),
                    context: context.map(|token| token.0),
                    operation: OperationId(operation),
                    value: Some(operand.clone()),
                };
                (bucket, Data::Write(write))
            }
            Request::Delete { bucket, key, level, context, operation } => {
                let write = Write {
                    key,
                    level: consistency(level),
                    context: Some(context.0),
                    operation: OperationId(operation),
                    value: None,
                };
                (bucket, Data::Write(write))
            }
            Request::Restore { bucket, key, level } => {
                let state = operand.clone();
                (bucket, Data::Restore(Restore { key, level: consistency(level), state }))
            }
            other => return Self::Other(other),
        };
        Self::Data { bucket, data }
    }
}

impl Write {
    fn op(&self) -> Op {
        if self.value.is_some() { Op::Write } else { Op::Delete }
    }
}

impl Serving {
    /// Answers a write that a peer could not lead. It is led here or refused: never handed on again.
    pub async fn execute_forwarded(&self, frame: &Frame) -> Reply {
        let request = match starling_protocol::decode_header(&frame.header) {
            Ok(request) => request,
            Err(error) => {
                return Reply::error(WireError::BadRequest { message: error.to_string() });
            }
        };
        let Asked::Data { bucket, data: Data::Write(write) } = Asked::of(request, &frame.operand)
        else {
            return Reply::error(WireError::BadRequest {
                message: "only writes are forwarded".into(),
            });
        };
        let Some(name) = self.replica.buckets().name(bucket) else {
            return Reply::error(WireError::UnknownBucket { id: bucket });
        };
        match self.open_bucket(&name).await {
            Ok(bucket) => self.write(&Arc::new(bucket), write, frame, false).await,
            Err(error) => Reply::error(error),
        }
    }

    pub(super) async fn execute(
        &self,
        bucket: &Arc<Bucket>,
        data: Data,
        frame: &Frame,
        share: &Share,
    ) -> Reply {
        match data {
            Data::Get(get) => self.read(bucket, get, frame, share).await,
            Data::Write(write) => self.write(bucket, write, frame, true).await,
            Data::Restore(restore) => self.restore(bucket, restore, frame).await,
        }
    }

    async fn read(&self, bucket: &Arc<Bucket>, get: Get, frame: &Frame, share: &Share) -> Reply {
        let (began, held) = (now(), Arc::new(share.hold()));
        let level = get.level;
        let result = self
            .coordinator
            .read(ReadRequest {
                bucket: bucket.clone(),
                key: get.key,
                level,
                floor: get.floor,
                held: held.clone(),
                deadline: deadline(frame, self.coordinator.limits().read_timeout),
            })
            .await;
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
                let response = Response::Value { sibling_lens, context };
                Reply::holding(response, concat(found.values), held)
            }
            Err(error) => Reply::error(wire_error(&error)),
        }
    }

    async fn write(
        &self,
        bucket: &Arc<Bucket>,
        write: Write,
        frame: &Frame,
        may_forward: bool,
    ) -> Reply {
        let began = now();
        let deadline = deadline(frame, self.coordinator.limits().write_timeout);
        let begin_by = self.begin_by(frame, deadline);
        let (op, level) = (write.op(), write.level);
        let observe = |error: Option<&RequestError>| {
            observe_request(op, level, error, now().saturating_duration_since(began));
        };
        let failed = |error: &RequestError| {
            observe(Some(error));
            Reply::error(wire_error(error))
        };
        match self.coordinator.leader(bucket, &write.key) {
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
        let written = self.coordinator.write(WriteRequest {
            bucket: bucket.clone(),
            key: write.key,
            level,
            context: write.context,
            operation: write.operation,
            value: write.value,
            begin_by,
            deadline,
        });
        match written.await {
            Ok(context) => {
                observe(None);
                Reply::of(Response::Written { context: ContextToken(context) })
            }
            Err(error) => failed(&error),
        }
    }

    async fn restore(&self, bucket: &Arc<Bucket>, restore: Restore, frame: &Frame) -> Reply {
        let deadline = deadline(frame, self.coordinator.limits().write_timeout);
        let restored = self.coordinator.restore(RestoreRequest {
            bucket: bucket.clone(),
            key: restore.key,
            level: restore.level,
            state: restore.state,
            begin_by: self.begin_by(frame, deadline),
            deadline,
        });
        match restored.await {
            Ok(()) => Reply::of(Response::Restored),
            Err(error) => Reply::error(wire_error(&error)),
        }
    }

    /// When it is too late to begin with a write: its frame says so by this node's own clock.
    fn begin_by(&self, frame: &Frame, deadline: Instant) -> Instant {
        match frame.mint {
            0 => deadline,
            uptime_ms => deadline.min(self.liveness.at_uptime_ms(uptime_ms)),
        }
    }
}

fn deadline(frame: &Frame, default: Duration) -> Instant {
    now() + budget(frame, default)
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
        Ok(response) => Reply::with_operand(response, answer.operand.clone()),
        Err(error) => Reply::error(WireError::Internal { message: error.to_string() }),
    }
}
