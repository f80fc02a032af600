//! The asking end of one connection to one peer: requests in flight, their deadlines, reconnects.
//!
//! Every request is answered exactly once through its [`Waiter`]: by the peer, by the deadline, or
//! by the loss of the connection. A link decides nothing about quorums.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use starling_protocol::{Frame, NodeClock, encode_parts};
use starling_ring::{Member, NodeIndex};
use tokio::time::Instant;

use super::message::{Kind, ReplicaError};
use crate::outbound::{Outbound, Refused};
use crate::time::now;

/// The largest header and operand that are sent together: a larger frame would end the connection.
pub(super) const PAYLOAD_BYTES_MAX: usize = super::links::FRAME_BYTES_MAX - 1024;
/// Without a byte from the peer for this long, reads in flight are sent elsewhere too.
pub const SILENCE: Duration = Duration::from_millis(200);
/// A write not answered after this long is hinted as well.
pub const OVERDUE: Duration = Duration::from_secs(1);

/// With a request unanswered for this long and no byte from the connection, it is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(1);
/// An unused connection is asked that seldom: a large cluster has many.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// With a request unanswered for this long and no byte from the connection, it leads nowhere: whatever
/// the other direction says, and whether or not this end was told. It is made anew.
const DEAD_AFTER: Duration = Duration::from_secs(5);

/// Why a request has no answer from the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no connection, or its queue is full: surely not sent.
    #[error("not sent: {0}")]
    NotSent(&'static str),
    /// The connection ended with the request in flight: the outcome is unknown.
    #[error("the connection was lost with the request in flight")]
    ConnectionLost,
    /// No answer in time: the outcome is unknown.
    #[error("no answer in time")]
    Deadline,
    /// The answer is not understood: the outcome is unknown.
    #[error("the answer is not understood: {0}")]
    Garbled(starling_protocol::FrameError),
    /// The peer refused: surely not applied there.
    #[error(transparent)]
    Refused(#[from] ReplicaError),
}

impl LinkError {
    /// Whether the peer would refuse the same again.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Refused(
                ReplicaError::Damaged
                    | ReplicaError::Bucket { .. }
                    | ReplicaError::BadRequest
                    | ReplicaError::Late { .. }
            )
        )
    }
}

/// What a late answer means at the moment it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// The whole link has been silent for [`SILENCE`].
    Silent,
    /// This request has waited for [`OVERDUE`].
    Overdue,
}

/// Where the answers of one request that went to several replicas are gathered. Called from the
/// link's task or from the sender itself; must not block.
pub trait ReplySink: Send + Sync {
    /// The one answer of `replica`, the sender's own number for it.
    fn reply(&self, replica: u8, answer: Result<Frame, LinkError>);
    /// The answer of `replica` is late; it may still come.
    fn late(&self, replica: u8, late: Late);
}

/// One expected answer.
pub struct Waiter {
    sink: Arc<dyn ReplySink>,
    replica: u8,
}

impl Waiter {
    /// Reports to `sink` under the number `replica`.
    pub fn new(sink: Arc<dyn ReplySink>, replica: u8) -> Self {
        Self { sink, replica }
    }

    fn answer(self, answer: Result<Frame, LinkError>) {
        self.sink.reply(self.replica, answer);
    }
}

/// One request to the peer.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// What is asked.
    pub kind: Kind,
    /// Its flags.
    pub flags: u8,
    /// How long the answer is worth having.
    pub budget: Duration,
    /// The clock value of the operand, 0 where there is none.
    pub mint: u64,
    /// The peer must not begin it later. On the wire it says so by the peer's own clock, in place of the mint.
    pub begin_by: Option<Instant>,
    /// The header, encoded.
    pub header: &'a [u8],
    /// The state, encoded.
    pub operand: &'a [u8],
    /// The bucket that must have been named on the connection before this request.
    pub bucket: Option<(u32, &'a str)>,
}

impl<'a> Request<'a> {
    /// A request about the cluster rather than about data.
    #[must_use]
    pub fn control(kind: Kind, budget: Duration, header: &'a [u8]) -> Self {
        Self { kind, flags: 0, budget, mint: 0, begin_by: None, header, operand: &[], bucket: None }
    }

