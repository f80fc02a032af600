//! The judge of simulated histories sees what is wrong, and only that.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_tests::sim::check::{Losses, check};
use starling_tests::sim::history::{Covers, Level, Operation, Outcome, Value, What, Write};

/// Everything in these histories happens before.
const HEALED: u64 = 1_000;

fn operation(begin: u64, end: u64, level: Level, what: What) -> Operation {
    let (begin, end) = (Duration::from_millis(begin), Duration::from_millis(end));
    Operation { client: 1, key: 0, begin, end, level, what }
}

fn put(begin: u64, end: u64, value: Value, over: &[Value], outcome: Outcome) -> Operation {
    let covers = Covers::These(over.iter().copied().collect());
    let write = Write { value: Some(value), covers, outcome, repeated: false };
    operation(begin, end, Level::Quorum, What::Write(write))
}

fn delete_everything(begin: u64, end: u64) -> Operation {
    let (covers, outcome) = (Covers::Whatever, Outcome::Acked);
    let write = Write { value: None, covers, outcome, repeated: false };
    operation(begin, end, Level::Quorum, What::Write(write))
}

fn read(begin: u64, end: u64, values: &[Value]) -> Operation {
    read_at(Level::Quorum, begin, end, values)
}

fn read_at(level: Level, begin: u64, end: u64, values: &[Value]) -> Operation {
    let values = Some(values.iter().copied().collect());
    operation(begin, end, level, What::Read { values, floor: BTreeSet::new() })
}

fn not_below(begin: u64, end: u64, values: &[Value], floor: &[Value]) -> Operation {
    let values = Some(values.iter().copied().collect());
    let floor = floor.iter().copied().collect();
    operation(begin, end, Level::One, What::Read { values, floor })
}

/// The promises that a history breaks, in alphabetical order.
fn broken(history: &[Operation]) -> Vec<&'static str> {
    let mut promises: Vec<_> = check(history, Duration::from_millis(HEALED), &Losses::default())
        .into_iter()
        .map(|violation| violation.promise)
        .collect();
    promises.sort_unstable();
    promises.dedup();
    promises
}

const VANISHED: &str = "nothing established vanishes";
const RETURNED: &str = "nothing replaced returns";
const FROM_NOWHERE: &str = "nothing comes from nowhere";
const BELOW: &str = "a read is not below its floor";

#[test]
fn a_history_in_good_order_breaks_nothing() {
    let history = [
        put(0, 1, 1, &[], Outcome::Acked),
        read(2, 3, &[1]),
        put(4, 5, 2, &[], Outcome::Acked),
        read(6, 7, &[1, 2]),
        put(8, 9, 3, &[1, 2], Outcome::Acked),
        read(10, 11, &[3]),
        delete_everything(12, 13),
        read(14, 15, &[]),
    ];
    assert!(broken(&history).is_empty());
}

#[test]
fn an_acknowledged_value_has_to_be_seen() {
    let unseen = [put(0, 1, 1, &[], Outcome::Acked), read(2, 3, &[])];
    assert_eq!(broken(&unseen), [VANISHED]);
    let at_the_same_time = [put(0, 5, 1, &[], Outcome::Acked), read(2, 3, &[])];
    assert!(broken(&at_the_same_time).is_empty());
    let unknown = [put(0, 1, 1, &[], Outcome::Unknown), read(2, 3, &[])];
    assert!(broken(&unknown).is_empty());
    let one_replica_only = [put(0, 1, 1, &[], Outcome::Acked), read_at(Level::One, 2, 3, &[])];
    assert!(broken(&one_replica_only).is_empty());
}

#[test]
fn what_a_quorum_showed_is_seen_ever_after() {
    let flickers = [put(0, 9, 1, &[], Outcome::Unknown), read(2, 3, &[1]), read(4, 5, &[])];
    assert_eq!(broken(&flickers), [VANISHED]);
}

