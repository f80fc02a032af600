//! Who is asked for what: a key's replicas, over one connection each, with what the caller chose.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use starling_client::{CausalContext, ConsistencyLevel};
use starling_protocol::{Level, Request, Response, Status};

use crate::fake::{BUCKET, Cluster, Reply, eventually, key_led_by, one_value, replicas, token};

#[tokio::test]
async fn requests_go_to_a_replica_of_their_key() {
    let cluster = Cluster::start(5, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let keys: Vec<String> = (0..100).map(|number| format!("cart:{number}")).collect();
    for key in &keys {
        bucket.put(key.clone(), "milk").await.expect("every node answers well");
        bucket.delete(key.clone()).await.expect("every node answers well");
        bucket.get(key.clone()).await.expect("every node answers well");
    }
    let mut led = BTreeSet::new();
    for (place, node) in cluster.nodes.iter().enumerate() {
        for (request, ..) in node.seen() {
            let (key, write) = match &request {
                Request::Get { key, .. } => (key, false),
                Request::Put { key, .. } | Request::Delete { key, .. } => (key, true),
                _ => continue,
            };
            let key = std::str::from_utf8(key).expect("the test's keys are text");
            if !keys.iter().any(|one| one == key) {
                continue;
            }
            let replicas = replicas(&client, key);
            assert!(replicas.contains(&place), "{key} is on {replicas:?}, not on {place}");
            assert!(!write || replicas[0] == place, "a write of {key} did not go to its leader");
            led.insert(place);
        }
    }
    assert_eq!(led.len(), 5, "every node leads some key of a hundred");
    assert_eq!(client.stats().retried, 0);
}

#[tokio::test]
async fn writes_pass_over_a_leader_that_is_down() {
    let cluster = Cluster::start(3, 2).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let key = key_led_by(&client, 1);
    cluster.view.lock().members[1].status = Status::Down;
    client.topology().await.expect("the ring is told");
    bucket.put(key.clone(), "milk").await.expect("the other replica answers");
    let second = replicas(&client, &key)[1];
    let is_put = |place: usize| {
        let seen = cluster.nodes[place].seen();
        seen.iter().any(|(request, ..)| matches!(request, Request::Put { .. }))
    };
    assert!(is_put(second) && !is_put(1));
}

#[tokio::test]
async fn a_node_has_one_connection_for_any_number_of_requests() {
    let cluster = Cluster::start(3, 3).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let bucket = bucket.clone();
        tasks.spawn(async move {
            let key = format!("cart:{number}");
            bucket.put(key, "milk").await.expect("every node answers well");
        });
    }
    tasks.join_all().await;
    let accepted: Vec<usize> = cluster.nodes.iter().map(|node| node.accepted()).collect();
    assert_eq!(accepted, [1, 1, 1]);
    assert!(cluster.asked().iter().sum::<usize>() >= 200);
}

#[tokio::test]
async fn answers_find_their_request_in_whatever_order_they_come() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| match request {
        Request::Get { key, .. } if key == "slow" => {
            let (response, operand) = one_value("of the slow one");
            Some(Reply::After(Duration::from_millis(50), response, operand))
        }
        Request::Get { .. } => {
            let (response, operand) = one_value("of the quick one");
            Some(Reply::With(response, operand))
        }
        _ => None,
    });
    let slow = tokio::spawn({
        let bucket = bucket.clone();
        async move { bucket.get("slow").await }
    });
    eventually(|| {
        let seen = cluster.nodes[0].seen();
        seen.iter()
            .any(|(request, ..)| matches!(request, Request::Get { key, .. } if key == "slow"))
    })
    .await;
    let quick = bucket.get("quick").await.expect("the node answers well");
    assert!(!slow.is_finished(), "the quick one waited for the slow one");
    let slow = slow.await.expect("no panic").expect("the node answers well");
    assert_eq!(quick.siblings, [Bytes::from_static(b"of the quick one")]);
    assert_eq!(slow.siblings, [Bytes::from_static(b"of the slow one")]);
}

