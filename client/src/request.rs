//! Carrying one request to its end: which node, which attempt, whether to try again.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use starling_protocol::{Outcome, Request, Response, WireError};
use tokio::time::Instant;

use crate::client::Shared;
use crate::cluster::{NodeHandle, OpenError};
use crate::connection::{Accepts, CallError, now, travel_time};
use crate::error::Error;

/// Pause before a node that was busy, or the whole round of nodes, is asked again.
const PAUSE: Duration = Duration::from_millis(20);
/// What a storage key has room for, whatever a node's configuration says.
const KEY_BYTES_MAX: usize = 65_535;

/// A request for data, complete but for the bucket's id on the connection.
pub(crate) struct Job<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) keyspace: &'a str,
    pub(crate) key: &'a Bytes,
    pub(crate) write: bool,
    pub(crate) operand: &'a [u8],
    pub(crate) timeout: Duration,
    pub(crate) request: &'a (dyn Fn(u32) -> Request + Send + Sync),
}

/// How one attempt ended without an answer for the caller.
struct Missed {
    /// What to tell if it was the last.
    error: Error,
    /// Whether it may have been done.
    unknown: bool,
    /// Whether the next attempt should wait a moment.
    pause: bool,
}

impl Shared {
    /// Tries nodes until one answers, the answer is final, or the timeout is over.
    pub(crate) async fn run(&self, job: &Job<'_>) -> Result<(Response, Bytes), Error> {
        let answer = self.carry(job).await;
        if job.write && answer.as_ref().is_err_and(Error::is_unknown) {
            self.unknown.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    async fn carry(&self, job: &Job<'_>) -> Result<(Response, Bytes), Error> {
        let deadline = now() + job.timeout;
        let mut unknown = false;
        let mut last: Option<Error> = None;
        let mut attempts = 0_u32;
        let mut looked_again = false;
        loop {
            let known = self.cluster.known.load_full();
            let mut elsewhere = None;
            let mut missed_one = false;
            for index in known.route(job.keyspace, job.key, job.write) {
                if now() >= deadline {
                    return Err(give_up(elsewhere.or(last), unknown && job.write));
                }
                if elsewhere.is_some() && !known.node(index).is_answering() {
                    continue;
                }
                if attempts > 0 {
                    self.retried.fetch_add(1, Ordering::Relaxed);
                }
                attempts += 1;
                match self.attempt(job, known.node(index), deadline).await {
                    Ok(answer) => {
                        if unknown && job.write {
                            self.repeated.fetch_add(1, Ordering::Relaxed);
                        }
                        return Ok(answer);
                    }
                    Err(Attempt::Final(error)) => return Err(blame(error, unknown && job.write)),
                    Err(Attempt::Elsewhere(error)) => {
                        unknown |= error.is_unknown();
                        elsewhere = Some(error);
                    }
                    Err(Attempt::Missed(missed)) => {
                        unknown |= missed.unknown;
                        last = Some(missed.error);
                        missed_one = true;
                        if missed.pause {
                            sleep_until((now() + PAUSE).min(deadline)).await;
                        }
                    }
                }
            }
            if let Some(error) = elsewhere {
                if looked_again || !missed_one {
                    return Err(blame(error, unknown && job.write));
                }
                looked_again = true;
            }
            sleep_until((now() + PAUSE).min(deadline)).await;
        }
    }

    async fn attempt(
        &self,
        job: &Job<'_>,
        node: &NodeHandle,
        deadline: Instant,
    ) -> Result<(Response, Bytes), Attempt> {
        let connect = self.cluster.connect_timeout().min(deadline.saturating_duration_since(now()));
        let connection = node.connect(connect).await.map_err(not_done)?;
        let attempt = self.attempt_timeout + 2 * travel_time(job.operand.len());
        let attempt_deadline = deadline.min(now() + attempt);
        let bucket = match node.open(&connection, job.bucket, attempt_deadline).await {
            Ok(bucket) => bucket,
            Err(OpenError::Call(error)) => return Err(not_done(error)),
            Err(OpenError::Refused(error)) => return Err(refused(error, false)),
        };
        let request = (job.request)(bucket);
        match connection.call(&request, job.operand, attempt_deadline).await {
            Ok((Response::Error(error), _)) => {
                if matches!(error, WireError::UnknownBucket { .. }) {
                    node.forget(job.bucket);
                }
                Err(refused(error, job.write))
            }
            Ok(answer) => Ok(answer),
            Err(CallError::Garbled) => Err(Attempt::Elsewhere(Error::Protocol {
                message: CallError::Garbled.to_string(),
                unknown: job.write,
            })),
            Err(CallError::TooLarge { len, accepts }) => {
                Err(refused(too_large(job, len, accepts), false))
            }
            Err(CallError::NotSent) => Err(not_done(CallError::NotSent)),
            Err(error) => Err(Attempt::Missed(Missed {
                error: Error::Timeout { last: error.to_string(), unknown: true },
                unknown: true,
                pause: false,
            })),
        }
    }
}

/// What the node would have said, had it been able to read the request.
fn too_large(job: &Job<'_>, len: usize, accepts: Accepts) -> WireError {
    let (value, key) = (job.operand.len(), job.key.len());
    if value > accepts.value_bytes_max {
        let max = accepts.value_bytes_max as u64;
        return WireError::ValueTooLarge { len: value as u64, max };
    }
    if key > KEY_BYTES_MAX {
        return WireError::KeyTooLarge { len: key as u64, max: KEY_BYTES_MAX as u64 };
    }
    let message = CallError::TooLarge { len, accepts }.to_string();
    WireError::BadRequest { message }
}

enum Attempt {
    /// Another attempt would end the same.
    Final(Error),
    /// This node reaches too few replicas, has no room, or is not understood. One that has just started, is cut off,
    /// or is of another release, is alone in that: those that answer at present are asked once, and once
    /// more where one gave no answer.
    Elsewhere(Error),
    /// Another attempt may do.
    Missed(Missed),
}

fn not_done(reason: impl fmt::Display) -> Attempt {
    let error = Error::Timeout { last: reason.to_string(), unknown: false };
    Attempt::Missed(Missed { error, unknown: false, pause: false })
}

/// What a node's refusal means for the next attempt.
fn refused(error: WireError, write: bool) -> Attempt {
    let unknown = write && error.outcome() == Outcome::Unknown;
    let elsewhere = matches!(
        error,
        WireError::Unavailable { .. } | WireError::ReadFailed { .. } | WireError::DiskFull
    );
    if elsewhere {
        return Attempt::Elsewhere(Error::Refused { error, unknown });
    }
    let again = matches!(
        error,
        WireError::NotReady { .. }
            | WireError::ShuttingDown
            | WireError::Overloaded { .. }
            | WireError::NoLeader { .. }
            | WireError::LeaderLost
            | WireError::UnknownBucket { .. }
            | WireError::ClockSkew { .. }
            | WireError::Timeout { .. }
            | WireError::WriteFailed { .. }
            | WireError::FloorNotMet
    );
    let pause = matches!(
        error,
        WireError::Overloaded { .. }
            | WireError::NoLeader { .. }
            | WireError::WriteFailed { .. }
            | WireError::FloorNotMet
    );
    let error = Error::Refused { error, unknown };
    if again { Attempt::Missed(Missed { error, unknown, pause }) } else { Attempt::Final(error) }
}

/// What to tell when the timeout is over.
fn give_up(last: Option<Error>, unknown: bool) -> Error {
    match last {
        Some(Error::Refused { error, .. }) => Error::Refused { error, unknown },
        Some(Error::Timeout { last, .. }) => Error::Timeout { last, unknown },
        Some(Error::Protocol { message, .. }) => Error::Protocol { message, unknown },
        Some(error) => Error::Timeout { last: error.to_string(), unknown },
        None => Error::Timeout { last: "the timeout was over at once".to_owned(), unknown },
    }
}

/// A final refusal says nothing of the attempts before it.
fn blame(error: Error, unknown_before: bool) -> Error {
    match error {
        Error::Refused { error, unknown } => {
            Error::Refused { error, unknown: unknown || unknown_before }
        }
        Error::Protocol { message, unknown } => {
            Error::Protocol { message, unknown: unknown || unknown_before }
        }
        other => other,
    }
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at).await;
}
