//! What a client does with a context: reads its own writes with it, and cannot harm anything with one
//! that is forged, damaged or not for the key. Also what it meets without one: a limit, and `lww`.

use starling_client::{CausalContext, ConsistencyLevel};
use starling_protocol::{ContextToken, Level, WireError};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Trio};

const BUCKET: &str = "demo.things";
/// How many siblings a key may have.
const SIBLINGS_MAX: u32 = 100;

async fn start() -> Trio {
    Trio::start(Cluster::builder(), BUCKET).await
}

#[tokio::test]
async fn a_context_as_floor_reads_what_was_written_with_it() {
    let mut trio = start().await;
    let level = Level::Quorum;
    trio.at(1).put("before", "A", Level::All, None).await.expect("all nodes are up");
    trio.kill(3).await;
    let written = trio.at(1).put("key", "A", level, None).await.expect("two nodes are a quorum");
    let deleted = trio.at(1).delete("before", level, None).await.expect("two nodes are a quorum");
    // Only the leader keeps the hints, so that node 3 surely comes back without the writes.
    trio.kill(1).await;
    trio.restart(3).await;
    assert_eq!(trio.cluster().digest(3, BUCKET).await.keys, 1);
    assert_eq!(trio.cluster().digest(2, BUCKET).await.keys, 2);

    for _ in 0..3 {
        let value = trio.at(3).get("key", Level::One, Some(&written)).await;
        assert_eq!(value.expect("node 2 has it").siblings, ["A"]);
        let value = trio.at(3).get("before", Level::One, Some(&deleted)).await;
        assert!(value.expect("node 2 has it").siblings.is_empty());
    }

    // Nobody who could know is there: no answer, rather than an old one.
    trio.restart(1).await;
    trio.kill(3).await;
    let written =
        trio.at(2).put("key", "B", level, Some(&written)).await.expect("two are a quorum");
    trio.kill(2).await;
    trio.kill(1).await;
    trio.restart(3).await;
    let unseen = trio.at(3).get("key", Level::One, Some(&written)).await;
    assert_eq!(unseen, Err(WireError::FloorNotMet));
    assert_eq!(trio.shown("key", Level::One).await, ["A"], "a floor repairs what it can");
}

#[tokio::test]
async fn an_lww_bucket_keeps_the_last_write_only() {
    let described = Cluster::builder().lww_bucket("demo", "last");
    let mut trio = Trio::start(described, "demo.last").await;
    let mut first = None;
    for round in 0..30_u8 {
        // Each led by another node; half of them with a context that is out of date.
        let context = first.as_ref().filter(|_| round % 2 == 1);
        let value = format!("value {round}");
        let written = trio.at(1 + round % 3).put("key", &value, Level::Quorum, context).await;
        first.get_or_insert(written.expect("all nodes are up"));
        assert_eq!(trio.shown("key", Level::Quorum).await, [value]);
    }
    let (mut two, mut three) = (trio.another_at(2).await, trio.another_at(3).await);
    for round in 0..10 {
        let (a, b, c) = tokio::join!(
            trio.at(1).put("raced", "A", Level::Quorum, None),
            two.put("raced", "B", Level::Quorum, None),
            three.put("raced", "C", Level::Quorum, None),
        );
        a.and(b).and(c).expect("all nodes are up");
        let shown = trio.shown("raced", Level::Quorum).await;
        assert_eq!(shown.len(), 1, "in round {round}: {shown:?}");
        assert_eq!(trio.shown("raced", Level::All).await, shown);
        assert_eq!(trio.shown("raced", Level::One).await, shown);
    }
}

