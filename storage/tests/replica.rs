//! Leading and applying writes, through the replica's boundary.

#![allow(clippy::unwrap_used, reason = "test code")]

mod support;

use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use starling_storage::replica::Refusal;
use starling_storage::values::{Causal, Context, DecodeError};
use starling_storage::{
    ActorChange, ApplyError, DiskFiles, Family, Lookup, ManualClock, MemoryFiles, MemoryStore,
    NotLeading, OpenError, PutError, Replica, RocksOptions, RocksStore, StoreError, Tier,
};
use support::{
    HOUR_US, Machine, START_US, envelope, host, open, put, request, state, sync, values,
};

const KEY: &[u8] = b"a storage key";

fn on_both(check: impl Fn(&Replica)) {
    check(&Machine::new(1).start());
    let directory = tempfile::tempdir().unwrap();
    let store = RocksStore::open(&directory.path().join("db"), &RocksOptions::default()).unwrap();
    let files = DiskFiles::open(directory.path()).unwrap();
    let wall = Arc::new(ManualClock::new(START_US));
    check(&open(Arc::new(store), Arc::new(files), wall, 1, 1));
}

#[test]
fn concurrent_puts_are_siblings_until_a_put_has_seen_both() {
    on_both(|replica| {
        let nothing = Context::new();
        put(replica, KEY, &nothing, 1, b"a").unwrap();
        put(replica, KEY, &nothing, 2, b"b").unwrap();
        assert_eq!(values(replica, KEY), ["b", "a"]);
        let seen = state(replica, KEY).context().clone();
        put(replica, KEY, &seen, 3, b"c").unwrap();
        assert_eq!(values(replica, KEY), ["c"]);
    });
}

#[test]
fn a_stale_context_removes_nothing_it_has_not_seen() {
    on_both(|replica| {
        let first = put(replica, KEY, &Context::new(), 1, b"a").unwrap();
        let second = put(replica, KEY, &first.context, 2, b"b").unwrap();
        put(replica, KEY, &first.context, 3, b"c").unwrap();
        assert_eq!(values(replica, KEY), ["c", "b"]);
        let delete = request(KEY, &second.context, 4, None);
        replica.put(&delete, Tier::Any).unwrap();
        assert_eq!(values(replica, KEY), ["c"]);
    });
}

#[test]
fn a_retry_with_its_operation_id_shows_once_and_is_replaced_whole() {
    on_both(|replica| {
        put(replica, KEY, &Context::new(), 1, b"a").unwrap();
        let retried = put(replica, KEY, &Context::new(), 1, b"a").unwrap();
        assert_eq!(values(replica, KEY), ["a"]);
        assert_eq!(state(replica, KEY).sibling_count(), 1, "it takes no room twice");
        let seen = state(replica, KEY).context().clone();
        assert!(retried.context.is_subset(&seen));
        put(replica, KEY, &seen, 2, b"b").unwrap();
        assert_eq!(values(replica, KEY), ["b"]);
    });
}

#[test]
fn a_last_write_wins_put_replaces_what_the_leader_sees() {
    on_both(|replica| {
        for operation in 1..4 {
            let nothing = Context::new();
            let mut request = request(KEY, &nothing, operation, Some(b"v"));
            request.lww = true;
            replica.put(&request, Tier::Any).unwrap();
        }
        assert_eq!(state(replica, KEY).sibling_count(), 1);
    });
}

