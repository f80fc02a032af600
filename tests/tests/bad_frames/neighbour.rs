//! A well-behaved client beside the bad ones: always with requests in flight, each of which it expects
//! to be answered, with what it wrote itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use starling_node::time::now;
use starling_protocol::{ContextToken, Level, Request, Response};
use starling_tests::Node;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::wire::{Raw, WITHIN, greeted, request, response};

/// The bucket that nobody else writes to.
pub const BUCKET: &str = "demo.neighbour";
/// Requests in flight, each about a key of its own.
const LANES: u64 = 16;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// See the module.
pub struct Neighbour {
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
    task: JoinHandle<Duration>,
}

/// One key's writer: puts a number, reads it, replaces it by the next.
#[derive(Default)]
struct Lane {
    number: u64,
    context: Option<ContextToken>,
    reading: bool,
}

impl Neighbour {
    /// Connects to the node and begins.
    pub async fn of(node: &Node) -> Neighbour {
        let (raw, bucket) = greeted(node, BUCKET).await;
        let (answered, stop) = (Arc::new(AtomicU64::new(0)), CancellationToken::new());
        let task = tokio::spawn(converse(raw, bucket, answered.clone(), stop.clone()));
        Neighbour { answered, stop, task }
    }

    /// Waits for answers to requests that were not even sent when this was called.
    pub async fn goes_on(&self) {
        let until = self.answered.load(Ordering::Relaxed) + 2 * LANES;
        let waiting = async {
            while self.answered.load(Ordering::Relaxed) < until && !self.task.is_finished() {
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(WITHIN, waiting).await.expect("a neighbour is answered all the while");
        assert!(!self.task.is_finished(), "the neighbour's connection has ended");
    }

    /// Takes the answers that are owed still. Returns how long the slowest of all took.
    pub async fn finish(self) -> Duration {
        self.stop.cancel();
        self.task.await.expect("every request of the neighbour is answered as it should be")
    }
}

async fn converse(
    mut raw: Raw,
    bucket: u32,
    answered: Arc<AtomicU64>,
    stop: CancellationToken,
) -> Duration {
    let mut lanes: Vec<Lane> = (0..LANES).map(|_| Lane::default()).collect();
    let mut in_flight: BTreeMap<u64, (u64, Instant)> = BTreeMap::new();
    let (mut next_id, mut slowest) = (10, Duration::ZERO);
    for lane in 0..LANES {
        raw.send(&lanes[lane as usize].ask(next_id, bucket, lane)).await;
        in_flight.insert(next_id, (lane, now()));
        next_id += 1;
    }
    while !in_flight.is_empty() {
        let answer = raw.next().await.expect("the node keeps the connection");
        let asked = in_flight.remove(&answer.request_id);
        let (lane, asked_at) = asked.expect("one answer to each request");
        slowest = slowest.max(now().saturating_duration_since(asked_at));
        lanes[lane as usize].take(response(&answer), answer.operand);
        answered.fetch_add(1, Ordering::Relaxed);
        if !stop.is_cancelled() {
            raw.send(&lanes[lane as usize].ask(next_id, bucket, lane)).await;
            in_flight.insert(next_id, (lane, now()));
            next_id += 1;
        }
    }
    slowest
}

impl Lane {
    fn ask(&self, id: u64, bucket: u32, lane: u64) -> Vec<u8> {
        let (key, level) = (Bytes::from(format!("lane {lane}")), Level::Quorum);
        if self.reading {
            return request(id, &Request::Get { bucket, key, level, floor: None }, b"");
        }
        let operation = u128::from(id).to_le_bytes();
        let put = Request::Put { bucket, key, level, context: self.context.clone(), operation };
        request(id, &put, self.number.to_string().as_bytes())
    }

    fn take(&mut self, answer: Response, operand: Bytes) {
        match (self.reading, answer) {
            (false, Response::Written { context }) => {
                self.context = Some(context);
                self.reading = true;
            }
            (true, Response::Value { sibling_lens, context }) => {
                assert_eq!((sibling_lens.len(), operand), (1, self.number.to_string().into()));
                self.context = Some(context);
                self.number += 1;
                self.reading = false;
            }
            (_, other) => panic!("the neighbour is answered {other:?}"),
        }
    }
}
