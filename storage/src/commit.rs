//! Durability: one thread syncs the store's log for all writers, and acknowledges after it.
//!
//! Invariant: in group durability a callback runs only after a sync that began after its call; if a sync or a write fails, none runs ever again
//! and the process ends, because after a failed fsync the operating system no longer knows what is on disk.
//!
//! What was synced is in the high-water mark a second later, also where nothing follows: the loop looks after it until it is.
//!
//! It writes nothing to the store. Waiting callbacks are bounded by the node's limit on requests in flight.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{JoinHandle, current};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::files::{DurableNumber, Files};
use crate::planted::{Bug, Planted};
use crate::store::{Store, StoreError, WatchedStore};

/// The name of the high-water mark's record.
pub const HIGH_WATER_FILE: &str = "HIGH_WATER";
/// Under load the log is synced at most this often: free-running sync loops eat half of a small machine.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(2);
/// The high-water mark is written at most so often,
const HIGH_WATER_INTERVAL_US: u64 = 1_000_000;
/// and what was synced meanwhile is marked after a pause as long.
const LEFT_INTERVAL: Duration = Duration::from_micros(HIGH_WATER_INTERVAL_US);

/// What runs once the writes before it are durable.
pub type Callback = Box<dyn FnOnce() + Send>;
/// Upkeep after each sync; and with `None`, a while after the last one, as long as it says that something is left. An error ends the process
/// like a failed sync.
pub type Upkeep = Box<dyn FnMut(Option<Synced>) -> io::Result<Left> + Send>;
/// Ends the process (or the simulated node) for the given reason.
pub type Fatal = Box<dyn Fn(&str) + Send + Sync>;

/// One sync of the store's log.
#[derive(Clone, Copy, Debug)]
pub struct Synced {
    /// The store's sequence before it: so much is durable.
    pub sequence: u64,
    /// How long it took.
    pub took: Duration,
}

/// What upkeep still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing until the next sync.
    Nothing,
    /// It wants to be called again, also if no sync follows.
    Something,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After a sync that all concurrent writers share: survives a power cut.
    Group,
    /// At once, with a sync every so many milliseconds: a power cut takes the last of them.
    Periodic(u64),
    /// Group durability on the calling thread, for tests.
    Inline,
    /// Group durability without a thread: whoever owns the loop calls [`CommitLoop::sync_now`] again and again, for the simulator.
    Driven,
}

struct Queue {
    callbacks: Vec<Callback>,
    /// The thread sleeps until it is told of work.
    asleep: bool,
    /// What the last upkeep has left.
    left: Left,
    stopping: bool,
    failed: bool,
}

/// Why the commit thread wakes.
enum Work {
    /// Callbacks wait for a sync.
    Sync,
    /// Nothing does, and upkeep has something left.
    Upkeep,
    Stop,
}

struct Shared {
    store: Arc<dyn Store>,
    queue: Mutex<Queue>,
    wake: Condvar,
    upkeep: Mutex<Upkeep>,
    fatal: Fatal,
    planted: Planted,
}

