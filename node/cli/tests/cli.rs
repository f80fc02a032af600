//! The binary as people and scripts meet it: exit statuses, shapes of JSON, and processes that end
//! when they should. The node under test is a real one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const STARLING: &str = env!("CARGO_BIN_EXE_starling");
/// Looking at a process this often is no synchronisation: what is waited for is a condition.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: usize = 1_500;

fn starling(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("the binary runs")
}

fn command() -> Command {
    let mut command = Command::new(STARLING);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(variable);
        }
    }
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    json_of(output)
}

/// What a command printed, whether or not it succeeded.
#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A development node on a loopback address of its own; it ends with this process.
struct TestNode {
    child: Child,
    client: String,
}

impl TestNode {
    fn start(data_dir: &Path, address: &str) -> Self {
        let child = command()
            .args(["start", "--dev", "--exit-with-parent", "--data-dir"])
            .arg(data_dir)
            .args(["--set", &format!("listen.address={address}")])
            .args(["--set", &format!("listen.admin={address}:9180")])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the node runs");
        let node = Self { child, client: format!("{address}:9050") };
        let serves = || node.run(&["health"]).status.success();
        assert!((0..LOOKS_MAX).any(|_| serves() || wait()), "the node does not come to serve");
        assert!(serves(), "the node does not serve");
        node
    }

    /// Runs a command against the node.
    fn run(&self, arguments: &[&str]) -> Output {
        let node = ["--node", &self.client];
        starling(&[&arguments[..1], &node, &arguments[1..]].concat())
    }
}

/// Pauses, and is false: for use in `any`.
fn wait() -> bool {
    std::thread::sleep(LOOK_EVERY);
    false
}

impl Drop for TestNode {
    fn drop(&mut self) {
        // It may have ended already, which is what the drop is for.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

#[test]
fn a_value_is_put_read_replaced_and_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(dir.path(), "127.0.92.1");
    let bucket = ["--bucket", "demo.carts"];
    let run = |arguments: &[&str]| node.run(&[&arguments[..1], &bucket, &arguments[1..]].concat());

    let empty = run(&["get", "--json", "cart"]);
    assert_eq!(empty.status.code(), Some(3), "nothing there");
    let shown: Value = serde_json::from_slice(&empty.stdout).expect("it is JSON");
    assert_eq!(shown["siblings"], Value::Array(vec![]));
    assert_eq!(run(&["get", "cart"]).status.code(), Some(3), "nothing there");

    assert!(run(&["put", "cart", "milk"]).status.success());
    assert!(run(&["put", "--json", "cart", "bread"]).status.success());
    let both = json(&run(&["get", "--json", "--consistency", "quorum", "cart"]));
    assert_eq!(both["siblings"].as_array().map(Vec::len), Some(2), "blind puts stand side by side");

    let context = both["context"].as_str().expect("a context");
    let replaced = json(&run(&["put", "--json", "--context", context, "cart", "milk, bread"]));
    assert!(replaced["context"].is_string());
    let one = run(&["get", "cart"]);
    assert_eq!(text(&one.stdout), "milk, bread\n");
    let floor = replaced["context"].as_str().expect("a context");
    assert!(run(&["get", "--floor", floor, "cart"]).status.success(), "what was written is seen");

    assert!(run(&["delete", "cart"]).status.success());
    assert_eq!(run(&["get", "cart"]).status.code(), Some(3));
}

#[test]
fn bytes_that_are_no_text_come_as_base64() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(dir.path(), "127.0.92.2");
    let mut put = command()
        .args(["put", "--node", &node.client, "--bucket", "demo.b", "--overwrite", "k", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary runs");
    put.stdin.take().expect("a pipe").write_all(&[0xff, 0x00, 0xfe]).expect("written");
    assert!(put.wait().expect("it ends").success());
    let read = json(&node.run(&["get", "--bucket", "demo.b", "--json", "k"]));
    assert_eq!(read["siblings"][0]["base64"], "/wD+");
    assert_eq!(node.run(&["get", "--bucket", "demo.b", "k"]).stdout, [0xff, 0x00, 0xfe, b'\n']);
}

#[test]
fn status_has_the_shape_that_scripts_rely_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(dir.path(), "127.0.92.3");
    let status = json(&node.run(&["status", "--json"]));
    assert_eq!(status["cluster"], "dev");
    assert_eq!(status["epoch"], 1);
    assert_eq!(status["verdict"], "healthy");
    let only = &status["nodes"][0];
    assert_eq!(only["address"], "127.0.92.3:9050");
    assert_eq!(only["status"], "up");
    assert_eq!(only["owns"], 1.0);
    for name in ["host_id", "datacenter", "rack"] {
        assert!(only[name].is_string(), "{name} in {only}");
    }
    let table = node.run(&["status"]);
    assert!(text(&table.stdout).starts_with("cluster dev, epoch 1: healthy"), "{table:?}");
}

#[test]
fn failures_have_a_code_an_effect_and_an_exit_status() {
    let nobody = starling(&["status", "--node", "127.0.92.9:9050"]);
    assert_eq!(nobody.status.code(), Some(12), "{nobody:?}");
    assert_eq!(starling(&["health", "--node", "127.0.92.9:9050"]).status.code(), Some(12));
    assert!(text(&nobody.stderr).starts_with("error[S"), "{nobody:?}");

    let dir = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(dir.path(), "127.0.92.4");
    for (arguments, part) in [
        (["get", "--bucket", "nowhere.x", "k"], "error[S204]"),
        (["get", "--bucket", "demo", "k"], "error[S205]"),
        (["delete", "--bucket", "demo.x", "--context=forged"], "error: "),
    ] {
        let output = node.run(&arguments);
        let message = text(&output.stderr);
        assert!(message.contains(part), "{part} is not in {message}");
        assert!(!output.status.success());
        assert!(!message.contains("safe to retry"), "it fails again: {message}");
    }
    let nowhere = node.run(&["get", "--bucket", "nope.x", "k"]);
    let said = "there is no keyspace \"nope\"; there are: demo";
    assert!(text(&nowhere.stderr).contains(said), "{nowhere:?}");
    let serial = node.run(&["get", "--bucket", "demo.x", "--consistency", "serial", "k"]);
    let message = text(&serial.stderr);
    assert_eq!(message.matches("not supported yet").count(), 1, "{message}");
    let cut = node.run(&["put", "--bucket", "demo.x", "--context", "no+context", "k", "v"]);
    assert_eq!(cut.status.code(), Some(2), "{cut:?}");
    assert!(text(&cut.stderr).contains("\"no+context\" is not a context"), "{cut:?}");
    let empty = node.run(&["put", "--bucket", "demo.x", "--context", "", "k", "v"]);
    assert_eq!(empty.status.code(), Some(2), "{empty:?}");
    let unknown = json_of(&node.run(&["get", "--json", "--bucket", "nowhere.x", "k"]));
    assert_eq!(unknown["error"]["code"], "S204");
    let forged = node.run(&["put", "--bucket", "demo.x", "--context", "Zm9yZ2Vk", "k", "v"]);
    let message = text(&forged.stderr);
    assert!(message.contains("error[S302]") && message.contains("only a part"), "{message}");
}

#[test]
fn a_write_whose_context_cannot_be_printed_is_said_to_be_done() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = TestNode::start(dir.path(), "127.0.92.6");
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    for (verb, rest) in
        [("put", &["k", "v"][..]), ("put", &["k", "w", "--json"]), ("delete", &["k"])]
    {
        let mut write = command();
        write.args([verb, "--node", &node.client, "--bucket", "demo.x"]).args(rest);
        let output = write.stdout(full()).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let message = text(&output.stderr);
        for part in ["error[S013]", "the write is done", "do not repeat it"] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
        let found = node.run(&["get", "--bucket", "demo.x", "k"]);
        assert_eq!(found.status.success(), verb == "put", "{found:?}");
    }
}