/// Puts in one group are what they would be one after the other, those of one key included.
#[test]
fn a_group_of_puts_equals_the_puts_of_the_group() {
    let client = Context::new();
    let mut requests = vec![
        request(b"a", &client, 1, Some(b"1")),
        request(b"b", &client, 2, Some(b"2")),
        request(b"a", &client, 3, Some(b"3")),
        request(b"a", &client, 4, None),
        request(b"b", &client, 5, Some(b"5")),
    ];
    requests[4].lww = true;
    let visible = |replica: &Replica| [b"a", b"b"].map(|key| values(replica, key));
    let alone = Machine::new(1).start();
    for request in &requests {
        alone.put(request, Tier::Any).unwrap();
    }
    on_both(|replica| {
        let puts: Vec<_> = replica.put_all(&requests, Tier::Any);
        let puts: Vec<_> = puts.into_iter().map(Result::unwrap).collect();
        assert!(puts.is_sorted_by_key(|put| put.mint));
        assert_eq!(visible(replica), visible(&alone));
        for key in [b"a", b"b"] {
            let deltas = requests.iter().zip(&puts).filter(|(request, _)| request.key == key[..]);
            let deltas = deltas.map(|(_, put)| Causal::decode(put.delta.clone()).unwrap());
            let joined = deltas.fold(Causal::default(), |joined, delta| joined.join(&delta));
            assert_eq!(joined, state(replica, key), "the others join what the leader has");
        }
    });
}

#[test]
fn one_refused_put_spares_its_group() {
    on_both(|replica| {
        let seen = Context::new();
        let mut requests = [1, 2, 3].map(|n| request(&[n], &seen, n, Some(b"v")));
        requests[1].value = Some(Bytes::from(vec![0; 50 << 20]));
        let outcomes = replica.put_all(&requests, Tier::Any);
        assert!(matches!(outcomes[..], [Ok(_), Err(PutError::ObjectTooLarge { .. }), Ok(_)]));
        let counts = [1, 2, 3].map(|key| state(replica, &[key]).sibling_count());
        assert_eq!(counts, [1, 0, 1]);
    });
}

/// An async worker that waited for the stripe would keep everything else on the node waiting, too.
#[test]
fn nobody_waits_for_a_stripe_whose_holder_waits_for_the_store() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let delta = put(&replica, KEY, &Context::new(), 1, b"v").unwrap().delta;
    let write = envelope(Bytes::from_static(KEY), delta);
    let request = request(KEY, &Context::new(), 2, Some(b"w"));
    machine.store.hold_up(true);
    std::thread::scope(|scope| {
        let held_up = scope.spawn(|| replica.put(&request, Tier::Any));
        while machine.store.held_up() == 0 {
            std::thread::yield_now();
        }
        assert!(matches!(replica.put(&request, Tier::Cached), Err(PutError::NotCached)));
        let applied = replica.apply(slice::from_ref(&write));
        assert!(matches!(applied, Err(ApplyError::Store(StoreError::Stalled))));
        machine.store.hold_up(false);
        held_up.join().unwrap().unwrap();
    });
    replica.apply(&[write]).unwrap();
}

#[test]
fn a_stalled_group_writes_nothing_and_says_so_to_all() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put(&replica, b"other", &Context::new(), 9, b"v").unwrap();
    let down = [host(7)];
    let requests = [1, 2].map(|n| {
        let mut request = request(&[n], &Context::new(), n, Some(b"v"));
        request.hints = down.to_vec();
        request
    });
    machine.store.make_stalled(true);
    for outcome in replica.put_all(&requests, Tier::Cached) {
        assert!(matches!(outcome, Err(PutError::NotCached)));
    }
    machine.store.make_stalled(false);
    assert_eq!(replica.hints().pending(down[0]), (0, 0));
    assert_eq!([1, 2].map(|key| state(&replica, &[key]).sibling_count()), [0, 0]);
    assert!(replica.put_all(&requests, Tier::Cached).iter().all(Result::is_ok));
    assert_eq!(replica.hints().pending(down[0]).0, 2);
}

#[test]
fn a_delta_applied_elsewhere_gives_the_leader_s_state_in_any_order() {
    let leader = Machine::new(1).start();
    let nothing = Context::new();
    let first = put(&leader, KEY, &nothing, 1, b"a").unwrap();
    let second = put(&leader, KEY, &first.context, 2, b"b").unwrap();
    let third = put(&leader, KEY, &nothing, 3, b"c").unwrap();
    on_both(|follower| {
        let operands = [&third, &first, &second, &first];
        let writes: Vec<_> =
            operands.map(|put| envelope(Bytes::from_static(KEY), put.delta.clone())).into();
        follower.apply(&writes).unwrap();
        assert_eq!(state(follower, KEY), state(&leader, KEY));
    });
}

