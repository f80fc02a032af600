//! What a cluster still answers when replicas are gone: every level that the rest can meet, and for the
//! others `Unavailable` at once, with what is missing. Nobody waits for a node that is known to be down.

use std::collections::BTreeSet;
use std::time::Duration;

use starling_client::{ConsistencyLevel, Error};
use starling_node::time::now;
use starling_protocol::{Level, WireError};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Session, Trio};
use tokio::time::{Instant, sleep};

const BUCKET: &str = "demo.things";
/// From the moment at which a node knows that others are down to its answer that a level needs them.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Levels that one of three replicas meets.
const MET_BY_ONE: [Level; 3] = [Level::One, Level::LocalOne, Level::Count(1)];
/// Levels that it does not, and how many they need.
const MORE_THAN_ONE: [(Level, u8); 7] = [
    (Level::Two, 2),
    (Level::Count(2), 2),
    (Level::Quorum, 2),
    (Level::LocalQuorum, 2),
    (Level::EachQuorum, 2),
    (Level::Three, 3),
    (Level::All, 3),
];

/// Asserts that a request was refused for want of replicas: how many, and exactly which.
#[track_caller]
fn assert_unavailable<T>(
    what: &str,
    outcome: Result<T, WireError>,
    needed: u8,
    missing: &BTreeSet<std::net::SocketAddr>,
) {
    match outcome {
        Err(WireError::Unavailable { required, alive, down, .. }) => {
            assert_eq!((required, alive), (needed, 1), "{what}");
            assert_eq!(
                &down.iter().map(|replica| replica.address).collect::<BTreeSet<_>>(),
                missing
            );
        }
        Err(other) => panic!("{what}: {other:?}"),
        Ok(_) => panic!("{what}: one of three replicas cannot do it"),
    }
}

/// Waits until node `number` believes that it is alone. Returns a moment at which it did not yet.
async fn detected(cluster: &Cluster, number: u8) -> Instant {
    let until = now() + READY_WITHIN;
    let mut before = now();
    loop {
        let asked = now();
        let overview = cluster.overview(number).await.expect("the node runs");
        if overview.nodes.iter().filter(|node| node.is_up()).count() == 1 {
            return before;
        }
        before = asked;
        assert!(now() < until, "the others are not found to be down: {overview:?}");
        sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn a_quorum_is_refused_within_100_ms_of_the_detection() {
    let mut cluster = Cluster::builder().start().await;
    for alone in 1..=3 {
        cluster.wait_until_up(3, READY_WITHIN).await;
        let client = cluster.client().await;
        let bucket = client.bucket(BUCKET).await.expect("all nodes are up");
        let mut writer = Session::open(cluster.node(alone), BUCKET).await;
        let mut reader = Session::open(cluster.node(alone), BUCKET).await;
        let others: Vec<u8> = (1..=3).filter(|number| *number != alone).collect();
        let missing = others.iter().map(|number| cluster.node(*number).native_address()).collect();
        bucket.put("key", "value").await.expect("all nodes are up");

        others.iter().for_each(|number| cluster.node(*number).kill());
        let not_yet = detected(&cluster, alone).await;
        let (written, read, through_library) = tokio::join!(
            writer.put("other", "value", Level::Quorum, None),
            reader.get("key", Level::Quorum, None),
            bucket.get("key"),
        );
        let took = not_yet.elapsed();
        assert_unavailable("a put at QUORUM", written, 2, &missing);
        assert_unavailable("a get at QUORUM", read, 2, &missing);
        match through_library {
            Err(Error::Refused { error, unknown: false }) => {
                assert_unavailable::<()>("the library's get", Err(error), 2, &missing);
            }
            other => panic!("through the library: {other:?}"),
        }
        eprintln!("node {alone}: refused {took:?} after the last moment before the detection");
        assert!(took < REFUSED_WITHIN, "refused only after {took:?}");
        // Nothing of the refused write was kept: it is safe to try again.
        let absent = reader.get("other", Level::One, None).await.expect("one replica is up");
        assert!(absent.siblings.is_empty(), "a refused put has left {absent:?}");
        cluster.start().await;
    }
}

#[tokio::test]
async fn the_metrics_tell_whose_heartbeats_arrive() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let overview = cluster.overview(1).await.expect("the node runs");
    let lost = cluster.node(2).native_address();
    let other = cluster.node(3).native_address();
    let of = |address| {
        let node = overview.nodes.iter().find(|node| node.address == address);
        node.expect("all are members").host_id
    };
    let (lost, other) = (of(lost), of(other));
    let says = |metrics: &str, host, beats: u8| {
        let line = format!("starling_peer_heartbeats{{peer=\"{host}\"}} {beats}");
        metrics.lines().any(|found| found == line)
    };
    cluster
        .wait_for_metrics(1, READY_WITHIN, |now| says(now, lost, 1) && says(now, other, 1))
        .await;
    cluster.node(2).kill();
    cluster
        .wait_for_metrics(1, READY_WITHIN, |now| says(now, lost, 0) && says(now, other, 1))
        .await;
}

#[tokio::test]
async fn one_of_three_serves_what_it_can_and_nothing_else() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let client = trio.cluster().client().await;
    let bucket = client.bucket(BUCKET).await.expect("all nodes are up");
    let context = bucket.put("before", "A").consistency(ConsistencyLevel::All).await;
    let context = context.expect("all nodes are up");
    trio.kill(2).await;
    trio.kill(3).await;
    let missing = [2, 3].map(|number| trio.cluster().node(number).native_address()).into();

    for level in MET_BY_ONE {
        let what = format!("{level:?}");
        let value = trio.at(1).get("before", level, None).await.expect(&what);
        assert_eq!(value.siblings, ["A"], "{what}");
        let written = trio.at(1).put(&what, "B", level, None).await.expect(&what);
        let value = trio.at(1).get(&what, level, Some(&written)).await.expect(&what);
        assert_eq!(value.siblings, ["B"], "{what}");
        trio.at(1).delete(&what, level, Some(&written)).await.expect(&what);
    }
    for (level, needed) in MORE_THAN_ONE {
        let (what, node) = (format!("{level:?}"), trio.at(1));
        assert_unavailable(&what, node.get("before", level, None).await, needed, &missing);
        assert_unavailable(&what, node.put(&what, "B", level, None).await, needed, &missing);
        let deleted = node.delete("before", level, Some(&context)).await;
        assert_unavailable(&what, deleted, needed, &missing);
    }
    bucket.put("one", "D").consistency(ConsistencyLevel::One).await.expect("one replica is up");

    trio.restart(3).await;
    for (key, value) in [("before", "A"), ("one", "D")] {
        let found = bucket.get(key).await.unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(found.siblings, [value], "{key}");
    }
    bucket.put("after", "E").await.expect("two nodes are a quorum again");
    let refused = bucket.get("after").consistency(ConsistencyLevel::All).await;
    assert_eq!(refused.expect_err("one node is down").code(), "S102");

    trio.restart(2).await;
    trio.cluster().wait_until_settled(READY_WITHIN).await;
    for (key, value) in [("before", "A"), ("one", "D"), ("after", "E")] {
        assert_eq!(trio.shown(key, Level::All).await, [value], "{key} at ALL");
        assert_eq!(trio.shown(key, Level::One).await, [value], "{key} at ONE");
    }
}