#[test]
fn a_node_ends_cleanly_when_its_parent_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = TestNode::start(dir.path(), "127.0.92.5");
    drop(node.child.stdin.take());
    let ended = |node: &mut TestNode| node.child.try_wait().expect("a child").map(|s| s.success());
    let clean = (0..LOOKS_MAX).find_map(|_| ended(&mut node).or_else(|| wait().then_some(false)));
    assert_eq!(clean, Some(true));
}

#[test]
fn configurations_are_checked_shown_and_explained() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let production = samples.join("production.toml");
    let production = production.to_str().expect("text");
    let empty = starling(&["config", "check", production]);
    assert!(empty.status.success(), "{empty:?}");
    assert!(text(&empty.stderr).starts_with("warning: no keyspace is declared"), "{empty:?}");
    let missing = starling(&["config", "check", "/nowhere/node.toml"]);
    assert!(!text(&missing.stderr).contains("--dev"), "{missing:?}");
    let dir = tempfile::tempdir().expect("a directory");
    let wrong = dir.path().join("wrong.toml");
    std::fs::write(&wrong, "sluster_name = \"x\"\n").expect("written");
    let checked = starling(&["config", "check", production, wrong.to_str().expect("text")]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked.stderr).contains("did you mean `cluster_name`?"), "{checked:?}");

    // The environment counts, as it does for `start`.
    let with = |name: &str, value: &str| {
        let mut check = command();
        check.args(["config", "check", production]).env(name, value).output().expect("it runs")
    };
    for (name, value) in [("STARLING_SLOT_BITS", "99"), ("STARLING_SLOTBITS", "9")] {
        let checked = with(name, value);
        assert_eq!(checked.status.code(), Some(1), "{checked:?}");
        let said = text(&checked.stderr);
        assert!(said.contains(&format!("environment variable {name}")), "{said}");
    }
    let ignored = with("STARLING_PORT_9050_TCP", "tcp://10.0.0.1:9050");
    assert!(ignored.status.success(), "{ignored:?}");
    assert!(text(&ignored.stderr).starts_with("warning: "), "{ignored:?}");

    let shown =
        starling(&["config", "show", "--effective", "--config", production, "--set", "rack=r9"]);
    assert!(text(&shown.stdout).contains("rack = \"r9\""), "{shown:?}");
    let docs = starling(&["config", "docs"]);
    assert!(text(&docs.stdout).contains("STARLING_LISTEN_NATIVE_PORT"));
    assert_eq!(starling(&["start"]).status.code(), Some(2), "neither a file nor --dev");
    assert!(text(&starling(&["completions", "bash"]).stdout).contains("starling"));
}
