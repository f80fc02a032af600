//! Restarts under a wall clock that jumps: dots are never reused, and writes are never refused for more than a second.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::collections::BTreeSet;

use proptest::prelude::{Strategy, prop_oneof};
use proptest::{collection, proptest};
use starling_storage::values::{Context, Dot};
use starling_storage::{ActorChange, ClockError, NotLeading, PutError, Replica};
use support::{HOUR_US, Machine, put, sync};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many puts without time passing.
    Burst(u16),
    Wall(i64),
    Kill,
    PowerCut,
    CleanStop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..400_u16).prop_map(Step::Burst),
        2 => (-2_000_000..2_000_000_i64).prop_map(Step::Wall),
        1 => (-HOUR_US..HOUR_US).prop_map(Step::Wall),
        1 => (0..1_i64).prop_map(|_| Step::Wall(-HOUR_US)),
        1 => (0..1_i64).prop_map(|_| Step::Wall(HOUR_US)),
        2 => (0..1).prop_map(|_| Step::Kill),
        1 => (0..1).prop_map(|_| Step::PowerCut),
        1 => (0..1).prop_map(|_| Step::CleanStop),
    ]
}

/// A put, after the wait that the replica asks for: at most a second.
fn put_within_a_second(machine: &Machine, replica: &Replica) -> u64 {
    let mut waited = 0;
    let mut client = Context::new();
    loop {
        match put(replica, b"key", &client, 1, b"v") {
            Ok(put) => return put.mint,
            Err(PutError::NotLeading(NotLeading::Booting { wait_us })) => {
                waited += wait_us;
                assert!(waited <= 1_000_000, "refused for {waited} us");
                machine.wall.advance(wait_us as i64);
            }
            Err(PutError::TooManySiblings { .. }) => {
                client = support::state(replica, b"key").context().clone();
            }
            Err(other) => panic!("{other}"),
        }
    }
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 60, failure_persistence: None, ..Default::default() })]

    #[test]
    fn no_dot_is_minted_twice_and_no_restart_refuses_for_long(
        steps in collection::vec(step(), 1..30),
        seed in 0..1_000_u64,
    ) {
        let mut machine = Machine::new(seed * 100);
        let mut replica = Some(machine.start());
        let mut dots = BTreeSet::new();
        for step in steps {
            let running = replica.as_ref().unwrap();
            match step {
                Step::Burst(count) => {
                    for _ in 0..count {
                        let seq = put_within_a_second(&machine, running);
                        let dot = Dot { actor: running.identity().actor(), seq };
                        assert!(dots.insert(dot), "{dot} was minted twice");
                    }
                    sync(running);
                }
                Step::Wall(delta_us) => machine.wall.advance(delta_us),
                Step::Kill => drop(replica.take()),
                Step::PowerCut => {
                    drop(replica.take());
                    machine.power_cut();
                }
                Step::CleanStop => {
                    running.stop().unwrap();
                    drop(replica.take());
                }
            }
            replica.get_or_insert_with(|| machine.start());
        }
        put_within_a_second(&machine, replica.as_ref().unwrap());
    }
}

/// Restarts after `crash` with the wall clock stepped by `delta_us`; returns the reasons for new actors and the wait.
fn restart(delta_us: i64, clean: bool) -> (Vec<ActorChange>, u64) {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put_within_a_second(&machine, &replica);
    if clean {
        replica.stop().unwrap();
    }
    drop(replica);
    machine.wall.advance(delta_us);
    let replica = machine.start();
    let wait_us = replica.clock().boot_wait_us().unwrap();
    put_within_a_second(&machine, &replica);
    (replica.report().actor_changes.clone(), wait_us)
}

#[test]
fn a_restart_waits_or_changes_its_actor_by_how_far_the_clock_stepped() {
    let jumped = vec![ActorChange::ClockJumped];
    assert_eq!(restart(0, true), (vec![], 0));
    assert_eq!(restart(0, false), (vec![], 200_000));
    assert_eq!(restart(250_000, false), (vec![], 0));
    assert_eq!(restart(HOUR_US, false), (vec![], 0));
    assert_eq!(restart(HOUR_US, true), (vec![], 0));
    // The clean stop's lease is the one put, a microsecond after the start.
    assert_eq!(restart(-500_000, true), (vec![], 400_001));
    assert_eq!(restart(-HOUR_US, true), (jumped.clone(), 0));
    assert_eq!(restart(-HOUR_US, false), (jumped, 0));
}

#[test]
fn a_clock_that_steps_back_while_booting_is_noticed_at_the_first_put() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put_within_a_second(&machine, &replica);
    drop(replica);
    let replica = machine.start();
    let actor = replica.identity().actor();
    machine.wall.advance(-HOUR_US);
    let waits = replica.clock().boot_wait_us();
    assert!(matches!(waits, Err(ClockError::Jumped { .. })));
    put_within_a_second(&machine, &replica);
    assert_ne!(replica.identity().actor(), actor);
}
