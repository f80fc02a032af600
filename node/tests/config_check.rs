//! What `starling config check` tells before the start: what could not found a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use starling_node::config::{Config, Overrides};

const SEEDS: &str = "seeds = [\"127.0.0.1:7000\"]\n";

/// What `check` says of a file.
fn checked(dir: &Path, text: &str) -> Result<Config, String> {
    let path = dir.join("node.toml");
    fs::write(&path, text).expect("written");
    let checked = Config::check(&path, &Overrides::default());
    checked.map_err(|error| error.to_string().replace(&*path.to_string_lossy(), "node.toml"))
}

fn parsed(text: &str) -> Result<Config, String> {
    let parsed = Config::parse(Path::new("node.toml"), text, &Overrides::default());
    parsed.map_err(|error| error.to_string())
}

#[test]
fn what_could_not_found_a_cluster_is_told_before_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let two = "seeds = [\"127.0.0.1:7000\", \"127.0.0.2:7000\"]\n";
    for (seeds, replication, needs) in [
        (SEEDS, "1", None),
        (SEEDS, "3", Some("needs 3 nodes, `seeds` names 1")),
        (two, "2", None),
        (two, "3", Some("needs 3 nodes, `seeds` names 2")),
        (two, "{ dc1 = 1, dc2 = 1 }", None),
        (two, "{ dc1 = 1, dc2 = 2 }", Some("needs 3 nodes, `seeds` names 2")),
        (SEEDS, "{ dc1 = 1 }", None),
        (SEEDS, "{ dc2 = 1 }", Some("needs nodes in \"dc2\", where none is")),
    ] {
        let text = format!("{seeds}[keyspaces.shop]\nreplication = {replication}\n");
        assert!(parsed(&text).is_ok(), "a node of a cluster that exists may start with it");
        match (checked(dir.path(), &text), needs) {
            (Ok(_), None) => {}
            (Err(message), Some(needs)) => {
                assert!(message.contains(needs) && message.contains("[S005]"), "{message}");
                assert!(message.contains("node.toml:3:15"), "{message}");
            }
            (found, needs) => panic!("{text}: {found:?} instead of {needs:?}"),
        }
    }
}

#[test]
fn a_secret_file_that_cannot_be_used_is_told_with_key_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    let text = format!("{SEEDS}secret_file = {secret:?}\n");
    let message = checked(dir.path(), &text).expect_err("there is no such file");
    for part in ["[S006]", "`secret_file`", "node.toml:2:15", "cannot be read", "openssl rand"] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    fs::write(&secret, "0aF1".repeat(16)).expect("written");
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).expect("set");
    mode(0o644);
    let message = checked(dir.path(), &text).expect_err("others may read it");
    assert!(message.contains("mode 644") && message.contains("chmod 600"), "{message}");
    assert!(!message.contains("0aF1"), "a secret is never shown: {message}");
    mode(0o600);
    assert!(checked(dir.path(), &text).is_ok());
}
