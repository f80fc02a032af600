//! One connection to one node: many requests in flight, one write for all that wait.
//!
//! Every call is answered exactly once: by the node, by its deadline, by the loss of the
//! connection, or, where the caller can ask elsewhere, by the node's silence.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use starling_protocol::{
    FrameDecoder, NodeClock, Request, Response, decode_header, encode_parts, kind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::seams::{Reader, Writer};

/// A node silent for this long with requests in flight is left: within 200 ms, as it takes a sweep to
/// notice.
pub(crate) const SILENCE: Duration = Duration::from_millis(175);
/// After so much silence a node is asked for a sign of life: one that is merely slow with a request, as with a
/// large value on a busy disk, answers that, and is not taken for silent.
const DOUBT: Duration = Duration::from_millis(75);
/// A node silent for this long may be at the other end of nothing: the connection is made anew.
const DEAD_AFTER: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_millis(25);
/// A write that a node has not begun by then it refuses: the client is about to ask another, and a write that
/// begins after its repetition was acknowledged, and perhaps deleted, would bring its value back.
const BEGIN_WITHIN: Duration = Duration::from_millis(150);
/// A node is given so much less time than the client waits: its own verdict, which says how many replicas
/// answered, then arrives before the client gives up.
const VERDICT_TRAVELS: Duration = Duration::from_millis(100);
/// What sits behind a large frame arrives later: by a second for as many bytes.
const BYTES_PER_SECOND: usize = 8 << 20;
/// Bytes that may wait to be sent.
const QUEUE_BYTES_MAX: usize = 32 << 20;
const FRAME_BYTES_MAX: usize = 128 << 20;
const READ_CHUNK: usize = 64 * 1024;
/// How long an abandoned or probing request keeps its place.
const PROBE_FOR: Duration = Duration::from_secs(3_600);

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// It surely was not sent.
    #[error("the connection is closed or its queue is full")]
    NotSent,
    /// The connection ended with the call in flight.
    #[error("the connection was lost")]
    Lost,
    /// The node has gone silent.
    #[error("the node has stopped answering")]
    Silent,
    /// The deadline passed.
    #[error("no answer in time")]
    Deadline,
    /// The answer does not decode.
    #[error("the answer is not understood")]
    Garbled,
    /// It was not sent: the node would have closed the connection, with the calls of others in flight.
    #[error("the request has {len} bytes; the node takes at most {}", accepts.frame_bytes_max)]
    TooLarge {
        /// Bytes of the frame.
        len: usize,
        /// What the node takes.
        accepts: Accepts,
    },
}

/// What a node takes, as its greeting says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepts {
    pub(crate) frame_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
}

type Answer = Result<(Response, Bytes), CallError>;

/// See the module.
pub(crate) struct Connection {
    state: Mutex<State>,
    wake: Notify,
}

/// A connection that somebody uses: it ends with the last of them, also where nobody came to use it
/// because the node did not answer its greeting.
pub(crate) struct Held(Arc<Connection>);

