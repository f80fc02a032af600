//! The commit loop: nothing is acknowledged before its sync, nothing after a failed one.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use starling_storage::commit::{Fatal, Left, Synced};
use starling_storage::planted::Planted;
use starling_storage::values::Context;
use starling_storage::{
    Batch, CommitLoop, Durability, Family, HighWater, Hint, MemoryFiles, MemoryStore, Replica,
    Store,
};
use support::{Machine, envelope, host, put, state, sync};

const KEY: &[u8] = b"a storage key";

/// What takes longer never comes.
const WITHIN: Duration = Duration::from_secs(30);

/// Room for all that a test sends, so that no callback waits.
fn channel<T>() -> (SyncSender<T>, Receiver<T>) {
    sync_channel(10_000)
}

fn write(store: &MemoryStore) {
    let mut batch = Batch::new();
    batch.put(Family::Meta, Bytes::from_static(b"k"), Bytes::new());
    store.write(batch).unwrap();
}

fn start(store: &Arc<MemoryStore>, durability: Durability) -> (CommitLoop, Receiver<String>) {
    let (report, fatal) = channel();
    let report: Fatal = Box::new(move |reason| report.send(reason.to_owned()).unwrap());
    let upkeep = Box::new(|_| Ok(Left::Nothing));
    let commit =
        CommitLoop::start(store.clone(), durability, upkeep, report, Planted::NONE).unwrap();
    (commit, fatal)
}

#[test]
fn callbacks_run_after_a_sync_that_covers_them() {
    for durability in [Durability::Group, Durability::Inline] {
        let store = Arc::new(MemoryStore::new());
        let (commit, _fatal) = start(&store, durability);
        let (acknowledge, acknowledged) = channel();
        for n in 0..1_000 {
            write(&store);
            let sequence = store.latest_sequence();
            let (store, acknowledge) = (store.clone(), acknowledge.clone());
            commit.on_durable(Box::new(move || {
                let unsynced = store.unsynced_batches() as u64;
                assert!(store.latest_sequence() - unsynced >= sequence || unsynced == 0);
                acknowledge.send(n).unwrap();
            }));
        }
        let order: Vec<u64> = acknowledged.iter().take(1_000).collect();
        assert_eq!(order, (0..1_000).collect::<Vec<_>>());
    }
}

#[test]
fn many_writers_share_syncs() {
    let store = Arc::new(MemoryStore::new());
    let syncs = Arc::new(AtomicU64::new(0));
    let count = syncs.clone();
    let upkeep = Box::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Left::Nothing)
    });
    let fatal: Fatal = Box::new(|reason| panic!("{reason}"));
    let commit =
        CommitLoop::start(store.clone(), Durability::Group, upkeep, fatal, Planted::NONE).unwrap();
    let (acknowledge, acknowledged) = channel();
    for _ in 0..10_000 {
        write(&store);
        let acknowledge = acknowledge.clone();
        commit.on_durable(Box::new(move || acknowledge.send(()).unwrap()));
    }
    assert_eq!(acknowledged.iter().take(10_000).count(), 10_000);
    commit.stop();
    assert!(syncs.load(Ordering::SeqCst) < 5_000);
}

#[test]
fn a_failed_sync_is_fatal_and_acknowledges_nothing_ever_again() {
    for durability in [Durability::Group, Durability::Inline] {
        let store = Arc::new(MemoryStore::new());
        let (commit, fatal) = start(&store, durability);
        store.make_sync_fail(true);
        write(&store);
        commit.on_durable(Box::new(|| panic!("acknowledged without a sync")));
        assert!(fatal.recv().unwrap().contains("sync"));
        store.make_sync_fail(false);
        let (acknowledge, acknowledged) = channel();
        commit.on_durable(Box::new(move || acknowledge.send(()).unwrap()));
        commit.stop();
        assert!(acknowledged.recv().is_err(), "the callback is dropped");
    }
}

#[test]
fn stopping_syncs_and_runs_what_waits() {
    let store = Arc::new(MemoryStore::new());
    for durability in [Durability::Group, Durability::Periodic(3_600_000)] {
        let (commit, _fatal) = start(&store, durability);
        let (acknowledge, acknowledged) = channel();
        write(&store);
        commit.on_durable(Box::new(move || acknowledge.send(()).unwrap()));
        commit.stop();
        acknowledged.recv().unwrap();
        assert_eq!(store.unsynced_batches(), 0);
    }
}

#[test]
fn periodic_durability_acknowledges_at_once_and_syncs_in_time() {
    let store = Arc::new(MemoryStore::new());
    let (synced, syncs) = channel();
    let upkeep = Box::new(move |sync: Option<Synced>| {
        let sent = synced.send(sync.expect("nothing was left").sequence);
        sent.map(|()| Left::Nothing).map_err(std::io::Error::other)
    });
    let fatal: Fatal = Box::new(|reason| panic!("{reason}"));
    let commit =
        CommitLoop::start(store.clone(), Durability::Periodic(1), upkeep, fatal, Planted::NONE)
            .unwrap();
    write(&store);
    let (acknowledge, acknowledged) = channel();
    commit.on_durable(Box::new(move || acknowledge.send(()).unwrap()));
    acknowledged.try_recv().unwrap();
    assert!(syncs.iter().any(|sequence| sequence == 1));
    drop(commit);
}

