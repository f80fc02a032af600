//! The cluster harness itself: it starts, kills, pauses and stops real processes, keeps what a restart
//! needs, and leaves none behind.

use std::path::Path;
use std::time::Duration;

use starling_tests::Cluster;
use starling_tests::cluster::READY_WITHIN;

const STOP_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_is_killed_restarted_paused_and_stopped() {
    let mut cluster = Cluster::builder().nodes(1).lww_bucket("demo", "last").start().await;
    let client = cluster.client().await;
    let bucket = client.bucket("demo.things").await.expect("the bucket is made on first use");
    bucket.put("key", "value").await.expect("one node is a quorum of one");

    cluster.node(1).kill();
    assert!(!cluster.node(1).is_running());
    assert!(cluster.overview(1).await.is_none(), "a killed node does not answer");
    cluster.node(1).start();
    cluster.node(1).ready(READY_WITHIN).await;
    let value = bucket.get("key").await.expect("the node serves again");
    assert_eq!(value.siblings, ["value"]);

    cluster.node(1).pause();
    let read = bucket.get("key").timeout(Duration::from_millis(200)).await;
    assert!(read.is_err(), "a paused node does not answer");
    cluster.node(1).resume();
    cluster.wait_until_up(1, READY_WITHIN).await;

    assert!(cluster.node(1).resident_bytes() > 1 << 20);
    assert_eq!(cluster.digest(1, "demo.things").await.keys, 1);
    let status = cluster.node(1).terminate(STOP_WITHIN).await;
    assert!(status.success(), "{status}:\n{}", cluster.node(1).log_end());
    let folder = cluster.folder().to_owned();
    drop(cluster);
    assert!(!folder.exists(), "a test that passed leaves nothing");
}

#[tokio::test]
async fn no_process_outlives_its_cluster() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let process = cluster.node(1).process_id().expect("it runs");
    cluster.node(1).pause();
    let process = format!("/proc/{process}");
    assert!(Path::new(&process).exists());
    drop(cluster);
    assert!(!Path::new(&process).exists());
}

#[tokio::test]
async fn a_node_that_cannot_start_says_why_in_its_log() {
    let mut cluster = Cluster::builder().nodes(1).setting("no_such_key", "1").prepare();
    cluster.node(1).start();
    let status = cluster.node(1).exit(READY_WITHIN).await;
    assert!(!status.success());
    assert!(cluster.node(1).log().contains("no_such_key"), "{}", cluster.node(1).log());
}
