//! A leader is stopped with puts in its socket, which the client then repeats elsewhere. When it goes on,
//! what was deleted in the meantime does not come back: a write that has waited for too long is not begun.

use std::time::Duration;

use starling_client::ConsistencyLevel;
use starling_tests::Cluster;
use starling_tests::cluster::READY_WITHIN;
use tokio::task::JoinSet;

const KEYS: u32 = 60;
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
    let too_late = |body: &str| {
        body.lines().any(|line| {
            line.starts_with("starling_requests_shed_total") && line.contains("too_late")
        })
    };
    cluster.wait_for_metrics(1, SEEN_WITHIN, too_late).await;
    cluster.wait_until_settled(READY_WITHIN).await;
    for key in (0..KEYS).map(|key| format!("key{key}")) {
        let read = bucket.get(key.clone()).consistency(ConsistencyLevel::All).await;
        let siblings = read.expect("all nodes are up").siblings;
        assert!(siblings.is_empty(), "{key} was deleted and is {siblings:?}");
    }
}
