//! The puts that this node leads: those of one moment become one write of the store.
//!
//! Invariant: every put that is taken is answered once. A put that would have to wait, for the disk or
//! for the clock's first number, leaves its group and holds up nobody.
//!
//! At most one group is being written on the async workers at a time: writers that meet in the store
//! would only wait for each other there, and while they wait the next group grows.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_storage::{NotLeading, Put, PutError, PutRequest, Replica, StoreError, Tier};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::blocking::Blocking;
use crate::time::now;

/// Puts of one group: a worker is theirs for less than a millisecond.
const GROUP_MAX: usize = 64;
/// How often puts look whether the store takes writes again.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// See the module.
#[derive(Clone)]
pub(super) struct Leading {
    replica: Arc<Replica>,
    blocking: Blocking,
    queue: Arc<Mutex<Queue>>,
}

/// Bounded by the node's limit on requests in flight.
#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// A task drains it, and will look at it once more.
    draining: bool,
}

struct Waiting {
    request: PutRequest,
    begin_by: Instant,
    done: oneshot::Sender<Result<Put, PutError>>,
}

impl Leading {
    pub(super) fn new(replica: Arc<Replica>, blocking: Blocking) -> Self {
        Self { replica, blocking, queue: Arc::default() }
    }

    /// Leads one put, or refuses it once `begin_by` has passed. It may wait so long for a clock that has
    /// just started.
    ///
    /// # Errors
    /// [`PutError`]; never `NotCached`.
    pub(super) async fn put(
        &self,
        request: PutRequest,
        begin_by: Instant,
    ) -> Result<Put, PutError> {
        let (done, outcome) = oneshot::channel();
        let is_first = {
            let mut queue = self.queue.lock();
            queue.waiting.push(Waiting { request, begin_by, done });
            !std::mem::replace(&mut queue.draining, true)
        };
        if is_first {
            let leading = self.clone();
            // A task of its own: the request that happens to be first may be given up at any time.
            tokio::spawn(async move { leading.drain().await });
        }
        outcome.await.expect("a put that was taken is answered")
    }

    async fn drain(&self) {
        loop {
            // Requests that are ready now join the group.
            tokio::task::yield_now().await;
            let group = {
                let mut queue = self.queue.lock();
                if queue.waiting.is_empty() {
                    queue.draining = false;
                    return;
                }
                let count = queue.waiting.len().min(GROUP_MAX);
                queue.waiting.drain(..count).collect()
            };
            let late = put_all(&self.replica, group, Tier::Cached);
            if !late.is_empty() {
                let leading = self.clone();
                tokio::spawn(async move { leading.put_waiting(late).await });
            }
        }
    }

    async fn put_waiting(&self, mut group: Vec<Waiting>) {
        while !group.is_empty() {
            // What waited for too long is not begun, so it must not wait within the write.
            while self.replica.is_stalled() && group.iter().any(|put| now() < put.begin_by) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let replica = self.replica.clone();
            let lead = move || {
                replica.warm(group.iter().map(|put| &put.request.key));
                put_all(&replica, group, Tier::Any)
            };
            group = self.blocking.run(lead).await;
            if let Ok(wait_us @ 1..) = self.replica.clock().boot_wait_us() {
                tokio::time::sleep(Duration::from_micros(wait_us)).await;
            }
        }
    }
}

/// Answers those whose outcome is final, and returns the others.
fn put_all(replica: &Replica, group: Vec<Waiting>, tier: Tier) -> Vec<Waiting> {
    let began = now();
    let (group, too_late): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|put| began < put.begin_by);
    for put in too_late {
        crate::metrics::observe_shed("too_late");
        // A request that was given up waits for nothing.
        let _unwanted = put.done.send(Err(PutError::NotLeading(NotLeading::TooLate)));
    }
    let (requests, waiters): (Vec<_>, Vec<_>) =
        group.into_iter().map(|put| (put.request, (put.begin_by, put.done))).unzip();
    let outcomes = replica.put_all(&requests, tier);
    let mut late = Vec::new();
    for ((request, (begin_by, done)), outcome) in requests.into_iter().zip(waiters).zip(outcomes) {
        if may_still_be_led(&outcome, tier, begin_by) {
            late.push(Waiting { request, begin_by, done });
        } else {
            // The write stands even if its client is gone.
            let _client_is_gone = done.send(outcome);
        }
    }
    late
}

fn may_still_be_led(outcome: &Result<Put, PutError>, tier: Tier, begin_by: Instant) -> bool {
    match outcome {
        Err(PutError::NotLeading(NotLeading::Booting { wait_us })) => {
            now() + Duration::from_micros(*wait_us) < begin_by
        }
        Err(
            PutError::NotCached
            | PutError::NotLeading(NotLeading::Lease { .. })
            | PutError::Store(StoreError::Stalled),
        ) => tier == Tier::Cached,
        _ => false,
    }
}