#[test]
fn a_damaged_operand_is_named_and_the_others_are_applied() {
    let leader = Machine::new(1).start();
    let good = put(&leader, KEY, &Context::new(), 1, b"a").unwrap().delta;
    let mut damaged = good.to_vec();
    damaged[9] ^= 1;
    on_both(|follower| {
        let writes = [
            envelope(Bytes::from_static(b"x"), Bytes::from(damaged.clone())),
            envelope(Bytes::from_static(KEY), good.clone()),
            envelope(Bytes::from_static(b"y"), Bytes::new()),
        ];
        match follower.apply(&writes) {
            Err(ApplyError::BadOperands { bad }) => {
                assert_eq!(bad.iter().map(|b| b.index).collect::<Vec<_>>(), [0, 2]);
                assert!(matches!(bad[0].reason, Refusal::Damaged(DecodeError::Checksum { .. })));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(values(follower, KEY), ["a"]);
        for key in [b"x", b"y"] {
            assert_eq!(follower.read(key, Tier::Any).unwrap(), Lookup::Absent);
        }
    });
}

#[test]
fn long_chains_of_operands_are_collapsed_by_a_read() {
    let leader = Machine::new(1).start();
    on_both(|follower| {
        for operation in 1..=12 {
            let put = put(&leader, KEY, &Context::new(), operation, b"v").unwrap();
            let write = envelope(Bytes::from_static(KEY), put.delta);
            follower.apply(&[write]).unwrap();
        }
        let chain = || {
            let read = follower.store().get_with_chain(Family::Data, KEY, Tier::Any);
            read.unwrap().1
        };
        assert_eq!(chain(), 12);
        let before = state(follower, KEY);
        assert_eq!(chain(), 0);
        assert_eq!(state(follower, KEY), before);
    });
}

#[test]
fn too_many_siblings_are_refused_at_the_leader_only() {
    let replica = Machine::new(1).start();
    for n in 0..100 {
        put(&replica, KEY, &Context::new(), n, b"v").unwrap();
    }
    let refused = put(&replica, KEY, &Context::new(), 200, b"v");
    assert!(matches!(refused, Err(PutError::TooManySiblings { count: 101, max: 100 })));
    let seen = state(&replica, KEY).context().clone();
    put(&replica, KEY, &seen, 201, b"v").unwrap();
    assert_eq!(state(&replica, KEY).sibling_count(), 1);
}

#[test]
fn an_object_over_the_limit_is_refused_and_changes_nothing() {
    let replica = Machine::new(1).start();
    put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    let before = state(&replica, KEY);
    let nothing = Context::new();
    let mut large = request(KEY, &nothing, 2, None);
    large.value = Some(Bytes::from(vec![0; 50 << 20]));
    let refused = replica.put(&large, Tier::Any);
    assert!(matches!(refused, Err(PutError::ObjectTooLarge { .. })));
    assert_eq!(state(&replica, KEY), before);
}

#[test]
fn what_would_block_says_so_and_succeeds_where_it_may() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let nothing = Context::new();
    let cached = request(KEY, &nothing, 1, Some(b"a"));
    // The first mint needs a lease, which is a write to the disk.
    assert!(matches!(replica.put(&cached, Tier::Cached), Err(PutError::NotCached)));
    put(&replica, b"other", &nothing, 9, b"v").unwrap();
    replica.put(&cached, Tier::Cached).unwrap();
    machine.store.make_cold(true);
    assert!(matches!(replica.put(&cached, Tier::Cached), Err(PutError::NotCached)));
    assert_eq!(replica.read(KEY, Tier::Cached).unwrap(), Lookup::NotCached);
    machine.store.make_cold(false);
    machine.store.make_stalled(true);
    assert!(matches!(replica.put(&cached, Tier::Cached), Err(PutError::NotCached)));
    let delta = put(&replica, KEY, &nothing, 1, b"a").unwrap().delta;
    let write = [envelope(Bytes::from_static(KEY), delta)];
    let stalled = replica.apply(&write);
    assert!(matches!(stalled, Err(ApplyError::Store(StoreError::Stalled))));
    replica.apply_waiting(&write).unwrap();
}

#[test]
fn a_context_that_knows_more_of_the_actor_than_the_store_means_a_new_actor() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let lost = put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    let actor = replica.identity().actor();
    drop(replica);
    // The process dies and its store forgets, without any of the signs a start looks for.
    machine.store.crash();
    let replica = machine.start();
    machine.wall.advance(1_000_000);
    assert_eq!(replica.identity().actor(), actor);
    let nothing = Context::new();
    put(&replica, KEY, &lost.context, 2, b"b").unwrap();
    assert_ne!(replica.identity().actor(), actor);
    assert_eq!(values(&replica, KEY), ["b"]);
    // The lost write comes back from another replica: the put that had seen it stays above it.
    let write = envelope(Bytes::from_static(KEY), lost.delta);
    replica.apply(&[write]).unwrap();
    assert_eq!(values(&replica, KEY), ["b"]);
    put(&replica, KEY, &nothing, 3, b"c").unwrap();
    assert_eq!(values(&replica, KEY), ["c", "b"]);
}