#[tokio::test]
async fn a_forged_or_foreign_context_is_refused_and_harms_nothing() {
    let mut elsewhere = Cluster::builder().nodes(1).start().await;
    let mut other_cluster = starling_tests::Session::open(elsewhere.node(1), BUCKET).await;
    let mut trio = start().await;
    let level = Level::Quorum;
    let context = trio.at(1).put("key", "A", Level::All, None).await.expect("all nodes are up");
    trio.at(1).put("key", "B", Level::All, None).await.expect("all nodes are up");
    let mut bad = forgeries(&context);
    let foreign = other_cluster.put("key", "A", Level::One, None).await;
    bad.push(("another cluster".to_owned(), foreign.expect("one node is a quorum of one")));
    let other_key = trio.at(2).put("kez", "A", level, None).await.expect("all nodes are up");
    bad.push(("another key".to_owned(), other_key));
    let client = trio.cluster().client().await;
    let bucket = client.bucket("demo.others").await.expect("it is made on first use");
    let other_bucket = bucket.put("key", "A").await.expect("all nodes are up");
    bad.push(("another bucket".to_owned(), other_bucket));

    trio.shown("kez", Level::All).await;
    let before = trio.cluster().digest(1, BUCKET).await;
    for (place, (what, context)) in bad.iter().enumerate() {
        let node = trio.at(1 + (place % 3) as u8);
        let put = node.put("key", "C", level, Some(context)).await.map(|_| "a put");
        let deleted = node.delete("key", level, Some(context)).await.map(|_| "a delete");
        let read = node.get("key", level, Some(context)).await.map(|_| "a read");
        for outcome in [put, deleted, read] {
            let refused = matches!(outcome, Err(WireError::BadContext { .. }));
            assert!(refused, "{what}: {outcome:?}");
        }
    }
    assert_eq!(trio.cluster().assert_equal(BUCKET).await, before);
    assert_eq!(trio.shown("key", level).await, ["A", "B"]);
    trio.at(3).put("key", "C", level, Some(&context)).await.expect("the true one is good");
    assert_eq!(trio.shown("key", level).await, ["B", "C"]);
}

/// The context with each bit of it turned, cut short, drawn out, and nothing at all.
fn forgeries(context: &CausalContext) -> Vec<(String, CausalContext)> {
    let token = ContextToken::from_text(&context.to_text()).expect("it is one").0.to_vec();
    let mut forged: Vec<(String, Vec<u8>)> = Vec::new();
    for bit in 0..token.len() * 8 {
        let mut turned = token.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        forged.push((format!("bit {bit} turned"), turned));
    }
    for length in 0..token.len() {
        forged.push((format!("{length} bytes of it"), token[..length].to_vec()));
    }
    forged.push(("a byte more".to_owned(), [token.as_slice(), &[0]].concat()));
    let sealed = |bytes: Vec<u8>| CausalContext::from_text(&ContextToken(bytes.into()).to_text());
    forged
        .into_iter()
        .map(|(what, bytes)| (what, sealed(bytes).expect("any bytes have a text form")))
        .collect()
}

#[tokio::test]
async fn too_many_siblings_are_refused_and_those_there_stay() {
    let mut trio = start().await;
    for number in 0..SIBLINGS_MAX {
        let put = trio.at(1).put("key", &format!("{number}"), Level::All, None).await;
        put.expect("there is room");
    }
    for number in 1..=3 {
        let refused = trio.at(number).put("key", "one more", Level::Quorum, None).await;
        let (count, max) = (SIBLINGS_MAX + 1, SIBLINGS_MAX);
        assert_eq!(refused, Err(WireError::TooManySiblings { count, max }));
    }
    assert_eq!(trio.shown("key", Level::Quorum).await.len(), SIBLINGS_MAX as usize);

    // The way out is the one that the error names, here through the client library.
    let client = trio.cluster().client().await;
    let bucket = client.bucket(BUCKET).await.expect("all nodes are up");
    let refused = bucket.put("key", "one more").await.expect_err("there is no room");
    assert_eq!((refused.code(), refused.is_unknown()), ("S301", false));
    let value = bucket.get("key").await.expect("all nodes are up");
    assert_eq!(value.siblings.len(), SIBLINGS_MAX as usize);
    bucket.put("key", "one").context(&value.context).await.expect("it replaces them");
    let value = bucket.get("key").consistency(ConsistencyLevel::All).await;
    assert_eq!(value.expect("all nodes are up").siblings, ["one"]);
    trio.cluster().wait_until_settled(READY_WITHIN).await;
    assert_eq!(trio.shown("key", Level::One).await, ["one"]);
}
