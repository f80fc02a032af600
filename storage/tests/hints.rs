//! Hints: order, cursor, limits, and what a restart finds.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use starling_ring::HostId;
use starling_storage::hints::{QUARANTINE_BYTES_MAX, QUARANTINE_HINTS_MAX};
use starling_storage::{Batch, Family, Hint, HintLimits, Hints, MemoryStore, Store};
use support::host;

fn hint(n: u64, bytes: usize) -> Hint {
    Hint {
        table: 1,
        mint: n,
        key: Bytes::from(format!("key {n}")),
        operand: Bytes::from(vec![n as u8; bytes]),
    }
}

fn load(store: &Arc<MemoryStore>, bytes_max: u64) -> Hints {
    Hints::load(store.clone(), HintLimits { bytes_max }).unwrap()
}

fn keep(hints: &Hints, targets: &[HostId], hint: &Hint) {
    let owed: Vec<_> = targets.iter().map(|target| (*target, hint.clone())).collect();
    hints.keep_all(&owed).unwrap();
}

fn mints(hints: &Hints, target: u128, count_max: usize, bytes_max: u64) -> Vec<u64> {
    let owed = hints.next(host(target), count_max, bytes_max).unwrap();
    owed.into_iter().map(|owed| owed.hint.unwrap().mint).collect()
}

const PLENTY: u64 = 64 << 20;
const ALL: usize = usize::MAX;

#[test]
fn hints_come_in_order_per_target_and_in_portions() {
    let hints = load(&Arc::new(MemoryStore::new()), PLENTY);
    for n in 1..=10 {
        let targets = [host(1), host(2)];
        let count = if n % 2 == 0 { 2 } else { 1 };
        keep(&hints, &targets[..count], &hint(n, 100));
    }
    assert_eq!(mints(&hints, 1, ALL, PLENTY), (1..=10).collect::<Vec<_>>());
    assert_eq!(mints(&hints, 2, ALL, PLENTY), [2, 4, 6, 8, 10]);
    assert_eq!(mints(&hints, 1, ALL, 1), [1], "at least one");
    assert_eq!(mints(&hints, 1, ALL, 400).len(), 2);
    assert_eq!(mints(&hints, 1, 3, PLENTY), [1, 2, 3]);
    assert_eq!(hints.pending(host(2)).0, 5);
    assert_eq!(hints.targets(), [host(1), host(2)]);
    assert_eq!(mints(&hints, 3, ALL, PLENTY), [] as [u64; 0]);
}

#[test]
fn what_is_done_is_gone_and_stays_gone_over_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let hints = load(&store, PLENTY);
    for n in 1..=6 {
        keep(&hints, &[host(1)], &hint(n, 100));
    }
    hints.done_through(host(1), 4).unwrap();
    let pending = hints.pending(host(1));
    assert_eq!(pending.0, 2);
    drop(hints);

    let hints = load(&store, PLENTY);
    assert_eq!(hints.pending(host(1)), pending);
    assert_eq!(mints(&hints, 1, ALL, PLENTY), [5, 6]);
    hints.done_through(host(1), 6).unwrap();
    assert_eq!(hints.pending(host(1)), (0, 0));
    assert_eq!(hints.targets(), []);
    drop(hints);

    let hints = load(&store, PLENTY);
    keep(&hints, &[host(1)], &hint(7, 100));
    let owed = hints.next(host(1), ALL, PLENTY).unwrap();
    assert_eq!(owed[0].sequence, 7, "sequences are not used again");
}

#[test]
fn a_hint_that_is_still_being_written_is_not_skipped() {
    let store = Arc::new(MemoryStore::new());
    let hints = load(&store, PLENTY);
    let mut slow = Batch::new();
    let reservation = hints.push(&mut slow, &[host(1)], &hint(1, 100));
    keep(&hints, &[host(1)], &hint(2, 100));
    assert_eq!(mints(&hints, 1, ALL, PLENTY), [] as [u64; 0]);
    hints.done_through(host(1), 2).unwrap();
    store.write(slow).unwrap();
    hints.settle(reservation, true);
    assert_eq!(mints(&hints, 1, ALL, PLENTY), [1, 2]);
}

