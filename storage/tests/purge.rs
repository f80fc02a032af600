//! Forgetting deletes: only below the floor, never to come back, across power cuts and clocks that step.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use starling_storage::floors::Floor;
use starling_storage::keys::storage_key;
use starling_storage::leaves::Area;
use starling_storage::replica::Refusal;
use starling_storage::values::{Context, OperationId};
use starling_storage::{ApplyError, Carries, Envelope, Put, PutRequest, Replica, Tier};
use support::{HOUR_US, Machine, state, values};

const TABLE: u32 = 7;
/// The grid of the tests' replicas has so many slots; the tests' keys are in the first.
const SLOTS: u32 = 16;
const AREA: Area = Area { table: TABLE, slot: 0 };

fn key(n: u64) -> Bytes {
    let first_token = (1_u64 << 63).cast_signed();
    Bytes::from(storage_key(TABLE, first_token + n.cast_signed(), &n.to_be_bytes()))
}

fn write(replica: &Replica, n: u64, client: &Context, value: Option<&'static [u8]>) -> Put {
    let mint = replica.clock().last().to_be_bytes();
    let request = PutRequest {
        table: TABLE,
        key: key(n),
        client: client.clone(),
        operation: OperationId([mint, n.to_be_bytes()].concat().try_into().unwrap()),
        value: value.map(Bytes::from_static),
        lww: false,
        hints: Vec::new(),
    };
    replica.put(&request, Tier::Any).unwrap()
}

/// A key that was written and deleted: the put and the delete.
fn deleted(replica: &Replica, n: u64) -> (Put, Put) {
    let put = write(replica, n, &Context::new(), Some(b"old"));
    let delete = write(replica, n, &put.context, None);
    (put, delete)
}

/// What all replicas of the slot do once they agree up to now.
fn raise(replica: &Replica) -> Floor {
    let writes = replica.seal();
    let states = replica.promise(&[0], writes).unwrap();
    let floor = Floor { promised: writes, writes, states };
    replica.adopt_floor(&[0], floor).unwrap();
    floor
}

fn sweep(replica: &Replica) -> u64 {
    assert!(replica.refresh(AREA, u64::MAX).unwrap().complete);
    replica.purge(AREA, None).unwrap().keys
}

fn is_late(replica: &Replica, envelope: Envelope) -> bool {
    match replica.apply(&[envelope]) {
        Ok(()) => false,
        Err(ApplyError::BadOperands { bad }) => matches!(bad[0].reason, Refusal::Late { .. }),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_tombstone_is_forgotten_below_the_floor_and_nothing_else_is() {
    let replica = Machine::new(1).start();
    deleted(&replica, 1);
    write(&replica, 2, &Context::new(), Some(b"live"));
    assert_eq!(sweep(&replica), 0, "nobody has agreed to anything");
    raise(&replica);
    deleted(&replica, 3);
    assert_eq!(sweep(&replica), 1);
    assert!(state(&replica, &key(1)).is_absent());
    assert_eq!(values(&replica, &key(2)), ["live"]);
    assert!(!state(&replica, &key(3)).is_absent(), "it was deleted after the floor");
    assert!(replica.leaves().has_tombstones());
    raise(&replica);
    assert_eq!(sweep(&replica), 1);
    sweep(&replica);
    assert!(!replica.leaves().has_tombstones());
}

#[test]
fn with_a_grace_a_tombstone_is_forgotten_by_its_age_alone() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    deleted(&replica, 1);
    let grace = Some(Duration::from_secs(60));
    assert!(replica.refresh(AREA, u64::MAX).unwrap().complete);
    assert_eq!(replica.purge(AREA, grace).unwrap().keys, 0);
    machine.wall.advance(61_000_000);
    assert_eq!(replica.purge(AREA, grace).unwrap().keys, 1);
    assert!(state(&replica, &key(1)).is_absent());
}

/// One replica was away, so that no floor rises, and a peer sends back what has passed its grace here.
#[test]
fn what_is_forgotten_by_its_age_is_neither_amnesia_nor_taken_again() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let other = Machine::new(50).start();
    let (_, delete) = deleted(&replica, 1);
    let tombstone = state(&replica, &key(1)).encode();
    let missed = write(&other, 2, &Context::new(), Some(b"deleted while this replica was away"));
    write(&other, 2, &missed.context, None);
    let newer = state(&other, &key(2)).encode();
    let grace = Some(Duration::from_secs(60));
    assert!(replica.refresh(AREA, u64::MAX).unwrap().complete);
    machine.wall.advance(61_000_000);
    assert_eq!(replica.purge(AREA, grace).unwrap().keys, 1);
    let actor = replica.identity().actor();
    for _ in 0..2 {
        replica.apply_repair(&[support::envelope(key(1), tombstone.clone())]).unwrap();
        assert!(
            state(&replica, &key(1)).is_absent(),
            "it would be forgotten and come back for ever"
        );
    }
    assert_eq!(replica.identity().actor(), actor);
    write(&replica, 1, &delete.context, Some(b"new"));
    assert_eq!(replica.identity().actor(), actor);
    // What deletes something here is news, however old it is.
    replica.apply(&[support::envelope(key(2), missed.delta)]).unwrap();
    replica.apply_repair(&[support::envelope(key(2), newer)]).unwrap();
    assert!(values(&replica, &key(2)).is_empty());
}

