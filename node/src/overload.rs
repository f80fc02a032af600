//! What may be in flight at once: the limits that turn a flood into early `Overloaded` answers.
//!
//! By bytes, so that memory does not grow. And by time: a request is turned away if those before it would keep it
//! waiting for half of the time it has. Begun all the same, it would end as a timeout, of whose outcome nobody knows, and cost
//! what the others need.
//!
//! Five eighths of either limit are for whoever comes first. One is for requests that are the only one of their connection, large as they may
//! be. The last two are shared equally by the connections that sent something lately, and one more: so a connection that floods, or many of
//! them, never use up the share of one that does not, and of one that comes next. A peer's connection counts as one, for all the writes that it
//! forwards. A frame counts from its first bytes on, and a large answer until it has left.
//!
//! Requests that are admitted at the same moment may exceed the queue's limit by one per worker; bytes never exceed theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::time::now;

/// Charged per request on top of its bytes: its task, its counters, its frames.
const REQUEST_OVERHEAD_BYTES: usize = 2 * 1024;
/// Every connection may have received so much that is not a request yet.
const RECEIVED_WITHOUT_CHARGE: usize = 128 * 1024;
/// So many requests are never too many, however slow a node seems; of one connection alone, five eighths of them.
const QUEUE_MIN: usize = 1024;
/// One part in so many is shared equally,
const SHARED_PART: usize = 4;
/// and one in so many is for the only requests of their connections.
const SINGLE_PART: usize = 8;
/// A connection has sent something lately if it did so in this period or the one before.
const PERIOD: Duration = Duration::from_millis(500);
/// How long completed requests are counted for one figure of their rate.
const COUNTED_FOR: Duration = Duration::from_millis(50);
/// How much a new figure counts against the ones before.
const NEW_FIGURE: f64 = 0.2;

/// What all connections of a node have in flight, and may have.
#[derive(Debug, Clone)]
pub struct InFlight {
    account: Arc<Account>,
}

/// One connection's part in it.
#[derive(Debug, Clone)]
pub struct PerConnection {
    account: Arc<Account>,
    own: Arc<OwnUsage>,
}

#[derive(Debug)]
struct Account {
    all: Usage,
    unanswered: AtomicUsize,
    completed: AtomicU64,
    bytes_max: usize,
    pace: Mutex<Pace>,
    began: Instant,
    active: Active,
}

/// Counts the connections that sent something lately.
#[derive(Debug, Default)]
struct Active {
    period: AtomicU64,
    in_period: AtomicUsize,
    in_period_before: AtomicUsize,
}

#[derive(Debug, Default)]
struct Usage {
    bytes: AtomicUsize,
    /// Requests being carried out.
    queued: AtomicUsize,
}

/// What one connection uses.
#[derive(Debug, Default)]
struct OwnUsage {
    usage: Usage,
    /// The last period in which it sent something, and one: 0 is never.
    active_in: AtomicU64,
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
    /// The bytes in flight would be more than allowed, of the node or of this connection.
    #[error("the bytes in flight on this node leave no room for more of this connection's")]
    Bytes,
    /// It would wait for too long, or this connection has its share of those that wait.
    #[error("this node cannot complete more of this connection's requests in time")]
    Queue,
}

/// One request's share: its place in the queue until it is carried out, its bytes until this is dropped.
#[derive(Debug)]
pub struct Share {
    connection: PerConnection,
    bytes: usize,
    is_queued: bool,
}

/// What is received of a frame that is not whole yet.
#[derive(Debug)]
pub struct Receiving {
    connection: PerConnection,
    bytes: usize,
}

/// Memory that a request turns out to need while it is carried out.
#[derive(Debug)]
pub struct Held {
    connection: PerConnection,
    /// What the request was charged before.
    request_bytes: usize,
    bytes: AtomicUsize,
    refused: AtomicBool,
}

impl InFlight {
    /// An account of `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let account = Account {
            all: Usage::default(),
            unanswered: AtomicUsize::new(0),
            completed: AtomicU64::new(0),
            bytes_max,
            pace: Mutex::default(),
            began: now(),
            active: Active::default(),
        };
        Self { account: Arc::new(account) }
    }

    /// For one more connection.
    #[must_use]
    pub fn connection(&self) -> PerConnection {
        PerConnection { account: self.account.clone(), own: Arc::default() }
    }

    /// Requests being carried out.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.account.all.queued.load(Ordering::Relaxed)
    }

    /// Whether every request is answered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.account.unanswered.load(Ordering::Relaxed) == 0
    }
}

