//! What may be in flight at once: the limits that turn a flood into early `Overloaded` answers.
//!
//! By bytes, so that memory does not grow. And by time: a request is turned away if those before it would keep it
//! waiting for half of the time it has. Begun all the same, it would end as a timeout, of whose outcome nobody knows, and cost
//! what the others need.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::time::now;

/// Charged per request on top of its bytes: its task, its counters, its frames.
const REQUEST_OVERHEAD_BYTES: usize = 2 * 1024;
/// This part of the account is for requests as they come, and never for what reads find: one client that takes no answers would keep out
/// everybody.
const FOR_REQUESTS: usize = 16;
/// So many requests are never too many for a node, however slow it seems.
const QUEUE_MIN: usize = 1024;
/// How long completed requests are counted for one figure of their rate.
const COUNTED_FOR: Duration = Duration::from_millis(50);
/// How much a new figure counts against the ones before.
const NEW_FIGURE: f64 = 0.2;

/// A shared account of bytes in flight.
#[derive(Debug, Clone)]
pub struct InFlight {
    account: Arc<Account>,
}

#[derive(Debug)]
struct Account {
    bytes: AtomicUsize,
    requests: AtomicUsize,
    completed: AtomicU64,
    bytes_max: usize,
    pace: Mutex<Pace>,
}

/// How fast requests are completed, as long as enough of them are in flight to tell.
#[derive(Debug, Default)]
struct Pace {
    /// Since when they are counted, and how many were completed by then.
    since: Option<(Instant, u64)>,
    per_s: Option<f64>,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overload {
    /// The bytes in flight would be more than allowed.
    #[error("too many bytes in flight on this node")]
    Bytes,
    /// It would wait for too long.
    #[error("more requests are waiting on this node than it can complete in time")]
    Queue,
}

/// One request's share: its place in the queue until it is carried out, its bytes until this is dropped.
#[derive(Debug)]
pub struct Share {
    account: Arc<Account>,
    bytes: usize,
    is_queued: bool,
}

impl InFlight {
    /// An account of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let account = Account {
            bytes: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            completed: AtomicU64::new(0),
            bytes_max,
            pace: Mutex::default(),
        };
        Self { account: Arc::new(account) }
    }

    /// Takes a share for a request of `payload` bytes that is to be answered within `budget`.
    ///
    /// # Errors
    /// [`Overload`]: it must not be begun.
    pub fn admit(&self, payload: usize, budget: Duration) -> Result<Share, Overload> {
        let account = &self.account;
        let before = account.requests.load(Ordering::Relaxed);
        let completed = account.completed.load(Ordering::Relaxed);
        // Only a flood takes the lock.
        if before >= QUEUE_MIN && account.pace.lock().wait(now(), before, completed) > budget / 2 {
            return Err(Overload::Queue);
        }
        let bytes = payload + REQUEST_OVERHEAD_BYTES;
        let held = account.bytes.fetch_add(bytes, Ordering::Relaxed);
        if held + bytes > account.bytes_max {
            account.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Overload::Bytes);
        }
        account.requests.fetch_add(1, Ordering::Relaxed);
        Ok(Share { account: account.clone(), bytes, is_queued: true })
    }

    /// Requests being carried out.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.account.requests.load(Ordering::Relaxed)
    }

    /// Whether every request is carried out and its answer is on its way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.account.bytes.load(Ordering::Relaxed) == 0
    }
}

/// Memory that a request turns out to need while it is carried out.
#[derive(Debug)]
pub struct Held {
    account: Arc<Account>,
    bytes: AtomicUsize,
    refused: AtomicBool,
}

impl InFlight {
    /// For one request; nothing is held yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held {
            account: self.account.clone(),
            bytes: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }
    }
}

