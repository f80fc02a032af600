//! Puts sent down one connection without waiting for their answers, and what becomes of them.
//!
//! The client library would slow down, ask another node or try again; here one node gets all that it is sent. No two pipelines share a key.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use starling_node::time::now;
use starling_protocol::{
    FrameDecoder, Level, Request, Response, WireError, decode_header, encode_parts, kind,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::cluster::LOOK_EVERY;
use crate::session::{FRAME_BYTES_MAX, Session, next_operation};

/// How often the puts are sent that have become due.
const TICK: Duration = Duration::from_millis(2);
/// The most puts of one piece for the socket.
const AT_ONCE_MAX: usize = 64;

/// When the next put is sent.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// As soon as fewer than so many are unanswered.
    Window(usize),
    /// So many a second, whatever is unanswered.
    PerSecond(f64),
}

/// What a pipeline sends.
#[derive(Clone, Debug)]
pub struct Puts {
    /// Keys begin with it.
    pub prefix: String,
    /// So many keys, one after the other and over again.
    pub keys: u64,
    /// Every value.
    pub value: Bytes,
    /// When they are sent.
    pub pace: Pace,
    /// How long the node may work on each.
    pub budget: Duration,
}

/// What became of the puts that were sent so far.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// Sent.
    pub sent: u64,
    /// Acknowledged, by number.
    pub acknowledged: Vec<u64>,
    /// Answered `Overloaded`, which is not done: how long after sending, in microseconds.
    pub refused_after_us: Vec<u32>,
    /// Timed out: nobody knows.
    pub unknown: u64,
    /// Answered otherwise, with the last such answer.
    pub other: u64,
    /// See `other`.
    pub last_other: Option<String>,
}

/// A pipeline that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Pipeline {
    shared: Arc<Shared>,
    stop: CancellationToken,
    sending: JoinHandle<()>,
    receiving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    puts: Puts,
    bucket: u32,
    fates: Mutex<Fates>,
    unanswered: Mutex<HashMap<u64, Instant>>,
    window: Semaphore,
    /// One more was answered.
    answered: Notify,
}

impl Pipeline {
    /// Begins on the connection of a session, in its bucket.
    pub fn start(session: Session, puts: Puts) -> Pipeline {
        let (reader, writer, bucket) = session.into_parts();
        let window = match puts.pace {
            Pace::Window(window) => Semaphore::new(window),
            Pace::PerSecond(_) => Semaphore::new(0),
        };
        let (fates, unanswered) = (Mutex::default(), Mutex::default());
        let answered = Notify::new();
        let shared = Arc::new(Shared { puts, bucket, fates, unanswered, window, answered });
        let stop = CancellationToken::new();
        let sending = tokio::spawn(send(shared.clone(), writer, stop.clone()));
        let receiving = tokio::spawn(receive(shared.clone(), reader));
        Pipeline { shared, stop, sending, receiving }
    }

    /// Acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.fates.lock().acknowledged.len()
    }

    /// Waits until so many are acknowledged.
    ///
    /// # Panics
    /// If they are not after `within`.
    pub async fn until_acknowledged(&self, count: usize, within: Duration) {
        let until = now() + within;
        while self.acknowledged() < count {
            assert!(now() < until, "only {} acknowledged after {within:?}", self.acknowledged());
            sleep(LOOK_EVERY).await;
        }
    }

    /// Sends no more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Sends no more, and waits until everything sent is answered.
    ///
    /// # Errors
    /// The node closed the connection, or leaves puts unanswered for longer than `within`.
    pub async fn finish(mut self, within: Duration) -> Result<Fates, String> {
        self.stop();
        let all = async {
            (&mut self.sending).await.expect("sending does not panic");
            (&mut self.receiving).await.expect("receiving does not panic");
        };
        let ended = tokio::time::timeout(within, all).await;
        let unanswered = self.shared.unanswered.lock().len();
        match (ended, unanswered) {
            (Ok(()), 0) => Ok(std::mem::take(&mut *self.shared.fates.lock())),
            (Ok(()), left) => Err(format!("the node closed the connection and left {left} puts")),
            (Err(_), left) => Err(format!("{left} puts are not answered after {within:?}")),
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.sending.abort();
        self.receiving.abort();
    }
}