#[test]
fn a_forgotten_key_hashes_as_one_that_never_was() {
    let (one, other) = (Machine::new(1).start(), Machine::new(2).start());
    for replica in [&one, &other] {
        deleted(replica, 1);
        raise(replica);
        sweep(replica);
        sweep(replica);
    }
    deleted(&other, 2);
    raise(&other);
    sweep(&other);
    sweep(&other);
    let digest = |replica: &Replica| replica.leaf_hashes(AREA).unwrap().digest();
    assert_eq!(digest(&one), digest(&other));
}

#[test]
fn what_was_made_before_the_floor_brings_nothing_back() {
    let replica = Machine::new(1).start();
    let (put, _) = deleted(&replica, 1);
    let seen = replica.store().get(starling_storage::Family::Data, &key(1), Tier::Any).unwrap();
    let starling_storage::Lookup::Found(tombstone) = seen else { panic!("{seen:?}") };
    let floor = raise(&replica);
    assert_eq!(sweep(&replica), 1);
    let envelope = |operand: &Bytes, mint, carries| Envelope {
        key: key(1),
        operand: operand.clone(),
        mint,
        carries,
    };
    assert!(is_late(&replica, envelope(&put.delta, put.mint, Carries::Write)), "a late hint");
    assert!(is_late(&replica, envelope(&put.delta, floor.writes, Carries::Write)));
    let paused = envelope(&put.delta, floor.states - 1, Carries::State);
    assert!(is_late(&replica, paused), "a coordinator that slept between its read and its repair");
    assert!(state(&replica, &key(1)).is_absent());
    // What another replica has not yet forgotten is known here, and is not stored again.
    assert!(!is_late(&replica, envelope(&tombstone, floor.states, Carries::State)));
    assert!(state(&replica, &key(1)).is_absent());
    // A new write is as welcome as ever.
    let other = Machine::new(2).start();
    let fresh = write(&other, 1, &Context::new(), Some(b"new"));
    assert!(!is_late(&replica, envelope(&fresh.delta, floor.writes + 1, Carries::Write)));
    assert_eq!(values(&replica, &key(1)), ["new"]);
}

#[test]
fn a_floor_outlasts_a_power_cut_and_a_clock_that_steps_back() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    deleted(&replica, 1);
    let floor = raise(&replica);
    assert_eq!(sweep(&replica), 1);
    drop(replica);
    machine.power_cut();
    machine.wall.advance(-HOUR_US);
    let replica = machine.start();
    assert_eq!(replica.floors().of(0), floor);
    assert_eq!(replica.floors().of(1), Floor::default());
    assert_eq!(replica.floors().runs().iter().map(|(len, _)| *len).sum::<u32>(), SLOTS);
    machine.wall.advance(1_000_000);
    let put = write(&replica, 1, &Context::new(), Some(b"new"));
    assert!(put.mint > floor.writes, "its own peers would refuse it");
    assert_eq!(values(&replica, &key(1)), ["new"]);
    let lower = Floor { promised: 1, writes: 1, states: 1 };
    replica.adopt_floor(&[0], lower).unwrap();
    assert_eq!(replica.floors().of(0), floor, "a floor never falls");
}

#[test]
fn a_forgotten_write_of_ones_own_is_no_amnesia() {
    let replica = Machine::new(1).start();
    let (_, delete) = deleted(&replica, 1);
    let actor = replica.identity().actor();
    raise(&replica);
    assert_eq!(sweep(&replica), 1);
    write(&replica, 1, &delete.context, Some(b"new"));
    assert_eq!(replica.identity().actor(), actor);
    assert_eq!(values(&replica, &key(1)), ["new"]);
}

#[test]
fn what_others_have_forgotten_is_dropped_by_a_replica_that_lost_its_deletes() {
    let replica = Machine::new(1).start();
    write(&replica, 1, &Context::new(), Some(b"deleted elsewhere"));
    write(&replica, 2, &Context::new(), Some(b"live"));
    let live = state(&replica, &key(2)).encode();
    let floor = replica.seal();
    write(&replica, 1, &Context::new(), Some(b"newer than the floor"));
    let theirs = [(key(1), None), (key(2), Some(live)), (key(3), None)];
    assert_eq!(replica.drop_unless_known(&theirs, floor).unwrap(), 1);
    assert_eq!(values(&replica, &key(1)), ["newer than the floor"]);
    assert_eq!(values(&replica, &key(2)), ["live"]);
}

#[test]
fn a_state_that_was_read_before_a_promise_is_late_though_the_clock_stood_still() {
    let replica = Machine::new(1).start();
    let (put, _) = deleted(&replica, 1);
    let mint = replica.clock().last();
    raise(&replica);
    assert_eq!(sweep(&replica), 1);
    let read = Envelope { key: key(1), operand: put.delta, mint, carries: Carries::State };
    assert!(is_late(&replica, read));
}

#[test]
fn a_clock_that_steps_back_before_the_first_put_does_not_start_over_below_a_seal() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let sealed = replica.seal();
    assert!(sealed > 0);
    machine.wall.advance(-2_000_000);
    assert!(write(&replica, 1, &Context::new(), Some(b"v")).mint > sealed);
    drop(replica);
    machine.wall.advance(2_000_000);
    assert_eq!(machine.start().seal(), 0, "it has to wait before it may lead");
}

#[test]
fn whatever_is_led_after_a_seal_is_above_it() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    for n in 0..50 {
        let sealed = replica.seal();
        assert!(write(&replica, n, &Context::new(), Some(b"v")).mint > sealed);
        machine.wall.advance(if n % 2 == 0 { -1_000 } else { 500 });
    }
}
