//! A replica stops without dying: its connections stand and nothing answers on them. Nobody waits for
//! it longer than it takes to notice, and it catches up when it goes on.

use std::time::Duration;

use starling_client::load::{BucketTarget, VerifyOptions, verify};
use starling_client::{Client, ConsistencyLevel};
use starling_node::time::now;
use starling_protocol::Status;
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Load};
use tokio::task::JoinSet;
use tokio::time::sleep;

const BUCKET: &str = "demo.load";
const STOPPED_FOR: Duration = Duration::from_secs(10);
const OPERATIONS_PER_S: f64 = 800.0;
const P99_US_MAX: u64 = 1_000_000;
/// After this a read that was sent to the stopped node is sent to another.
const LEFT_WITHIN: Duration = Duration::from_millis(200);
/// What a read takes at another node, on a machine that also runs other tests.
const ANSWERED_WITHIN: Duration = Duration::from_millis(100);
const KEYS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quorum_stays_available_while_a_replica_is_stopped() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let load = Load::start(&client, BUCKET, OPERATIONS_PER_S).await;
    let stopped_at = cluster.node(2).native_address();
    cluster.wait_until(2, READY_WITHIN, |seen| seen.requests_in_flight > 0).await;
    cluster.node(2).pause();
    sleep(STOPPED_FOR).await;
    for number in [1, 3] {
        let knows = |seen: &starling_node::overview::Overview| {
            let stopped = seen.nodes.iter().find(|node| node.address == stopped_at);
            stopped.is_some_and(|node| node.status == Status::Down && node.hints_pending > 0)
        };
        cluster.wait_until(number, READY_WITHIN, knows).await;
    }
    // What is measured is the time in which the node was stopped, almost to the moment.
    let outcome = load.stop().await;
    let report = &outcome.report;
    eprintln!("{report}");
    assert_eq!(report.errors.sum(), 0, "two of three replicas were up:\n{report}");
    assert_eq!(report.unknown, 0, "every write was repeated until its outcome was known");
    assert!(report.ops as f64 > 0.8 * OPERATIONS_PER_S * STOPPED_FOR.as_secs_f64(), "{report}");
    assert!(report.retried > 0, "no request met the stopped node, so this says little:\n{report}");
    for latency in [report.latency_us.read, report.latency_us.write] {
        assert!(latency.p99 < P99_US_MAX, "{report}");
    }
    assert!(outcome.judged.is_clean(), "{}", outcome.judged);

    cluster.node(2).resume();
    cluster.wait_until_up(3, READY_WITHIN).await;
    cluster.wait_until_settled(READY_WITHIN).await;
    let target = BucketTarget::open(&client, BUCKET, ConsistencyLevel::All).await;
    let target = target.expect("all nodes serve");
    let found = verify(&target, outcome.history, VerifyOptions::default(), |_| {}).await;
    assert!(found.is_clean(), "at ALL: {found}");
    assert!(cluster.assert_equal(BUCKET).await.keys > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_leaves_a_stopped_node_within_200_ms_for_reads() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let stopped_at = cluster.node(1).native_address().to_string();
    let client = Client::builder().contact_point(&stopped_at).build().await;
    let client = client.expect("the node serves");
    let bucket = client.bucket("demo.things").await.expect("the bucket is made on first use");
    let keys: Vec<String> = (0..KEYS).map(|number| format!("key {number}")).collect();
    for key in &keys {
        // At ALL, so that each replica answers at ONE; led by each of them, so that all are connected.
        let put = bucket.put(key.clone(), key.clone()).consistency(ConsistencyLevel::All);
        put.await.expect("all nodes are up");
    }

    cluster.node(1).pause();
    let before = client.stats().retried;
    let mut reads = JoinSet::new();
    for key in keys.clone() {
        let bucket = bucket.clone();
        reads.spawn(async move {
            let began = now();
            let read = bucket.get(key.clone()).consistency(ConsistencyLevel::One).await;
            assert_eq!(read.expect("two nodes serve").siblings, [key]);
            began.elapsed()
        });
    }
    let took = reads.join_all().await;
    let longest = took.into_iter().max().expect("there are keys");
    let met = client.stats().retried - before;
    eprintln!("{met} of {KEYS} reads met the stopped node; the longest took {longest:?}");
    assert!(met > 0, "no read met the stopped node, so this says nothing");
    assert!(longest < LEFT_WITHIN + ANSWERED_WITHIN, "a read took {longest:?}");

    // Once it is known, it is asked no more.
    let before = client.stats().retried;
    for key in &keys {
        let began = now();
        bucket.get(key.clone()).consistency(ConsistencyLevel::One).await.expect("two nodes serve");
        assert!(began.elapsed() < ANSWERED_WITHIN, "{key} took {:?}", began.elapsed());
    }
    assert_eq!(client.stats().retried, before, "reads still go to the stopped node");

    // Who comes only now finds the others by the next contact point.
    let began = now();
    let others = [2, 3].map(|number| cluster.node(number).native_address().to_string());
    let newcomer = Client::builder()
        .contact_point(&stopped_at)
        .contact_point(&others[0])
        .contact_point(&others[1])
        .connect_timeout(Duration::from_millis(500))
        .build()
        .await
        .expect("two nodes serve");
    let bucket = newcomer.bucket("demo.things").await.expect("two nodes are a quorum");
    let value = bucket.get(keys[0].clone()).await.expect("two nodes are a quorum");
    assert_eq!(value.siblings, [keys[0].clone()]);
    eprintln!("a client that came later was served after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "served only after {:?}", began.elapsed());
}
