//! A delete stays: it does not come back with a node that missed it, it takes only what it has seen, and
//! a later put stands whatever was deleted before.

use std::time::Duration;

use starling_protocol::Level;
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Trio};

const BUCKET: &str = "demo.things";
const KEYS: u32 = 30;
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

async fn start() -> Trio {
    Trio::start(Cluster::builder(), BUCKET).await
}

fn key(number: u32) -> String {
    format!("key{number:02}")
}

/// Gives each key one or two siblings on all nodes; what is to be deleted later.
async fn fill(trio: &mut Trio) {
    for number in 0..KEYS {
        for value in ["A", "B"].iter().take(1 + number as usize % 2) {
            let leader = 1 + (number % 3) as u8;
            let put = trio.at(leader).put(&key(number), value, Level::All, None).await;
            put.expect("all nodes are up");
        }
    }
}

/// Deletes each key at QUORUM while node 3 is away, led by either of the others, with a context and
/// without.
async fn delete_all(trio: &mut Trio) {
    for number in 0..KEYS {
        let key = key(number);
        let node = trio.at(1 + (number % 2) as u8);
        let context = if number % 4 < 2 {
            let read = node.get(&key, Level::Quorum, None).await;
            Some(read.expect("two nodes are a quorum").context)
        } else {
            None
        };
        let deleted = node.delete(&key, Level::Quorum, context.as_ref()).await;
        deleted.expect("two nodes are a quorum");
    }
}

/// Node 3, which has missed the deletes, is just back: a quorum knows at once, every node by itself once
/// nobody owes it anything, and then all are equal.
async fn prove_deleted(trio: &mut Trio) {
    // Not of every key: a read at QUORUM repairs, and could hide that nothing else does.
    for number in (0..KEYS).step_by(3) {
        assert!(trio.shown(&key(number), Level::Quorum).await.is_empty(), "{}", key(number));
    }
    trio.cluster().wait_until_settled(SETTLED_WITHIN).await;
    for level in [Level::One, Level::All, Level::One] {
        for number in 0..KEYS {
            let shown = trio.shown(&key(number), level).await;
            assert!(shown.is_empty(), "{} at {level:?}: {shown:?}", key(number));
        }
    }
    // Fewer where the deletes are forgotten by now.
    assert!(trio.cluster().assert_equal(BUCKET).await.keys <= u64::from(KEYS));
}

/// Nothing but what is kept for it can tell node 3 of the deletes before a read does.
async fn wait_until_owed(trio: &mut Trio) {
    for number in 1..=2 {
        let owes = trio.cluster().wait_until(number, SETTLED_WITHIN, |node| {
            // Each of the two leads every other key.
            node.hints_pending >= u64::from(KEYS) / 2
        });
        owes.await;
    }
}

#[tokio::test]
async fn a_delete_does_not_come_back_with_a_node_that_was_dead() {
    let mut trio = start().await;
    fill(&mut trio).await;
    trio.kill(3).await;
    delete_all(&mut trio).await;
    wait_until_owed(&mut trio).await;
    trio.restart(3).await;
    prove_deleted(&mut trio).await;
}

#[tokio::test]
async fn a_delete_does_not_come_back_with_a_node_that_was_paused_and_then_died() {
    let mut trio = start().await;
    fill(&mut trio).await;
    // At first nobody knows that it does not listen any more.
    trio.cluster().node(3).pause();
    delete_all(&mut trio).await;
    wait_until_owed(&mut trio).await;
    // What was on its way to the node is lost with it.
    trio.kill(3).await;
    trio.restart(3).await;
    prove_deleted(&mut trio).await;
}

#[tokio::test]
async fn a_delete_does_not_come_back_with_a_node_that_was_paused() {
    let mut trio = start().await;
    fill(&mut trio).await;
    trio.cluster().node(3).pause();
    delete_all(&mut trio).await;
    wait_until_owed(&mut trio).await;
    trio.cluster().node(3).resume();
    trio.cluster().wait_until_up(3, READY_WITHIN).await;
    prove_deleted(&mut trio).await;
}

/// The node that missed the delete leads the next writes.
#[tokio::test]
async fn a_put_after_a_delete_stands_alone_also_where_the_delete_was_missed() {
    let mut trio = start().await;
    let level = Level::Quorum;
    for key in ["plain", "old", "twice"] {
        trio.at(1).put(key, "A", Level::All, None).await.expect("all nodes are up");
    }
    let old = trio.at(3).get("old", level, None).await.expect("all nodes are up").context;
    trio.kill(3).await;
    for key in ["plain", "old", "twice"] {
        trio.at(1).delete(key, level, None).await.expect("two nodes are a quorum");
    }
    trio.at(2).put("twice", "B", level, None).await.expect("two nodes are a quorum");
    trio.at(1).delete("twice", level, None).await.expect("two nodes are a quorum");
    // Only the leader keeps the hints: without it node 3 still has all three.
    trio.kill(1).await;
    trio.restart(3).await;

    trio.at(3).put("plain", "C", level, None).await.expect("two nodes are a quorum");
    trio.at(3).put("old", "C", level, Some(&old)).await.expect("two nodes are a quorum");
    trio.at(3).put("twice", "C", level, None).await.expect("two nodes are a quorum");
    for key in ["plain", "old", "twice"] {
        assert_eq!(trio.shown(key, level).await, ["C"], "{key}");
    }
    trio.restart(1).await;
    trio.cluster().wait_until_settled(SETTLED_WITHIN).await;
    for level in [Level::One, Level::All] {
        for key in ["plain", "old", "twice"] {
            assert_eq!(trio.shown(key, level).await, ["C"], "{key} at {level:?}");
        }
    }
}

#[tokio::test]
async fn a_delete_takes_what_its_context_has_seen_and_nothing_else() {
    let mut trio = start().await;
    let level = Level::Quorum;
    let seen = trio.at(1).put("key", "A", Level::All, None).await.expect("all nodes are up");
    trio.kill(3).await;
    trio.at(2).put("key", "B", level, None).await.expect("two nodes are a quorum");
    trio.at(1).delete("key", level, Some(&seen)).await.expect("two nodes are a quorum");
    assert_eq!(trio.shown("key", level).await, ["B"], "an unseen sibling stays");

    // The same delete again, led by the node that has seen neither.
    trio.restart(3).await;
    trio.at(3).delete("key", level, Some(&seen)).await.expect("all nodes are up");
    assert_eq!(trio.shown("key", level).await, ["B"]);
    trio.cluster().wait_until_settled(SETTLED_WITHIN).await;
    assert_eq!(trio.shown("key", Level::One).await, ["B"]);

    // Without a context it takes what a quorum shows, also what its leader did not have.
    trio.at(1).put("key", "C", Level::All, None).await.expect("all nodes are up");
    let gone = trio.at(3).delete("key", level, None).await.expect("all nodes are up");
    assert!(trio.shown("key", level).await.is_empty());
    trio.at(2).put("key", "D", level, Some(&gone)).await.expect("all nodes are up");
    trio.at(1).delete("key", level, Some(&seen)).await.expect("all nodes are up");
    trio.at(1).delete("key", level, Some(&gone)).await.expect("all nodes are up");
    assert_eq!(trio.shown("key", level).await, ["D"], "old deletes take nothing of a new value");
}
