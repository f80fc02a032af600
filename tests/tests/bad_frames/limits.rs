//! Well-formed requests for more than there is: typed errors through the client library, each of which
//! says that nothing was done, and nothing was.

use std::fmt::Debug;

use bytes::Bytes;
use starling_client::{Client, ConsistencyLevel, Error};
use starling_tests::{Cluster, Session};

const BUCKET: &str = "demo.things";
const KEY_BYTES_MAX: usize = 65_535;
const VALUE_BYTES_MAX: usize = 4_096;
/// Buckets that come into being by use.
const BUCKETS_MAX: usize = 1_000;

/// One node that takes values of at most [`VALUE_BYTES_MAX`] bytes.
async fn start() -> Cluster {
    let limit = format!("\"{VALUE_BYTES_MAX}B\"");
    Cluster::builder().nodes(1).setting("limits.value_max", &limit).start().await
}

#[track_caller]
fn assert_refused<T: Debug>(what: &str, result: Result<T, Error>, code: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.code(), code, "{what}: {error}");
    assert!(!error.is_unknown(), "{what} is surely not done: {error}");
    assert!(matches!(error, Error::Refused { .. }), "{what} is told by the node: {error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_values_up_to_the_limits_are_taken_and_no_longer_ones() {
    let mut cluster = start().await;
    let bucket = cluster.client().await.bucket(BUCKET).await.expect("the node is up");
    let longest_key = Bytes::from(vec![b'k'; KEY_BYTES_MAX]);
    let longest_value = Bytes::from(vec![b'v'; VALUE_BYTES_MAX]);
    let written = bucket.put(longest_key.clone(), longest_value.clone()).await;
    let context = written.expect("both are within the limits");
    bucket.put("empty", "").await.expect("an empty value is a value");
    let before = cluster.digest(1, BUCKET).await;

    let value = vec![b'v'; VALUE_BYTES_MAX + 1];
    for key in ["new", "empty"] {
        assert_refused("a long value", bucket.put(key, value.clone()).await, "S203");
        assert_refused("a long value", bucket.overwrite(key, value.clone()).await, "S203");
    }
    let replacing = bucket.put(longest_key.clone(), value.clone()).context(&context).await;
    assert_refused("a long value with a context", replacing, "S203");
    for len in [0, KEY_BYTES_MAX + 1, 2 * KEY_BYTES_MAX] {
        let key = Bytes::from(vec![b'k'; len]);
        let what = format!("a key of {len} bytes");
        assert_refused(&what, bucket.get(key.clone()).await, "S202");
        assert_refused(&what, bucket.put(key.clone(), "v").await, "S202");
        assert_refused(&what, bucket.put(key.clone(), "v").context(&context).await, "S202");
        assert_refused(&what, bucket.delete(key.clone()).context(&context).await, "S202");
    }
    assert_eq!(cluster.digest(1, BUCKET).await, before, "nothing of it was stored");
    let value = bucket.get(longest_key).await.expect("the node is up");
    assert_eq!(value.siblings, [longest_value]);
    assert_eq!(bucket.get("empty").await.expect("the node is up").siblings, [""]);
    assert_eq!(bucket.get("new").await.expect("the node is up").siblings, [""; 0]);
    super::wire::assert_whole(cluster.node(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_no_frame_holds_is_refused_and_its_connection_serves_on() {
    let mut cluster = start().await;
    let bucket = cluster.client().await.bucket(BUCKET).await.expect("the node is up");
    bucket.put("key", "kept").await.expect("the node is up");
    for mebibytes in [1, 2, 8] {
        let value = vec![b'v'; mebibytes << 20];
        let what = format!("{mebibytes} MiB");
        let error = bucket.put("key", value).await.expect_err(&what);
        assert!(!error.is_unknown(), "{what}: {error:?}");
        assert_eq!(error.code(), "S203", "{what}: {error:?}");
        assert_eq!(bucket.get("key").await.expect("the node is up").siblings, ["kept"]);
    }
    super::wire::assert_whole(cluster.node(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_that_cannot_be_met_ever_are_refused() {
    let mut cluster = start().await;
    let bucket = cluster.client().await.bucket(BUCKET).await.expect("the node is up");
    let context = bucket.put("key", "kept").await.expect("the node is up");
    let before = cluster.digest(1, BUCKET).await;
    for (level, code) in [
        (ConsistencyLevel::Any, "S209"),
        (ConsistencyLevel::Serial, "S209"),
        (ConsistencyLevel::LocalSerial, "S209"),
        (ConsistencyLevel::Two, "S210"),
        (ConsistencyLevel::Three, "S210"),
        (ConsistencyLevel::Count(2), "S210"),
        (ConsistencyLevel::Count(255), "S210"),
        (ConsistencyLevel::Count(0), "S201"),
    ] {
        let what = format!("{level}");
        assert_refused(&what, bucket.get("key").consistency(level).await, code);
        assert_refused(&what, bucket.put("key", "new").consistency(level).await, code);
        let with = bucket.put("key", "new").context(&context).consistency(level).await;
        assert_refused(&what, with, code);
        assert_refused(&what, bucket.overwrite("key", "new").consistency(level).await, code);
        assert_refused(&what, bucket.delete("key").consistency(level).await, code);
        let with = bucket.delete("key").context(&context).consistency(level).await;
        assert_refused(&what, with, code);
    }
    assert_eq!(cluster.digest(1, BUCKET).await, before, "nothing of it was done");
    assert_eq!(bucket.get("key").await.expect("the node is up").siblings, ["kept"]);
    super::wire::assert_whole(cluster.node(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_name_no_bucket_are_refused() {
    let mut cluster = start().await;
    let client = cluster.client().await;
    let (long, longest) = (format!("demo.{}", "b".repeat(49)), format!("demo.{}", "b".repeat(48)));
    for (name, code) in [
        ("", "S205"),
        ("demo", "S205"),
        ("demo.", "S205"),
        ("demo.a.b", "S205"),
        ("demo.a b", "S205"),
        ("demo.a/b", "S205"),
        ("demo.\u{e4}", "S205"),
        ("demo.\0", "S205"),
        (&long, "S205"),
        (".", "S204"),
        (".b", "S204"),
        ("nowhere.b", "S204"),
        ("DEMO.b", "S204"),
        ("demo .b", "S204"),
    ] {
        assert_refused(&format!("{name:?}"), client.bucket(name).await.map(drop), code);
    }
    let bucket = client.bucket(&longest).await.expect("48 letters are a name");
    bucket.put("key", "value").await.expect("the node is up");
    assert_eq!(bucket.get("key").await.expect("the node is up").siblings, ["value"]);
    super::wire::assert_whole(cluster.node(1));
}

async fn open_all(client: &Client, numbers: std::ops::Range<usize>) -> Vec<Result<(), Error>> {
    let mut opened = Vec::new();
    for number in numbers {
        opened.push(client.bucket(&format!("demo.b{number}")).await.map(drop));
    }
    opened
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bucket_too_many_is_refused_and_those_there_serve_on() {
    let mut cluster = start().await;
    let client = cluster.client().await;
    let first = client.bucket("demo.b0").await.expect("the node is up");
    first.put("key", "kept").await.expect("the node is up");
    for opened in open_all(&client, 1..BUCKETS_MAX).await {
        opened.expect("there is room");
    }
    for refused in open_all(&client, BUCKETS_MAX..BUCKETS_MAX + 3).await {
        assert_refused("one more", refused, "S207");
    }
    let last = client.bucket(&format!("demo.b{}", BUCKETS_MAX - 1)).await.expect("it is there");
    last.put("key", "last").await.expect("the node is up");
    assert_eq!(last.get("key").await.expect("the node is up").siblings, ["last"]);
    // The rest holds on a new connection, and after a start.
    Session::open(cluster.node(1), "demo.b500").await;
    cluster.node(1).kill();
    cluster.start().await;
    let client = cluster.client().await;
    assert_refused("one more", client.bucket("demo.more").await.map(drop), "S207");
    let first = client.bucket("demo.b0").await.expect("it is there");
    assert_eq!(first.get("key").await.expect("the node is up").siblings, ["kept"]);
    super::wire::assert_whole(cluster.node(1));
}
