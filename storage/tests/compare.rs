//! Comparing replicas: leaf hashes are those of what the store holds, whatever was written in between, and two replicas that exchange what
//! differs hold the same afterwards, having moved only that.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::prelude::*;
use starling_storage::keys::storage_key;
use starling_storage::leaves::{
    Area, Difference, EntryHash, LEAF_BITS_MAX, LeafHashes, TokenRange,
};
use starling_storage::values::{Causal, Context, OperationId};
use starling_storage::{Envelope, PutRequest, Replica, Tier};
use support::Machine;

const TABLE: u32 = 7;
/// The grid of the tests' replicas has so many slots.
const SLOTS: u32 = 16;

fn key(n: u64) -> Bytes {
    Bytes::from(storage_key(TABLE, spread(n).cast_signed(), &n.to_be_bytes()))
}

/// Tokens are spread as hashes are.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn put(replica: &Replica, n: u64, value: Vec<u8>) {
    put_at(replica, key(n), value);
}

fn put_at(replica: &Replica, key: Bytes, value: Vec<u8>) {
    let request = PutRequest {
        table: TABLE,
        key,
        client: Context::new(),
        operation: OperationId([1; 16]),
        value: Some(Bytes::from(value)),
        lww: true,
        hints: Vec::new(),
    };
    replica.put(&request, Tier::Any).unwrap();
}