impl Deref for Held {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct State {
    out: BytesMut,
    calls: BTreeMap<u64, Call>,
    next_id: u64,
    closed: bool,
    heard_at: Instant,
    /// A sign of life was asked for since then.
    doubted: bool,
    silent: bool,
    latency_us: u64,
    began: Instant,
    clock: NodeClock,
    accepts: Accepts,
}

impl State {
    /// Milliseconds since the connection began.
    fn age_ms(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.began).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    fn observe_uptime(&mut self, uptime_ms: u64) {
        let age_ms = self.age_ms(now());
        self.clock.observe(uptime_ms, age_ms);
    }
}

struct Call {
    answer: Option<oneshot::Sender<Answer>>,
    sent_at: Instant,
    /// How much longer its frame takes than a small one.
    travels: Duration,
    deadline: Instant,
}

impl Connection {
    /// Starts the tasks of a connected socket. They end with the socket, or when it is held no more.
    pub(crate) fn start(reader: Reader, writer: Writer) -> Arc<Held> {
        let connection = Arc::new(Self {
            state: Mutex::new(State {
                out: BytesMut::new(),
                calls: BTreeMap::new(),
                next_id: 1,
                closed: false,
                heard_at: now(),
                doubted: false,
                silent: false,
                latency_us: 0,
                began: now(),
                clock: NodeClock::default(),
                // Until the greeting says it; a greeting is small.
                accepts: Accepts { frame_bytes_max: usize::MAX, value_bytes_max: usize::MAX },
            }),
            wake: Notify::new(),
        });
        let carried = connection.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = carried.write(writer) => {}
                () = carried.read(reader) => {}
                () = carried.sweep() => {}
            }
            carried.close();
        });
        Arc::new(Held(connection))
    }

    /// Sends a request and waits for its answer until `deadline`.
    pub(crate) async fn call(
        &self,
        request: &Request,
        operand: &[u8],
        deadline: Instant,
    ) -> Answer {
        let (answer, answered) = oneshot::channel();
        self.push(request, operand, deadline, Some(answer))?;
        answered.await.unwrap_or(Err(CallError::Lost))
    }

    /// Sends nothing from here on that the node does not take.
    pub(crate) fn greeted(&self, accepts: Accepts) {
        self.state.lock().accepts = accepts;
    }

    fn push(
        &self,
        request: &Request,
        operand: &[u8],
        deadline: Instant,
        answer: Option<oneshot::Sender<Answer>>,
    ) -> Result<(), CallError> {
        let sent_at = now();
        let remaining = deadline.saturating_duration_since(sent_at);
        let budget = remaining - VERDICT_TRAVELS.min(remaining / 8);
        let budget_ms = u32::try_from(budget.as_millis()).unwrap_or(u32::MAX).max(1);
        let mut state = self.state.lock();
        if state.closed || state.out.len() >= QUEUE_BYTES_MAX {
            return Err(CallError::NotSent);
        }
        let id = state.next_id;
        state.next_id += 1;
        let queued = state.out.len();
        let begin_by = match request {
            Request::Put { .. } | Request::Delete { .. } | Request::Restore { .. } => {
                state.clock.uptime(state.age_ms(sent_at))
            }
            _ => None,
        };
        let travels = travel_time(operand.len());
        let within = budget.min(BEGIN_WITHIN + travels).as_millis();
        let within = u64::try_from(within).unwrap_or(u64::MAX);
        let begin_by = begin_by.map_or(0, |uptime_ms| uptime_ms + within);
        encode_parts(&mut state.out, kind::REQUEST, 0, id, budget_ms, begin_by, request, operand);
        let (len, accepts) = (state.out.len() - queued, state.accepts);
        if len > accepts.frame_bytes_max {
            state.out.truncate(queued);
            return Err(CallError::TooLarge { len, accepts });
        }
        state.calls.insert(id, Call { answer, sent_at, travels, deadline });
        drop(state);
        if queued == 0 {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether new requests should go elsewhere if they can.
    pub(crate) fn is_silent(&self) -> bool {
        self.state.lock().silent
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// The moving average of answer times, times the requests in flight and one.
    pub(crate) fn load(&self) -> u64 {
        let state = self.state.lock();
        state.latency_us.saturating_mul(1 + state.calls.len() as u64)
    }

    /// Ends the connection; calls in flight are lost.
    fn close(&self) {
        let calls = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.calls)
        };
        self.wake.notify_one();
        for call in calls.into_values() {
            call.finish(Err(CallError::Lost));
        }
    }

    async fn write(&self, mut writer: Writer) {
        let mut burst = BytesMut::new();
        loop {
            {
                let mut state = self.state.lock();
                if state.closed {
                    return;
                }
                std::mem::swap(&mut state.out, &mut burst);
            }
            if burst.is_empty() {
                self.wake.notified().await;
                // A woken task runs before those that were ready already, and would write the
                // first frame alone: let them add theirs.
                tokio::task::yield_now().await;
                continue;
            }
            if writer.write_all(&burst).await.is_err() {
                return;
            }
            burst.clear();
        }
    }

    async fn read(&self, mut reader: Reader) {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        let mut received = BytesMut::new();
        loop {
            loop {
                match decoder.next(&mut received) {
                    Ok(Some(frame)) => {
                        let answer = match decode_header::<Response>(&frame.header) {
                            Ok(response) => Ok((response, frame.operand)),
                            Err(_) => Err(CallError::Garbled),
                        };
                        if frame.mint != 0 {
                            self.state.lock().observe_uptime(frame.mint);
                        }
                        self.answered(frame.request_id, answer);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "a node's answer is no frame; connection closed");
                        return;
                    }
                }
            }
            received.reserve(READ_CHUNK);
            match reader.read_buf(&mut received).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    let mut state = self.state.lock();
                    state.heard_at = now();
                    state.doubted = false;
                    state.silent = false;
                }
            }
        }
    }

    fn answered(&self, id: u64, answer: Answer) {
        let call = {
            let mut state = self.state.lock();
            let Some(call) = state.calls.remove(&id) else { return };
            let took = u64::try_from(call.sent_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            // Weight 1/8, as TCP's smoothed round-trip time (RFC 6298).
            let old = state.latency_us;
            state.latency_us =
                if old == 0 { took.max(1) } else { (old - old / 8 + took / 8).max(1) };
            call
        };
        call.finish(answer);
    }

    async fn sweep(&self) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_dead(now()) {
            ticks.tick().await;
            // The writer may be stuck on a node that reads nothing, and hear of nothing.
            if self.is_closed() {
                return;
            }
            let (ended, probe) = self.look(now());
            for (call, why) in ended {
                call.finish(Err(why));
            }
            if probe {
                // Answered as soon as the node is back, which ends its silence.
                // Where it cannot be sent, the next look asks for another.
                let _next_time = self.push(&Request::Topology, &[], now() + PROBE_FOR, None);
            }
        }
    }

    fn is_dead(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.silent && now.saturating_duration_since(state.heard_at) >= DEAD_AFTER
    }

    /// The calls that end now, and whether the node is to be asked for a sign of life.
    fn look(&self, now: Instant) -> (Vec<(Call, CallError)>, bool) {
        let mut state = self.state.lock();
        let quiet = now.saturating_duration_since(state.heard_at);
        let travels = state.calls.values().map(|call| call.travels).max().unwrap_or_default();
        let patience = SILENCE + travels;
        let waited = |call: &Call| now.saturating_duration_since(call.sent_at);
        let waiting = |call: &Call| waited(call) >= patience;
        let oldest = state.calls.values().next().map_or(Duration::ZERO, waited);
        state.silent |= quiet.min(oldest) >= patience;
        let in_doubt = quiet.min(oldest) >= DOUBT && !std::mem::replace(&mut state.doubted, true);
        let over: Vec<(u64, CallError)> = state
            .calls
            .iter()
            .filter_map(|(id, call)| {
                if now >= call.deadline {
                    Some((*id, CallError::Deadline))
                } else if state.silent && call.answer.is_some() && waiting(call) {
                    Some((*id, CallError::Silent))
                } else {
                    None
                }
            })
            .collect();
        let ended = over
            .into_iter()
            .filter_map(|(id, why)| state.calls.remove(&id).map(|call| (call, why)));
        let ended = ended.collect();
        let unasked = in_doubt || state.silent && state.calls.is_empty();
        (ended, unasked && !state.closed)
    }
}

impl Call {
    fn finish(self, answer: Answer) {
        if let Some(sender) = self.answer {
            // The caller may have gone: then nobody wants the answer.
            let _unwanted = sender.send(answer);
        }
    }
}

/// How much longer a frame of so many bytes may take than a small one.
pub(crate) fn travel_time(bytes: usize) -> Duration {
    let micros = bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND;
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

/// The present moment of the runtime's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place where the client reads monotonic time"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
