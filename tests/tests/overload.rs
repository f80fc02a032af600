//! More than the nodes can take, with little memory: they refuse what they do not do, and keep what they took.

use std::time::Duration;

use bytes::Bytes;
use starling_protocol::Level;
use starling_tests::pipeline::{Fates, Pace, Pipeline, Puts};
use starling_tests::{Cluster, Session};

const BUCKET: &str = "demo.wave";
/// What a node may have resident at any time: some times what it has at rest, and far from what is sent.
const MEMORY_MAX: u64 = 512 << 20;
/// Unanswered puts of one connection: together some ten times as many as `in_flight_max` lets in.
const WINDOW: usize = 4_000;
const CONNECTIONS: u8 = 4;
/// Unanswered puts of a client that does not flood.
const STEADY_WINDOW: usize = 16;
const VALUE_BYTES: usize = 1024;
/// Acknowledged while others are refused; then it is enough.
const ACKNOWLEDGED: usize = 2_000;
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_refused_early_and_what_was_taken_is_kept() {
    let described = Cluster::builder()
        .setting("limits.value_max", "\"64KiB\"")
        .setting("limits.in_flight_max", "\"4MiB\"");
    let mut cluster = described.start().await;
    cluster.wait_until_up(3, WITHIN).await;
    let (fates, acknowledged) = flood(&mut cluster).await;
    assert!(!fates.refused_after_us.is_empty(), "nothing was refused");
    assert_eq!((fates.other, &fates.last_other), (0, &None), "only acknowledged or overloaded");

    let mut session = Session::open(cluster.node(2), BUCKET).await;
    session.put("after", "value", Level::All, None).await.expect("the flood is over");
    for key in acknowledged.iter().step_by(10) {
        let found = session.get(key, Level::Quorum, None).await.expect("the flood is over");
        assert_eq!(found.siblings.len(), 1, "{key} was acknowledged");
    }
    for node in cluster.nodes() {
        assert!(node.is_running(), "{}", node.log_end());
        let peak = node.resident_bytes_peak();
        assert!(peak < MEMORY_MAX, "a node had {peak} bytes");
    }
}

/// Floods every node until enough was acknowledged; everything sent is answered.
async fn flood(cluster: &mut Cluster) -> (Fates, Vec<String>) {
    let mut pipelines = Vec::new();
    for number in 1..=3 {
        for connection in 0..CONNECTIONS {
            let puts = puts(format!("flood-{number}-{connection}"), WINDOW);
            let session = Session::open(cluster.node(number), BUCKET).await;
            pipelines.push((puts.clone(), Pipeline::start(session, puts)));
        }
    }
    let (mut fates, mut keys) = (Fates::default(), Vec::new());
    for (puts, pipeline) in pipelines {
        pipeline.until_acknowledged(ACKNOWLEDGED, WITHIN).await;
        let fate = pipeline.finish(WITHIN).await;
        let fate = fate.unwrap_or_else(|why| panic!("{}: {why}", puts.prefix));
        keys.extend(fate.acknowledged.iter().map(|number| puts.key(*number)));
        fates.join(fate);
    }
    (fates, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_client_beside_floods_is_never_refused() {
    let described = Cluster::builder().nodes(1).setting("limits.in_flight_max", "\"2MiB\"");
    let mut cluster = described.setting("limits.value_max", "\"64KiB\"").start().await;
    let node = cluster.node(1);
    let mut floods = Vec::new();
    for connection in 0..CONNECTIONS {
        let session = Session::open(node, BUCKET).await;
        floods.push(Pipeline::start(session, puts(format!("flood-{connection}"), WINDOW)));
    }
    for flood in &floods {
        flood.until_acknowledged(ACKNOWLEDGED, WITHIN).await;
    }
    let session = Session::open(node, BUCKET).await;
    let steady = Pipeline::start(session, puts("steady".to_owned(), STEADY_WINDOW));
    steady.until_acknowledged(ACKNOWLEDGED, WITHIN).await;
    let fates = steady.finish(WITHIN).await.expect("every put is answered");
    assert_eq!(fates.acknowledged.len() as u64, fates.sent, "{:?}", fates.last_other);
    let mut refused = 0;
    for flood in floods {
        refused +=
            flood.finish(WITHIN).await.expect("every put is answered").refused_after_us.len();
    }
    assert!(refused > 0, "that was no flood");
}

fn puts(prefix: String, window: usize) -> Puts {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    Puts { prefix, keys: u64::MAX, value, pace: Pace::Window(window), budget: WITHIN }
}