#[test]
fn the_high_water_mark_is_written_once_a_second_and_read_back() {
    let files = Arc::new(MemoryFiles::new());
    let mark = HighWater::open(files.clone()).unwrap();
    assert_eq!(mark.offer(5, 10_000_000).unwrap(), Left::Nothing);
    assert_eq!(mark.offer(6, 10_900_000).unwrap(), Left::Something);
    let stored = || HighWater::open(files.clone()).unwrap().sequence();
    assert_eq!(stored(), 5);
    assert_eq!(mark.offer(7, 11_000_000).unwrap(), Left::Nothing);
    assert_eq!(stored(), 7);
    mark.offer(3, 20_000_000).unwrap();
    assert_eq!(stored(), 7, "it only rises");
    mark.set(4).unwrap();
    assert_eq!(stored(), 4, "unless it is set");
    assert_eq!(mark.catch_up(30_000_000).unwrap(), Left::Nothing, "and stays where it was set");
    assert_eq!(stored(), 4);
}

/// Otherwise nobody would notice, for as long as the node idles, that its last second is missing.
#[test]
fn what_a_burst_has_synced_last_is_marked_without_another_write() {
    for durability in [Durability::Group, Durability::Periodic(1), Durability::Driven] {
        let store = Arc::new(MemoryStore::new());
        let mark = Arc::new(HighWater::open(Arc::new(MemoryFiles::new())).unwrap());
        let (told, calls) = channel();
        let (marked, times) = (mark.clone(), AtomicU64::new(10_000_000));
        let upkeep = Box::new(move |synced: Option<Synced>| {
            // No time passes between syncs, and a second before a call without one.
            let pause = if synced.is_some() { 0 } else { 1_000_000 };
            let now = times.fetch_add(pause, Ordering::SeqCst) + pause;
            let left = marked.offer(synced.map_or(0, |synced| synced.sequence), now)?;
            told.send(synced.is_some()).map_err(std::io::Error::other)?;
            Ok(left)
        });
        let fatal: Fatal = Box::new(|reason| panic!("{reason}"));
        let commit =
            CommitLoop::start(store.clone(), durability, upkeep, fatal, Planted::NONE).unwrap();
        for _ in 0..2 {
            write(&store);
            commit.on_durable(Box::new(|| {}));
            if durability == Durability::Driven {
                commit.sync_now();
            }
            while !calls.recv_timeout(WITHIN).unwrap() {}
        }
        if durability == Durability::Driven {
            commit.sync_now();
        }
        while mark.sequence() < store.latest_sequence() {
            calls.recv_timeout(WITHIN).unwrap();
        }
        assert_eq!(mark.sequence(), 2, "{durability:?}");
    }
}

/// RocksDB takes no writes after one of its log has failed: a node that went on would never write again, and serve for ever.
#[test]
fn whatever_write_or_sync_fails_ends_the_node_under_another_actor() {
    let nothing = Context::new();
    type Step<'a> = (&'static str, &'a dyn Fn(&Replica));
    let steps: [Step<'_>; 6] = [
        ("a put", &|replica| drop(put(replica, KEY, &nothing, 1, b"a"))),
        ("a peer's write", &|replica| {
            let operand = state(replica, b"there").encode();
            drop(replica.apply(&[envelope(Bytes::from_static(KEY), operand)]));
        }),
        ("a hint", &|replica| {
            let (key, operand) = (Bytes::from_static(KEY), Bytes::new());
            drop(replica.hints().keep_all(&[(host(2), Hint { table: 1, mint: 1, key, operand })]));
        }),
        ("a bucket", &|replica| drop(replica.buckets().open("demo.carts"))),
        ("a floor", &|replica| drop(replica.promise(&[0], 1))),
        ("amnesia", &|replica| drop(replica.declare_amnesia())),
    ];
    for (what, step) in steps {
        for writes in [true, false] {
            let mut machine = Machine::new(1);
            let replica = machine.start();
            put(&replica, b"there", &nothing, 1, b"a").unwrap();
            let actor = replica.identity().actor();
            machine.store.make_write_fail(writes);
            machine.store.make_sync_fail(!writes);
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(&replica)));
            let syncs_itself = ["a bucket", "a floor", "amnesia"].contains(&what);
            assert_eq!(failed.is_err(), writes || syncs_itself, "{what}, writes {writes}");
            drop(replica);
            machine.store.make_write_fail(false);
            machine.store.make_sync_fail(false);
            if failed.is_err() {
                assert_ne!(machine.start().identity().actor(), actor, "{what}, writes {writes}");
            }
        }
    }
}

/// Without a new boot nothing else would tell that the last run may have lost what it minted.
#[test]
fn after_a_failed_sync_the_next_run_writes_under_another_actor() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let actor = replica.identity().actor();
    machine.store.make_sync_fail(true);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
        sync(&replica);
    }));
    assert!(failed.is_err(), "the failed sync was not fatal");
    drop(replica);
    machine.store.make_sync_fail(false);
    assert_ne!(machine.start().identity().actor(), actor);
}