#[test]
fn a_repair_that_knows_more_of_the_actor_means_a_new_actor_before_the_next_dot() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let lost = put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    let actor = replica.identity().actor();
    drop(replica);
    machine.store.crash();
    let replica = machine.start();
    machine.wall.advance(1_000_000);
    let write = envelope(Bytes::from_static(KEY), lost.delta);
    replica.apply_repair(std::slice::from_ref(&write)).unwrap();
    let renewed = replica.identity().actor();
    assert_ne!(renewed, actor);
    replica.apply_repair(&[write]).unwrap();
    assert_eq!(replica.identity().actor(), renewed, "it knows them by now");
}

/// Its next blind put would erase, at its peers, what only they still hold.
#[test]
fn a_replica_taken_back_to_an_older_state_vouches_for_nothing_that_it_forgot() {
    let mut machine = Machine::new(1);
    let (replica, peer) = (machine.start(), Machine::new(50).start());
    let forgotten = put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    peer.apply(&[envelope(Bytes::from_static(KEY), forgotten.delta)]).unwrap();
    machine.store.crash();
    replica.forget().unwrap();
    let blind = put(&replica, KEY, &Context::new(), 2, b"b").unwrap();
    peer.apply(&[envelope(Bytes::from_static(KEY), blind.delta)]).unwrap();
    assert_eq!(values(&peer, KEY), ["b", "a"]);
    drop(replica);
    machine.power_cut();
    assert!(!machine.start().is_whole());
}

#[test]
fn a_power_cut_over_unsynced_writes_means_a_new_actor() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    let actor = replica.identity().actor();
    drop(replica);
    machine.power_cut();
    let replica = machine.start();
    assert_ne!(replica.identity().actor(), actor);
    assert_eq!(replica.report().actor_changes, [ActorChange::UncleanBoot]);
    assert_eq!(values(&replica, KEY), [] as [&str; 0]);
}

#[test]
fn a_clean_stop_keeps_the_actor_over_a_reboot() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    let actor = replica.identity().actor();
    replica.stop().unwrap();
    let refused = put(&replica, KEY, &Context::new(), 2, b"b");
    let expected = NotLeading::Stopped;
    assert!(matches!(refused, Err(PutError::NotLeading(why)) if why == expected));
    drop(replica);
    machine.power_cut();
    let replica = machine.start();
    assert_eq!(replica.identity().actor(), actor);
    assert_eq!(replica.report().actor_changes, []);
    assert_eq!(values(&replica, KEY), ["a"]);
}

