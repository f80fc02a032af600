//! The search for an order finds one exactly where there is one.

use proptest::prelude::*;
use starling_tests::linearizable::{Call, Object, Verdict, search};

const STEPS_MAX: usize = 1_000_000;

/// A register with conditional updates.
struct Register;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    Read(u8),
    Write(u8),
    /// From, to, and whether it was done.
    Swap(u8, u8, bool),
}

use Operation::{Read, Swap, Write};

impl Object for Register {
    type State = u8;
    type Operation = Operation;

    fn initial(&self) -> u8 {
        0
    }

    fn apply(&self, state: &u8, operation: &Operation) -> Option<u8> {
        match *operation {
            Read(seen) => (seen == *state).then_some(*state),
            Write(value) => Some(value),
            Swap(from, to, true) => (from == *state).then_some(to),
            Swap(from, _, false) => (from != *state).then_some(*state),
        }
    }
}

fn call(begin: u64, end: u64, operation: Operation) -> Call<Operation> {
    Call { operation, begin, end: Some(end) }
}

fn unanswered(begin: u64, operation: Operation) -> Call<Operation> {
    Call { operation, begin, end: None }
}

fn is_linearizable(calls: &[Call<Operation>]) -> bool {
    match search(&Register, calls, STEPS_MAX) {
        Verdict::Linearizable(order) => {
            assert!(is_order_of(calls, &order), "{order:?} is no order of {calls:?}");
            true
        }
        Verdict::Impossible { .. } => false,
        Verdict::GaveUp => panic!("gave up on {calls:?}"),
    }
}

/// Whether the calls may have happened in this order, all that were answered among them.
fn is_order_of(calls: &[Call<Operation>], order: &[usize]) -> bool {
    let all = (0..calls.len()).all(|at| calls[at].end.is_none() || order.contains(&at));
    let in_time = order.iter().enumerate().all(|(place, at)| {
        order[place + 1..]
            .iter()
            .all(|later| calls[*later].end.is_none_or(|end| end >= calls[*at].begin))
    });
    let answers =
        order.iter().try_fold(0, |state, at| Register.apply(&state, &calls[*at].operation));
    all && in_time && answers.is_some()
}

/// The same by trying every order.
fn has_order(calls: &[Call<Operation>], order: &mut Vec<usize>) -> bool {
    if is_order_of(calls, order) {
        return true;
    }
    (0..calls.len()).any(|at| {
        if order.contains(&at) {
            return false;
        }
        order.push(at);
        let found = has_order(calls, order);
        order.pop();
        found
    })
}

#[test]
fn one_after_the_other() {
    assert!(is_linearizable(&[]));
    assert!(is_linearizable(&[call(0, 1, Write(1)), call(2, 3, Read(1))]));
    assert!(!is_linearizable(&[call(0, 1, Write(1)), call(2, 3, Read(0))]));
    assert!(!is_linearizable(&[call(0, 1, Read(1))]), "nobody wrote it");
}

#[test]
fn at_the_same_time_in_either_order() {
    for seen in [1, 2] {
        let both = [call(0, 5, Write(1)), call(0, 5, Write(2)), call(6, 7, Read(seen))];
        assert!(is_linearizable(&both));
    }
    let both = [call(0, 5, Write(1)), call(0, 5, Write(2))];
    let flips = [call(6, 7, Read(1)), call(8, 9, Read(2))];
    assert!(!is_linearizable(&[both, flips].concat()), "reads that follow one another disagree");
}

#[test]
fn what_was_not_answered_may_happen_late_or_never() {
    let lost = unanswered(0, Write(1));
    assert!(is_linearizable(&[lost.clone(), call(9, 10, Read(0))]));
    assert!(is_linearizable(&[lost.clone(), call(2, 3, Read(0)), call(9, 10, Read(1))]));
    assert!(!is_linearizable(&[lost, call(2, 3, Read(1)), call(9, 10, Read(0))]));
    assert!(
        !is_linearizable(&[call(0, 1, Read(1)), unanswered(5, Write(1))]),
        "not before it began"
    );
}

#[test]
fn of_two_swaps_from_one_value_one_is_done() {
    let one = [call(0, 5, Swap(0, 1, true)), call(0, 5, Swap(0, 2, false))];
    assert!(is_linearizable(&one));
    let two = [call(0, 5, Swap(0, 1, true)), call(0, 5, Swap(0, 2, true))];
    assert!(!is_linearizable(&two));
}

#[test]
fn what_is_impossible_names_where_it_got_stuck() {
    let calls =
        [call(0, 1, Write(1)), call(2, 3, Read(1)), call(4, 5, Read(7)), call(6, 7, Read(1))];
    let verdict = search(&Register, &calls, STEPS_MAX);
    assert_eq!(verdict, Verdict::Impossible { order: vec![0, 1], stuck: vec![2] });
    assert_eq!(search(&Register, &calls, 2), Verdict::GaveUp);
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (0..3_u8).prop_map(Read),
        (1..3_u8).prop_map(Write),
        (0..3_u8, 1..3_u8, any::<bool>()).prop_map(|(from, to, done)| Swap(from, to, done)),
    ]
}

fn calls() -> impl Strategy<Value = Vec<Call<Operation>>> {
    let one = (operations(), 0..8_u64, 0..6_u64, prop::bool::weighted(0.8)).prop_map(
        |(operation, begin, took, answered)| Call {
            operation,
            begin,
            end: answered.then_some(begin + took),
        },
    );
    prop::collection::vec(one, 0..6)
}

/// A register that was used by many at once, each operation done at some moment between its begin and its end.
fn histories() -> impl Strategy<Value = Vec<Call<Operation>>> {
    let one = (operations(), 0..40_u64, 0..40_u64, prop::bool::weighted(0.99));
    prop::collection::vec(one, 50..200).prop_map(|done| {
        let mut state = 0;
        let calls =
            (0..).step_by(10).zip(done).map(|(at, (operation, before, after, answered))| {
                let operation = match operation {
                    Read(_) => Read(state),
                    Swap(from, to, _) => Swap(from, to, from == state),
                    write @ Write(_) => write,
                };
                state = Register.apply(&state, &operation).expect("it is answered as it is done");
                let (begin, end) = ((at + 100_u64) - before, at + 100 + after);
                Call { operation, begin, end: answered.then_some(end) }
            });
        calls.collect()
    })
}

proptest! {
    #[test]
    fn it_finds_an_order_exactly_where_trying_all_finds_one(calls in calls()) {
        prop_assert_eq!(is_linearizable(&calls), has_order(&calls, &mut Vec::new()));
    }

    #[test]
    fn what_was_done_in_some_order_has_one(calls in histories()) {
        prop_assert!(is_linearizable(&calls));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_noticed(calls in histories(), at in any::<prop::sample::Index>()) {
        let mut calls = calls;
        let at = at.index(calls.len());
        calls[at] = call(calls[at].begin, calls[at].begin + 1, Read(9));
        prop_assert!(!is_linearizable(&calls));
    }
}