#[test]
fn a_hint_whose_write_failed_is_owed_no_more() {
    let hints = load(&Arc::new(MemoryStore::new()), PLENTY);
    let mut failed = Batch::new();
    let reservation = hints.push(&mut failed, &[host(1)], &hint(1, 100));
    hints.settle(reservation, false);
    assert_eq!(hints.pending(host(1)), (0, 0));
    keep(&hints, &[host(1)], &hint(2, 100));
    assert_eq!(mints(&hints, 1, ALL, PLENTY), [2]);
    hints.done_through(host(1), 2).unwrap();
    assert_eq!(hints.pending(host(1)), (0, 0));
}

/// What is owed and not on the account would never be handed over.
#[test]
fn a_failed_write_at_a_segment_s_end_leaves_the_account_right() {
    let hints = load(&Arc::new(MemoryStore::new()), PLENTY);
    let keep = |n| keep(&hints, &[host(1)], &hint(n, 100_000));
    // Ten of these are a segment.
    (1..=9).for_each(keep);
    let reservation = hints.push(&mut Batch::new(), &[host(1)], &hint(10, 100_000));
    (11..=21).for_each(keep);
    hints.settle(reservation, false);
    hints.done_through(host(1), 15).unwrap();
    assert_eq!(hints.pending(host(1)).0, 6);
    hints.done_through(host(1), 20).unwrap();
    assert_eq!(hints.pending(host(1)).0, 1);
    assert_eq!(mints(&hints, 1, ALL, PLENTY), [21]);
}

#[test]
fn overflow_drops_the_oldest_of_the_largest_debt() {
    let store = Arc::new(MemoryStore::new());
    let bytes_max = 4 << 20;
    let hints = load(&store, bytes_max);
    keep(&hints, &[host(2)], &hint(0, 100));
    for n in 1..=80 {
        keep(&hints, &[host(1)], &hint(n, 100_000));
        let owed = hints.pending(host(1)).1 + hints.pending(host(2)).1;
        assert!(owed <= bytes_max, "{owed}");
    }
    let kept = mints(&hints, 1, ALL, PLENTY);
    assert_eq!(kept.last(), Some(&80));
    assert_eq!(kept.len() as u64, hints.pending(host(1)).0);
    assert!((20..80).contains(&kept.len()), "{}", kept.len());
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(mints(&hints, 2, ALL, PLENTY), [0], "the small debt is whole");
    let pending = hints.pending(host(1));
    drop(hints);

    let hints = load(&store, bytes_max);
    assert_eq!(hints.pending(host(1)), pending);
}

/// Sizes of what is kept aside, and the mint of the oldest.
fn aside(store: &MemoryStore) -> (Vec<usize>, u64) {
    let (mut sizes, mut oldest) = (Vec::new(), u64::MAX);
    store
        .scan(Family::Meta, b"quarantine/", b"quarantine0", &mut |_, value| {
            sizes.push(value.len());
            oldest = oldest.min(Hint::decode(value).unwrap().mint);
            ControlFlow::Continue(())
        })
        .unwrap();
    (sizes, oldest)
}

#[test]
fn what_is_kept_aside_is_bounded_and_the_oldest_go() {
    let store = Arc::new(MemoryStore::new());
    let late = |from: u64, count: u64, bytes: usize| -> Vec<Hint> {
        (from..from + count).map(|n| hint(n, bytes)).collect()
    };
    let many = load(&store, PLENTY);
    many.quarantine().keep(host(2), &late(0, 700, 10)).unwrap();
    drop(many);
    let more = load(&store, PLENTY);
    more.quarantine().keep(host(1), &late(700, 700, 10)).unwrap();
    let (sizes, oldest) = aside(&store);
    assert_eq!((sizes.len(), oldest), (QUARANTINE_HINTS_MAX, 400));
    more.quarantine().keep(host(1), &late(2_000, 100, 1 << 20)).unwrap();
    let (sizes, oldest) = aside(&store);
    assert_eq!((sizes.len(), oldest), (15, 2_085));
    assert!(sizes.iter().sum::<usize>() as u64 <= QUARANTINE_BYTES_MAX);
}