#[test]
fn recovering_less_than_the_high_water_mark_is_amnesia_until_repaired() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    sync(&replica);
    let actor = replica.identity().actor();
    assert!(replica.is_whole());
    drop(replica);
    // The disk is swapped for an empty one; the records beside the store survive.
    machine.store = Arc::new(MemoryStore::new());
    let replica = machine.start();
    assert_eq!(replica.report().actor_changes, [ActorChange::LostWrites]);
    assert_ne!(replica.identity().actor(), actor);
    drop(replica);
    let replica = machine.start();
    assert_eq!(replica.report().actor_changes, [], "declared once");
    assert!(!replica.is_whole(), "but not forgotten");
    replica.amnesia_repaired().unwrap();
    assert!(replica.is_whole());
}

#[test]
fn a_store_of_another_identity_means_a_new_actor() {
    let mut one = Machine::new(1);
    drop(one.start());
    let mut two = Machine::new(50);
    let replica = two.start();
    put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    sync(&replica);
    drop(replica);
    let own = std::mem::replace(&mut one.store, two.store.clone());
    let refused = one.open().map(|_| ()).unwrap_err();
    assert!(matches!(refused, OpenError::OtherIdentity), "{refused}");
    one.store = own;
    let replica = one.start();
    assert_eq!(replica.report().actor_changes, [], "nothing was changed");
    replica.identity().join_cluster([1; 16]).unwrap();
    drop(replica);
    one.store = two.store.clone();
    let replica = one.start();
    assert_eq!(replica.report().actor_changes, [ActorChange::StoreMismatch]);
    assert!(!replica.is_whole(), "what it had acknowledged is not there");
}

#[test]
fn clients_write_over_what_they_saw_before_the_clock_stepped_back() {
    let mut machine = Machine::new(1);
    let replica = machine.start();
    let first = put(&replica, KEY, &Context::new(), 1, b"a").unwrap();
    replica.stop().unwrap();
    machine.wall.advance(-HOUR_US);
    let replica = machine.start();
    put(&replica, KEY, &first.context, 2, b"b").unwrap();
    assert_eq!(values(&replica, KEY), ["b"]);
    let foreign = put(&replica, b"never seen", &first.context, 3, b"c");
    assert!(matches!(foreign, Err(PutError::ClockSkew { .. })));
}

#[test]
fn hints_are_written_with_the_put_they_belong_to() {
    let replica = Machine::new(1).start();
    let (down, nothing) = ([host(7), host(8)], Context::new());
    let mut request = request(KEY, &nothing, 1, Some(b"a"));
    request.hints = down.to_vec();
    let put = replica.put(&request, Tier::Any).unwrap();
    for target in down {
        let owed = replica.hints().next(target, usize::MAX, 1 << 20).unwrap();
        assert_eq!(owed.len(), 1);
        let hint = owed[0].hint.as_ref().unwrap();
        assert_eq!((hint.table, hint.mint), (1, put.mint));
        assert_eq!((hint.key.as_ref(), &hint.operand), (KEY, &put.delta));
    }
}

#[test]
fn puts_of_one_key_from_many_threads_lose_nothing() {
    let replica = Arc::new(open(
        Arc::new(MemoryStore::new()),
        Arc::new(MemoryFiles::new()),
        Arc::new(ManualClock::new(START_US)),
        1,
        1,
    ));
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let replica = replica.clone();
            std::thread::spawn(move || {
                for n in 0..20 {
                    put(&replica, KEY, &Context::new(), thread * 20 + n, b"v").unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(state(&replica, KEY).sibling_count(), 80);
}

#[test]
fn an_unreadable_state_is_refused_and_kept() {
    on_both(|replica| {
        let mut batch = starling_storage::Batch::new();
        let garbage = Bytes::from_static(b"garbage");
        batch.put(Family::Data, Bytes::from_static(KEY), garbage.clone());
        replica.store().write(batch).unwrap();
        let refused = put(replica, KEY, &Context::new(), 1, b"a");
        assert!(matches!(refused, Err(PutError::NotLeading(NotLeading::Unreadable { .. }))));
        assert_eq!(replica.read(KEY, Tier::Any).unwrap(), Lookup::Found(garbage));
    });
}