impl PerConnection {
    /// Takes a share for a request of `payload` bytes that is to be answered within `budget`.
    ///
    /// # Errors
    /// [`Overload`]: it must not be begun.
    pub fn admit(&self, payload: usize, budget: Duration) -> Result<Share, Overload> {
        let now = now();
        let period =
            now.saturating_duration_since(self.account.began).as_millis() / PERIOD.as_millis();
        self.account.active.note(&self.own, u64::try_from(period).unwrap_or(u64::MAX));
        if !self.is_in_time(now, budget) {
            return Err(Overload::Queue);
        }
        let bytes = payload + REQUEST_OVERHEAD_BYTES;
        if !self.charge(bytes, 0) {
            return Err(Overload::Bytes);
        }
        self.account.unanswered.fetch_add(1, Ordering::Relaxed);
        self.account.all.queued.fetch_add(1, Ordering::Relaxed);
        self.own.usage.queued.fetch_add(1, Ordering::Relaxed);
        Ok(Share { connection: self.clone(), bytes, is_queued: true })
    }

    /// For what is received on this connection; nothing is yet.
    #[must_use]
    pub fn receiving(&self) -> Receiving {
        Receiving { connection: self.clone(), bytes: 0 }
    }

    /// Whether a request would be answered in time behind those that are being carried out, and there is a place for one of this connection.
    fn is_in_time(&self, now: Instant, budget: Duration) -> bool {
        let queued = self.account.all.queued.load(Ordering::Relaxed) + 1;
        let own = self.own.usage.queued.load(Ordering::Relaxed);
        let fits = |limit| self.account.fits(limit, queued, own, 1);
        // Only a flood takes the lock.
        fits(QUEUE_MIN) || {
            let completed = self.account.completed.load(Ordering::Relaxed);
            fits(self.account.pace.lock().in_time(now, completed, budget / 2))
        }
    }

