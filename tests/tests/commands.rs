//! The commands against real clusters: what they say where one node alone does not know it, or knows nothing yet.

use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, Node, Trio, binary};
use tokio::time::{sleep, timeout};

const BUCKET: &str = "demo.things";
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn run(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary::path(name));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(variable);
        }
    }
    command.args(arguments).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[track_caller]
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The writes that a node says it keeps for others.
async fn kept(cluster: &Cluster, number: u8) -> u64 {
    cluster.overview(number).await.expect("the node is up").hints_pending
}

#[tokio::test]
async fn status_adds_up_the_hints_of_all_nodes_whichever_is_asked() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    trio.kill(2).await;
    let cluster = trio.cluster();
    let client = cluster.client().await;
    let bucket = client.bucket(BUCKET).await.expect("two nodes are up");
    // Enough keys that each of the two leads some.
    for number in 0..20 {
        bucket.put(format!("key:{number}"), "value").await.expect("two nodes are a quorum");
    }
    let [first, second, third] =
        [1, 2, 3].map(|number| cluster.node(number).native_address().to_string());
    let (by_first, by_third) = (kept(cluster, 1).await, kept(cluster, 3).await);
    assert!(by_first > 0 && by_third > 0, "{by_first} and {by_third}");
    assert_eq!(by_first + by_third, 20);
    let by_node = json!([
        { "address": first, "hints_pending": by_first },
        { "address": second, "hints_pending": null },
        { "address": third, "hints_pending": by_third },
    ]);
    let line = format!(
        "hints: {by_first} for {second} (kept by {first}); {by_third} for {second} (kept by {third})"
    );
    for asked in [first, third] {
        let status = run("starling", &["status", "--json", "--node", &asked]);
        assert_eq!(status.status.code(), Some(10), "{status:?}");
        assert_eq!(json(&status)["hints_by_node"], by_node);
        let table = run("starling", &["status", "--node", &asked]);
        assert_eq!(text(&table.stdout).lines().last(), Some(line.as_str()));
    }
}

#[tokio::test]
async fn a_load_of_which_nothing_succeeded_has_failed() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    trio.kill(2).await;
    let address = trio.cluster().node(1).native_address().to_string();
    let reads = ["--node", &address, "--workload", "read", "--no-load", "--ops", "20"];
    let refused = run("starling-load", &[&reads[..], &["--consistency", "all"]].concat());
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("0 of 20 operations succeeded"), "{refused:?}");
    let empty = run("starling-load", &[&reads[..], &["--verify"]].concat());
    assert_eq!(empty.status.code(), Some(0), "{empty:?}");
    assert!(text(&empty.stdout).contains("none of 20 reads found a value"), "{empty:?}");
    let last = text(&empty.stdout).lines().last();
    assert_eq!(last, Some("nothing was written, so nothing was checked"));
}

#[tokio::test]
async fn a_node_that_waits_for_its_seeds_says_so_to_everybody() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node(1).start();
    let absent = [2, 3].map(|number| cluster.node(number).internode_address().to_string());
    cluster.wait_until(1, READY_WITHIN, |overview| overview.waiting_for == absent).await;
    let said = async |node: &mut Node| {
        let named = format!(
            "waiting for the other seeds: the cluster is there once all of them are waiting_for={}, {}",
            absent[0], absent[1]
        );
        while !node.log().contains(&named) {
            sleep(LOOK_EVERY).await;
        }
    };
    let at_once = timeout(Duration::from_secs(4), said(cluster.node(1))).await;
    assert!(at_once.is_ok(), "sooner than the reminder: {}", cluster.node(1).log());

    let address = cluster.node(1).native_address().to_string();
    let status = run("starling", &["status", "--json", "--node", &address]);
    assert_eq!(status.status.code(), Some(12), "{status:?}");
    let shown = json(&status);
    assert_eq!((&shown["state"], &shown["cluster"]), (&"starting".into(), &Value::Null));
    assert_eq!(shown["waiting_for"], json!(absent));
    assert_eq!(shown["verdict"], "starting");
    assert!(text(&status.stderr).contains("error[S101]"), "{status:?}");

    let put = ["put", "--json", "--node", &address, "--bucket", BUCKET, "key", "value"];
    let put = run("starling", &put);
    assert_eq!(put.status.code(), Some(12), "{put:?}");
    let error = &json(&put)["error"];
    assert_eq!((&error["code"], &error["outcome_unknown"]), (&"S101".into(), &false.into()));
    let load = run("starling-load", &["--node", &address, "--bucket", BUCKET]);
    assert_eq!(load.status.code(), Some(12), "{load:?}");
    assert!(text(&load.stderr).contains("error[S101]"), "{load:?}");
}

#[test]
fn exit_statuses_are_the_same_for_both_commands() {
    let nobody = "127.0.92.9:9050";
    let get = ["get", "--bucket", BUCKET, "key", "--node"];
    let load = ["--bucket", BUCKET, "--node"];
    for (name, arguments) in [("starling", &get[..]), ("starling-load", &load[..])] {
        let with = |node| run(name, &[arguments, &[node]].concat());
        for malformed in ["127.0.0.1", "127.0.0.1:no-port", "http://127.0.0.1:9050"] {
            let output = with(malformed);
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            assert!(text(&output.stderr).contains("host:port"), "{output:?}");
        }
        let output = with(nobody);
        assert_eq!(output.status.code(), Some(12), "{output:?}");
        assert!(text(&output.stderr).contains("error[S108]"), "{output:?}");
    }
}

#[test]
fn a_load_says_what_it_does_before_it_does_it() {
    let load = run("starling-load", &["--node", "127.0.92.9:9050", "--records", "500"]);
    let first = text(&load.stderr).lines().next().unwrap_or_default();
    assert_eq!(
        first,
        "demo.load on 127.0.92.9:9050: writes 500 records, then mixed (50% reads) for 20s, at QUORUM; values of 128 bytes, 64 operations at a time"
    );
    let nowhere = ["--node", "127.0.92.9:9050", "--json", "no/such/folder/out.json"];
    let load = run("starling-load", &nowhere);
    assert_eq!(load.status.code(), Some(2), "{load:?}");
    assert!(text(&load.stderr).starts_with("error[S012]"), "nothing begins: {load:?}");
}