#[tokio::test]
async fn level_and_time_are_the_clients_unless_a_request_says_otherwise() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster
        .builder()
        .consistency(ConsistencyLevel::LocalQuorum)
        .attempt_timeout(Duration::from_secs(9))
        .read_timeout(Duration::from_secs(7))
        .write_timeout(Duration::from_secs(8));
    let client = cluster.warm(client).await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let seen = bucket.get("k").await.expect("answered well").context;
    let before = cluster.asked()[0];
    let (short, four) = (Duration::from_secs(3), ConsistencyLevel::Count(4));
    bucket.get("k").await.expect("answered well");
    bucket.put("k", "v").await.expect("answered well");
    bucket.delete("k").context(&seen).await.expect("answered well");
    bucket.get("k").consistency(ConsistencyLevel::One).timeout(short).await.expect("well");
    bucket.put("k", "v").consistency(four).timeout(short).await.expect("well");
    let delete = bucket.delete("k").context(&seen).consistency(ConsistencyLevel::All);
    delete.timeout(short).await.expect("well");
    let expected = [
        (Level::LocalQuorum, 7_000),
        (Level::LocalQuorum, 8_000),
        (Level::LocalQuorum, 8_000),
        (Level::One, 3_000),
        (Level::Count(4), 3_000),
        (Level::All, 3_000),
    ];
    let seen = cluster.nodes[0].seen();
    assert_eq!(seen.len() - before, expected.len());
    for ((request, _, budget), (level, most)) in seen[before..].iter().zip(expected) {
        let (Request::Get { level: found, .. }
        | Request::Put { level: found, .. }
        | Request::Delete { level: found, .. }) = request
        else {
            panic!("{request:?}")
        };
        assert_eq!(*found, level);
        assert!(*budget <= most && *budget > most - 2_000, "{budget} ms of {most} ms");
    }
}

#[tokio::test]
async fn contexts_and_floors_travel_as_given() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| {
        let (response, operand) = one_value("milk");
        matches!(request, Request::Get { .. }).then_some(Reply::With(response, operand))
    });
    let before = cluster.asked()[0];
    let read = bucket.get("k").await.expect("answered well").context;
    let read = CausalContext::from_text(&read.to_text()).expect("its own text");
    let written = bucket.put("k", "bread").context(&read).await.expect("answered well");
    bucket.get("k").floor(&written).await.expect("answered well");
    bucket.delete("k").context(&read).await.expect("answered well");
    let seen = &cluster.nodes[0].seen()[before..];
    let (put, operand, _) = &seen[1];
    assert!(
        matches!(put, Request::Put { context: Some(context), key, .. }
            if *context == token("read") && key == "k"),
        "{put:?}"
    );
    assert_eq!(operand, "bread");
    let get = &seen[2].0;
    assert!(
        matches!(get, Request::Get { floor: Some(floor), .. } if *floor == token("written")),
        "{get:?}"
    );
    let delete = &seen[3].0;
    assert!(
        matches!(delete, Request::Delete { context, .. } if *context == token("read")),
        "{delete:?}"
    );
}

/// Were it the node that looks, a late attempt would remove what was written in the meantime.
#[tokio::test]
async fn an_overwrite_and_a_blind_delete_look_once_and_all_their_attempts_replace_the_same() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    let before = cluster.asked()[0];
    let mut attempts = 0;
    cluster.script(move |request| match request {
        Request::Get { .. } => {
            let (response, operand) = one_value("milk");
            Some(Reply::With(response, operand))
        }
        Request::Put { .. } | Request::Delete { .. } => {
            attempts += 1;
            (attempts % 2 == 1).then_some(Reply::Close)
        }
        _ => None,
    });
    bucket.overwrite("k", "eggs").consistency(ConsistencyLevel::One).await.expect("answered well");
    bucket.delete("k").await.expect("answered well");
    let seen = &cluster.nodes[0].seen()[before..];
    let requests: Vec<_> = seen.iter().map(|(request, ..)| request).collect();
    assert!(
        matches!(
            requests[..],
            [
                Request::Get { level: Level::Quorum, .. },
                Request::Put { context: Some(first), .. },
                Request::Put { context: Some(second), .. },
                Request::Get { .. },
                Request::Delete { context: third, .. },
                Request::Delete { context: fourth, .. },
            ] if [first, second, third, fourth].iter().all(|found| **found == token("read"))
        ),
        "{requests:?}"
    );
}

#[tokio::test]
async fn siblings_come_apart_as_they_were_put_together() {
    let cluster = Cluster::start(1, 1).await;
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
    cluster.script(|request| {
        let response = Response::Value { sibling_lens: vec![4, 0, 5], context: token("read") };
        let reply = Reply::With(response, Bytes::from_static(b"milkbread"));
        matches!(request, Request::Get { .. }).then_some(reply)
    });
    let value = bucket.get("k").await.expect("answered well");
    assert_eq!(value.siblings, ["milk", "", "bread"].map(Bytes::from));
}
