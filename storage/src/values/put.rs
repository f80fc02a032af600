//! The delta of one put or delete, with the vouching rule: the smallest state whose join into any replica performs the write.
//!
//! Invariant: the delta claims to have seen only what the client has seen, the new dot, and dots of the leader's own that are not on this key.
//! The last claim (vouching) is what keeps a key's context at one interval; it is true only under the caller's obligations below.
//!
//! It mints nothing, stores nothing and sends nothing.

use bytes::Bytes;

use super::causal::{Causal, Sibling};
use super::context::Context;
use super::dot::{Actor, Dot, OperationId};

/// The delta of a write led as `me` with the fresh sequence number `seq`; `value` is `None` for a delete.
///
/// `state` is the leader's own state of the key and `client` what the client has seen of it. With `lww` the write replaces
/// everything the leader sees.
///
/// The client's next context is `delta.context()`, never the context of the joined state: that would claim the client had seen siblings
/// which it was not shown.
///
/// The caller holds the key's exclusive lock from reading `state` until its join with the delta is written; `me` is an actor that has
/// forgotten none of its dots on this key; and `seq` is above every dot `me` minted before. Breaking any of the three loses updates.
///
/// # Panics
///
/// If `seq` is 0, which no clock mints.
pub fn put_delta(
    state: &Causal,
    client: &Context,
    me: Actor,
    seq: u64,
    operation: OperationId,
    value: Option<Bytes>,
    lww: bool,
) -> Causal {
    assert!(seq > 0, "a clock minted the sequence number 0");
    let mut context = if lww { client.union(state.context()) } else { client.clone() };
    let mine = state.context().intervals(me).cloned().unwrap_or_default();
    // What this leader minted before and does not know on this key is not on this key: claim it, and contexts stay one interval long.
    context.insert_set(me, mine.missing_through(seq));
    context.insert(me, seq - 1, seq);
    let dot = Dot { actor: me, seq };
    let siblings = value.map(|value| (dot, Sibling { operation, value })).into_iter().collect();
    Causal::from_ascending(context, siblings)
}
