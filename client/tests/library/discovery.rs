//! From contact points to the ring: any living one suffices, all dead ones are named.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_client::{Client, Error, WireError};
use starling_protocol::{Request, Response, TopologyView};
use tokio::net::TcpListener;

use crate::fake::{BUCKET, Cluster, Node, PATIENCE, Reply, eventually, member, replicas};

/// An address where nothing listens.
async fn dead_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    listener.local_addr().expect("a bound socket has an address").to_string()
}

#[tokio::test]
async fn one_living_contact_point_tells_the_whole_ring() {
    let cluster = Cluster::start(3, 3).await;
    let not_ready = Node::start(cluster.view.clone()).await;
    not_ready.script(|request| {
        let waiting_for = vec!["the other seeds".to_owned()];
        let refusal = Response::Error(WireError::NotReady { waiting_for });
        (*request == Request::Topology).then(|| Reply::With(refusal, bytes::Bytes::new()))
    });
    let client = Client::builder()
        .contact_point("127.0.0.1:no-port")
        .contact_point(dead_address().await)
        .contact_point(not_ready.address.to_string())
        .contact_point(cluster.nodes[2].address.to_string())
        .connect_timeout(PATIENCE)
        .build()
        .await
        .expect("the last contact point answers");
    let known: Vec<_> = client.ring().members().iter().map(|one| one.client_address).collect();
    let expected: Vec<_> = cluster.nodes.iter().map(|node| node.address).collect();
    assert_eq!(known, expected);
}

#[tokio::test]
async fn contact_points_that_cannot_be_reached_are_all_named() {
    let cluster = Cluster::start(1, 1).await;
    let silent = &cluster.nodes[0];
    silent.freeze(true);
    let (dead, silent) = (dead_address().await, silent.address.to_string());
    let names = ["127.0.0.1:no-port".to_owned(), dead, silent];
    let builder = names.iter().fold(Client::builder(), |builder, name| builder.contact_point(name));
    let error = builder.build().await.err().expect("nobody answers");
    let Error::Unreachable { tried } = &error else { panic!("{error:?}") };
    assert_eq!(tried.len(), names.len(), "{tried:?}");
    for (name, tried) in names.iter().zip(tried) {
        assert!(tried.starts_with(&format!("{name}: ")), "{tried}");
        assert!(error.to_string().contains(tried.as_str()), "{error}");
    }
    assert!(tried[1].contains("refused"), "{tried:?}");
    assert!(tried[2].contains("stopped answering"), "{tried:?}");
    assert!(error.is_unreachable() && !error.is_unknown());
    assert_eq!(error.code(), "S108");
}

#[tokio::test]
async fn a_contact_point_that_does_not_serve_yet_is_no_unreachable_one() {
    let refusal = WireError::NotReady { waiting_for: vec!["127.0.0.2:7000".to_owned()] };
    // A node refuses the greeting already; one that stops has greeted before.
    let at_hello = |request: &Request| matches!(request, Request::Hello { .. });
    let later = |request: &Request| *request == Request::Topology;
    for refuses in [at_hello, later] as [fn(&Request) -> bool; 2] {
        let (cluster, said) = (Cluster::start(1, 1).await, refusal.clone());
        cluster.nodes[0].script(move |request| {
            let refusal = Response::Error(said.clone());
            refuses(request).then(|| Reply::With(refusal, bytes::Bytes::new()))
        });
        let builder = cluster.builder().contact_point(dead_address().await);
        let error = builder.build().await.err().expect("nobody serves");
        assert_eq!((error.wire(), error.code()), (Some(&refusal), "S101"));
        assert!(!error.is_unreachable() && !error.is_unknown());
    }
}

#[tokio::test]
async fn opening_a_bucket_asks_for_no_data() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.builder().build().await.expect("the first node answers");
    client.bucket(BUCKET).await.expect("the bucket can be opened");
    assert_eq!(cluster.asked(), [0, 0, 0]);
    cluster.script(|request| {
        let refusal = Response::Error(WireError::UnknownKeyspace { name: "demo".to_owned() });
        matches!(request, Request::OpenBucket { .. })
            .then(|| Reply::With(refusal, bytes::Bytes::new()))
    });
    let error = client.bucket("demo.other").await.err().expect("every node refuses");
    assert_eq!(error.code(), "S204");
}

#[tokio::test]
async fn no_contact_point_is_an_error_of_its_own() {
    let error = Client::builder().build().await.err().expect("there is nobody to ask");
    assert_eq!((&error, error.code()), (&Error::NoContactPoint, "S903"));
}

async fn check_refused(change: fn(&mut TopologyView)) {
    let cluster = Cluster::start(2, 1).await;
    change(&mut cluster.view.lock());
    let error = cluster.builder().build().await.err().expect("that is no ring");
    assert!(matches!(error, Error::Protocol { unknown: false, .. }), "{error:?}");
    assert_eq!(error.code(), "S902");
}

#[tokio::test]
async fn a_ring_that_cannot_be_is_a_typed_error() {
    check_refused(|view| view.slots[5] = 2).await;
    check_refused(|view| view.slots.truncate(63)).await;
    check_refused(|view| view.slot_bits = 3).await;
    check_refused(|view| view.slot_bits = 200).await;
    check_refused(|view| view.members.clear()).await;
    // More members than an index counts.
    check_refused(|view| view.members = vec![view.members[0].clone(); 1 << 16]).await;
}

#[tokio::test]
async fn a_ring_that_changes_is_followed() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    let newcomer = Node::start(cluster.view.clone()).await;
    {
        let mut view = cluster.view.lock();
        view.epoch = 2;
        view.members.push(member(2, newcomer.address));
        view.slots.fill(2);
    }
    eventually(|| client.ring().epoch().n == 2).await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    bucket.put("cart:1", "milk").await.expect("the newcomer answers");
    assert_eq!(replicas(&client, "cart:1"), [2]);
    let puts = newcomer.seen().into_iter().filter(|(one, ..)| matches!(one, Request::Put { .. }));
    assert_eq!(puts.count(), 1);
}

#[tokio::test]
async fn a_ring_that_nobody_tells_any_more_stays_known() {
    let cluster = Cluster::start(2, 1).await;
    let client = cluster.client().await;
    let before: TopologyView = cluster.view.lock().clone();
    let asked = Arc::new(Mutex::new(0));
    let counted = asked.clone();
    cluster.script(move |request| {
        (*request == Request::Topology).then(|| {
            *counted.lock() += 1;
            Reply::Close
        })
    });
    let told = tokio::time::timeout(PATIENCE, client.topology()).await.expect("it gives up");
    assert_eq!(told.expect("the ring as last heard"), before);
    assert!(*asked.lock() > 0, "nobody was asked");
}

#[tokio::test]
async fn a_contact_point_that_is_slow_is_waited_for() {
    let cluster = Cluster::start(1, 1).await;
    let view = cluster.view.clone();
    cluster.nodes[0].script(move |request| {
        let response = Response::Topology(view.lock().clone());
        (*request == Request::Topology)
            .then(|| Reply::After(Duration::from_millis(50), response, bytes::Bytes::new()))
    });
    assert!(cluster.builder().build().await.is_ok());
}
