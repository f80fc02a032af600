//! Sockets end with their use: with the client, with a node's membership, with a greeting that failed.

use std::time::Duration;

use bytes::Bytes;
use starling_client::{Client, WireError};
use starling_protocol::{Request, Response};
use tokio::runtime::Handle;

use crate::fake::{BUCKET, Cluster, Node, PATIENCE, Reply, eventually, member};

const STUCK_FOR: Duration = Duration::from_millis(30);

#[tokio::test]
async fn a_dropped_client_closes_its_sockets() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    for node in &cluster.nodes {
        node.until_open(1).await;
    }
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let clone = client.clone();
    drop((client, clone));
    bucket.put("k", "v").await.expect("a bucket keeps its client");
    drop(bucket);
    for node in &cluster.nodes {
        node.until_open(0).await;
        assert_eq!(node.accepted(), 1);
    }
}

#[tokio::test]
async fn a_dropped_client_does_not_wait_for_a_node_that_reads_nothing() {
    let cluster = Cluster::start(1, 1).await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.nodes[0].deafen();
    // More than the buffers of both sockets hold, so that the writer is stuck.
    let large = Bytes::from(vec![1; 900_000]);
    for _ in 0..12 {
        let put = bucket.put("k", large.clone()).timeout(STUCK_FOR).await;
        put.expect_err("nobody answers");
    }
    drop((bucket, client));
    // The node's own task of the connection is left, and none of the client's.
    eventually(|| tasks() == before + 1).await;
}

#[tokio::test]
async fn a_node_that_is_no_member_any_more_is_let_go() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    let newcomer = Node::start(cluster.view.clone()).await;
    {
        let mut view = cluster.view.lock();
        view.epoch = 2;
        view.members[1] = member(1, newcomer.address);
    }
    client.topology().await.expect("the ring is told");
    cluster.nodes[1].until_open(0).await;
    cluster.nodes[0].until_open(1).await;
}

#[tokio::test]
async fn a_contact_point_that_is_no_member_is_let_go() {
    let cluster = Cluster::start(2, 1).await;
    let door = Node::start(cluster.view.clone()).await;
    let client = Client::builder().contact_point(door.address.to_string()).build().await;
    let client = client.expect("the contact point tells the ring");
    client.bucket(BUCKET).await.expect("a member opens it");
    door.until_open(0).await;
    assert_eq!(door.accepted(), 1);
}

#[tokio::test]
async fn failed_greetings_leave_no_socket() {
    let cluster = Cluster::start(1, 1).await;
    let refusal = WireError::BadRequest { message: "another wire version".to_owned() };
    cluster.script(move |request| {
        let refusal = Reply::With(Response::Error(refusal.clone()), Bytes::new());
        matches!(request, Request::Hello { .. }).then_some(refusal)
    });
    for frozen in [false, true] {
        cluster.nodes[0].freeze(frozen);
        let built = cluster.builder().build().await;
        let error = built.err().expect("the greeting fails").to_string();
        assert_eq!(error.contains("another wire version"), !frozen, "{error}");
        cluster.nodes[0].until_open(0).await;
    }
    assert_eq!(cluster.nodes[0].accepted(), 2);
}

#[tokio::test]
async fn a_request_that_is_dropped_disturbs_nobody() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| {
        let slow = Response::Written { context: crate::fake::token("late") };
        let slow = Reply::After(Duration::from_millis(40), slow, Bytes::new());
        matches!(request, Request::Put { .. }).then_some(slow)
    });
    for _ in 0..5 {
        let put = bucket.put("k", "v").send();
        tokio::time::timeout(Duration::from_millis(10), put).await.expect_err("given up early");
    }
    let put = tokio::time::timeout(PATIENCE, bucket.put("k", "v").send()).await;
    put.expect("it is answered").expect("it is done");
    assert_eq!(cluster.nodes[0].accepted(), 1, "the connection was kept");
}
