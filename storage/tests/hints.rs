//! Hints: order, cursor, limits, and what a restart finds.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use starling_ring::HostId;
use starling_storage::{Batch, Hint, HintLimits, Hints, MemoryStore, Store};
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
fn overflow_drops_the_oldest_of_the_largest_debt_and_remembers_it() {
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
    let marks = |hints: &Hints| (hints.needs_repair(host(1)), hints.needs_repair(host(2)));
    assert_eq!(marks(&hints), (true, false));
    let pending = hints.pending(host(1));
    drop(hints);

    let hints = load(&store, bytes_max);
    assert_eq!(marks(&hints), (true, false));
    assert_eq!(hints.pending(host(1)), pending);
    hints.repaired(host(1)).unwrap();
    drop(hints);
    assert_eq!(marks(&load(&store, bytes_max)), (false, false));
}

#[test]
fn what_is_given_up_marks_its_target_over_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let hints = load(&store, PLENTY);
    keep(&hints, &[host(1), host(2)], &hint(1, 100));
    hints.give_up(host(1)).unwrap();
    assert!(hints.needs_repair(host(1)));
    drop(hints);
    let hints = load(&store, PLENTY);
    assert!(hints.needs_repair(host(1)) && !hints.needs_repair(host(2)));
}
