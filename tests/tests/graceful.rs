//! A node that is asked to stop finishes what it has begun, keeps everything, and takes nothing new; it
//! ends in bounded time whatever the others do, and at once when it is asked twice.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use starling_client::ConsistencyLevel;
use starling_client::load::{BucketTarget, VerifyOptions, verify};
use starling_node::overview::NodeState;
use starling_node::time::now;
use starling_protocol::{Level, WireError};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Load, Node, Trio};

const BUCKET: &str = "demo.load";
/// With nothing that keeps it: the requests in flight take milliseconds, and so does the flush.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// With requests that never end: five seconds for them, as much for their connections, and the flush.
const STOP_WITHIN_AT_WORST: Duration = Duration::from_secs(15);
/// The end of a process that no longer waits for anything.
const AT_ONCE: Duration = Duration::from_secs(2);
/// On a machine that also runs a load and other tests; alone it takes a fraction of a second.
const START_WITHIN: Duration = Duration::from_secs(5);

fn signal(node: &mut Node, signal: Signal) {
    let process = node.process_id().expect("the node runs");
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    kill_process(process.expect("ids fit"), signal).expect("a child can be signalled");
}

async fn terminate(node: &mut Node, within: Duration) -> ExitStatus {
    let began = now();
    let status = node.terminate(within).await;
    eprintln!("stopped with {status} after {:?}", began.elapsed());
    status
}

/// Asserts that the present start of a node found everything as its stop had left it.
async fn assert_started_clean(node: &Node) {
    let metrics = node.ask("/metrics").await.expect("the node serves").body;
    assert!(metrics.contains("starling_build_info"), "{metrics}");
    assert!(!metrics.contains("starling_actor_changes_total{"), "not clean:\n{}", node.log_end());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_stopped_and_started_under_load_and_no_client_notices() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let load = Load::start(&client, BUCKET, 1_000.0).await;
    for number in 1..=3 {
        cluster.wait_until(number, READY_WITHIN, |seen| seen.requests_in_flight > 0).await;
        let node = cluster.node(number);
        let status = terminate(node, STOP_WITHIN).await;
        assert!(status.success(), "{status}:\n{}", node.log_end());
        assert!(!node.log().contains("still in flight"), "not drained:\n{}", node.log_end());
        // The others were told, so they did not have to find out.
        cluster.wait_until_up(2, Duration::from_secs(1)).await;
        let began = now();
        cluster.node(number).start();
        cluster.node(number).ready(START_WITHIN).await;
        eprintln!("node {number} served {:?} after its start", began.elapsed());
        assert_started_clean(cluster.node(number)).await;
        cluster.wait_until_up(3, READY_WITHIN).await;
    }
    let outcome = load.stop().await;
    let report = &outcome.report;
    eprintln!("{report}");
    assert_eq!(report.errors.sum(), 0, "{report}");
    assert_eq!(report.unknown, 0, "every write was repeated until its outcome was known");
    assert!(report.acked_writes > 500, "the load was hardly there:\n{report}");
    assert!(outcome.judged.is_clean(), "{}", outcome.judged);
    cluster.wait_until_settled(READY_WITHIN).await;
    let target = BucketTarget::open(&client, BUCKET, ConsistencyLevel::All).await;
    let target = target.expect("all nodes serve");
    let found = verify(&target, outcome.history, VerifyOptions::default(), |_| {}).await;
    assert!(found.is_clean(), "at ALL: {found}");
}

/// A node with a put at QUORUM in flight that waits for the two others, which are paused.
async fn begin_a_put_that_waits(trio: &mut Trio, key: &'static str) -> PendingPut {
    let mut session = trio.another_at(1).await;
    trio.cluster().node(2).pause();
    trio.cluster().node(3).pause();
    let put = tokio::spawn(async move { session.put(key, "value", Level::Quorum, None).await });
    trio.cluster().wait_until(1, READY_WITHIN, |seen| seen.requests_in_flight > 0).await;
    put
}

type PendingPut = tokio::task::JoinHandle<Result<starling_client::CausalContext, WireError>>;

