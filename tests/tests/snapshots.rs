//! Snapshots of one cluster, restored into another of a different size: everything is there, siblings too, and what was deleted stays so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use starling_client::{Bucket, ConsistencyLevel};
use starling_protocol::{Level, WireError};
use starling_storage::values::Causal;
use starling_tests::cluster::READY_WITHIN;
use starling_tests::machine::copy_folder;
use starling_tests::{Cluster, Trio, binary};

const BUCKET: &str = "demo.things";
const KEYS: usize = 200;
/// Some rounds of comparisons.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(120);

/// What a bucket should hold: each key's siblings.
type Contents = BTreeMap<String, BTreeSet<String>>;

fn starling(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary::path("starling"));
    command.args(arguments).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// Has every node make a snapshot; where they are.
fn create(cluster: &mut Cluster, name: &str) -> Vec<PathBuf> {
    let node = cluster.contact_points()[0].clone();
    let output = starling(&["snapshot", "create", "--node", &node, "--name", name]);
    assert!(output.status.success(), "{}", text(&output));
    cluster.nodes().iter().map(|node| node.data_dir().join("snapshots").join(name)).collect()
}

fn restore(cluster: &Cluster, from: &[PathBuf]) -> Output {
    let node = cluster.contact_points()[0].clone();
    let mut arguments = vec!["snapshot", "restore", "--node", &node];
    for directory in from {
        arguments.extend(["--from", directory.to_str().expect("it is text")]);
    }
    starling(&arguments)
}

/// Single values, replaced values, siblings, values too large for one read, and deleted ones.
async fn fill(bucket: &Bucket) -> Contents {
    let mut contents = Contents::new();
    for number in 0..KEYS {
        let (key, first) = (format!("key {number}"), format!("first {number}"));
        let context = bucket.put(key.clone(), first.clone()).await.expect("all nodes are up");
        let second = format!("second {number} {}", "x".repeat(number * number));
        let holds = match number % 4 {
            0 => BTreeSet::from([first]),
            1 => {
                bucket
                    .put(key.clone(), second.clone())
                    .context(&context)
                    .await
                    .expect("all are up");
                BTreeSet::from([second])
            }
            2 => {
                bucket.put(key.clone(), second.clone()).await.expect("all nodes are up");
                BTreeSet::from([first, second])
            }
            _ => {
                bucket.delete(key.clone()).context(&context).await.expect("all nodes are up");
                BTreeSet::new()
            }
        };
        contents.insert(key, holds);
    }
    contents
}

async fn holds(bucket: &Bucket, key: &str) -> BTreeSet<String> {
    let read = bucket.get(key.to_owned()).consistency(ConsistencyLevel::All).await;
    let siblings = read.expect("all nodes are up").siblings;
    siblings.iter().map(|value| String::from_utf8_lossy(value).into_owned()).collect()
}

async fn assert_holds(bucket: &Bucket, contents: &Contents) {
    for (key, expected) in contents {
        assert_eq!(&holds(bucket, key).await, expected, "{key}");
    }
}