fn all(replica: &Replica) -> Vec<(Bytes, Bytes)> {
    let mut entries = Vec::new();
    replica
        .scan(&[], &[], &mut |key, state| {
            entries.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(state)));
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

fn area(slot: u32) -> Area {
    Area { table: TABLE, slot }
}

fn refreshed(replica: &Replica, slot: u32) -> LeafHashes {
    assert!(replica.refresh(area(slot), u64::MAX).unwrap().complete);
    replica.leaf_hashes(area(slot)).unwrap()
}

/// The sum over a slot's entries, without leaves.
fn expected(replica: &Replica, slot: u32) -> u64 {
    let range = replica.leaves().range(slot);
    let entries = replica.entry_hashes(TABLE, &[range]).unwrap();
    entries.iter().fold(0, |sum, entry| sum.wrapping_add(entry.state))
}

fn envelopes(states: Vec<(Bytes, Bytes)>) -> Vec<Envelope> {
    states.into_iter().map(|(key, state)| support::envelope(key, state)).collect()
}

/// One session between two replicas: returns how many states travelled.
fn repair(one: &Replica, other: &Replica) -> usize {
    let mut moved = 0;
    for slot in 0..SLOTS {
        let (ours, theirs) = (refreshed(one, slot), refreshed(other, slot));
        if ours.digest() == theirs.digest() {
            continue;
        }
        let ranges = ours.differing(&theirs, one.leaves().range(slot));
        let hashes = |replica: &Replica| replica.entry_hashes(TABLE, &ranges).unwrap();
        let difference = Difference::between(&hashes(one), &hashes(other));
        let fetched = other.states(TABLE, &ranges, &difference.fetch, usize::MAX).unwrap();
        one.apply_repair(&envelopes(fetched.entries.clone())).unwrap();
        let behind: BTreeSet<u64> =
            difference.fetch.iter().chain(&difference.push).copied().collect();
        let pushed = one.states(TABLE, &ranges, &behind, usize::MAX).unwrap();
        other.apply_repair(&envelopes(pushed.entries.clone())).unwrap();
        moved += fetched.entries.len() + pushed.entries.len();
    }
    moved
}

#[derive(Clone, Debug)]
enum Step {
    Put(u64, u8),
    Refresh(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..400_u64, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        1 => (0..SLOTS).prop_map(Step::Refresh),
    ];
    prop::collection::vec(step, 1..600)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hashes_are_those_of_what_is_stored(steps in steps()) {
        let replica = Machine::new(1).start();
        for step in steps {
            match step {
                Step::Put(n, value) => put(&replica, n, vec![value]),
                Step::Refresh(slot) => {
                    let known = refreshed(&replica, slot);
                    prop_assert_eq!(known.digest(), expected(&replica, slot));
                }
            }
        }
        for slot in 0..SLOTS {
            prop_assert_eq!(refreshed(&replica, slot).digest(), expected(&replica, slot));
        }
    }

    #[test]
    fn what_differs_is_exchanged_and_nothing_else(
        both in prop::collection::btree_map(0..2_000_u64, any::<u8>(), 0..800),
        one_more in prop::collection::btree_map(0..2_000_u64, any::<u8>(), 0..20),
        other_more in prop::collection::btree_map(0..2_000_u64, any::<u8>(), 0..20),
    ) {
        let (one, other) = (Machine::new(1).start(), Machine::new(50).start());
        for (n, value) in both {
            put(&one, n, vec![value; 30]);
        }
        other.apply(&envelopes(all(&one))).unwrap();
        for slot in 0..SLOTS {
            prop_assert_eq!(refreshed(&one, slot).digest(), refreshed(&other, slot).digest());
        }
        one_more.iter().for_each(|(n, value)| put(&one, *n, vec![*value; 31]));
        other_more.iter().for_each(|(n, value)| put(&other, *n, vec![*value; 32]));
        let moved = repair(&one, &other);
        prop_assert_eq!(all(&one), all(&other));
        prop_assert!(moved <= 2 * (one_more.len() + other_more.len()), "{moved} states moved");
        prop_assert_eq!(repair(&one, &other), 0);
    }

    #[test]
    fn leaves_are_compared_at_the_coarser_cut(
        bits in (0..6_u8, 0..6_u8),
        changed in prop::collection::btree_set(0..64_usize, 0..4),
    ) {
        let at = |bits: u8, changed: &BTreeSet<usize>| {
            let fine: Vec<u64> = (0..64)
                .map(|leaf| leaf as u64 * 1_000 + u64::from(changed.contains(&leaf)))
                .collect();
            LeafHashes::new(bits, fine.chunks(64 >> bits).map(|part| part.iter().sum()).collect())
                .unwrap()
        };
        let area = TokenRange { first: 0, last: 63 };
        let (ours, theirs) = (at(bits.0, &BTreeSet::new()), at(bits.1, &changed));
        let width = 64 >> bits.0.min(bits.1);
        let expected: BTreeSet<u64> = changed.iter().map(|leaf| *leaf as u64 / width * width).collect();
        let found: Vec<TokenRange> = ours.differing(&theirs, area);
        prop_assert_eq!(found.iter().map(|range| range.first).collect::<BTreeSet<_>>(), expected);
        prop_assert!(found.iter().all(|range| range.last - range.first + 1 == width));
        prop_assert_eq!(ours.digest() == theirs.digest(), changed.is_empty());
    }
}

#[test]
fn a_write_dirties_its_leaf_only() {
    let replica = Machine::new(1).start();
    (0..4_000).for_each(|n| put(&replica, n, vec![0; 100]));
    let whole = (0..SLOTS).map(|slot| replica.refresh(area(slot), u64::MAX).unwrap().bytes);
    let whole: u64 = whole.sum();
    put(&replica, 17, vec![1; 100]);
    let again = (0..SLOTS).map(|slot| replica.refresh(area(slot), u64::MAX).unwrap().bytes);
    let again: u64 = again.sum();
    assert!(again > 0 && again * 100 < whole, "{again} of {whole} bytes were read again");
}

#[test]
fn reading_stops_where_its_budget_ends_and_goes_on_from_there() {
    let replica = Machine::new(1).start();
    // All in the first slot.
    let key = |n: u64| {
        let token = (spread(n) >> 4) ^ (1 << 63);
        Bytes::from(storage_key(TABLE, token.cast_signed(), &n.to_be_bytes()))
    };
    (0..4_000).for_each(|n| put_at(&replica, key(n), vec![0; 100]));
    refreshed(&replica, 0);
    (0..4_000).for_each(|n| put_at(&replica, key(n), vec![1; 100]));
    let mut rounds = 0;
    while !replica.refresh(area(0), 10_000).unwrap().complete {
        rounds += 1;
        assert!(rounds < 1_000, "it does not get on");
    }
    assert!(rounds > 1);
    assert_eq!(replica.leaf_hashes(area(0)).unwrap().digest(), expected(&replica, 0));
}

/// Two replicas that both are at this would agree on what neither has read.
#[test]
fn an_area_that_is_cut_anew_says_nothing_until_it_is_read() {
    let replica = Machine::new(1).start();
    // In the first slot, or in its first part only.
    let key = |n: u64, shift: u32| {
        let token = (spread(n) >> shift) ^ (1 << 63);
        Bytes::from(storage_key(TABLE, token.cast_signed(), &n.to_be_bytes()))
    };
    assert_eq!(replica.leaf_hashes(area(0)), None);
    (0..40).for_each(|n| put_at(&replica, key(n, 4), vec![0; 10]));
    refreshed(&replica, 0);
    (40..4_000).for_each(|n| put_at(&replica, key(n, 6), vec![0; 10]));
    assert!(replica.leaf_hashes(area(0)).is_some(), "what is dirty has an old hash");
    assert!(!replica.refresh(area(0), 1).unwrap().complete);
    assert_eq!(replica.leaf_hashes(area(0)), None);
    assert_eq!(refreshed(&replica, 0).digest(), expected(&replica, 0));
}

#[test]
fn a_forged_cut_is_refused() {
    assert!(LeafHashes::new(3, vec![0; 7]).is_none());
    assert!(LeafHashes::new(LEAF_BITS_MAX + 1, vec![0; 1 << (LEAF_BITS_MAX + 1)]).is_none());
}

#[test]
fn a_state_that_says_nothing_is_no_entry() {
    let nothing = <Causal>::default().encode();
    assert_eq!(EntryHash::of(b"key", &nothing), None);
}
