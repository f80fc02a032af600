//! A read that took very long, and what it then brings back: a coordinator has the states of two replicas, waits for that of the third, and
//! meanwhile the value is deleted and the delete forgotten. What it read must not come back as if it were news.

use std::sync::Arc;
use std::time::Duration;

use starling_client::{Bucket, Client, ConsistencyLevel};
use starling_node::time::now;
use starling_storage::planted::{Bug, Planted};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Detained, Disk, InProcess, Machine, MemoryNetwork};
use tokio::time::sleep;

/// A delete is to be forgotten soon.
const COMPARE_EVERY: Duration = Duration::from_millis(200);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A node that is asked for a state first gives no digest before; then it is tried with another node, and another key in a bucket of the same name.
const TRIES: u8 = 30;
/// Longer than a delete takes to be forgotten.
const READ_WITHIN: Duration = Duration::from_secs(50);
/// Coordinates the read of a key that it does not hold.
const COORDINATOR: u8 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_was_held_up_does_not_bring_back_what_was_forgotten_meanwhile() {
    assert_eq!(found_after_a_late_repair(Planted::NONE).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_is_dated_by_its_sending_brings_it_back() {
    let planted = Planted::new(Bug::WriteBackUnderFreshMint);
    assert_eq!(found_after_a_late_repair(planted).await, ["new"]);
}

async fn found_after_a_late_repair(planted: Planted) -> Vec<String> {
    let detained = Detained::new(Arc::new(MemoryNetwork::new()));
    let prepare = |machine: &mut Machine| {
        machine.compare_every(COMPARE_EVERY);
        machine.plant(planted);
    };
    let network = Arc::new(detained.clone());
    let mut cluster = InProcess::start_after(4, network, Disk::Memory, prepare).await;
    for attempt in 0..TRIES {
        let name = format!("demo.try{attempt}");
        if let Some(found) = try_in(&mut cluster, &detained, &name, attempt).await {
            cluster.stop().await;
            return found;
        }
    }
    panic!("no state was held up in {TRIES} tries");
}

/// What is found in the end; nothing if the key has a replica at the coordinator, or no state was held up.
async fn try_in(
    cluster: &mut InProcess,
    detained: &Detained,
    name: &str,
    attempt: u8,
) -> Option<Vec<String>> {
    let all = ConsistencyLevel::All;
    let reader = open(&cluster.client_of(COORDINATOR).await, name).await;
    let bucket = open(&cluster.client().await, name).await;
    let old = bucket.put(name.to_owned(), "old").consistency(all).await.expect("all nodes are up");
    if cluster.node(COORDINATOR).digest(name).await.keys > 0 {
        return None;
    }
    // One node leads the new value, and another is not told of it yet.
    let [stale, leading, third] = [0, 1, 2].map(|turn| (attempt + turn) % 3 + 1);
    cluster.faults().cut_one_way(cluster.host(leading), cluster.host(stale));
    cluster.faults().cut_one_way(cluster.host(third), cluster.host(stale));
    let leader = open(&cluster.client_of(leading).await, name).await;
    let new =
        leader.put(name.to_owned(), "new").context(&old).await.expect("two of three are a quorum");

    detained.detain(cluster.node(stale).config().listen.internode);
    let key = name.to_owned();
    let reading = tokio::spawn(async move {
        reader.get(key).consistency(all).timeout(READ_WITHIN).await.map(drop)
    });
    while !detained.has_kept() && !reading.is_finished() {
        sleep(LOOK_EVERY).await;
    }
    cluster.faults().heal();
    if !detained.has_kept() {
        detained.let_go();
        return None;
    }
    cluster.wait_until_up(4).await;
    cluster.wait_until_settled().await;
    leader.delete(name.to_owned()).context(&new).consistency(all).await.expect("all nodes are up");
    forgotten(cluster, name).await;
    detained.let_go();
    // An error, or what it found: both are answers.
    let _answer = reading.await.expect("a read does not panic");
    let found = bucket.get(name.to_owned()).consistency(all).await.expect("all nodes are up");
    let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
    Some(found.siblings.iter().map(text).collect())
}

/// Waits until the replicas hold nothing of the deleted key.
async fn forgotten(cluster: &mut InProcess, name: &str) {
    let until = now() + READY_WITHIN;
    for number in 1..=3 {
        while cluster.node(number).digest(name).await.keys > 0 {
            assert!(now() < until, "node {number} does not forget what was deleted");
            sleep(LOOK_EVERY).await;
        }
    }
}

async fn open(client: &Client, name: &str) -> Bucket {
    client.bucket(name).await.expect("the bucket is made on first use")
}
