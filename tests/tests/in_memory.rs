//! Three whole nodes in one process, over a network in memory and over TCP: the same story holds on both.
//!
//! What it says of the product is that a partition costs a majority nothing and loses nothing; what it says
//! of the two networks is that a test on one is as good as on the other.

use std::sync::Arc;
use std::time::Duration;

use starling_client::{Bucket, ConsistencyLevel, Error, WireError};
use starling_node::net::{Network, TcpNetwork};
use starling_node::time::now;
use starling_tests::{Disk, InProcess, MemoryNetwork};

const BUCKET: &str = "demo.things";
const KEYS: u32 = 60;
/// A minority that knows itself to be one refuses without waiting for anybody.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_over_memory_loses_nothing() {
    a_partition_loses_nothing(Arc::new(MemoryNetwork::new()), Disk::Memory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_over_tcp_loses_nothing() {
    a_partition_loses_nothing(Arc::new(TcpNetwork), Disk::Folder).await;
}

async fn a_partition_loses_nothing(network: Arc<dyn Network>, disk: Disk) {
    let mut cluster = InProcess::start(3, network, disk).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket is made on first use");
    put_all(&bucket, "before").await;
    expect_all(&bucket, &["before"]).await;

    cluster.isolate(3);
    cluster.wait_until_up_at(1, 2).await;
    cluster.wait_until_up_at(2, 2).await;
    cluster.wait_until_up_at(3, 1).await;
    put_all(&bucket, "during").await;
    expect_all(&bucket, &["before", "during"]).await;
    the_minority_refuses(&mut cluster).await;

    cluster.faults().heal();
    cluster.wait_until_up(3).await;
    cluster.wait_until_settled().await;
    let digests = [
        cluster.node(1).digest(BUCKET).await,
        cluster.node(2).digest(BUCKET).await,
        cluster.node(3).digest(BUCKET).await,
    ];
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    // One more, which only the minority took.
    assert_eq!(digests[0].keys, u64::from(KEYS) + 1);
    let minor = bucket.get("minor").consistency(ConsistencyLevel::One).await;
    assert_eq!(minor.expect("it is everywhere by now").siblings, ["one is enough"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_and_a_deaf_node_cost_a_quorum_nothing() {
    let mut cluster = InProcess::start(3, Arc::new(MemoryNetwork::new()), Disk::Memory).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket is made on first use");
    put_all(&bucket, "before").await;

    cluster.node(2).crash().await;
    put_all(&bucket, "without").await;
    cluster.node(2).start().await;
    cluster.node(2).ready().await;
    cluster.wait_until_up(3).await;

    // Node 1 hears nothing of node 2, which hears all of node 1.
    let (one, two) = (cluster.host(1), cluster.host(2));
    cluster.faults().cut_one_way(two, one);
    put_all(&bucket, "deaf").await;
    cluster.faults().heal();
    cluster.wait_until_up(3).await;
    cluster.wait_until_settled().await;
    expect_all(&bucket, &["before", "deaf", "without"]).await;
    let digest = cluster.node(1).digest(BUCKET).await;
    assert_eq!(cluster.node(2).digest(BUCKET).await, digest);
    assert_eq!(cluster.node(3).digest(BUCKET).await, digest);
    cluster.stop().await;
}

/// Node 3 is alone: it knows that a quorum is out of reach, and takes what one node may.
async fn the_minority_refuses(cluster: &mut InProcess) {
    let lonely = cluster.client_of(3).await;
    let bucket = lonely.bucket(BUCKET).await.expect("one node is enough to open a bucket");
    let began = now();
    expect_unavailable(bucket.put("minor", "never").await.map(drop));
    expect_unavailable(bucket.get("key0").await.map(drop));
    let took = now() - began;
    assert!(took < REFUSED_WITHIN, "refused after {took:?}");
    let put = bucket.put("minor", "one is enough").consistency(ConsistencyLevel::One).await;
    put.expect("one replica is reachable: this one");
    let old = bucket.get("key0").consistency(ConsistencyLevel::One).await;
    assert_eq!(old.expect("this replica answers").siblings, ["before"]);
}

fn expect_unavailable(outcome: Result<(), Error>) {
    let error = outcome.expect_err("a quorum is out of reach");
    let refusal = matches!(error.wire(), Some(WireError::Unavailable { .. }));
    assert!(refusal && !error.is_unknown(), "{error:?}");
}

/// Puts a value beside the others of every key, at QUORUM, and allows no error.
async fn put_all(bucket: &Bucket, value: &'static str) {
    for key in 0..KEYS {
        let put = bucket.put(format!("key{key}"), value).await;
        put.unwrap_or_else(|error| panic!("{value} to key{key}: {error}"));
    }
}

async fn expect_all(bucket: &Bucket, values: &[&str]) {
    for key in 0..KEYS {
        let read = bucket.get(format!("key{key}")).await;
        let mut read = read.unwrap_or_else(|error| panic!("key{key}: {error}")).siblings;
        read.sort();
        assert_eq!(read, values, "key{key}");
    }
}