impl Fates {
    /// Adds what became of other puts.
    pub fn join(&mut self, other: Fates) {
        self.sent += other.sent;
        self.acknowledged.extend(other.acknowledged);
        self.refused_after_us.extend(other.refused_after_us);
        self.unknown += other.unknown;
        self.other += other.other;
        self.last_other = self.last_other.take().or(other.last_other);
    }
}

impl Puts {
    /// The key of put `number`.
    #[must_use]
    pub fn key(&self, number: u64) -> String {
        format!("{}-{}", self.prefix, number % self.keys)
    }
}

impl Shared {
    fn encode(&self, number: u64, out: &mut BytesMut) {
        let request = Request::Put {
            bucket: self.bucket,
            key: self.puts.key(number).into(),
            level: Level::Quorum,
            context: None,
            operation: next_operation(),
        };
        let budget_ms = u32::try_from(self.puts.budget.as_millis()).unwrap_or(u32::MAX);
        encode_parts(out, kind::REQUEST, 0, number, budget_ms, 0, &request, &self.puts.value);
    }

    fn note(&self, number: u64, response: Response) {
        let Some(sent_at) = self.unanswered.lock().remove(&number) else {
            panic!("put {number} is answered twice, or was never sent: {response:?}");
        };
        let mut fates = self.fates.lock();
        match response {
            Response::Written { .. } => fates.acknowledged.push(number),
            Response::Error(WireError::Overloaded { .. }) => {
                let after = now().saturating_duration_since(sent_at);
                let us = u32::try_from(after.as_micros()).unwrap_or(u32::MAX);
                fates.refused_after_us.push(us);
            }
            Response::Error(WireError::Timeout { .. } | WireError::WriteFailed { .. }) => {
                fates.unknown += 1;
            }
            other => {
                fates.other += 1;
                fates.last_other = Some(format!("{other:?}"));
            }
        }
    }
}

async fn send(shared: Arc<Shared>, mut writer: impl AsyncWrite + Unpin, stop: CancellationToken) {
    let began = now();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0_u64;
    let mut out = BytesMut::new();
    while !stop.is_cancelled() {
        let due = match shared.puts.pace {
            Pace::Window(_) => {
                let one = tokio::select! {
                    permit = shared.window.acquire() => permit.expect("it is never closed"),
                    () = stop.cancelled() => break,
                };
                one.forget();
                1 + shared.window.forget_permits(AT_ONCE_MAX - 1)
            }
            Pace::PerSecond(rate) => {
                let due = (now() - began).as_secs_f64() * rate - sent as f64;
                if due < 1.0 {
                    ticks.tick().await;
                    continue;
                }
                AT_ONCE_MAX.min(due as usize)
            }
        };
        out.clear();
        for number in sent..sent + due as u64 {
            shared.encode(number, &mut out);
        }
        let at = now();
        shared.unanswered.lock().extend((sent..sent + due as u64).map(|number| (number, at)));
        sent += due as u64;
        shared.fates.lock().sent = sent;
        if writer.write_all(&out).await.is_err() {
            // What is missing shows as unanswered.
            return;
        }
    }
    // A node answers nobody who has closed.
    while !shared.unanswered.lock().is_empty() {
        shared.answered.notified().await;
    }
}

async fn receive(shared: Arc<Shared>, mut reader: impl AsyncRead + Unpin) {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut received = BytesMut::new();
    loop {
        while let Some(frame) = decoder.next(&mut received).expect("a node sends whole frames") {
            let response = decode_header(&frame.header).expect("answers decode");
            shared.note(frame.request_id, response);
            shared.window.add_permits(1);
            shared.answered.notify_one();
        }
        match reader.read_buf(&mut received).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