    /// Charges `bytes` to a request that was charged `request_bytes` before, unless that is too much.
    fn charge(&self, bytes: usize, request_bytes: usize) -> bool {
        let account = &self.account;
        let others = self.own.usage.bytes.load(Ordering::Relaxed).saturating_sub(request_bytes);
        let add = |all: usize| {
            let all = all.checked_add(bytes)?;
            account.fits(account.bytes_max, all, others, request_bytes + bytes).then_some(all)
        };
        // Nothing is added and taken back: what is refused must not keep others out meanwhile.
        let fits =
            account.all.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        if fits {
            self.own.usage.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.account.all.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.own.usage.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Account {
    /// Whether all together may use `all` of `limit`, if this is for a request that needs `request` of it and the `others` of its connection
    /// have theirs. The only request of a connection may be larger than a share if it leaves all of them, and need all there is if nobody else has
    /// anything.
    fn fits(&self, limit: usize, all: usize, others: usize, request: usize) -> bool {
        let (shared, single) = (limit / SHARED_PART, limit / SINGLE_PART);
        let share = (shared / (self.active.count() + 1)).max(1);
        let alone = all == request;
        let only = others == 0 && (alone || all <= limit - shared);
        all <= limit && (all <= limit - shared - single || others + request <= share || only)
    }
}

impl Active {
    /// A connection sends something in `period`.
    fn note(&self, own: &OwnUsage, period: u64) {
        let last = self.period.load(Ordering::Relaxed);
        if period > last
            && self
                .period
                .compare_exchange(last, period, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let counted = self.in_period.swap(0, Ordering::Relaxed);
            let before = if period == last + 1 { counted } else { 0 };
            self.in_period_before.store(before, Ordering::Relaxed);
        }
        if own.active_in.swap(period + 1, Ordering::Relaxed) != period + 1 {
            self.in_period.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> usize {
        let before = self.in_period_before.load(Ordering::Relaxed);
        self.in_period.load(Ordering::Relaxed).max(before)
    }
}

impl Share {
    /// For what the request needs besides; nothing is held yet.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held {
            connection: self.connection.clone(),
            request_bytes: self.bytes,
            bytes: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
        }
    }

    /// The request is carried out. That its client does not take the answer keeps nobody else waiting.
    pub fn completed(&mut self) {
        if !std::mem::take(&mut self.is_queued) {
            return;
        }
        let PerConnection { account, own } = &self.connection;
        account.completed.fetch_add(1, Ordering::Relaxed);
        own.usage.queued.fetch_sub(1, Ordering::Relaxed);
        if account.all.queued.fetch_sub(1, Ordering::Relaxed) == QUEUE_MIN / 2 {
            *account.pace.lock() = Pace::default();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.completed();
        self.connection.give_back(self.bytes);
        self.connection.account.unanswered.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Receiving {
    /// Charges for as much as is received and not taken. Whether there is room for it; if not, the charge is as before.
    pub fn holds(&mut self, received: usize) -> bool {
        // A connection's first buffer goes with it.
        let bytes = received.saturating_sub(RECEIVED_WITHOUT_CHARGE);
        if bytes > self.bytes && !self.connection.charge(bytes - self.bytes, self.bytes) {
            return false;
        }
        self.connection.give_back(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        true
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.connection.give_back(self.bytes);
    }
}

impl Held {
    /// Charges `bytes` more, unless there is no room. What is small goes with the request's own charge.
    pub fn take(&self, bytes: usize) -> bool {
        if bytes <= REQUEST_OVERHEAD_BYTES {
            return true;
        }
        let charged = self.request_bytes + self.bytes.load(Ordering::Relaxed);
        let has_room = self.connection.charge(bytes, charged);
        if has_room {
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.refused.store(true, Ordering::Relaxed);
        }
        has_room
    }

    /// Whether there was no room for something.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.connection.give_back(self.bytes.load(Ordering::Relaxed));
    }
}

impl Pace {
    /// How many requests may be carried out at a time so that none takes longer than `within`. All, as long as nothing is known.
    fn in_time(&mut self, now: Instant, completed: u64, within: Duration) -> usize {
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
        self.per_s.map_or(usize::MAX, |per_s| (per_s * within.as_secs_f64()) as usize)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::{COUNTED_FOR, InFlight, Overload, Pace, PerConnection, QUEUE_MIN, Share};
    use crate::time::now;

    const BUDGET: Duration = Duration::from_secs(2);

    /// Shares of small requests, until one is refused or there are `count`.
    fn flood(connection: &PerConnection, count: usize) -> Vec<Share> {
        (0..count).map_while(|_| connection.admit(1, BUDGET).ok()).collect()
    }

    #[test]
    fn a_pace_says_how_many_are_in_time() {
        let (begin, mut pace) = (now(), Pace::default());
        assert_eq!(pace.in_time(begin, 0, BUDGET / 2), usize::MAX, "nothing is known yet");
        let at = begin + COUNTED_FOR;
        assert_eq!(pace.in_time(at, 50, BUDGET / 2), 1_000, "1,000 a second");
        // Ten times as fast: it takes some figures until that is believed.
        let figures = (1..=20).map(|round| {
            let completed = 50 + 500 * u64::from(round);
            pace.in_time(at + COUNTED_FOR * round, completed, BUDGET / 2)
        });
        let figures: Vec<_> = figures.collect();
        assert!(figures[0] < 5_000 && figures[19] > 9_000, "{figures:?}");
    }

    #[test]
    fn a_node_that_completes_nothing_takes_no_more_than_the_least_queue() {
        let (begin, mut pace) = (now(), Pace::default());
        pace.in_time(begin, 0, BUDGET / 2);
        assert_eq!(pace.in_time(begin + COUNTED_FOR, 0, BUDGET / 2), 0);
        let node = InFlight::new(usize::MAX);
        let still = || *node.account.pace.lock() = Pace { since: pace.since, per_s: pace.per_s };
        still();
        let alone = flood(&node.connection(), QUEUE_MIN);
        assert_eq!(alone.len(), QUEUE_MIN / 8 * 5, "of one connection five eighths");
        drop(alone);
        still();
        let connections: Vec<_> = (0..QUEUE_MIN).map(|_| node.connection()).collect();
        let admitted: Vec<_> = connections.iter().map(|one| one.admit(1, BUDGET)).collect();
        assert!(admitted.iter().all(Result::is_ok));
        assert_eq!(node.connection().admit(1, BUDGET).err(), Some(Overload::Queue));
        drop(admitted);
        assert!(node.connection().admit(1, BUDGET).is_ok(), "the flood is over");
    }

    #[test]
    fn floods_leave_places_in_the_queue_for_who_has_few() {
        let node = InFlight::new(usize::MAX);
        let never_again = now() + Duration::from_secs(3_600);
        *node.account.pace.lock() = Pace { since: Some((never_again, 0)), per_s: Some(20_000.0) };
        let (one, other, steady) = (node.connection(), node.connection(), node.connection());
        let first = flood(&one, usize::MAX);
        assert_eq!(first.len(), 12_500, "five eighths of what a second completes");
        let second = flood(&other, usize::MAX);
        assert_eq!(second.len(), 1_666, "a third of a quarter: one more may come");
        assert_eq!(flood(&steady, usize::MAX).len(), 1_250, "a quarter of it");
        drop(second);
        assert_eq!(
            flood(&other, usize::MAX).len(),
            1_250,
            "the same, as long as the others are there"
        );
        drop(first);
        assert!(
            flood(&one, usize::MAX).len() > 7_500,
            "what nobody has is for whoever comes first"
        );
    }

    #[test]
    fn answers_that_nobody_takes_are_not_a_queue() {
        let node = InFlight::new(usize::MAX);
        let mut untaken = flood(&node.connection(), 2 * QUEUE_MIN);
        assert_eq!(untaken.len(), 2 * QUEUE_MIN);
        untaken.iter_mut().for_each(Share::completed);
        assert_eq!((node.requests(), node.is_empty()), (0, false));
        drop(untaken);
        assert_eq!((node.requests(), node.is_empty()), (0, true));
    }

    #[test]
    fn what_the_reads_of_one_connection_find_leaves_room_for_others() {
        let node = InFlight::new(64 << 20);
        let (greedy, other) = (node.connection(), node.connection());
        let shares = flood(&greedy, 200);
        let held: Vec<_> = shares.iter().map(Share::hold).collect();
        let found = held.iter().filter(|held| held.take(512 << 10)).count();
        assert_eq!(found, 79, "five eighths, with the requests themselves");
        assert!(held[199].was_refused() && !held[0].was_refused());
        let beside = other.admit(1, BUDGET).expect("there is room");
        assert!(beside.hold().take(8 << 20), "for something large as well");
    }

    #[test]
    fn an_only_request_may_need_all_there_is() {
        let node = InFlight::new((8 << 20) + (4 << 10));
        let only = node.connection().admit(1 << 10, BUDGET).expect("nobody else is there");
        let held = only.hold();
        assert!(held.take(4 << 20) && held.take(4 << 20));
        assert!(!held.take(4 << 20) && held.was_refused());
        drop((held, only));
        assert!(node.connection().admit(8 << 20, BUDGET).is_ok(), "all is given back");
    }

    #[test]
    fn large_requests_of_many_connections_leave_room_for_one_that_comes() {
        let node = InFlight::new(64 << 20);
        let connections: Vec<_> = (0..20).map(|_| node.connection()).collect();
        let shares: Vec<_> = connections.iter().flat_map(|one| one.admit(1, BUDGET)).collect();
        assert_eq!(shares.len(), 20);
        let held: Vec<_> = shares.iter().map(Share::hold).collect();
        // Answers that nobody takes: as many as there is room for, and then smaller ones.
        for bytes in (10..=23).rev().map(|bits| 1 << bits) {
            for held in &held {
                held.take(bytes);
            }
        }
        let newcomer = node.connection();
        assert_eq!(flood(&newcomer, 100).len(), 100);
        assert!(newcomer.admit(100 << 10, BUDGET).is_ok());
    }

    #[test]
    fn half_a_frame_counts_until_it_is_whole() {
        let node = InFlight::new(64 << 20);
        let (slow, other) = (node.connection(), node.connection());
        let mut receiving = slow.receiving();
        assert!(receiving.holds(64 << 10) && node.account.all.bytes.load(Ordering::Relaxed) == 0);
        assert!(receiving.holds(40 << 20));
        assert!(!other.receiving().holds(30 << 20), "there is no room for both");
        assert!(receiving.holds(1 << 20) && other.receiving().holds(30 << 20));
        drop(receiving);
        assert_eq!(node.account.all.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn bytes_are_bounded_whatever_the_pace() {
        let node = InFlight::new(10_000);
        let share = node.connection().admit(5_000, BUDGET);
        assert_eq!(node.connection().admit(5_000, BUDGET).err(), Some(Overload::Bytes));
        drop(share);
        assert!(node.connection().admit(5_000, BUDGET).is_ok());
    }

    #[test]
    fn any_number_of_floods_leaves_room_for_one_that_comes() {
        for floods in [1, 4, 100] {
            let node = InFlight::new(8 << 20);
            let connections: Vec<_> = (0..floods).map(|_| node.connection()).collect();
            // Each has sent something before, and completes all of it at once.
            connections.iter().for_each(|one| drop(flood(one, 1)));
            let held: Vec<_> = connections.iter().map(|one| flood(one, usize::MAX)).collect();
            assert!(held.iter().all(|shares| !shares.is_empty()));
            let newcomer = flood(&node.connection(), 4);
            assert_eq!(newcomer.len(), 4, "beside {floods} floods");
        }
    }
}