/// A cluster that forgets no deletes, so that its snapshots hold them.
async fn started(nodes: u8) -> Cluster {
    let builder = Cluster::builder().nodes(nodes).setting("repair_max", "\"0B\"");
    let mut cluster = builder.start().await;
    cluster.wait_until_up(usize::from(nodes), READY_WITHIN).await;
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_another_size_holds_what_was_snapshot() {
    let mut old = started(3).await;
    let client = old.client().await;
    let bucket = client.bucket(BUCKET).await.expect("it is made on first use");
    let mut contents = fill(&bucket).await;
    bucket.put("late", "deleted after an early snapshot").await.expect("all nodes are up");
    let early = create(&mut old, "early");
    bucket.delete("late").await.expect("all nodes are up");
    contents.insert("late".to_owned(), BTreeSet::new());
    let late = create(&mut old, "late");
    bucket.put("after", "the snapshots").await.expect("all nodes are up");
    contents.insert("after".to_owned(), BTreeSet::new());

    let new = started(5).await;
    // One node's share is older: it has not seen the delete.
    let from = [late[0].clone(), late[1].clone(), early[2].clone()];
    let output = restore(&new, &from);
    assert!(output.status.success(), "{}", text(&output));
    let bucket = new.client().await.bucket(BUCKET).await.expect("it was restored");
    assert_holds(&bucket, &contents).await;

    // Life goes on: what is replaced and deleted now stays so, however often the old is restored.
    let key = "key 2";
    let read = bucket.get(key).await.expect("all nodes are up");
    bucket.put(key, "merged").context(&read.context).await.expect("all nodes are up");
    contents.insert(key.to_owned(), BTreeSet::from(["merged".to_owned()]));
    bucket.delete("key 0").await.expect("all nodes are up");
    contents.insert("key 0".to_owned(), BTreeSet::new());
    let output = restore(&new, &from);
    assert!(output.status.success(), "{}", text(&output));
    assert_holds(&bucket, &contents).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_and_forgotten_does_not_come_back_from_an_older_share() {
    let mut old = Cluster::builder().nodes(3).start().await;
    old.wait_until_up(3, READY_WITHIN).await;
    let client = old.client().await;
    let bucket = client.bucket(BUCKET).await.expect("it is made on first use");
    for key in ["deleted", "replaced", "kept"] {
        bucket.put(key, "first").consistency(ConsistencyLevel::All).await.expect("all are up");
    }
    let early = create(&mut old, "early");
    bucket.delete("deleted").await.expect("all nodes are up");
    bucket.overwrite("replaced", "second").await.expect("all nodes are up");
    let purged = |metrics: &str| metrics.contains("starling_purged_keys_total 1\n");
    for number in [1, 2] {
        old.wait_for_metrics(number, FORGOTTEN_WITHIN, purged).await;
    }
    let late = create(&mut old, "late");

    let new = started(3).await;
    let output = restore(&new, &[early[2].clone(), late[0].clone(), late[1].clone()]);
    assert!(output.status.success(), "{}", text(&output));
    let bucket = new.client().await.bucket(BUCKET).await.expect("it was restored");
    for (key, value) in [("deleted", None), ("replaced", Some("second")), ("kept", Some("first"))] {
        let expected = value.map(str::to_owned).into_iter().collect();
        assert_eq!(holds(&bucket, key).await, expected, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_restored_is_refused() {
    let mut old = started(1).await;
    let client = old.client().await;
    let bucket = client.bucket(BUCKET).await.expect("it is made on first use");
    bucket.put("key", "value").await.expect("the node is up");
    let snapshot = create(&mut old, "one").remove(0);
    let node = old.contact_points()[0].clone();

    let again = starling(&["snapshot", "create", "--node", &node, "--name", "one"]);
    assert_eq!(again.status.code(), Some(10), "{}", text(&again));
    assert!(text(&again).contains("there is a snapshot \"one\" already"), "{}", text(&again));
    let astray = starling(&["snapshot", "create", "--node", &node, "--name", "../one"]);
    assert_eq!(astray.status.code(), Some(2), "{}", text(&astray));
    assert!(text(&astray).contains("cannot name a snapshot"), "{}", text(&astray));
    let listed = starling(&["snapshot", "list", "--node", &node]);
    assert!(text(&listed).contains(snapshot.to_str().expect("it is text")), "{}", text(&listed));

    let itself = restore(&old, std::slice::from_ref(&snapshot));
    assert_eq!(itself.status.code(), Some(2), "{}", text(&itself));
    assert!(text(&itself).contains("of this very cluster"), "{}", text(&itself));

    let new = started(1).await;
    let refused = |change: &dyn Fn(&Path), why: &str| {
        let copy = new.folder().join("copy");
        copy_folder(&snapshot, &copy);
        change(&copy);
        let output = restore(&new, std::slice::from_ref(&copy));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(why), "{}", text(&output));
        assert!(text(&output).contains("nothing was done\n  try     "), "{}", text(&output));
        fs::remove_dir_all(&copy).expect("it is a directory of the test");
    };
    let manifest = |copy: &Path| copy.join("SNAPSHOT");
    let remove = |copy: &Path| fs::remove_file(manifest(copy)).expect("it is there");
    refused(&remove, "is no snapshot: it has no file SNAPSHOT");
    let cut = |copy: &Path| fs::write(manifest(copy), "{\"version\": 1").expect("it is writable");
    refused(&cut, "is damaged");
    let newer =
        |copy: &Path| fs::write(manifest(copy), "{\"version\": 9}").expect("it is writable");
    refused(&newer, "is of version 9");
    let nobody = |copy: &Path| fs::rename(copy, copy.with_extension("away")).expect("it is there");
    let nowhere = |copy: &Path| {
        nobody(copy);
        fs::create_dir(copy).expect("the name is free");
    };
    refused(&nowhere, "starling snapshot list");
    let data_dir = |copy: &Path| {
        fs::remove_file(manifest(copy)).expect("it is there");
        fs::write(copy.join("IDENTITY"), "a node's").expect("it is writable");
    };
    refused(&data_dir, "it is a node's data directory");
    let lost = |copy: &Path| fs::remove_dir_all(copy.join("store")).expect("it is there");
    refused(&lost, "cannot open the store");
    assert!(
        restore(&new, std::slice::from_ref(&snapshot)).status.success(),
        "the copy was at fault"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_that_is_missing_or_given_twice_is_named() {
    let mut old = started(3).await;
    let client = old.client().await;
    let bucket = client.bucket(BUCKET).await.expect("it is made on first use");
    bucket.put("key", "value").await.expect("all nodes are up");
    let shares = create(&mut old, "one");
    let nodes = old.contact_points();
    let new = started(1).await;
    let [a, b, c] = [0, 1, 2].map(|index| shares[index].clone());
    let missing = "these are missing";
    for (from, told) in [
        (vec![a.clone()], vec![missing, &nodes[1], &nodes[2]]),
        (vec![a.clone(), c.clone()], vec![missing, &nodes[1]]),
        (vec![a.clone(), b.clone(), c.clone(), b.clone()], vec!["more than once", &nodes[1]]),
        (vec![b.clone(), b.clone()], vec![missing, &nodes[0], &nodes[2], "more than once"]),
        (vec![new.folder().join("nosuch")], vec!["nosuch: No such file"]),
    ] {
        let output = restore(&new, &from);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        for part in told.into_iter().chain(["error[S402]", "nothing was done"]) {
            assert!(text(&output).contains(part), "{part}: {}", text(&output));
        }
    }
    let bucket = new.client().await.bucket(BUCKET).await.expect("it is made on first use");
    assert_eq!(holds(&bucket, "key").await, BTreeSet::new(), "nothing was done");

    let node = new.contact_points()[0].clone();
    let one = a.to_str().expect("it is text");
    let partial = ["snapshot", "restore", "--node", &node, "--partial", "--from", one];
    let output = starling(&partial);
    assert!(output.status.success() && text(&output).contains(missing), "{}", text(&output));

    // As an older release made them.
    for share in &shares {
        let path = share.join("SNAPSHOT");
        let record = fs::read(&path).expect("it is there");
        let mut record: serde_json::Value = serde_json::from_slice(&record).expect("JSON");
        record.as_object_mut().expect("an object").remove("members").expect("they are in it");
        fs::write(&path, record.to_string()).expect("it is writable");
    }
    let output = restore(&new, &[a]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("warning: an older release"), "{}", text(&output));
    assert_eq!(holds(&bucket, "key").await, BTreeSet::from(["value".to_owned()]));
}

/// By then the client has asked another node, and the key may have been deleted since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_comes_too_late_is_not_begun() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let state = <Causal>::default().encode();
    trio.at(1).restore("key", &state, Level::All).await.expect("all nodes are up");
    let mut late = trio.another_at(1).await.in_a_hurry(READY_WITHIN, Duration::ZERO);
    let refused = late.restore("key", &state, Level::All).await;
    assert!(matches!(refused, Err(WireError::Overloaded { .. })), "{refused:?}");
}
