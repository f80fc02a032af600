//! Deletes need no deadline: once all replicas have seen one it is forgotten, its space comes back, and it does not, whoever was away
//! meanwhile and for however long.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use starling_client::{Bucket, Client, ConsistencyLevel};
use starling_node::overview::Overview;
use starling_node::time::now;
use starling_tests::Cluster;
use starling_tests::cluster::READY_WITHIN;
use starling_tests::setting::setting;
use tokio::task::JoinSet;

const BUCKET: &str = "demo.load";
const WRITERS: u64 = 64;
const VALUE_BYTES: u64 = 1_024;
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(120);
/// What is left on a disk, at most, of what was there: one byte in so many.
const LEFT: u64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_gives_its_space_back() {
    let keys = setting("KEYS", 50_000);
    let mut cluster = Cluster::builder().setting("repair_max", "\"512MiB\"").start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let bucket = open(&cluster.client().await).await;
    each(&bucket, keys, Change::Put).await;
    let full: Vec<u64> = (1..=3).map(|number| size(&cluster.node(number).data_dir())).collect();
    assert!(full.iter().all(|bytes| *bytes > keys * VALUE_BYTES), "{full:?}");

    each(&bucket, keys, Change::Delete).await;
    for number in 1..=3 {
        let forgotten = |metrics: &str| counter(metrics, "starling_purged_keys_total") >= keys;
        cluster.wait_for_metrics(number, FORGOTTEN_WITHIN, forgotten).await;
    }
    assert_eq!(cluster.wait_until_equal(BUCKET, FORGOTTEN_WITHIN).await.keys, 0);
    for (number, full) in (1..=3).zip(full) {
        let compacted = |metrics: &str| counter(metrics, "starling_sweep_compactions_total") > 0;
        cluster.wait_for_metrics(number, FORGOTTEN_WITHIN, compacted).await;
        let left = size(&cluster.node(number).data_dir());
        eprintln!("node {number}: {full} bytes, {left} after everything was deleted");
        assert!(left < full / LEFT, "node {number} keeps {left} of {full} bytes");
    }
    assert_eq!(shown(&bucket, keys).await, 0, "a delete came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_forgotten_while_a_replica_is_away_and_nothing_comes_back_with_it() {
    let keys = 500;
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let bucket = open(&cluster.client().await).await;
    each(&bucket, keys, Change::Put).await;
    cluster.node(3).kill();
    cluster.wait_until_up(2, READY_WITHIN).await;
    each(&bucket, keys, Change::Delete).await;
    for _ in 0..2 {
        // The two compare what they hold again and again, and still wait for the third.
        let since = now();
        let again = |node: &Overview| {
            let agreed = node.repair.pairs.iter().filter_map(|pair| pair.agreed_ms_ago).min();
            agreed.is_some_and(|ago| u128::from(ago) < since.elapsed().as_millis())
        };
        cluster.wait_until(1, FORGOTTEN_WITHIN, again).await;
    }
    for number in 1..=2 {
        assert_eq!(cluster.digest(number, BUCKET).await.keys, keys, "node {number} forgot deletes");
    }
    cluster.node(3).start();
    cluster.wait_until_up(3, READY_WITHIN).await;
    for number in 1..=3 {
        let forgotten = |metrics: &str| counter(metrics, "starling_purged_keys_total") >= keys;
        cluster.wait_for_metrics(number, FORGOTTEN_WITHIN, forgotten).await;
    }
    assert_eq!(cluster.wait_until_equal(BUCKET, FORGOTTEN_WITHIN).await.keys, 0);
    assert_eq!(shown(&bucket, keys).await, 0, "a delete came back");
}

#[derive(Clone, Copy)]
enum Change {
    Put,
    Delete,
}

async fn open(client: &Client) -> Bucket {
    client.bucket(BUCKET).await.expect("the cluster serves")
}

async fn each(bucket: &Bucket, keys: u64, change: Change) {
    let mut writers = JoinSet::new();
    for first in 0..WRITERS {
        let bucket = bucket.clone();
        writers.spawn(async move {
            for key in (first..keys).step_by(WRITERS as usize) {
                let name = format!("key-{key:08}");
                match change {
                    Change::Put => {
                        let mut value = vec![0; VALUE_BYTES as usize];
                        StdRng::seed_from_u64(key).fill_bytes(&mut value);
                        bucket.put(name, value).await.expect("a quorum is up");
                    }
                    Change::Delete => {
                        bucket.delete(name).await.expect("a quorum is up");
                    }
                }
            }
        });
    }
    writers.join_all().await;
}

/// How many of the keys show a value at ALL.
async fn shown(bucket: &Bucket, keys: u64) -> u64 {
    let mut count = 0;
    for key in (0..keys).step_by(7) {
        let read = bucket.get(format!("key-{key:08}")).consistency(ConsistencyLevel::All);
        count += read.await.expect("all nodes are up").siblings.len() as u64;
    }
    count
}

/// The value of a counter without labels; 0 if it was never counted.
fn counter(metrics: &str, name: &str) -> u64 {
    let line = metrics.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The bytes of all files below.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("the folder is there").flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(of) if of.is_dir() => size(&entry.path()),
        Ok(of) => of.len(),
        // Removed since it was listed.
        Err(_) => 0,
    });
    sizes.sum()
}