#[tokio::test]
async fn a_node_that_starts_alone_serves_what_it_can_alone() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    trio.at(1).put("key", "A", Level::All, None).await.expect("all nodes are up");
    let missing = [1, 2].map(|number| trio.cluster().node(number).native_address()).into();
    for number in 1..=3 {
        trio.kill(number).await;
    }
    // Since this start it has never heard of the others.
    trio.restart(3).await;
    let asked = now();
    let read = trio.at(3).get("key", Level::Quorum, None).await;
    assert_unavailable("a get at QUORUM", read, 2, &missing);
    let written = trio.at(3).put("new", "B", Level::Quorum, None).await;
    assert_unavailable("a put at QUORUM", written, 2, &missing);
    assert!(asked.elapsed() < REFUSED_WITHIN, "refused only after {:?}", asked.elapsed());
    assert_eq!(trio.shown("key", Level::One).await, ["A"]);
    trio.at(3).put("new", "C", Level::One, None).await.expect("one replica is up");

    trio.restart(1).await;
    assert_eq!(trio.shown("key", Level::Quorum).await, ["A"]);
    assert_eq!(trio.shown("new", Level::Quorum).await, ["C"]);
}

#[tokio::test]
async fn before_all_seeds_were_there_there_is_no_cluster_and_nodes_say_for_whom_they_wait() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node(1).start();
    cluster.node(2).start();
    let absent = cluster.node(3).internode_address();
    for number in 1..=2 {
        let waits = |overview: &starling_node::overview::Overview| {
            overview.waiting_for == [absent.to_string()]
        };
        cluster.wait_until(number, READY_WITHIN, waits).await;
        let ready = cluster.node(number).ask("/health/ready").await.expect("it answers");
        assert_eq!(ready.status, 503, "{}", ready.body);
        let live = cluster.node(number).ask("/health/live").await.expect("it answers");
        assert_eq!(live.status, 200, "{}", live.body);
    }
    let address = cluster.node(1).native_address().to_string();
    let client = starling_client::Client::builder().contact_point(address).build().await;
    let told = client.err().expect("there is no cluster yet").to_string();
    assert!(told.contains(&absent.to_string()), "{told}");

    cluster.start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("all nodes are up");
    bucket.put("key", "A").consistency(ConsistencyLevel::All).await.expect("all nodes are up");
}
