//! Asking again: the same operation id every time, so that a write happens once however often it is
//! sent, and an honest word when nobody knows whether it happened.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use starling_client::{Error, WireError};
use starling_protocol::{Request, Response};

use crate::fake::{BUCKET, Cluster, Reply, key_led_by, operations};

fn is_data(request: &Request) -> bool {
    matches!(request, Request::Get { .. } | Request::Put { .. } | Request::Delete { .. })
}

/// Closes the connection under the next data request, and answers well after that.
fn close_once() -> impl FnMut(&Request) -> Option<Reply> {
    let mut closed = false;
    move |request| {
        let close = is_data(request) && !closed;
        closed |= close;
        close.then_some(Reply::Close)
    }
}

#[tokio::test]
async fn a_connection_lost_under_a_request_costs_nothing() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 2);
    cluster.nodes.iter().for_each(|node| node.script(close_once()));
    let written = bucket.put(key.clone(), "milk").await.expect("the connection comes back");
    let stats = client.stats();
    assert_eq!((stats.retried, stats.repeated, stats.unknown), (3, 1, 0));
    let sent = operations(&cluster.nodes);
    assert_eq!(sent.values().copied().collect::<Vec<_>>(), [4], "one put, one operation id");
    for (request, operand, _) in cluster.nodes.iter().flat_map(|node| node.seen()) {
        if matches!(request, Request::Put { .. }) {
            assert_eq!(operand, "milk");
        }
    }
    cluster.nodes.iter().for_each(|node| node.script(close_once()));
    bucket.get(key.clone()).await.expect("the connection comes back");
    assert_eq!(client.stats().repeated, 1, "a read repeats nothing");
    cluster.nodes.iter().for_each(|node| node.script(close_once()));
    bucket.delete(key).context(&written).await.expect("the connection comes back");
    assert_eq!(client.stats().repeated, 2);
    let sent: BTreeSet<usize> = operations(&cluster.nodes).into_values().collect();
    assert_eq!(sent, BTreeSet::from([4]), "one delete, one operation id");
}

#[tokio::test]
async fn no_two_writes_share_an_operation_id() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    for _ in 0..20 {
        bucket.put("k", "same value").await.expect("answered well");
        bucket.overwrite("k", "same value").await.expect("answered well");
        bucket.delete("k").await.expect("answered well");
    }
    let sent = operations(&cluster.nodes);
    assert_eq!((sent.len(), sent.values().copied().max()), (60, Some(1)));
}

#[tokio::test]
async fn a_final_no_does_not_speak_for_the_attempt_before_it() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 0);
    let refused = WireError::TooManySiblings { count: 65, max: 64 };
    cluster.nodes[0].script(|request| is_data(request).then_some(Reply::Close));
    let refusal = refused.clone();
    cluster.nodes[1].script(move |request| {
        let refusal = Reply::With(Response::Error(refusal.clone()), Bytes::new());
        is_data(request).then_some(refusal)
    });
    let told = bucket.put(key.clone(), "v").await.expect_err("it is refused");
    assert_eq!(told, Error::Refused { error: refused, unknown: true });
    assert!(told.is_unknown(), "the first node may have written it");
    assert_eq!(client.stats().unknown, 1);
    let told = bucket.get(key).await.expect_err("it is refused");
    assert!(!told.is_unknown(), "a read changes nothing");
    assert_eq!(client.stats().unknown, 1);
}

#[tokio::test]
async fn a_write_that_nobody_answers_is_of_unknown_outcome() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| is_data(request).then_some(Reply::Never));
    let time = Duration::from_millis(300);
    let told = bucket.put("k", "v").timeout(time).await.expect_err("nobody answers");
    assert!(matches!(told, Error::Timeout { unknown: true, .. }), "{told:?}");
    assert_eq!((told.code(), client.stats().unknown), ("S103", 1));
    let said = told.to_string();
    assert_eq!(said.matches("no node answered in time").count(), 1, "{said}");
    let told = bucket.get("k").timeout(time).await.expect_err("nobody answers");
    assert!(matches!(told, Error::Timeout { unknown: false, .. }), "{told:?}");
    assert_eq!(client.stats().unknown, 1);
    let ids = operations(&cluster.nodes);
    assert_eq!(ids.len(), 1, "one put, one operation id");
}

#[tokio::test]
async fn a_write_that_was_never_sent_did_not_happen() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    // The connection is lost under a read, and no new one is greeted.
    cluster.script(|request| {
        (is_data(request) || matches!(request, Request::Hello { .. })).then_some(Reply::Close)
    });
    let time = Duration::from_millis(200);
    bucket.get("k").timeout(time).await.expect_err("the connection is closed");
    let told = bucket.put("k", "v").timeout(time).await.expect_err("there is no connection");
    assert!(matches!(told, Error::Timeout { unknown: false, .. }), "{told:?}");
    assert_eq!((operations(&cluster.nodes).len(), client.stats().unknown), (0, 0));
}

#[tokio::test]
async fn a_bucket_that_a_node_forgot_is_opened_again() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let mut open = false;
    cluster.nodes[0].script(move |request| {
        open |= matches!(request, Request::OpenBucket { .. });
        let refusal = Response::Error(WireError::UnknownBucket { id: 7 });
        (is_data(request) && !open).then(|| Reply::With(refusal, Bytes::new()))
    });
    bucket.put("k", "v").await.expect("it is opened again");
    assert_eq!(operations(&cluster.nodes).into_values().collect::<Vec<_>>(), [2]);
}
