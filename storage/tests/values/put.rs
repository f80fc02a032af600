//! The delta of a put, and what a reader sees of the result.

use bytes::Bytes;
use starling_storage::values::{Actor, Causal, Context, Dot, OperationId, put_delta};

const ME: Actor = Actor(7);
const OTHER: Actor = Actor(9);

fn operation(n: u8) -> OperationId {
    OperationId([n; 16])
}

fn put(state: &Causal, client: &Context, me: Actor, seq: u64, n: u8) -> Causal {
    put_delta(state, client, me, seq, operation(n), Some(Bytes::from(vec![n])), false)
}

fn shown(state: &Causal, lww: bool) -> Vec<u8> {
    state.visible(lww).iter().map(|sibling| sibling.value[0]).collect()
}

#[test]
fn a_put_with_the_context_it_read_replaces_what_it_read() {
    let first = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    let second = put(&first, first.context(), OTHER, 110, 2);
    assert_eq!(shown(&first.join(&second), false), [2]);
    let blind = put(&first, &Context::new(), OTHER, 110, 3);
    assert_eq!(shown(&first.join(&blind), false), [3, 1]);
    assert_eq!(shown(&first.join(&blind), true), [3]);
}

#[test]
fn a_delete_replaces_what_it_read_and_nothing_else() {
    let first = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    let unseen = put(&first, &Context::new(), OTHER, 105, 2);
    let both = first.join(&unseen);
    let delete = put_delta(&both, first.context(), ME, 120, operation(3), None, false);
    assert_eq!(shown(&both.join(&delete), false), [2]);
    let all = put_delta(&both, both.context(), ME, 121, operation(4), None, false);
    let tombstone = both.join(&all);
    assert_eq!(tombstone.sibling_count(), 0);
    assert!(!tombstone.is_absent());
    assert!(shown(&tombstone.join(&both), false).is_empty(), "a delete came back");
}

#[test]
fn the_returned_context_has_not_seen_the_siblings_of_others() {
    let theirs = put(&Causal::absent(), &Context::new(), OTHER, 90, 1);
    let delta = put(&theirs, &Context::new(), ME, 100, 2);
    assert_eq!(delta.context().max_seq(OTHER), 0);
    let mine = Dot { actor: ME, seq: 100 };
    assert!(delta.context().contains(mine));
    let next = put(&theirs.join(&delta), delta.context(), ME, 101, 3);
    assert_eq!(shown(&theirs.join(&delta).join(&next), false), [3, 1]);
}

#[test]
fn vouching_keeps_a_context_at_one_interval() {
    let mut state = Causal::absent();
    let mut client = Context::new();
    for step in 1..=1_000u64 {
        // Other keys take the numbers between.
        let delta = put(&state, &client, ME, step * 17, 1);
        state = state.join(&delta);
        client = delta.context().clone();
        let spans = state.context().intervals(ME).unwrap().as_slice();
        assert_eq!(spans.len(), 1);
        assert_eq!(state.sibling_count(), 1);
    }
}

#[test]
fn vouching_spares_the_siblings_it_knows() {
    let first = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    let blind = put(&first, &Context::new(), ME, 200, 2);
    assert!(!blind.context().contains(Dot { actor: ME, seq: 100 }));
    assert!(!blind.context().contains(Dot { actor: ME, seq: 99 }), "vouched for already");
    assert!(blind.context().contains(Dot { actor: ME, seq: 101 }));
    assert_eq!(shown(&blind.join(&first), false), [2, 1]);
}

#[test]
fn a_repeated_put_shows_once() {
    let first = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    // The answer was lost; the client repeats the operation, with the same context, at another replica.
    let again = put(&first, &Context::new(), OTHER, 130, 1);
    let joined = first.join(&again);
    assert_eq!(joined.sibling_count(), 2);
    assert_eq!(shown(&joined, false), [1]);
    // What replaces the shown one replaces both: the context of a read covers all.
    let next = put(&joined, joined.context(), ME, 140, 2);
    assert_eq!(shown(&joined.join(&next), false), [2]);
    // A repeat after somebody replaced the first leaves the later value beside it, never instead of it.
    let replaced = first.join(&put(&first, first.context(), OTHER, 110, 3));
    let late = put(&replaced, &Context::new(), ME, 150, 1);
    assert_eq!(shown(&replaced.join(&late), false), [1, 3]);
}

#[test]
fn the_newest_dot_of_an_operation_is_shown_and_the_newest_first() {
    let mut state = Causal::absent();
    for (actor, seq, n) in
        [(OTHER, 50, 1), (ME, 60, 2), (OTHER, 70, 3), (ME, 80, 1), (OTHER, 80, 4)]
    {
        state = state.join(&put(&state, &Context::new(), actor, seq, n));
    }
    assert_eq!(shown(&state, false), [4, 1, 3, 2]);
    assert_eq!(shown(&state, true), [4]);
    assert!(shown(&Causal::absent(), true).is_empty());
}

#[test]
fn an_lww_put_replaces_what_its_leader_sees() {
    let mut state = put(&Causal::absent(), &Context::new(), OTHER, 50, 1);
    state = state.join(&put(&state, &Context::new(), OTHER, 60, 2));
    let value = Some(Bytes::from_static(&[3]));
    let delta = put_delta(&state, &Context::new(), ME, 100, operation(3), value, true);
    assert!(state.precedes(&delta));
    assert_eq!(state.join(&delta).sibling_count(), 1);
}

#[test]
fn survivors_are_the_siblings_a_client_has_not_seen() {
    let first = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    let both = first.join(&put(&first, &Context::new(), OTHER, 110, 2));
    assert_eq!(both.survivors(&Context::new()), 2);
    assert_eq!(both.survivors(first.context()), 1);
    assert_eq!(both.survivors(both.context()), 0);
}

#[test]
fn a_context_that_knows_more_of_me_than_i_do_reveals_amnesia() {
    let mine = put(&Causal::absent(), &Context::new(), ME, 100, 1);
    let forgotten = Causal::absent();
    let client = mine.context();
    assert!(client.actor_is_covered_by(ME, mine.context(), 0));
    assert!(!client.actor_is_covered_by(ME, forgotten.context(), 0));
    assert!(!client.actor_is_covered_by(ME, forgotten.context(), 99));
    assert!(client.actor_is_covered_by(ME, forgotten.context(), 100), "reaped, not forgotten");
    assert!(client.actor_is_covered_by(OTHER, forgotten.context(), 0));
}

#[test]
fn a_delta_has_seen_its_own_dot_whatever_the_state_claims() {
    let mut claims = Context::new();
    claims.insert(ME, 0, 1_000);
    let state = Causal::from_parts(claims, []).unwrap();
    let delta = put(&state, &Context::new(), ME, 500, 1);
    assert!(delta.context().contains(Dot { actor: ME, seq: 500 }));
    assert_eq!(Causal::decode(delta.encode()), Ok(delta));
}