/// The handle of the commit thread.
pub struct CommitLoop {
    shared: Arc<Shared>,
    durability: Durability,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CommitLoop {
    /// Starts the loop. `fatal` is told of a failed sync or write; [`abort_process`] outside of tests.
    pub fn start(
        store: Arc<dyn Store>,
        durability: Durability,
        upkeep: Upkeep,
        fatal: Fatal,
        planted: Planted,
    ) -> io::Result<CommitLoop> {
        let shared = Arc::new(Shared {
            store,
            queue: Mutex::new(Queue {
                callbacks: Vec::new(),
                asleep: false,
                left: Left::Nothing,
                stopping: false,
                failed: false,
            }),
            wake: Condvar::new(),
            upkeep: Mutex::new(upkeep),
            fatal,
            planted,
        });
        let commit_loop = CommitLoop { shared, durability, thread: Mutex::new(None) };
        let shared = commit_loop.shared.clone();
        let builder = std::thread::Builder::new().name("commit".to_owned());
        *commit_loop.thread.lock() = match durability {
            Durability::Inline | Durability::Driven => None,
            Durability::Group => Some(builder.spawn(move || run_group(&shared))?),
            Durability::Periodic(interval_ms) => {
                let interval = Duration::from_millis(interval_ms.max(1));
                Some(builder.spawn(move || run_periodic(&shared, interval))?)
            }
        };
        Ok(commit_loop)
    }

    /// The store for everybody else: a write or a sync of it that fails is as fatal as a sync of this loop. Nothing is acknowledged from
    /// then on, and the node ends.
    pub(crate) fn watched_store(&self) -> Arc<dyn Store> {
        let shared = self.shared.clone();
        let watcher = Box::new(move |error: &StoreError| {
            if !shared.planted.is(Bug::IgnoreFailedSync) {
                shared.fail(&error.to_string());
            }
        });
        Arc::new(WatchedStore::new(self.shared.store.clone(), watcher))
    }

    /// Runs `callback` when every write that returned before this call is as durable as the mode promises; on the commit thread, on this one
    /// where there is none. After a failed sync the callback is dropped.
    pub fn on_durable(&self, callback: Callback) {
        if self.shared.planted.is(Bug::AcknowledgeBeforeSync) {
            return callback();
        }
        match self.durability {
            Durability::Inline => {
                if self.shared.commit() {
                    self.shared.run(callback);
                }
            }
            Durability::Periodic(_) => {
                if !self.shared.queue.lock().failed {
                    callback();
                }
            }
            Durability::Group | Durability::Driven => self.enqueue(callback),
        }
    }

    /// Syncs once for everything that waits, if anything does; otherwise goes on with what upkeep has left. Blocks.
    pub fn sync_now(&self) {
        let queue = self.shared.queue.lock();
        let (waits, left) = (!queue.callbacks.is_empty(), queue.left);
        drop(queue);
        if waits {
            self.shared.commit();
        } else if left == Left::Something {
            self.shared.tend(None);
        }
    }

    /// Syncs once more, runs what waits, and ends the thread. Later callbacks sync on their caller's thread. Blocks.
    pub fn stop(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.wake.notify_all();
        let thread = self.thread.lock().take();
        // A callback may hold the last handle: then this is the thread itself, which ends after it.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != current().id()) {
            // A panic of the thread has been reported by its own guard.
            drop(thread.join());
        }
        self.shared.commit();
    }

    fn enqueue(&self, callback: Callback) {
        let mut queue = self.shared.queue.lock();
        if queue.failed {
            return;
        }
        if queue.stopping {
            drop(queue);
            if self.shared.commit() {
                self.shared.run(callback);
            }
            return;
        }
        queue.callbacks.push(callback);
        let wake = queue.asleep;
        queue.asleep = false;
        drop(queue);
        if wake {
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for CommitLoop {
    fn drop(&mut self) {
        if self.thread.lock().is_some() {
            self.stop();
        }
    }
}

impl Shared {
    /// One sync with what waits for it. False once a sync has failed.
    #[expect(
        clippy::disallowed_methods,
        reason = "the duration is only shown, nothing depends on it"
    )]
    fn commit(&self) -> bool {
        let mut queue = self.queue.lock();
        if queue.failed {
            return false;
        }
        let callbacks = std::mem::take(&mut queue.callbacks);
        drop(queue);
        let sequence = self.store.latest_sequence();
        let started = Instant::now();
        if let Err(error) = self.store.sync()
            && !self.planted.is(Bug::IgnoreFailedSync)
        {
            self.fail(&error.to_string());
            return false;
        }
        let synced = Synced { sequence, took: started.elapsed() };
        for callback in callbacks {
            self.run(callback);
        }
        self.tend(Some(synced))
    }

    /// False once upkeep has failed.
    fn tend(&self, synced: Option<Synced>) -> bool {
        let mut upkeep = self.upkeep.lock();
        match (*upkeep)(synced) {
            Ok(left) => {
                // Under the lock of upkeep, so that an older answer does not replace a newer one.
                self.queue.lock().left = left;
                true
            }
            Err(error) => {
                drop(upkeep);
                self.fail(&error.to_string());
                false
            }
        }
    }

    fn run(&self, callback: Callback) {
        if catch_unwind(AssertUnwindSafe(callback)).is_err() {
            // A dead commit thread would leave every later writer waiting for ever.
            self.fail("a commit callback panicked");
        }
    }

    fn fail(&self, reason: &str) {
        let mut queue = self.queue.lock();
        queue.failed = true;
        queue.callbacks.clear();
        drop(queue);
        (self.fatal)(reason);
    }
}

/// Logs the reason and aborts: the only safe answer to a failed sync or write.
pub fn abort_process(reason: &str) {
    tracing::error!(reason, "cannot make writes durable any more; stopping at once");
    std::process::abort();
}

#[expect(
    clippy::disallowed_methods,
    reason = "the commit thread is a driver: it paces real disks, and no protocol decision depends on it"
)]
fn run_group(shared: &Shared) {
    let mut last_sync: Option<Instant> = None;
    loop {
        let goes_on = match wait_for_work(shared) {
            Work::Sync => {
                if let Some(last) = last_sync {
                    std::thread::sleep(SYNC_INTERVAL_MIN.saturating_sub(last.elapsed()));
                }
                last_sync = Some(Instant::now());
                shared.commit()
            }
            Work::Upkeep => shared.tend(None),
            Work::Stop => false,
        };
        if !goes_on {
            return;
        }
    }
}