impl Held {
    /// Charges `bytes` more, unless the account is full. What is small goes with the request's own charge.
    pub fn take(&self, bytes: usize) -> bool {
        if bytes <= REQUEST_OVERHEAD_BYTES {
            return true;
        }
        let before = self.account.bytes.fetch_add(bytes, Ordering::Relaxed);
        let for_requests = self.account.bytes_max / FOR_REQUESTS;
        let is_alone = before <= for_requests;
        let max = self.account.bytes_max - if is_alone { 0 } else { for_requests };
        if before + bytes > max {
            self.account.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.refused.store(true, Ordering::Relaxed);
            return false;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    /// Whether there was no room for something.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Share {
    /// The request is carried out. That its client does not take the answer keeps nobody else waiting.
    pub fn completed(&mut self) {
        if !std::mem::take(&mut self.is_queued) {
            return;
        }
        self.account.completed.fetch_add(1, Ordering::Relaxed);
        if self.account.requests.fetch_sub(1, Ordering::Relaxed) == QUEUE_MIN {
            *self.account.pace.lock() = Pace::default();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.completed();
        self.account.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Pace {
    /// How long a request waits for the `before` that are in flight. Nothing is known at first.
    fn wait(&mut self, now: Instant, before: usize, completed: u64) -> Duration {
        match self.since {
            None => self.since = Some((now, completed)),
            Some((since, had)) if now.saturating_duration_since(since) >= COUNTED_FOR => {
                let counted = completed.saturating_sub(had) as f64;
                let figure = counted / now.saturating_duration_since(since).as_secs_f64();
                let per_s =
                    self.per_s.map_or(figure, |per_s| per_s + (figure - per_s) * NEW_FIGURE);
                (self.since, self.per_s) = (Some((now, completed)), Some(per_s));
            }
            Some(_) => {}
        }
        let wait_s = self.per_s.map_or(0.0, |per_s| before as f64 / per_s);
        Duration::try_from_secs_f64(wait_s).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{COUNTED_FOR, InFlight, Overload, Pace, QUEUE_MIN, Share};
    use crate::time::now;

    const BUDGET: Duration = Duration::from_secs(2);

    #[test]
    fn who_would_wait_for_too_long_is_told_from_who_would_not() {
        let (begin, mut pace) = (now(), Pace::default());
        assert_eq!(pace.wait(begin, 5_000, 0), Duration::ZERO, "nothing is known yet");
        let at = begin + COUNTED_FOR;
        assert_eq!(pace.wait(at, 5_000, 50), Duration::from_secs(5), "1,000 a second");
        // Ten times as fast: it takes some figures until that is believed.
        let mut waits = Vec::new();
        for round in 1..=20 {
            waits.push(pace.wait(at + COUNTED_FOR * round, 5_000, 50 + 500 * u64::from(round)));
        }
        assert!(waits[0] > BUDGET / 2 && waits[19] < BUDGET / 2, "{waits:?}");
    }

    #[test]
    fn a_node_that_completes_nothing_takes_no_more_than_the_least_queue() {
        let (begin, mut pace) = (now(), Pace::default());
        pace.wait(begin, QUEUE_MIN, 0);
        assert_eq!(pace.wait(begin + COUNTED_FOR, QUEUE_MIN, 0), Duration::MAX);
        let account = InFlight::new(usize::MAX);
        let admitted: Vec<_> = (0..QUEUE_MIN).map(|_| account.admit(1, BUDGET)).collect();
        assert!(admitted.iter().all(Result::is_ok));
        *account.account.pace.lock() = pace;
        assert_eq!(account.admit(1, BUDGET).err(), Some(Overload::Queue));
        drop(admitted);
        assert!(account.admit(1, BUDGET).is_ok(), "the flood is over");
    }

    #[test]
    fn answers_that_nobody_takes_are_not_a_queue() {
        let account = InFlight::new(usize::MAX);
        let mut untaken: Vec<_> =
            (0..2 * QUEUE_MIN).flat_map(|_| account.admit(1, BUDGET)).collect();
        assert_eq!(untaken.len(), 2 * QUEUE_MIN);
        untaken.iter_mut().for_each(Share::completed);
        assert_eq!((account.requests(), account.is_empty()), (0, false));
        drop(untaken);
        assert_eq!((account.requests(), account.is_empty()), (0, true));
    }

    #[test]
    fn what_reads_find_leaves_room_for_requests() {
        let account = InFlight::new(64 << 20);
        let held = account.hold();
        let found = (0..200).filter(|_| held.take(512 << 10)).count();
        assert_eq!(found, 120, "15 of 16 parts");
        assert!(account.admit(1, BUDGET).is_ok());
        let alone = InFlight::new(8 << 20).hold();
        assert!(alone.take(8 << 20), "nobody else needs it");
    }

    #[test]
    fn bytes_are_bounded_whatever_the_pace() {
        let account = InFlight::new(10_000);
        let share = account.admit(5_000, BUDGET);
        assert_eq!(account.admit(5_000, BUDGET).err(), Some(Overload::Bytes));
        drop(share);
        assert!(account.admit(5_000, BUDGET).is_ok());
    }
}
