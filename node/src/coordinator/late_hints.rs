//! Hints for replicas that failed or did not answer in time.
//!
//! Many writes may be told at one moment that a peer is gone, on a worker that must not wait for a disk: their
//! hints wait here, and become one write of the store.
//!
//! Invariant: a hint that was taken is kept, or the node ends. A node that dies first leaves that to reads, and to
//! comparing replicas.

use std::sync::Arc;

use parking_lot::Mutex;
use starling_ring::HostId;
use starling_storage::{Hint, Replica};
use tracing::error;

use crate::blocking::Blocking;

/// See the module.
#[derive(Clone)]
pub struct LateHints {
    replica: Arc<Replica>,
    blocking: Blocking,
    queue: Arc<Mutex<Queue>>,
}

/// Bounded by the writes in flight.
#[derive(Default)]
struct Queue {
    waiting: Vec<(HostId, Hint)>,
    /// A task drains it, and will look at it once more.
    draining: bool,
}

impl LateHints {
    pub(super) fn new(replica: Arc<Replica>, blocking: Blocking) -> Self {
        Self { replica, blocking, queue: Arc::default() }
    }

    /// Takes a hint.
    pub(super) fn keep(&self, target: HostId, hint: Hint) {
        let is_first = {
            let mut queue = self.queue.lock();
            queue.waiting.push((target, hint));
            !std::mem::replace(&mut queue.draining, true)
        };
        if is_first {
            let hints = self.clone();
            tokio::spawn(async move { hints.drain().await });
        }
    }

    /// Whether every hint that was taken is kept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.queue.lock().draining
    }

    async fn drain(&self) {
        loop {
            let hints = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.draining = false;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let count = hints.len();
            let replica = self.replica.clone();
            match self.blocking.run(move || replica.hints().keep_all(&hints)).await {
                Ok(()) => crate::metrics::observe_hints_stored(count),
                Err(error) => {
                    error!(count, %error, "cannot store hints; their targets need repair")
                }
            }
        }
    }
}
