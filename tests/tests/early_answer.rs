//! What a read has shown, later reads show: one replica has a value, and cannot pass it on. Either nobody is shown it, or everybody is.

use std::sync::Arc;
use std::time::Duration;

use starling_client::{Bucket, ConsistencyLevel};
use starling_storage::planted::{Bug, Planted};
use starling_tests::{Detained, Disk, InProcess, Machine, MemoryNetwork};

const BUCKET: &str = "demo.things";
/// Comparing replicas would bring the value to all.
const NEVER: Duration = Duration::from_secs(3_600);
/// Long enough for a read, and too short for what never comes.
const READ_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_passed_on_is_not_shown() {
    let (shown, later) = shown_and_later(Planted::NONE).await;
    assert!(shown.iter().all(|value| later.contains(value)), "{shown:?}, and later {later:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_its_repair_is_taken_back_later() {
    let (shown, later) = shown_and_later(Planted::new(Bug::AnswerBeforeRepair)).await;
    assert_eq!((shown, later), (vec!["new".to_owned()], Vec::new()));
}

/// What a read through the replica with the value shows, nothing if it fails, and then one without that replica.
async fn shown_and_later(planted: Planted) -> (Vec<String>, Vec<String>) {
    let detained = Detained::new(Arc::new(MemoryNetwork::new()));
    let prepare = |machine: &mut Machine| {
        machine.compare_every(NEVER);
        machine.plant(planted);
    };
    let network = Arc::new(detained.clone());
    let mut cluster = InProcess::start_after(3, network, Disk::Memory, prepare).await;
    for number in 2..=3 {
        detained.lose_mutations_to(cluster.node(number).config().listen.internode);
    }
    let [one, two] = [bucket_at(&cluster, 1).await, bucket_at(&cluster, 2).await];
    let put = one.put("key", "new").consistency(ConsistencyLevel::One).await;
    put.expect("the node holds a replica");
    let shown = read(&one).await.unwrap_or_default();
    cluster.isolate(1);
    cluster.wait_until_up_at(2, 2).await;
    let later = read(&two).await.expect("two of three are a quorum");
    cluster.faults().heal();
    (shown, later)
}

async fn bucket_at(cluster: &InProcess, number: u8) -> Bucket {
    let client = cluster.client_of(number).await;
    client.bucket(BUCKET).await.expect("the bucket is made on first use")
}

async fn read(bucket: &Bucket) -> Option<Vec<String>> {
    let found = bucket.get("key").timeout(READ_WITHIN).await.ok()?;
    let text = |value: &bytes::Bytes| String::from_utf8_lossy(value).into_owned();
    Some(found.siblings.iter().map(text).collect())
}
