//! One suite for both stores, and a differential property test that keeps them equal.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::{collection, proptest};
use starling_storage::values::{self, Actor, Causal, Context, OperationId, put_delta};
use starling_storage::{
    Batch, Family, Lookup, MemoryStore, RocksOptions, RocksStore, Store, StoreError, Tier,
};

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn rocks(path: &Path) -> RocksStore {
    let options = RocksOptions { memtable_bytes: 1 << 20, ..RocksOptions::default() };
    RocksStore::open(path, &options).unwrap()
}

fn on_both(check: impl Fn(&dyn Store)) {
    check(&MemoryStore::new());
    let directory = tempfile::tempdir().unwrap();
    check(&rocks(directory.path()));
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(store: &dyn Store, family: Family, key: &str, value: &str) {
    let mut batch = Batch::new();
    batch.put(family, bytes(key), bytes(value));
    store.write(batch).unwrap();
}

fn entries(store: &dyn Store, family: Family, start: &[u8], end: &[u8]) -> Entries {
    let mut found = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    store.scan(family, start, end, &mut visit).unwrap();
    found
}

fn operand(actor: u64, seq: u64, value: &str) -> Bytes {
    let (state, client) = (Causal::default(), Context::new());
    let operation = OperationId([seq as u8; 16]);
    let value = Some(bytes(value));
    put_delta(&state, &client, Actor(actor), seq, operation, value, false).encode()
}

#[test]
fn an_entry_is_found_in_its_family_only() {
    on_both(|store| {
        put(store, Family::Meta, "k", "v");
        let found = store.get(Family::Meta, b"k", Tier::Any).unwrap();
        assert_eq!(found, Lookup::Found(bytes("v")));
        for (family, key) in [(Family::Data, "k"), (Family::Hints, "k"), (Family::Meta, "kk")] {
            let found = store.get(family, key.as_bytes(), Tier::Any).unwrap();
            assert_eq!(found, Lookup::Absent);
        }
    });
}

#[test]
fn merges_join_and_report_their_chain() {
    on_both(|store| {
        let operands = [operand(1, 5, "a"), operand(2, 6, "b"), operand(3, 7, "c")];
        for operand in &operands {
            let mut batch = Batch::new();
            batch.merge(Family::Data, bytes("k"), operand.clone());
            store.write(batch).unwrap();
        }
        let joined = values::merge(None, operands.iter().map(Bytes::as_ref));
        let (found, chain) = store.get_with_chain(Family::Data, b"k", Tier::Any).unwrap();
        assert_eq!(found, Lookup::Found(Bytes::from(joined.clone())));
        assert_eq!(chain, 3);

        let mut batch = Batch::new();
        batch.put(Family::Data, bytes("k"), Bytes::from(joined));
        store.write(batch).unwrap();
        let (_, chain) = store.get_with_chain(Family::Data, b"k", Tier::Any).unwrap();
        assert_eq!(chain, 0);
    });
}

#[test]
fn a_batch_spans_families_and_keeps_its_order() {
    on_both(|store| {
        put(store, Family::Hints, "a1", "old");
        let before = store.latest_sequence();
        let mut batch = Batch::new();
        batch.put(Family::Hints, bytes("a2"), bytes("doomed"));
        batch.delete_range(Family::Hints, bytes("a"), bytes("b"));
        batch.put(Family::Hints, bytes("a3"), bytes("kept"));
        batch.put(Family::Meta, bytes("m"), bytes("v"));
        batch.delete(Family::Meta, bytes("m"));
        store.write(batch).unwrap();
        let kept = vec![(b"a3".to_vec(), b"kept".to_vec())];
        assert_eq!(entries(store, Family::Hints, b"", b""), kept);
        assert_eq!(entries(store, Family::Meta, b"", b""), Vec::new());
        assert_eq!(store.latest_sequence(), before + 5);
    });
}

#[test]
fn scans_see_every_prefix_within_bounds_and_stop_when_told() {
    on_both(|store| {
        let keys: Vec<String> = (0..40).map(|n| format!("{:012}-{n}", n / 4)).collect();
        for key in &keys {
            put(store, Family::Data, key, "v");
        }
        store.flush().unwrap();
        let (start, end) = (keys[3].as_bytes(), keys[31].as_bytes());
        assert_eq!(entries(store, Family::Data, start, end).len(), 28);
        assert_eq!(entries(store, Family::Data, end, start), Vec::new());
        let mut seen = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            seen += 1;
            if seen == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        store.scan(Family::Data, b"", b"", &mut visit).unwrap();
        assert_eq!(seen, 7);
    });
}

#[test]
fn a_second_owner_of_the_directory_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let _first = rocks(directory.path());
    let second = RocksStore::open(directory.path(), &RocksOptions::default());
    match second.map(drop) {
        Err(StoreError::Locked { path }) => assert_eq!(path, directory.path()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_crash_drops_what_was_not_synced_and_only_that() {
    let store = MemoryStore::new();
    put(&store, Family::Data, "a", "1");
    store.sync().unwrap();
    let synced = store.latest_sequence();
    put(&store, Family::Data, "a", "2");
    put(&store, Family::Data, "b", "2");
    put(&store, Family::Data, "c", "2");
    assert_eq!(store.unsynced_batches(), 3);
    store.crash_keeping(1);
    assert_eq!(entries(&store, Family::Data, b"", b""), vec![(b"a".to_vec(), b"2".to_vec())]);
    assert_eq!(store.latest_sequence(), synced + 1);
    store.crash();
    assert_eq!(store.latest_sequence(), synced + 1, "the survivors are durable");
}

#[test]
fn rocks_keeps_synced_entries_over_a_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    put(&store, Family::Data, "a", "1");
    store.sync().unwrap();
    let sequence = store.latest_sequence();
    drop(store);
    let store = rocks(directory.path());
    assert_eq!(store.latest_sequence(), sequence);
    let found = store.get(Family::Data, b"a", Tier::Cached).unwrap();
    assert_ne!(found, Lookup::Absent);
}

#[test]
fn rocks_says_so_when_an_entry_is_not_in_memory_and_then_keeps_it_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = rocks(directory.path());
    put(&store, Family::Data, "a", "1");
    store.flush().unwrap();
    drop(store);
    let store = rocks(directory.path());
    let read = |tier| store.get(Family::Data, b"a", tier).unwrap();
    assert_eq!(read(Tier::Cached), Lookup::NotCached);
    assert_eq!(read(Tier::Any), Lookup::Found(bytes("1")));
    assert_eq!(read(Tier::Cached), Lookup::Found(bytes("1")));
    // A merge over a base that is not in memory cannot be answered from there either.
    drop(store);
    let store = rocks(directory.path());
    let mut batch = Batch::new();
    batch.merge(Family::Data, bytes("a"), operand(1, 5, "a"));
    store.write(batch).unwrap();
    let found = store.get(Family::Data, b"a", Tier::Cached).unwrap();
    assert_eq!(found, Lookup::NotCached);
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(u8, Family, u8, u8)>),
    Flush,
    Compact,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let family = prop_oneof![
        3 => Just(Family::Data),
        1 => Just(Family::Hints),
        1 => Just(Family::Meta),
    ];
    let operation = (0..5_u8, family, 0..12_u8, any::<u8>());
    prop_oneof![
        12 => collection::vec(operation, 1..5).prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => Just(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// Operands of three actors, and now and then bytes that are none.
fn any_operand(seed: u8) -> Bytes {
    match seed % 8 {
        7 => bytes(&format!("damaged {seed}")),
        _ => operand(u64::from(seed % 3), u64::from(seed / 8) + 1, &seed.to_string()),
    }
}

fn batch(operations: &[(u8, Family, u8, u8)]) -> Batch {
    let key = |n: u8| bytes(&format!("key-of-{:06}-{n}", n / 3));
    let mut batch = Batch::new();
    for (kind, family, at, seed) in operations.iter().copied() {
        match kind {
            0 | 1 if family == Family::Data => batch.merge(family, key(at), any_operand(seed)),
            0..=2 => batch.put(family, key(at), any_operand(seed)),
            3 => batch.delete(family, key(at)),
            _ => batch.delete_range(family, key(at), key(at.saturating_add(seed % 3))),
        }
    }
    batch
}

fn compare(memory: &MemoryStore, rocks: &RocksStore) {
    for family in Family::ALL {
        let expected = entries(memory, family, b"", b"");
        assert_eq!(expected, entries(rocks, family, b"", b""));
        for (key, value) in &expected {
            let found = rocks.get(family, key, Tier::Any).unwrap();
            assert_eq!(found, Lookup::Found(Bytes::copy_from_slice(value)));
        }
    }
    assert_eq!(memory.latest_sequence(), rocks.latest_sequence());
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 40, failure_persistence: None, ..Default::default() })]

    #[test]
    fn both_stores_hold_the_same_after_any_steps(steps in collection::vec(step(), 1..25)) {
        let directory = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut disk = Some(rocks(directory.path()));
        for step in &steps {
            let store = disk.as_ref().unwrap();
            match step {
                Step::Write(operations) => {
                    memory.write(batch(operations)).unwrap();
                    store.write_waiting(batch(operations)).unwrap();
                }
                Step::Flush => store.flush().unwrap(),
                Step::Compact => store.compact_all(),
                Step::Reopen => {
                    drop(disk.take());
                    disk = Some(rocks(directory.path()));
                }
            }
            compare(&memory, disk.as_ref().unwrap());
        }
    }
}
