//! A node whose disk is taken back to an older copy, as by a restored snapshot of its machine: the cluster goes on, and what it has
//! acknowledged since the copy is neither missing from a read nor lost.

use std::sync::Arc;
use std::time::Duration;

use starling_client::{Bucket, ConsistencyLevel};
use starling_node::overview::NodeOverview;
use starling_node::time::now;
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Disk, InProcess, MemoryNetwork};
use tempfile::TempDir;
use tokio::time::sleep;

const BUCKET: &str = "demo.things";
const KEYS: [&str; 3] = ["one", "two", "three"];
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A read that too few replicas can answer is given up after this long.
const READ_WITHIN: Duration = Duration::from_secs(2);
const OLD: &str = "old";
const NEW: &str = "new";

/// Three nodes, and a copy of the first one's disk as it was after a clean stop, with the old values, so many of its starts ago.
async fn with_copy(starts_since: usize) -> (InProcess, TempDir) {
    let mut cluster = InProcess::start(3, Arc::new(MemoryNetwork::new()), Disk::Folder).await;
    put_all(&through(&cluster, 1).await, OLD, ConsistencyLevel::All).await;
    cluster.node(1).stop().await;
    let copy = tempfile::tempdir().expect("the temporary folder can be written");
    cluster.node(1).copy_to(copy.path());
    for start in 1..=starts_since {
        cluster.node(1).start().await;
        cluster.node(1).ready().await;
        cluster.wait_until_up(3).await;
        if start < starts_since {
            cluster.node(1).stop().await;
        }
    }
    (cluster, copy)
}

/// The bucket, for a client that has only one node to turn to.
async fn through(cluster: &InProcess, number: u8) -> Bucket {
    let network = cluster.client_network().only(cluster.host(number));
    let builder = cluster.client_builder().seams(Arc::new(network)).read_timeout(READ_WITHIN);
    let client = builder.build().await.expect("a node that serves answers");
    client.bucket(BUCKET).await.expect("a node that serves answers")
}

async fn put_all(bucket: &Bucket, value: &'static str, level: ConsistencyLevel) {
    for key in KEYS {
        let put = bucket.overwrite(key, value).consistency(level).await;
        put.unwrap_or_else(|error| panic!("{key}: {error}"));
    }
}

/// A quorum either knows what was acknowledged last, or does not answer.
async fn assert_nothing_old_is_read(cluster: &InProcess) {
    let bucket = through(cluster, 1).await;
    for key in KEYS {
        if let Ok(read) = bucket.get(key).consistency(ConsistencyLevel::Quorum).await {
            assert_eq!(read.siblings, [NEW], "{key}");
        }
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = now() + READY_WITHIN;
    while !holds() {
        assert!(now() < until, "not in time: {what}");
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until node 1, which may be one that is rebuilt, takes another for up.
async fn wait_until_it_reaches(cluster: &mut InProcess, other: u8) {
    let address = cluster.node(other).config().listen.native;
    let is_up = |node: &NodeOverview| node.address == address && node.is_up();
    wait_until("a peer is up", || cluster.node(1).overview().nodes.iter().any(is_up)).await;
}

async fn no_acknowledged_write_is_lost(starts_since: usize) {
    let (mut cluster, copy) = with_copy(starts_since).await;
    // Only the first two hold the new values.
    cluster.isolate(3);
    cluster.wait_until_up_at(1, 2).await;
    put_all(&through(&cluster, 1).await, NEW, ConsistencyLevel::Quorum).await;
    cluster.node(1).crash().await;
    cluster.node(2).crash().await;
    cluster.node(1).restore(copy.path());
    cluster.faults().heal();

    cluster.node(1).start().await;
    cluster.node(1).ready().await;
    wait_until_it_reaches(&mut cluster, 3).await;
    assert_nothing_old_is_read(&cluster).await;
    if starts_since == 1 {
        // Its peer takes it for the double of the one that it met; whoever looks after it starts it again.
        wait_until("node 1 is ended", || cluster.node(1).fatal().is_some()).await;
        cluster.node(1).crash().await;
        cluster.node(1).start().await;
        cluster.node(1).ready().await;
        wait_until_it_reaches(&mut cluster, 3).await;
        assert_nothing_old_is_read(&cluster).await;
    }
    cluster.node(2).start().await;
    cluster.node(2).ready().await;
    wait_until_it_reaches(&mut cluster, 2).await;
    assert_nothing_old_is_read(&cluster).await;
    wait_until("node 1 is rebuilt", || !cluster.node(1).overview().repair.rebuilding).await;
    cluster.wait_until_up(3).await;
    assert_eq!(cluster.node(1).fatal(), None);
    let bucket = through(&cluster, 1).await;
    for key in KEYS {
        let read = bucket.get(key).consistency(ConsistencyLevel::All).await;
        assert_eq!(read.unwrap_or_else(|error| panic!("{key}: {error}")).siblings, [NEW]);
    }
    let digest = cluster.node(1).digest(BUCKET).await;
    for number in [2, 3] {
        assert_eq!(cluster.node(number).digest(BUCKET).await, digest, "node {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_taken_back_by_one_start_answers_nothing_old() {
    no_acknowledged_write_is_lost(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_taken_back_by_several_starts_answers_nothing_old() {
    no_acknowledged_write_is_lost(3).await;
}

/// It could ask nobody before it served; what it is told later still holds when it is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_learns_too_late_that_it_was_taken_back_remembers_it() {
    let (mut cluster, copy) = with_copy(1).await;
    cluster.node(1).crash().await;
    cluster.node(1).restore(copy.path());
    cluster.isolate(1);
    cluster.node(1).start().await;
    cluster.node(1).ready().await;
    assert!(!cluster.node(1).overview().repair.rebuilding, "it was told by somebody");
    cluster.faults().heal();
    wait_until("node 1 is ended", || cluster.node(1).fatal().is_some()).await;
    cluster.node(1).crash().await;
    cluster.isolate(1);
    cluster.node(1).start().await;
    cluster.node(1).ready().await;
    assert!(cluster.node(1).overview().repair.rebuilding, "it has lost writes");
    cluster.faults().heal();
    wait_until("node 1 is rebuilt", || !cluster.node(1).overview().repair.rebuilding).await;
}
