//! Answers that are no answers: typed errors, other nodes asked once, no panic, no wrong value.

use bytes::Bytes;
use starling_client::Error;
use starling_protocol::{Request, Response};

use crate::fake::{BUCKET, Cluster, PATIENCE, Reply, key_led_by, one_value, token};

fn is_data(request: &Request) -> bool {
    matches!(request, Request::Get { .. } | Request::Put { .. } | Request::Delete { .. })
}

/// Every node answers data requests with this: a get and a put fail typed, and soon.
async fn check_protocol_error(reply: fn() -> Reply) {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(move |request| is_data(request).then(reply));
    for write in [false, true] {
        let before: usize = cluster.asked().iter().sum();
        let request = async {
            if write {
                bucket.put("k", "v").await.map(|_| ())
            } else {
                bucket.get("k").await.map(|_| ())
            }
        };
        // Well under the request's own timeout.
        let ended = tokio::time::timeout(PATIENCE / 4, request).await.expect("it does not wait");
        let error = ended.expect_err("that was no answer");
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
        assert_eq!((error.code(), error.is_unknown()), ("S902", write), "{error:?}");
        let asked = cluster.asked().iter().sum::<usize>() - before;
        assert!((1..=3).contains(&asked), "{asked} requests to 3 nodes");
    }
    assert_eq!(client.ring().members().len(), 3);
}

#[tokio::test]
async fn a_header_that_is_no_response_is_a_typed_error() {
    check_protocol_error(|| Reply::Garbled).await;
}

#[tokio::test]
async fn one_node_that_is_not_understood_does_not_stand_in_the_way() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 0);
    cluster.nodes[0].script(|request| is_data(request).then_some(Reply::Garbled));
    bucket.put(key, "v").await.expect("another node is understood");
    assert_eq!(client.stats().repeated, 1, "the first may have done it too");
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_the_connection_and_not_the_request() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 0);
    cluster.nodes[0].script(|request| is_data(request).then_some(Reply::NoFrame));
    bucket.put(key, "v").await.expect("another node answers");
    cluster.nodes[0].until_open(0).await;
}

/// One node answers a request for data with this, well formed and out of place.
async fn check_misplaced(response: fn() -> Response, operand: &'static [u8]) {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(move |request| {
        is_data(request).then(|| Reply::With(response(), Bytes::from_static(operand)))
    });
    let read = bucket.get("k").await.expect_err("that is no value");
    assert!(matches!(read, Error::Protocol { unknown: false, .. }), "{read:?}");
}

#[tokio::test]
async fn siblings_that_do_not_fit_are_a_typed_error() {
    check_misplaced(|| Response::Value { sibling_lens: vec![5], context: token("t") }, b"milk")
        .await;
    check_misplaced(|| Response::Value { sibling_lens: vec![3], context: token("t") }, b"milk")
        .await;
    check_misplaced(|| Response::Value { sibling_lens: vec![], context: token("t") }, b"milk")
        .await;
    check_misplaced(
        || Response::Value { sibling_lens: vec![u32::MAX; 9], context: token("t") },
        b"milk",
    )
    .await;
}

#[tokio::test]
async fn an_answer_to_another_question_is_a_typed_error() {
    check_misplaced(|| Response::Written { context: token("t") }, b"").await;
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| {
        let (response, operand) = one_value("milk");
        is_data(request).then_some(Reply::With(response, operand))
    });
    for error in [
        bucket.put("k", "v").await.expect_err("that is no acknowledgement"),
        bucket.delete("k").await.expect_err("that is no acknowledgement"),
    ] {
        assert!(matches!(error, Error::Protocol { unknown: true, .. }), "{error:?}");
    }
}
