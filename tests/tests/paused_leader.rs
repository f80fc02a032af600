//! A leader is stopped with puts in its socket, which the client then repeats elsewhere. When it goes on,
//! what was deleted in the meantime does not come back: a write that has waited for too long is not begun.

use std::time::Duration;

use starling_client::ConsistencyLevel;
use starling_protocol::{Level, WireError};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Session};
use tokio::task::JoinSet;

const KEYS: u32 = 60;
/// Node 1 leads one in four; of those, one of the other three nodes is no replica.
const FORWARDED_KEYS: u32 = 120;
/// How long a node may work on a forwarded put, and when it must have begun.
const BUDGET: Duration = Duration::from_secs(1);
const BEGIN_WITHIN: Duration = Duration::from_millis(150);
const BUCKET: &str = "demo.things";
/// What comes late is answered, and counted, within this.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_stays_away_when_a_stopped_leader_goes_on() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("all nodes are up");
    // The client has connections to all of them, and has heard from each.
    for key in 0..KEYS {
        bucket.put(format!("warm{key}"), "up").await.expect("all nodes are up");
    }
    cluster.node(1).pause();
    let mut puts = JoinSet::new();
    for key in 0..KEYS {
        let bucket = bucket.clone();
        puts.spawn(async move { bucket.put(format!("key{key}"), "milk").await.map(drop) });
    }
    for outcome in puts.join_all().await {
        outcome.expect("two of three are a quorum");
    }
    assert!(client.stats().retried > 0, "no put went to the stopped node first");
    for key in (0..KEYS).map(|key| format!("key{key}")) {
        let seen = bucket.get(key.clone()).await.expect("two of three are a quorum");
        assert_eq!(seen.siblings, ["milk"], "{key}");
        bucket.delete(key).context(&seen.context).await.expect("two of three are a quorum");
    }
    cluster.node(1).resume();
    cluster.wait_until_up(3, READY_WITHIN).await;
    cluster.wait_for_metrics(1, SEEN_WITHIN, has_come_too_late).await;
    cluster.wait_until_settled(READY_WITHIN).await;
    for key in (0..KEYS).map(|key| format!("key{key}")) {
        let read = bucket.get(key.clone()).consistency(ConsistencyLevel::All).await;
        let siblings = read.expect("all nodes are up").siblings;
        assert!(siblings.is_empty(), "{key} was deleted and is {siblings:?}");
    }
}

/// The same where the stopped leader has the puts from a node that is no replica of their keys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_stays_away_when_the_stopped_leader_had_it_from_another_node() {
    let mut cluster = Cluster::builder().nodes(4).start().await;
    cluster.wait_until_up(4, READY_WITHIN).await;
    let keys: Vec<_> = (0..FORWARDED_KEYS).map(|key| format!("key{key}")).collect();
    let mut sessions = Vec::new();
    for (key, number) in keys.iter().zip([2, 3, 4].into_iter().cycle()) {
        let session = Session::open(cluster.node(number), BUCKET).await;
        sessions.push((key.clone(), session.in_a_hurry(BUDGET, BEGIN_WITHIN)));
    }
    // By now all have heard of the clock of node 1, and know the bucket.
    sessions[0].1.put("warm", "up", Level::All, None).await.expect("all nodes are up");
    cluster.node(1).pause();
    let mut puts = JoinSet::new();
    for (key, mut session) in sessions {
        puts.spawn(async move { session.put(&key, "milk", Level::Quorum, None).await });
    }
    let unknown = puts.join_all().await.into_iter().filter_map(Result::err).inspect(|error| {
        assert!(
            matches!(error, WireError::Timeout { .. } | WireError::LeaderLost),
            "two of three are a quorum: {error}"
        );
    });
    assert!(unknown.count() > 0, "no put was forwarded to the stopped node");
    let mut other = Session::open(cluster.node(3), BUCKET).await;
    for key in &keys {
        let seen = other.get(key, Level::Quorum, None).await.expect("two of three are a quorum");
        let deleted = other.delete(key, Level::Quorum, Some(&seen.context)).await;
        deleted.expect("two of three are a quorum");
    }
    cluster.node(1).resume();
    cluster.wait_until_up(4, READY_WITHIN).await;
    cluster.wait_for_metrics(1, SEEN_WITHIN, has_come_too_late).await;
    cluster.wait_until_settled(READY_WITHIN).await;
    for key in &keys {
        let read = other.get(key, Level::All, None).await;
        let siblings = read.expect("all nodes are up").siblings;
        assert!(siblings.is_empty(), "{key} was deleted and is {siblings:?}");
    }
}

fn has_come_too_late(metrics: &str) -> bool {
    metrics
        .lines()
        .any(|line| line.starts_with("starling_requests_shed_total") && line.contains("too_late"))
}
