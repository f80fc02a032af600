//! Clients that say nothing, say it slowly, or do not listen: nobody else waits for them, and what they
//! may hold is bounded.

use std::time::Duration;

use starling_node::time::now;
use starling_protocol::{Request, Response};
use starling_tests::Cluster;
use tokio::time::sleep;

use crate::neighbour::Neighbour;
use crate::wire::{Raw, WITHIN, assert_whole, get, greeted, hello, put, request, response};

const BUCKET: &str = "demo.things";
/// Between two bytes of a slow client.
const BYTE_EVERY: Duration = Duration::from_millis(5);
/// The slowest that a request of a neighbour may be, on a machine that also runs other tests.
const NEIGHBOUR_WITHIN: Duration = Duration::from_secs(3);
/// A large value, how often it is asked for by a client that does not listen, and what the node may
/// take up meanwhile, which is far less than all of the answers.
const VALUE_BYTES: usize = 512 << 10;
const ASKED: u64 = 2_000;
const HELD_BYTES_MAX: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_slow_clients_keep_nobody_waiting() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let node = cluster.node(1);
    let neighbour = Neighbour::of(node).await;
    let (mut idle, bucket) = greeted(node, BUCKET).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(Raw::connect(node.native_address()).await);
    }
    // One greets a byte at a time, another puts so.
    let mut greeting = Raw::connect(node.native_address()).await;
    let (mut putting, _) = greeted(node, BUCKET).await;
    let (hello, put) = (hello(1), put(2, bucket, "slow", &[b'v'; 300]));
    for at in 0..hello.len().max(put.len()) {
        greeting.send(hello.get(at..=at).unwrap_or_default()).await;
        putting.send(put.get(at..=at).unwrap_or_default()).await;
        sleep(BYTE_EVERY).await;
    }
    let greeted = greeting.next().await.expect("a slow client is a client");
    assert!(matches!(response(&greeted), Response::Hello { .. }), "{greeted:?}");
    let written = putting.next().await.expect("a slow client is a client");
    assert!(matches!(response(&written), Response::Written { .. }), "{written:?}");
    // Whoever has not said who it is does not keep its place; whoever has may be silent.
    let asked_at = now();
    for raw in &mut silent {
        assert_eq!(raw.rest().await, []);
    }
    assert!(now().saturating_duration_since(asked_at) < WITHIN / 2);
    idle.send(&request(9, &Request::Topology, b"")).await;
    let answer = idle.next().await.expect("an idle connection stays open");
    assert!(matches!(response(&answer), Response::Topology(_)), "{answer:?}");
    neighbour.goes_on().await;
    let slowest = neighbour.finish().await;
    assert!(slowest < NEIGHBOUR_WITHIN, "a neighbour waited for {slowest:?}");
    assert_whole(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_listen_holds_little_and_gets_every_answer() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let node = cluster.node(1);
    let (mut raw, bucket) = greeted(node, BUCKET).await;
    raw.send(&put(3, bucket, "large", &vec![b'v'; VALUE_BYTES])).await;
    let written = raw.next().await.expect("it is written");
    assert!(matches!(response(&written), Response::Written { .. }), "{written:?}");
    let neighbour = Neighbour::of(node).await;
    neighbour.goes_on().await;
    let before = node.resident_bytes();
    let gets: Vec<u8> = (0..ASKED).flat_map(|id| get(100 + id, bucket, "large")).collect();
    raw.send(&gets).await;
    let mut most = before;
    for _ in 0..200 {
        neighbour.goes_on().await;
        most = most.max(node.resident_bytes());
    }
    let held = most.saturating_sub(before);
    assert!(held < HELD_BYTES_MAX, "{} MiB are held for it", held >> 20);
    let mut answered = vec![false; ASKED as usize];
    for _ in 0..ASKED {
        let answer = raw.next().await.expect("every request is answered");
        let place = (answer.request_id - 100) as usize;
        assert!(!std::mem::replace(&mut answered[place], true), "{place} is answered twice");
        match response(&answer) {
            Response::Value { .. } => assert_eq!(answer.operand.len(), VALUE_BYTES),
            Response::Error(error) => assert_eq!(error.code(), "S105", "{error}"),
            other => panic!("{other:?}"),
        }
    }
    neighbour.goes_on().await;
    let slowest = neighbour.finish().await;
    assert!(slowest < NEIGHBOUR_WITHIN, "a neighbour waited for {slowest:?}");
    assert_whole(node);
}
