//! Nodes are killed with kill -9 under a verified load, one at a time and all at once: nothing that was
//! acknowledged is lost, and nothing that was replaced or deleted comes back.
//!
//! The seed decides which nodes are killed and when; `SEED=...` repeats a run's choices.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_client::load::{BucketTarget, Outcome, VerifyOptions, verify};
use starling_client::{Client, ConsistencyLevel};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::setting::seed;
use starling_tests::{Cluster, Load};

const BUCKET: &str = "demo.load";
const ROUNDS: u32 = 20;
const POWER_CUTS: u32 = 6;
/// So much that most keys are written while a node is away, and so little that a node starts quickly
/// beside it on two cores.
const OPERATIONS_PER_S: f64 = 1_500.0;
/// At most so long things stay as they are.
const LASTS: Duration = Duration::from_secs(1);
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_over_twenty_kills_of_random_nodes() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let load = Load::start(&client, BUCKET, OPERATIONS_PER_S).await;
    for round in 1..=ROUNDS {
        let victim = random.random_range(1..=3);
        cluster.node(victim).kill();
        let noticed = random.random_bool(0.5);
        if noticed {
            // From here on writes go without the node; otherwise it is back before anybody knows.
            cluster.wait_until_up(2, READY_WITHIN).await;
            lasts(&mut random).await;
        }
        cluster.node(victim).start();
        cluster.node(victim).ready(READY_WITHIN).await;
        cluster.wait_until_up(3, READY_WITHIN).await;
        eprintln!("round {round}: node {victim} killed, noticed: {noticed}");
    }
    let outcome = load.stop().await;

    let report = &outcome.report;
    assert_eq!(report.errors.sum(), 0, "two of three nodes were always up:\n{report}");
    assert_eq!(report.unknown, 0, "every write was repeated until its outcome was known");
    assert!(report.retried > 0, "no kill met a request, so this run says little");
    assert!(outcome.history.acknowledged() > 2_000, "the load was hardly there:\n{report}");
    prove_nothing_lost(&mut cluster, &client, outcome).await;
}

/// All processes end at the same moment, as in a power cut; what the system has taken of their writes it
/// keeps, so this says nothing of the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_all_nodes_are_killed_at_once() {
    let mut random = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::builder().start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let client = cluster.client().await;
    let load = Load::start(&client, BUCKET, OPERATIONS_PER_S).await;
    for _ in 0..POWER_CUTS {
        lasts(&mut random).await;
        // None of them sees another die.
        cluster.nodes().iter().for_each(|node| node.pause());
        cluster.nodes().iter_mut().for_each(|node| node.kill());
        cluster.start().await;
        cluster.wait_until_up(3, READY_WITHIN).await;
    }
    lasts(&mut random).await;
    let outcome = load.stop().await;

    assert!(outcome.history.acknowledged() > 500, "the load was hardly there:\n{}", outcome.report);
    prove_nothing_lost(&mut cluster, &client, outcome).await;
}

/// Every attempted key, those of unknown outcome too, is read at ALL, which repairs the replicas that
/// differ; then they are equal.
async fn prove_nothing_lost(cluster: &mut Cluster, client: &Client, outcome: Outcome) {
    eprintln!("{}", outcome.report);
    assert!(outcome.judged.is_clean(), "{}", outcome.judged);
    cluster.wait_until_settled(SETTLED_WITHIN).await;
    for level in [ConsistencyLevel::Quorum, ConsistencyLevel::All] {
        let target = BucketTarget::open(client, BUCKET, level).await.expect("all nodes serve");
        let options = VerifyOptions::default();
        let found = verify(&target, outcome.history.clone(), options, |_| {}).await;
        eprintln!("at {level}: {found}");
        assert!(found.is_clean(), "at {level}: {found}");
        assert_eq!(found.checked, outcome.history.acknowledged(), "at {level}: {found}");
    }
    assert!(cluster.assert_equal(BUCKET).await.keys > 0);
}

/// Lets the present state of things last for a while under load. Nothing is waited for.
async fn lasts(random: &mut StdRng) {
    tokio::time::sleep(LASTS.mul_f64(random.random_range(0.1..1.0))).await;
}