#[test]
fn a_value_is_not_replaced_by_who_has_not_seen_it() {
    let blindly =
        [put(0, 1, 1, &[], Outcome::Acked), put(2, 3, 2, &[], Outcome::Acked), read(4, 5, &[2])];
    assert_eq!(broken(&blindly), [VANISHED]);
    let perhaps =
        [put(0, 1, 1, &[], Outcome::Acked), put(2, 3, 2, &[1], Outcome::Unknown), read(4, 5, &[2])];
    assert!(broken(&perhaps).is_empty());
    let surely_not = [
        put(0, 1, 1, &[], Outcome::Acked),
        put(2, 3, 2, &[1], Outcome::NotDone("refused".to_owned())),
        read(4, 5, &[]),
    ];
    assert_eq!(broken(&surely_not), [VANISHED]);
}

#[test]
fn what_was_replaced_stays_away() {
    let replaced = [
        put(0, 1, 1, &[], Outcome::Acked),
        put(2, 3, 2, &[1], Outcome::Acked),
        read(4, 5, &[1, 2]),
    ];
    assert_eq!(broken(&replaced), [RETURNED]);
    let deleted = [put(0, 1, 1, &[], Outcome::Acked), delete_everything(2, 3), read(4, 5, &[1])];
    assert_eq!(broken(&deleted), [RETURNED]);
    let mut repeated = replaced;
    let What::Write(first) = &mut repeated[0].what else { panic!("it is a put") };
    first.repeated = true;
    assert!(broken(&repeated).is_empty(), "each attempt may count as a write of its own");
}

#[test]
fn what_is_read_was_put() {
    assert_eq!(broken(&[read(0, 1, &[7])]), [FROM_NOWHERE]);
    let later = [read(0, 1, &[7]), put(2, 3, 7, &[], Outcome::Acked)];
    assert_eq!(broken(&later), [FROM_NOWHERE]);
    let refused = [put(0, 1, 7, &[], Outcome::NotDone("refused".to_owned())), read(2, 3, &[7])];
    assert_eq!(broken(&refused), [FROM_NOWHERE]);
}

#[test]
fn a_read_is_not_below_its_floor() {
    let put_one = || put(0, 1, 1, &[], Outcome::Acked);
    assert_eq!(broken(&[put_one(), not_below(2, 3, &[], &[1])]), [BELOW]);
    assert!(broken(&[put_one(), not_below(2, 3, &[1], &[1])]).is_empty());
}

#[test]
fn in_the_end_every_acknowledged_value_is_there_whatever_its_level() {
    let one = |at| {
        let mut one = put(at, at + 1, 1, &[], Outcome::Acked);
        one.level = Level::One;
        one
    };
    let before = [one(0), read(2, 3, &[])];
    assert!(broken(&before).is_empty());
    let after = [one(0), read_at(Level::All, HEALED, HEALED + 1, &[])];
    assert_eq!(broken(&after), [VANISHED]);
}

#[test]
fn what_was_shown_may_go_with_the_power_and_what_was_acknowledged_may_not() {
    let broken_by = |outcome, loss| {
        let history = [put(0, 1, 1, &[], outcome), read(2, 3, &[1]), read(6, 7, &[])];
        let losses = Losses { power: vec![Duration::from_millis(loss)], disks: Vec::new() };
        !check(&history, Duration::from_millis(HEALED), &losses).is_empty()
    };
    assert!(!broken_by(Outcome::Unknown, 5));
    assert!(broken_by(Outcome::Unknown, 1), "the power failed before");
    assert!(broken_by(Outcome::Acked, 5));
}

#[test]
fn what_one_replica_acknowledged_may_go_with_its_disk_and_what_a_quorum_did_may_not() {
    let broken_by = |level: Level| {
        let mut put = put(0, 1, 1, &[], Outcome::Acked);
        put.level = level;
        let history = [put, read_at(Level::All, HEALED, HEALED + 1, &[])];
        let losses = Losses { power: Vec::new(), disks: vec![Duration::from_millis(5)] };
        !check(&history, Duration::from_millis(HEALED), &losses).is_empty()
    };
    assert!(!broken_by(Level::One));
    assert!(broken_by(Level::Quorum));
}