fn wait_for_work(shared: &Shared) -> Work {
    let mut queue = shared.queue.lock();
    let mut paused = false;
    while queue.callbacks.is_empty() {
        if queue.stopping {
            return Work::Stop;
        }
        if paused {
            return Work::Upkeep;
        }
        queue.asleep = true;
        match queue.left {
            Left::Nothing => shared.wake.wait(&mut queue),
            Left::Something => {
                paused = shared.wake.wait_for(&mut queue, LEFT_INTERVAL).timed_out();
            }
        }
        queue.asleep = false;
    }
    Work::Sync
}

fn run_periodic(shared: &Shared, interval: Duration) {
    // Nothing is known to be synced yet, not even what was written before this thread ran.
    let mut synced = None;
    loop {
        let mut queue = shared.queue.lock();
        if queue.stopping {
            return;
        }
        shared.wake.wait_for(&mut queue, interval);
        let left = queue.left;
        drop(queue);
        let sequence = Some(shared.store.latest_sequence());
        let goes_on = match left {
            _ if sequence != synced => shared.commit(),
            Left::Something => shared.tend(None),
            Left::Nothing => true,
        };
        if !goes_on {
            return;
        }
        synced = sequence;
    }
}

/// A durable lower bound of what the store has ever synced, kept outside of it: a store that recovers less has lost writes.
pub struct HighWater {
    files: Arc<dyn Files>,
    state: Mutex<HighWaterState>,
}

struct HighWaterState {
    number: DurableNumber,
    sequence: u64,
    /// The highest that is known to be synced.
    synced: u64,
    written_at_us: Option<u64>,
}

impl HighWater {
    /// Opens the mark in `files`; 0 if it was never written.
    pub fn open(files: Arc<dyn Files>) -> io::Result<HighWater> {
        let (number, stored) = DurableNumber::open(files.as_ref(), HIGH_WATER_FILE)?;
        let sequence = stored.unwrap_or(0);
        let state = HighWaterState { number, sequence, synced: sequence, written_at_us: None };
        Ok(HighWater { files, state: Mutex::new(state) })
    }

    /// The mark.
    pub fn sequence(&self) -> u64 {
        self.state.lock().sequence
    }

    /// Takes note that all up to `sequence` is synced, and raises the mark to what is, unless that was done within the last second: then it is
    /// left for later. Blocks on the disk when it writes.
    pub fn offer(&self, sequence: u64, now_us: u64) -> io::Result<Left> {
        let state = &mut *self.state.lock();
        state.synced = state.synced.max(sequence);
        if state.synced <= state.sequence {
            return Ok(Left::Nothing);
        }
        let is_recent =
            state.written_at_us.is_some_and(|at| at.abs_diff(now_us) < HIGH_WATER_INTERVAL_US);
        if is_recent {
            return Ok(Left::Something);
        }
        state.number.write(self.files.as_ref(), state.synced)?;
        state.sequence = state.synced;
        state.written_at_us = Some(now_us);
        Ok(Left::Nothing)
    }

    /// [`HighWater::offer`] once more of what was left for later.
    pub fn catch_up(&self, now_us: u64) -> io::Result<Left> {
        self.offer(0, now_us)
    }

    /// Sets the mark to a synced `sequence`, down too: at a clean stop, and when a loss has been dealt with. Blocks.
    pub fn set(&self, sequence: u64) -> io::Result<()> {
        let state = &mut *self.state.lock();
        state.number.write(self.files.as_ref(), sequence)?;
        (state.sequence, state.synced) = (sequence, sequence);
        Ok(())
    }
}