#[tokio::test]
async fn what_is_in_flight_is_finished_and_nothing_new_is_begun() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let put = begin_a_put_that_waits(&mut trio, "begun").await;
    signal(trio.cluster().node(1), Signal::TERM);
    trio.cluster().wait_until(1, READY_WITHIN, |seen| seen.state == NodeState::Stopping).await;
    let refused = trio.at(1).put("late", "value", Level::One, None).await;
    assert_eq!(refused, Err(WireError::ShuttingDown));
    let refused = trio.at(1).get("begun", Level::One, None).await.map(|_| ());
    assert_eq!(refused, Err(WireError::ShuttingDown));
    assert!(!put.is_finished(), "the others are paused");

    trio.cluster().node(2).resume();
    trio.cluster().node(3).resume();
    let context = put.await.expect("it does not panic").expect("it was begun before the stop");
    let node = trio.cluster().node(1);
    let status = node.exit(STOP_WITHIN).await;
    assert!(status.success(), "{status}:\n{}", node.log_end());
    trio.kill(1).await;
    let value = trio.at(2).get("begun", Level::Quorum, Some(&context)).await;
    assert_eq!(value.expect("two nodes are a quorum").siblings, ["value"]);
    trio.restart(1).await;
    assert_started_clean(trio.cluster().node(1)).await;
    assert_eq!(trio.shown("late", Level::All).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_stop_ends_in_bounded_time_whatever_the_others_do() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let written = trio.at(1).put("key", "A", Level::All, None).await.expect("all nodes are up");

    // The others are dead.
    trio.kill(2).await;
    trio.kill(3).await;
    trio.at(1).put("key", "B", Level::One, Some(&written)).await.expect("one replica is up");
    let status = terminate(trio.cluster().node(1), STOP_WITHIN).await;
    assert!(status.success(), "{status}:\n{}", trio.cluster().node(1).log_end());
    trio.kill(1).await;
    for number in 1..=3 {
        trio.restart(number).await;
    }
    assert_started_clean(trio.cluster().node(1)).await;
    trio.cluster().wait_until_settled(READY_WITHIN).await;
    assert_eq!(trio.shown("key", Level::All).await, ["B"]);
    assert_eq!(trio.shown("key", Level::One).await, ["B"], "the hints outlived the stop");

    // The others hold their connections and say nothing, and a request waits for them.
    let put = begin_a_put_that_waits(&mut trio, "waits").await;
    let status = terminate(trio.cluster().node(1), STOP_WITHIN_AT_WORST).await;
    assert!(status.success(), "{status}:\n{}", trio.cluster().node(1).log_end());
    let outcome = tokio::time::timeout(AT_ONCE, put).await.expect("the request ends with the node");
    // Its connection may have ended first, which the session takes for a failed test.
    if let Ok(Ok(_)) = outcome {
        panic!("no other replica has taken the put");
    }
    trio.cluster().node(2).resume();
    trio.cluster().node(3).resume();
    trio.kill(1).await;
    trio.restart(1).await;
    assert_started_clean(trio.cluster().node(1)).await;
}

#[tokio::test]
async fn an_interrupt_stops_as_well_and_a_second_signal_stops_at_once() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    trio.at(1).put("key", "A", Level::All, None).await.expect("all nodes are up");
    let node = trio.cluster().node(1);
    signal(node, Signal::INT);
    let status = node.exit(STOP_WITHIN).await;
    assert!(status.success(), "{status}:\n{}", node.log_end());
    trio.kill(1).await;
    trio.restart(1).await;
    assert_started_clean(trio.cluster().node(1)).await;

    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::TERM, Signal::INT)] {
        let put = begin_a_put_that_waits(&mut trio, "waits").await;
        let node = trio.cluster().node(1);
        signal(node, first);
        trio.cluster().wait_until(1, READY_WITHIN, |seen| seen.state == NodeState::Stopping).await;
        let node = trio.cluster().node(1);
        signal(node, second);
        let status = node.exit(AT_ONCE).await;
        assert_eq!(status.code(), Some(1), "{status}:\n{}", node.log_end());
        assert!(node.log().contains("asked twice"), "{}", node.log_end());
        // The session takes the end of its connection for a failed test.
        assert!(put.await.is_err(), "nobody was left to answer");
        trio.cluster().node(2).resume();
        trio.cluster().node(3).resume();
        trio.kill(1).await;
        trio.restart(1).await;
    }
    assert_eq!(trio.shown("key", Level::All).await, ["A"]);
}

/// Nobody has to find out by a refused connection: with nothing in flight the node ends at once, and tells them before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_are_told_of_a_stop() {
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let status = terminate(cluster.node(1), STOP_WITHIN).await;
    assert!(status.success(), "{status}");
    cluster.wait_until_up(2, READY_WITHIN).await;
    for number in [2, 3] {
        let log = cluster.node(number).log();
        assert!(log.contains("peer stops"), "node {number} was not told:\n{log}");
    }
}
