//! The demo as machines run it: the proof it prints, and that it leaves no process behind.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS_MAX: usize = 600;

fn demo(network: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
    command.args(["demo", "--json", "--phase", "2", "--concurrency", "8", "--network", network]);
    command
}

fn events(output: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(output).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_node_killed_under_load_costs_nothing() {
    let output = demo("127.0.95").output().expect("the demo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}", String::from_utf8_lossy(&output.stdout));
    let events = events(&output.stdout);
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    for name in ["started", "killed", "without", "restarted", "hints_settled", "checked"] {
        assert_eq!(named(name), 1, "{name}");
    }
    assert!(named("second") >= 6);
    let without = events.iter().find(|event| event["event"] == "without").expect("counted above");
    assert_eq!((&without["degraded"], &without["below_quorum"]), (&1.0.into(), &0.into()));

    let checked = events.last().expect("counted above");
    assert_eq!(checked["passed"], true);
    assert!(checked["acked_writes"].as_u64() > Some(100), "{checked}");
    for name in ["lost", "stale", "resurrected", "errors"] {
        assert_eq!(checked[name], 0, "{name} in {checked}");
    }
    let digests = checked["digests"].as_array().expect("one for each node");
    assert_eq!(digests.len(), 3);
    assert!(digests.iter().all(|digest| digest["digest"] == digests[0]["digest"]));
    let data = events[0]["data"].as_str().expect("a directory");
    assert!(!std::path::Path::new(data).exists(), "temporary data is deleted");
}

#[test]
fn a_terminated_demo_cleans_up() {
    let mut child = demo("127.0.97").stdout(Stdio::piped()).spawn().expect("the demo runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let started = lines.next().expect("a first line").expect("text");
    let started: Value = serde_json::from_str(&started).expect("JSON");
    let terminated = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(terminated.expect("kill runs").success());
    let last = lines.map(|line| line.expect("text")).last().expect("the failure");
    assert!(last.contains("S951"), "{last}");
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    let data = started["data"].as_str().expect("a directory");
    assert!(!std::path::Path::new(data).exists(), "temporary data is deleted");
}

#[test]
fn killing_the_demo_leaves_no_node_behind() {
    let mut child = demo("127.0.96").stdout(Stdio::piped()).spawn().expect("the demo runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let started = lines.next().expect("a first line").expect("text");
    let started: Value = serde_json::from_str(&started).expect("JSON");
    let nodes: Vec<String> = (1..=3).map(|number| format!("127.0.96.{number}:9050")).collect();
    assert_eq!(started["nodes"], Value::from(nodes.clone()));
    child.kill().expect("killed");
    child.wait().expect("ended");
    let gone = || nodes.iter().all(|node| TcpStream::connect(node).is_err());
    let ended = (0..LOOKS_MAX).any(|_| {
        std::thread::sleep(LOOK_EVERY);
        gone()
    });
    // Nobody was left to delete it.
    let data = started["data"].as_str().expect("a directory");
    assert!(data.contains("starling-demo-"), "{data}");
    assert!(ended, "some node outlives the demo");
    // A node closes its ports before it flushes, so its directory may still be written to.
    let deleted = (0..LOOKS_MAX).any(|_| {
        std::thread::sleep(LOOK_EVERY);
        std::fs::remove_dir_all(data).is_ok()
    });
    assert!(deleted, "{data} cannot be deleted");
}

#[test]
fn a_port_in_use_is_named_before_anything_starts() {
    let taken = TcpListener::bind("127.0.98.2:7000").expect("a free port");
    let output = demo("127.0.98").output().expect("the demo runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("127.0.98.2:7000") && said.contains("--network"), "{said}");
    let events = events(&output.stdout);
    assert_eq!((events.len(), &events[0]["error"]["code"]), (1, &"S010".into()), "{events:?}");
    drop(taken);
}