    fn is_data(&self) -> bool {
        matches!(self.kind, Kind::Mutate | Kind::Read | Kind::Digest | Kind::Forward)
    }
}

/// The asking end towards one peer. Lives as long as the node; its connections come and go.
pub struct Link {
    /// The peer's place in the epoch.
    pub peer: NodeIndex,
    /// The peer.
    pub member: Member,
    connection: ArcSwapOption<Connection>,
    latency_us: AtomicU64,
    used: AtomicBool,
}

/// One established connection.
pub(super) struct Connection {
    pub(super) outbound: Outbound,
    began: Instant,
    pending: Mutex<Pending>,
    next_request: AtomicU64,
    heard_at: Mutex<Instant>,
    pinged: AtomicBool,
    silent: AtomicBool,
}

#[derive(Default)]
struct Pending {
    calls: BTreeMap<u64, Call>,
    named: BTreeSet<u32>,
    clock: NodeClock,
    closed: bool,
}

struct Call {
    waiter: Waiter,
    sent_at: Instant,
    deadline: Instant,
    told_silent: bool,
    told_overdue: bool,
}

impl Link {
    pub(super) fn new(peer: NodeIndex, member: Member) -> Self {
        Self {
            peer,
            member,
            connection: ArcSwapOption::empty(),
            latency_us: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// Whether a request for data went to the peer since this was last asked.
    #[must_use]
    pub fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Whether a connection stands at this moment.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.load().is_some()
    }

    /// Whether requests have waited for [`SILENCE`] and nothing has arrived on the connection since.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.connection.load().as_ref().is_some_and(|one| one.silent.load(Ordering::Relaxed))
    }

    /// The moving average of answer times in microseconds, 0 before the first answer.
    #[must_use]
    pub fn latency_us(&self) -> u64 {
        self.latency_us.load(Ordering::Relaxed)
    }

    /// Sends; the answer, or its absence, comes through `waiter`. A frame that cannot be queued
    /// is answered [`LinkError::NotSent`] before this returns.
    pub fn send(&self, request: &Request<'_>, waiter: Waiter) {
        if request.is_data() && !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        let guard = self.connection.load();
        match guard.as_ref() {
            Some(connection) => connection.send(request, waiter),
            None => waiter.answer(Err(LinkError::NotSent("no connection"))),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`LinkError`], with the peer's refusal decoded.
    pub async fn call(&self, request: &Request<'_>) -> Result<Frame, LinkError> {
        let (sink, answer) = Single::new();
        self.send(request, Waiter::new(sink, 0));
        answer.await.unwrap_or(Err(LinkError::ConnectionLost))
    }

    /// Sends without wanting an answer; a frame that cannot be queued is dropped.
    pub fn tell(&self, request: &Request<'_>) {
        if let Some(connection) = self.connection.load().as_ref() {
            // What is told without an answer (gossip) is told again soon: a full queue may drop it.
            let _dropped_when_full = connection.push(0, request, request.mint);
        }
    }

    /// Returns once everything that was sent so far has been handed to the socket.
    pub(super) async fn flushed(&self) {
        if let Some(connection) = self.connection.load_full() {
            connection.outbound.flushed().await;
        }
    }

    pub(super) fn connected(&self, connection: Arc<Connection>) {
        self.connection.store(Some(connection));
    }

    pub(super) fn disconnected(&self) {
        if let Some(connection) = self.connection.swap(None) {
            connection.fail_all();
        }
    }

    /// Gives an answer to whoever waits for it. Unknown ids are answers past their deadline.
    pub(super) fn answered(&self, connection: &Connection, frame: Frame) {
        let Some(call) = connection.take_call(&frame) else {
            return;
        };
        self.observe_latency(now().saturating_duration_since(call.sent_at));
        let answer = match Kind::from_byte(frame.kind) {
            Some(Kind::Failed) => Err(match starling_protocol::decode_header(&frame.header) {
                Ok(refusal) => LinkError::Refused(refusal),
                Err(error) => LinkError::Garbled(error),
            }),
            _ => Ok(frame),
        };
        call.waiter.answer(answer);
    }

    /// Weight 1/8, as TCP's smoothed round-trip time (RFC 6298).
    fn observe_latency(&self, took: Duration) {
        let sample = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.latency_us.load(Ordering::Relaxed);
        let new = if old == 0 { sample } else { old - old / 8 + sample / 8 };
        self.latency_us.store(new.max(1), Ordering::Relaxed);
    }
}

impl Connection {
    /// With more than `queue_bytes_max` queued the peer is treated as if it were down: its writes
    /// become hints, its reads go elsewhere.
    pub(super) fn new(queue_bytes_max: usize) -> Self {
        Self {
            outbound: Outbound::new(queue_bytes_max),
            began: now(),
            pending: Mutex::default(),
            next_request: AtomicU64::new(1),
            heard_at: Mutex::new(now()),
            pinged: AtomicBool::new(false),
            silent: AtomicBool::new(false),
        }
    }

