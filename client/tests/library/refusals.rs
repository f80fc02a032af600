//! Every error that a node can answer comes out as itself, with what it means for a write, and is
//! asked again only where another attempt may end otherwise.

use std::time::Duration;

use bytes::Bytes;
use starling_client::{DownReplica, Error, WireError};
use starling_protocol::{Request, Response};

use crate::fake::{BUCKET, Cluster, PATIENCE, Reply, key_led_by, replicas, token};

/// What the client does about an error.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    /// Nothing: nobody else is asked.
    Tells,
    /// Asks the others once.
    AsksTheOthers,
    /// Asks again until the time is over.
    AsksAgain,
}

/// Every error, what follows, and whether a write may have happened.
fn errors() -> Vec<(WireError, Then, bool)> {
    use Then::{AsksAgain, AsksTheOthers, Tells};
    let text = || "text".to_owned();
    let down = vec![DownReplica { address: ([127, 0, 0, 1], 9_050).into(), for_ms: 5 }];
    vec![
        (
            WireError::Unavailable { level: text(), required: 2, alive: 1, down },
            AsksTheOthers,
            false,
        ),
        (WireError::ReadFailed { received: 1, required: 2, failed: 2 }, AsksTheOthers, false),
        (WireError::Timeout { received: 1, required: 2, write: true }, AsksAgain, true),
        (WireError::WriteFailed { received: 1, required: 2, failed: 1 }, AsksAgain, true),
        (WireError::LeaderLost, AsksAgain, true),
        (WireError::NoLeader { reason: text() }, AsksAgain, false),
        (WireError::Overloaded { reason: text() }, AsksAgain, false),
        (WireError::NotReady { waiting_for: vec![text()] }, AsksAgain, false),
        (WireError::ShuttingDown, AsksAgain, false),
        (WireError::UnknownBucket { id: 7 }, AsksAgain, false),
        (WireError::ClockSkew { ahead_ms: 900 }, AsksAgain, false),
        (WireError::FloorNotMet, AsksAgain, false),
        (WireError::BadRequest { message: text() }, Tells, false),
        (WireError::KeyTooLarge { len: 65_536, max: 65_535 }, Tells, false),
        (WireError::ValueTooLarge { len: 2, max: 1 }, Tells, false),
        (WireError::TooManySiblings { count: 65, max: 64 }, Tells, false),
        (WireError::UnknownKeyspace { name: text() }, Tells, false),
        (WireError::BadBucketName { name: text(), reason: text() }, Tells, false),
        (WireError::TooManyBuckets { max: 9 }, Tells, false),
        (WireError::BucketIdCollision { name: text(), other: text() }, Tells, false),
        (WireError::BadContext { reason: text() }, Tells, false),
        (WireError::NotSupportedYet { what: text() }, Tells, false),
        (WireError::NotEnoughReplicas { required: 5, replication_factor: 3 }, Tells, false),
        (WireError::ObjectTooLarge { len: 2, max: 1 }, Tells, false),
        (WireError::Internal { message: text() }, Tells, true),
    ]
}

fn refusing(error: WireError) -> impl FnMut(&Request) -> Option<Reply> + Clone {
    move |request| {
        let write = matches!(request, Request::Put { .. } | Request::Delete { .. });
        write.then(|| Reply::With(Response::Error(error.clone()), Bytes::new()))
    }
}

#[tokio::test]
async fn every_refusal_is_told_as_it_was_said() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    for (error, then, unknown) in errors() {
        let (asked, counted) = (cluster.asked().iter().sum::<usize>(), client.stats().unknown);
        cluster.script(refusing(error.clone()));
        let time = if then == Then::AsksAgain { Duration::from_millis(150) } else { PATIENCE };
        let put = bucket.put("k", "v").timeout(time);
        let told = tokio::time::timeout(PATIENCE / 2, put.send()).await.expect("it ends in time");
        let told = told.expect_err("every node refuses");
        assert_eq!(told.wire(), Some(&error), "{told:?}");
        assert_eq!((told.code(), told.to_string()), (error.code(), error.to_string()));
        assert_eq!(told.advice(), error.advice());
        assert_eq!(told.is_unknown(), unknown, "{error:?}");
        assert!(!told.is_unreachable());
        assert_eq!(client.stats().unknown - counted, u64::from(unknown), "{error:?}");
        let asked = cluster.asked().iter().sum::<usize>() - asked;
        let right = match then {
            Then::Tells => asked == 1,
            Then::AsksTheOthers => asked == 3,
            Then::AsksAgain => asked > 1,
        };
        assert!(right, "{error:?}: {then:?}, and {asked} requests were sent");
    }
}

#[tokio::test]
async fn codes_tell_errors_apart() {
    let codes: std::collections::BTreeSet<_> =
        errors().iter().map(|(error, ..)| error.code()).collect();
    assert_eq!(codes.len(), errors().len());
    assert!(["S108", "S902", "S903"].iter().all(|own| !codes.contains(own)), "{codes:?}");
}

#[tokio::test]
async fn what_passes_is_waited_out() {
    let passing = errors().into_iter().filter(|(_, then, _)| *then == Then::AsksAgain);
    for (error, ..) in passing {
        let cluster = Cluster::start(2, 2).await;
        let client = cluster.client().await;
        let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
        for node in &cluster.nodes {
            let (mut refuse, mut left) = (refusing(error.clone()), 2);
            node.script(move |request| {
                let refusal = refuse(request).filter(|_| left > 0);
                left -= usize::from(refusal.is_some());
                refusal
            });
        }
        bucket.put("k", "v").await.unwrap_or_else(|error| panic!("it has passed: {error:?}"));
        assert_eq!(client.stats().retried, 4, "{error:?}");
    }
}

#[tokio::test]
async fn a_node_that_alone_reaches_too_few_replicas_is_not_the_last_word() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 1);
    let (unavailable, ..) = errors().swap_remove(0);
    cluster.nodes[1].script(refusing(unavailable));
    bucket.put(key, "v").await.expect("the others reach enough");
}

#[tokio::test]
async fn a_floor_is_asked_for_until_it_is_met() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let written = bucket.put("k", "v").await.expect("every node answers well");
    let places = replicas(&client, "k");
    for place in &places[..2] {
        cluster.nodes[*place].script(|request| {
            let behind = Reply::With(Response::Error(WireError::FloorNotMet), Bytes::new());
            matches!(request, Request::Get { .. }).then_some(behind)
        });
    }
    bucket.get("k").floor(&written).await.expect("the third replica has seen the write");
    for (request, ..) in cluster.nodes.iter().flat_map(|node| node.seen()) {
        if let Request::Get { floor, key, .. } = request
            && key == "k"
        {
            assert_eq!(floor, Some(token("written")), "the floor was dropped on the way");
        }
    }
}

#[tokio::test]
async fn a_bucket_with_a_bad_name_is_known_at_once() {
    let cluster = Cluster::start(2, 2).await;
    let client = cluster.client().await;
    let error = WireError::UnknownKeyspace { name: "nowhere".to_owned() };
    let refusal = error.clone();
    cluster.script(move |request| {
        let refusal = Reply::With(Response::Error(refusal.clone()), Bytes::new());
        matches!(request, Request::OpenBucket { .. }).then_some(refusal)
    });
    let told = client.bucket("nowhere.carts").await.err().expect("there is no such keyspace");
    assert_eq!(told, Error::Refused { error, unknown: false });
}
