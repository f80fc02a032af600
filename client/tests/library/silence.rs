//! A node that accepts and reads, and answers nothing, as a stopped process does: it is left at once,
//! and taken back when it speaks again.

use std::time::Duration;

use starling_client::Client;
use starling_protocol::{Request, Status};

use crate::fake::{BUCKET, Cluster, PATIENCE, Reply, eventually, key_led_by, one_value};

/// A silent node is left within 200 ms; what is more is for the machine, and the best of
/// [`TRIALS`] counts, so that a busy moment fails nothing.
const LEFT_WITHIN: Duration = Duration::from_millis(230);
const TRIALS: usize = 8;
/// How often it is tried whether a node is asked again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_read_leaves_a_silent_node_within_200_ms() {
    let mut in_time = false;
    for _ in 0..TRIALS {
        let cluster = Cluster::start(2, 2).await;
        let client = cluster.client().await;
        let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
        // The other node is suspected, so that the one that falls silent is asked first.
        cluster.view.lock().members[1].status = Status::Suspect;
        client.topology().await.expect("the ring is told");
        let asked = cluster.asked()[0];
        cluster.nodes[0].freeze(true);
        let read = tokio::time::timeout(LEFT_WITHIN, bucket.get("k").send()).await;
        in_time = read.is_ok_and(|read| read.is_ok()) && cluster.asked()[0] > asked;
        if in_time {
            break;
        }
    }
    assert!(in_time, "not once in {TRIALS} trials");
}

/// A client of two nodes of which the first is frozen, and keys that it leads.
async fn half_frozen() -> (Cluster, Client, String) {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let key = key_led_by(&client, 0);
    cluster.nodes[0].freeze(true);
    (cluster, client, key)
}

#[tokio::test]
async fn a_write_leaves_a_silent_node_and_says_what_it_did() {
    let (cluster, client, key) = half_frozen().await;
    let bucket = client.bucket(BUCKET).await.expect("the other node opens it");
    let put = bucket.put(key, "v").send();
    let put = tokio::time::timeout(PATIENCE / 4, put).await.expect("it does not wait for the node");
    put.expect("the other node answers");
    assert!(client.stats().repeated <= 1);
    assert!(cluster.asked()[1] > 0);
}

#[tokio::test]
async fn a_silent_node_is_asked_last_and_taken_back_when_it_speaks() {
    let (cluster, client, key) = half_frozen().await;
    let bucket = client.bucket(BUCKET).await.expect("the other node opens it");
    bucket.put(key.clone(), "v").await.expect("the other node answers");
    // From here on it is known to be silent: nothing is sent there first.
    let asked = cluster.asked()[0];
    for _ in 0..20 {
        bucket.put(key.clone(), "v").await.expect("the other node answers");
        bucket.get(key.clone()).await.expect("the other node answers");
    }
    assert_eq!(cluster.asked()[0], asked);
    cluster.nodes[0].freeze(false);
    let mut led_again = false;
    for _ in 0..200 {
        bucket.put(key.clone(), "v").await.expect("some node answers");
        led_again = cluster.asked()[0] > asked;
        if led_again {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    assert!(led_again, "the node speaks again, and is not asked");
}

#[tokio::test]
async fn a_node_that_is_merely_slow_is_waited_for() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 1);
    cluster.nodes[1].script(|request| {
        let (response, operand) = one_value("milk");
        // Longer than silence is borne: it shows by another answer that it is there.
        let slow = Reply::After(Duration::from_millis(600), response, operand);
        matches!(request, Request::Get { .. }).then_some(slow)
    });
    let (left, retried) = (cluster.asked()[0], client.stats().retried);
    let value = bucket.get(key).await.expect("it answers in the end");
    assert_eq!(value.siblings.len(), 1);
    assert_eq!((cluster.asked()[0], client.stats().retried), (left, retried));
}

#[tokio::test]
async fn a_node_that_does_not_greet_holds_up_no_read() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.builder().build().await.expect("the first node answers");
    cluster.nodes[1].freeze(true);
    let bucket = client.bucket(BUCKET).await.expect("the first node opens it");
    let read = async {
        for number in 0..20 {
            bucket.get(format!("cart:{number}")).await.expect("the first node answers");
        }
    };
    tokio::time::timeout(PATIENCE / 4, read).await.expect("the reads do not wait for the other");
}

#[tokio::test]
async fn a_request_keeps_its_time_while_another_tries_to_reach_the_node() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    // The connection is lost, and the next one is not greeted.
    cluster.nodes[0].script(|request| match request {
        Request::Hello { .. } => Some(Reply::Never),
        _ => Some(Reply::Close),
    });
    bucket.get("k").timeout(Duration::from_millis(50)).await.expect_err("the connection is closed");
    let patient = tokio::spawn({
        let bucket = bucket.clone();
        async move { bucket.get("k").timeout(PATIENCE).await }
    });
    eventually(|| cluster.nodes[0].accepted() > 1).await;
    let hurried = bucket.get("k").timeout(Duration::from_millis(100)).send();
    let hurried = tokio::time::timeout(Duration::from_secs(1), hurried).await;
    hurried.expect("its own time is over").expect_err("nobody answers");
    patient.abort();
}