    /// The call that a frame answers, if anybody waits for it still.
    fn take_call(&self, frame: &Frame) -> Option<Call> {
        let mut pending = self.pending.lock();
        if Kind::from_byte(frame.kind) == Some(Kind::Pong) && frame.mint != 0 {
            pending.clock.observe(frame.mint, self.age_ms(now()));
        }
        pending.calls.remove(&frame.request_id)
    }

    /// The mint of the request's frame; nothing if that takes the peer's clock, which is not known yet.
    fn mint_of(&self, pending: &Pending, request: &Request<'_>, now: Instant) -> Option<u64> {
        let Some(begin_by) = request.begin_by else { return Some(request.mint) };
        let uptime_ms = pending.clock.uptime(self.age_ms(now))?;
        let within = milliseconds(begin_by.saturating_duration_since(now));
        // 0 would say that it may begin at any time.
        Some(uptime_ms.saturating_add(within).max(1))
    }

    fn age_ms(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.began))
    }

    /// Something arrived on this very connection.
    pub(super) fn heard(&self) {
        *self.heard_at.lock() = now();
        self.pinged.store(false, Ordering::Relaxed);
        self.silent.store(false, Ordering::Relaxed);
    }

    /// Whether the connection leads nowhere; notices silence and asks for a sign of life when in doubt.
    pub(super) fn is_dead(&self) -> bool {
        let now = now();
        let silence = now.saturating_duration_since(*self.heard_at.lock());
        let oldest = self.pending.lock().calls.first_key_value().map(|(_, call)| call.sent_at);
        let unanswered = oldest.map(|sent_at| silence.min(now.saturating_duration_since(sent_at)));
        if unanswered.is_some_and(|unanswered| unanswered >= DEAD_AFTER) {
            return true;
        }
        if unanswered.is_some_and(|unanswered| unanswered >= SILENCE) {
            self.silent.store(true, Ordering::Relaxed);
        }
        let doubtful = unanswered.is_some_and(|unanswered| unanswered >= PING_AFTER);
        if (doubtful || silence >= KEEP_ALIVE) && !self.pinged.swap(true, Ordering::Relaxed) {
            self.ping();
        }
        false
    }

    /// Asks for a sign of life, which also shows the peer's clock.
    pub(super) fn ping(&self) {
        let ping = Request::control(Kind::Ping, 2 * DEAD_AFTER, &[]);
        let (unread, _answer) = Single::new();
        self.send(&ping, Waiter::new(unread, 0));
    }

    fn send(&self, request: &Request<'_>, waiter: Waiter) {
        if request.header.len() + request.operand.len() > PAYLOAD_BYTES_MAX {
            return waiter.answer(Err(LinkError::NotSent("it is too large to be sent")));
        }
        let id = self.next_request.fetch_add(1, Ordering::Relaxed);
        let sent_at = now();
        let (mint, named) = {
            let mut pending = self.pending.lock();
            if pending.closed {
                drop(pending);
                return waiter.answer(Err(LinkError::NotSent("the connection has ended")));
            }
            let Some(mint) = self.mint_of(&pending, request, sent_at) else {
                drop(pending);
                return waiter.answer(Err(LinkError::NotSent("its clock is not known yet")));
            };
            let deadline = sent_at + request.budget;
            let call = Call { waiter, sent_at, deadline, told_silent: false, told_overdue: false };
            pending.calls.insert(id, call);
            (mint, self.name_bucket(&mut pending, request.bucket))
        };
        if let Err(refused) = named.and_then(|()| self.push(id, request, mint)) {
            let call = self.pending.lock().calls.remove(&id);
            if let Some(call) = call {
                let why = match refused {
                    Refused::Full => "the connection has too many bytes queued",
                    Refused::Closed => "the connection has ended",
                };
                call.waiter.answer(Err(LinkError::NotSent(why)));
            }
        }
    }

    /// Queues the bucket's name before its first use. Under the lock of `pending`, so that no
    /// other sender's frame for that bucket can overtake the name.
    fn name_bucket(
        &self,
        pending: &mut Pending,
        bucket: Option<(u32, &str)>,
    ) -> Result<(), Refused> {
        let Some((id, name)) = bucket.filter(|(id, _)| !pending.named.contains(id)) else {
            return Ok(());
        };
        self.push_name(id, name)?;
        pending.named.insert(id);
        Ok(())
    }

    fn push_name(&self, id: u32, name: &str) -> Result<(), Refused> {
        let header = super::message::BucketName { id, name: name.to_owned() };
        let kind = Kind::Bucket as u8;
        let encode = |out: &mut _| encode_parts(out, kind, 0, 0, 0, 0, &header, &[]);
        self.outbound.push(encode).map(drop)
    }

    fn push(&self, id: u64, request: &Request<'_>, mint: u64) -> Result<(), Refused> {
        let budget_ms = u32::try_from(request.budget.as_millis()).unwrap_or(u32::MAX);
        let pushed = self.outbound.push(|out| {
            starling_protocol::encode_raw(
                out,
                request.kind as u8,
                request.flags,
                id,
                budget_ms,
                mint,
                request.header,
                request.operand,
            );
        });
        pushed.map(drop)
    }

    /// Reports what is late and ends what is past its deadline. `heard_at`: the last byte.
    pub(super) fn sweep(&self, heard_at: Instant) {
        let now = now();
        let mut late = Vec::new();
        let mut ended = Vec::new();
        {
            let mut pending = self.pending.lock();
            let silent = now.saturating_duration_since(heard_at) >= SILENCE;
            for (id, call) in &mut pending.calls {
                let waited = now.saturating_duration_since(call.sent_at);
                if now >= call.deadline {
                    ended.push(*id);
                    continue;
                }
                if silent && waited >= SILENCE && !call.told_silent {
                    call.told_silent = true;
                    late.push((call.waiter.sink.clone(), call.waiter.replica, Late::Silent));
                }
                if waited >= OVERDUE && !call.told_overdue {
                    call.told_overdue = true;
                    late.push((call.waiter.sink.clone(), call.waiter.replica, Late::Overdue));
                }
            }
        }
        for (sink, replica, why) in late {
            sink.late(replica, why);
        }
        for id in ended {
            let call = self.pending.lock().calls.remove(&id);
            if let Some(call) = call {
                call.waiter.answer(Err(LinkError::Deadline));
            }
        }
    }

    fn fail_all(&self) {
        let calls = {
            let mut pending = self.pending.lock();
            pending.closed = true;
            std::mem::take(&mut pending.calls)
        };
        self.outbound.close();
        for call in calls.into_values() {
            call.waiter.answer(Err(LinkError::ConnectionLost));
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The sink of a request with one answer.
struct Single(Mutex<Option<tokio::sync::oneshot::Sender<Result<Frame, LinkError>>>>);

impl Single {
    fn new() -> (Arc<Self>, tokio::sync::oneshot::Receiver<Result<Frame, LinkError>>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Arc::new(Self(Mutex::new(Some(sender)))), receiver)
    }
}

impl ReplySink for Single {
    fn reply(&self, _replica: u8, answer: Result<Frame, LinkError>) {
        if let Some(sender) = self.0.lock().take() {
            // The caller may have gone: then nobody wants the answer.
            let _unwanted = sender.send(answer);
        }
    }

    fn late(&self, _replica: u8, _late: Late) {}
}
