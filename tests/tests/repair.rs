//! Replicas that differ become equal by themselves: nobody reads, no hint is owed, no command is given. What travels is in proportion to
//! what differs.
//!
//! `KEYS=1000000` makes the second test as large as the promise that it stands for.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use starling_client::load::{BucketTarget, VerifyOptions, verify};
use starling_client::{Client, ConsistencyLevel, Status};
use starling_node::overview::Overview;
use starling_storage::{Batch, Family, RocksOptions, RocksStore, Store};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::setting::{seed, setting};
use starling_tests::{Cluster, Load};
use tokio::task::JoinSet;

const BUCKET: &str = "demo.load";
const OPERATIONS_PER_S: f64 = 1_500.0;
const REPAIRED_WITHIN: Duration = Duration::from_secs(120);
const WRITERS: u64 = 64;
const VALUE_BYTES: u64 = 1_024;
/// Of each of three nodes so many keys in a thousand go missing: one in a hundred differs.
const MISSING_PER_NODE: f64 = 0.01 / 3.0;
/// Of the bytes of one replica so many may travel for that.
const MOVED_MAX: f64 = 0.03;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_wiped_under_load_is_whole_again_by_itself() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let load = Load::start(&client, BUCKET, OPERATIONS_PER_S).await;
    let written =
        |metrics: &str| metric(metrics, "starling_replica_requests_total", "write") > 3_000;
    cluster.wait_for_metrics(2, READY_WITHIN, written).await;

    cluster.node(2).kill();
    fs::remove_dir_all(cluster.node(2).data_dir()).expect("it is the node's own");
    cluster.wait_until_up(2, READY_WITHIN).await;
    cluster.node(2).start();
    let address = cluster.node(2).native_address();
    let status = |seen: &Overview| {
        seen.nodes.iter().find(|node| node.address == address).map(|node| node.status)
    };
    let back = cluster.wait_until(1, READY_WITHIN, |seen| status(seen) != Some(Status::Down)).await;
    assert_eq!(status(&back), Some(Status::Rebuilding), "it is known as that when it is met");
    cluster.node(2).ready(READY_WITHIN).await;
    assert!(cluster.node(2).log().contains("takes its name back"), "{}", cluster.node(2).log_end());
    cluster.wait_until(2, REPAIRED_WITHIN, |node| !node.repair.rebuilding).await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let outcome = load.stop().await;

    let report = &outcome.report;
    assert_eq!(report.errors.sum(), 0, "two of three nodes were always up:\n{report}");
    assert!(outcome.judged.is_clean(), "{}", outcome.judged);
    cluster.wait_until_equal(BUCKET, REPAIRED_WITHIN).await;
    let target = BucketTarget::open(&client, BUCKET, ConsistencyLevel::All).await;
    let target = target.expect("all nodes serve");
    let found = verify(&target, outcome.history.clone(), VerifyOptions::default(), |_| {}).await;
    assert!(found.is_clean(), "{found}");
    assert_eq!(found.checked, outcome.history.acknowledged());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_in_a_hundred_differs_and_little_more_than_that_travels() {
    let keys = setting("KEYS", 100_000);
    let mut cluster = Cluster::builder().setting("repair_max", "\"512MiB\"").start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    fill(&cluster.client().await, keys).await;
    cluster.wait_until_settled(READY_WITHIN).await;
    cluster.wait_until_equal(BUCKET, REPAIRED_WITHIN).await;
    for number in 1..=3 {
        let status = cluster.node(number).terminate(REPAIRED_WITHIN).await;
        assert!(status.success());
    }
    let mut random = StdRng::seed_from_u64(seed());
    let lost = [1, 2, 3].map(|number| lose_some(&mut cluster, number, &mut random));
    let gone = lost[0].iter().filter(|key| lost[1].contains(*key) && lost[2].contains(*key));
    let gone = gone.count() as u64;
    let lost: u64 = lost.iter().map(|keys| keys.len() as u64).sum();
    cluster.start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    cluster.wait_until_equal(BUCKET, REPAIRED_WITHIN).await;
    assert_eq!(cluster.digest(1, BUCKET).await.keys, keys - gone, "what all three lost stays away");

    let mut moved = 0;
    for number in 1..=3 {
        let metrics = cluster.node(number).ask("/metrics").await.expect("it runs").body;
        moved += ["in", "out"]
            .map(|way| metric(&metrics, "starling_repair_bytes_total", way))
            .iter()
            .sum::<u64>();
    }
    let share = moved as f64 / (keys * VALUE_BYTES) as f64;
    eprintln!(
        "{lost} of {keys} keys differed; {moved} bytes moved, {:.2}% of a replica",
        share * 100.0
    );
    assert!(lost > keys / 200, "hardly anything differed");
    assert!(share <= MOVED_MAX, "{:.2}% moved", share * 100.0);
}

/// Puts keys that are all different, each with a value of its own.
async fn fill(client: &Client, keys: u64) {
    let bucket = client.bucket(BUCKET).await.expect("the cluster serves");
    let mut writers = JoinSet::new();
    for first in 0..WRITERS {
        let bucket = bucket.clone();
        writers.spawn(async move {
            for key in (first..keys).step_by(WRITERS as usize) {
                let mut value = vec![0; VALUE_BYTES as usize];
                StdRng::seed_from_u64(key).fill_bytes(&mut value);
                let put = bucket.put(format!("key-{key:08}"), value);
                put.consistency(ConsistencyLevel::All).send().await.expect("all nodes are up");
            }
        });
    }
    writers.join_all().await;
}

/// Takes keys out of the store of a node that is stopped, and returns them.
fn lose_some(cluster: &mut Cluster, number: u8, random: &mut StdRng) -> BTreeSet<Bytes> {
    let directory = cluster.node(number).data_dir().join("store");
    let store =
        RocksStore::open(&directory, &RocksOptions::default()).expect("the node is stopped");
    let mut doomed = BTreeSet::new();
    let scanned = store.scan(Family::Data, &[], &[], &mut |key, _| {
        if random.random_bool(MISSING_PER_NODE) {
            doomed.insert(Bytes::copy_from_slice(key));
        }
        ControlFlow::Continue(())
    });
    scanned.expect("the store is sound");
    let mut batch = Batch::new();
    doomed.iter().for_each(|key| batch.delete(Family::Data, key.clone()));
    store.write_waiting(batch).expect("there is room");
    store.sync().expect("the disk works");
    doomed
}

/// The value of a counter with a label of this value; 0 if it was never counted.
fn metric(metrics: &str, name: &str, label: &str) -> u64 {
    let line = metrics.lines().find(|line| {
        line.starts_with(name) && line.contains(&format!("\"{label}\"")) && !line.starts_with('#')
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}
