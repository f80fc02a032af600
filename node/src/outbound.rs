//! The sending half of a connection: one growing buffer that many tasks append frames to and one
//! task writes from.
//!
//! Senders encode straight into the buffer, so a burst of frames costs one `write(2)` and no
//! allocation per frame. It is bounded by bytes, counting those being written: a full buffer
//! refuses, it never grows on. A receiver that takes nothing, or next to nothing, may be given up.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;

/// Buffers kept for reuse are cut back to this size after a large burst.
const RETAINED_BYTES_MAX: usize = 256 * 1024;

/// How long a receiver may keep a burst from leaving,
const PATIENCE: Duration = Duration::from_secs(30);
/// and how slowly it may take a large one, in bytes a second.
const PACE_MIN: usize = 64 * 1024;

/// Why a frame was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue holds as many bytes as it may.
    #[error("the connection has too many bytes queued")]
    Full,
    /// The connection has ended.
    #[error("the connection is closed")]
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Outbound {
    queue: Mutex<Queue>,
    wake: Notify,
    drained: Notify,
    bytes_max: usize,
    patient: bool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: BytesMut,
    writing: usize,
    /// Bytes written since the beginning.
    written: u64,
    closed: bool,
}

impl Outbound {
    /// A queue of at most about `bytes_max` bytes: a frame is taken while less than that waits.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Notify::new(),
            drained: Notify::new(),
            bytes_max,
            patient: true,
        }
    }

    /// One that gives up a receiver which does not take a burst within [`within`].
    #[must_use]
    pub fn impatient(bytes_max: usize) -> Self {
        Self { patient: false, ..Self::new(bytes_max) }
    }

    /// Appends what `encode` writes. Returns the position of its end, for [`Outbound::written`].
    ///
    /// # Errors
    /// [`Refused`]; then nothing was appended.
    pub fn push(&self, encode: impl FnOnce(&mut BytesMut)) -> Result<u64, Refused> {
        let (was_empty, end) = {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(Refused::Closed);
            }
            if queue.waiting.len() + queue.writing >= self.bytes_max {
                return Err(Refused::Full);
            }
            let was_empty = queue.waiting.is_empty();
            encode(&mut queue.waiting);
            (was_empty, queue.written + (queue.writing + queue.waiting.len()) as u64)
        };
        if was_empty {
            self.wake.notify_one();
        }
        Ok(end)
    }

    /// Appends what `encode` writes as soon as there is room.
    ///
    /// # Errors
    /// [`Refused::Closed`].
    pub async fn push_when_room(&self, encode: impl Fn(&mut BytesMut)) -> Result<u64, Refused> {
        loop {
            match self.push(&encode) {
                Err(Refused::Full) => self.has_room().await,
                taken => return taken,
            }
        }
    }

    /// Ends the queue: what waits is still written, later frames are refused.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
        self.drained.notify_waiters();
    }

    /// Returns once no more than half of the limit is queued, or the queue is closed: how a
    /// reader holds back a client that sends faster than it takes answers.
    pub async fn has_room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let queue = self.queue.lock();
                if queue.closed || queue.waiting.len() + queue.writing <= self.bytes_max / 2 {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Returns once everything pushed so far is written, or the queue is closed.
    pub async fn flushed(&self) {
        let end = {
            let queue = self.queue.lock();
            queue.written + (queue.writing + queue.waiting.len()) as u64
        };
        self.written(end).await;
    }

    /// Returns once everything up to a position is written, or the queue is closed.
    pub async fn written(&self, end: u64) {
        loop {
            let drained = self.drained.notified();
            {
                let queue = self.queue.lock();
                if queue.closed || queue.written >= end {
                    return;
                }
            }
            drained.await;
        }
    }

    /// Writes everything pushed until the queue is closed and empty.
    ///
    /// # Errors
    /// The first write error; the queue is then closed.
    pub async fn write_to(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let result = self.drain(stream).await;
        if result.is_err() {
            self.close();
        }
        result
    }

    async fn drain(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut burst = BytesMut::new();
        loop {
            let closed = {
                let mut queue = self.queue.lock();
                std::mem::swap(&mut queue.waiting, &mut burst);
                queue.writing = burst.len();
                queue.closed
            };
            if burst.is_empty() {
                if closed {
                    return stream.shutdown().await;
                }
                self.wake.notified().await;
                // A woken task runs before those that were ready already, and would write the
                // first frame alone: let them add theirs.
                tokio::task::yield_now().await;
                continue;
            }
            if self.patient {
                stream.write_all(&burst).await?;
            } else {
                let written = tokio::time::timeout(within(burst.len()), stream.write_all(&burst));
                written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            }
            let written = burst.len() as u64;
            burst.clear();
            if burst.capacity() > RETAINED_BYTES_MAX {
                burst = BytesMut::new();
            }
            {
                let mut queue = self.queue.lock();
                queue.writing = 0;
                queue.written += written;
            }
            self.drained.notify_waiters();
        }
    }
}

/// How long `bytes` may take to pass through a connection whose other end is not given up.
#[must_use]
pub fn within(bytes: usize) -> Duration {
    PATIENCE + Duration::from_secs((bytes / PACE_MIN) as u64)
}
