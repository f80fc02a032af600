//! Nodes that must not start: each ends with status 1 within moments and says what is wrong, where, and
//! what would be right; and the data it was pointed at is as good as before.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use starling_node::time::now;
use starling_tests::address::{ADMIN_PORT, INTERNODE_PORT, NATIVE_PORT};
use starling_tests::cluster::READY_WITHIN;
use starling_tests::{Cluster, ClusterBuilder};

const BUCKET: &str = "demo.things";
/// How long a start that cannot succeed may take to say so, on a machine that also runs other tests. A node waits
/// for 10 s of it where another process has its data.
const REFUSED_WITHIN: Duration = Duration::from_secs(30);
const STOPS_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A cluster of one node that was founded, holds a value, and is stopped.
struct Stopped {
    cluster: Cluster,
    config: String,
}

impl Stopped {
    async fn founded(described: ClusterBuilder) -> Stopped {
        let cluster = described.nodes(1).prepare();
        Stopped::founded_by(cluster).await
    }

    async fn founded_by(mut cluster: Cluster) -> Stopped {
        let config = fs::read_to_string(cluster.node(1).config_path()).expect("it was written");
        cluster.start().await;
        let bucket = cluster.client().await.bucket(BUCKET).await.expect("the node is up");
        bucket.put("key", "value").await.expect("the node is up");
        assert!(cluster.node(1).terminate(STOPS_WITHIN).await.success());
        Stopped { cluster, config }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cluster.folder().join(name)
    }

    /// Starts the node with `config`, which must fail; what it said, each part of `told` among it.
    async fn refused(&mut self, what: &str, config: &str, told: &[&str]) -> String {
        let node = self.cluster.node(1);
        fs::write(node.config_path(), config).expect("the folder can be written");
        let before = node.log().len();
        node.start();
        let status = node.exit(REFUSED_WITHIN).await;
        let said = node.log()[before..].to_owned();
        assert_eq!(status.code(), Some(1), "{what}: {said}");
        for part in ["error[S", "the node does not start"].iter().chain(told) {
            assert!(said.contains(part), "{what}: {part:?} is not in\n{said}");
        }
        assert!(!said.contains("panicked"), "{what}: {said}");
        said
    }

    /// The good configuration starts, and what was stored is there.
    async fn assert_unharmed(&mut self, what: &str) {
        let node = self.cluster.node(1);
        fs::write(node.config_path(), &self.config).expect("the folder can be written");
        self.cluster.start().await;
        let bucket = self.cluster.client().await.bucket(BUCKET).await.expect("the node is up");
        let value = bucket.get("key").await.expect("the node is up");
        assert_eq!(value.siblings, ["value"], "after {what}");
        assert!(self.cluster.node(1).terminate(STOPS_WITHIN).await.success(), "after {what}");
    }

    /// The configuration with `from` replaced by `to`.
    fn with(&self, from: &str, to: &str) -> String {
        assert!(self.config.contains(from), "{from} is not in\n{}", self.config);
        self.config.replace(from, to)
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_key() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    for (port, key) in [
        (NATIVE_PORT, "listen.native_port"),
        (INTERNODE_PORT, "listen.internode_port"),
        (ADMIN_PORT, "listen.admin"),
    ] {
        let mut address = node.cluster.node(1).native_address();
        address.set_port(port);
        let taken = TcpListener::bind(address).expect("the node is stopped");
        let config = node.config.clone();
        let path = node.cluster.node(1).config_path();
        let told =
            [&address.to_string(), key, "in use", "to another port", &path.display().to_string()];
        node.refused(key, &config, &told).await;
        drop(taken);
        node.assert_unharmed(key).await;
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_named() {
    let mut cluster = Cluster::builder().nodes(1).prepare();
    let node = cluster.node(1);
    let text = fs::read_to_string(node.config_path()).expect("it was written");
    // TEST-NET-1, which no machine has.
    let (own, other) = (node.internode_address().ip().to_string(), "192.0.2.1");
    let lines = text.lines().map(|line| match line.contains("admin") || line.contains("dir") {
        true => line.to_owned(),
        false => line.replace(&own, other),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(node.config_path(), format!("insecure = true\n{text}\n")).expect("it is writable");
    node.start();
    assert_eq!(node.exit(REFUSED_WITHIN).await.code(), Some(1), "{}", node.log());
    let said = node.log();
    for part in [
        "192.0.2.1 is no address of this machine",
        "  try     set listen.address to one that is, and the same in seeds",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
}

#[tokio::test]
async fn a_start_names_its_directory_and_its_process() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    let data_dir = node.cluster.node(1).data_dir();
    node.assert_unharmed("a stop").await;
    let log = node.cluster.node(1).log();
    for how in ["created test", "rejoined test"] {
        let line = log.lines().find(|line| line.contains(how)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains(&format!("data_dir={}", data_dir.display())), "{line}");
        assert!(line.contains("pid="), "{line}");
    }
}

#[tokio::test]
async fn a_data_directory_in_use_is_named_and_its_owner_goes_on() {
    let mut owner = Stopped::founded(Cluster::builder()).await;
    owner.cluster.start().await;
    let data_dir = owner.cluster.node(1).data_dir();
    let mut second = Cluster::builder().nodes(1).prepare();
    let own = second.node(1).data_dir();
    let config = fs::read_to_string(second.node(1).config_path()).expect("it was written");
    let pointed = config.replace(&format!("{own:?}"), &format!("{data_dir:?}"));
    assert_ne!(config, pointed);
    fs::write(second.node(1).config_path(), pointed).expect("the folder can be written");
    second.node(1).start();
    let status = second.node(1).exit(REFUSED_WITHIN).await;
    let said = second.node(1).log();
    assert_eq!(status.code(), Some(1), "{said}");
    let path = second.node(1).config_path();
    for part in [
        "waiting up to 10 s",
        "another process has the data directory",
        &data_dir.display().to_string(),
        "data_dir",
        &path.display().to_string(),
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let bucket = owner.cluster.client().await.bucket(BUCKET).await.expect("the owner is up");
    assert_eq!(bucket.get("key").await.expect("the owner is up").siblings, ["value"]);
    bucket.overwrite("key", "value").await.expect("the owner takes writes");
    owner.cluster.node(1).kill();
    owner.assert_unharmed("a second node in the directory").await;
}

#[tokio::test]
async fn a_data_directory_that_is_given_up_in_time_is_taken_over() {
    let mut owner = Stopped::founded(Cluster::builder()).await;
    owner.cluster.start().await;
    // The same node once more, as after a kill -9 whose process has not ended yet.
    let mut next = Cluster::builder().nodes(1).prepare();
    fs::write(next.node(1).config_path(), &owner.config).expect("the folder can be written");
    next.node(1).start();
    let waits = async |next: &mut Cluster| {
        while !next.node(1).log().contains("waiting up to 10 s") {
            assert!(next.node(1).is_running(), "{}", next.node(1).log());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(REFUSED_WITHIN, waits(&mut next)).await.expect("it waits for the owner");
    owner.cluster.node(1).kill();
    // It listens where the owner did.
    let served = owner.cluster.wait_until(1, READY_WITHIN, |overview| overview.node.is_some());
    served.await;
    let bucket = owner.cluster.client().await.bucket(BUCKET).await.expect("the next is up");
    assert_eq!(bucket.get("key").await.expect("the next is up").siblings, ["value"]);
    assert!(next.node(1).terminate(STOPS_WITHIN).await.success());
    owner.assert_unharmed("a process that waited for another").await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_read_is_named() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    let data_dir = node.cluster.node(1).data_dir();
    let file = node.file("a-file");
    fs::write(&file, "not a directory").expect("the folder can be written");
    for path in [file.clone(), file.join("below")] {
        let config = node.with(&format!("{data_dir:?}"), &format!("{path:?}"));
        let told = [&path.display().to_string(), "data_dir", "irectory"];
        node.refused("a file", &config, &told).await;
    }
    assert_eq!(fs::read(&file).expect("it is there"), b"not a directory");
    node.assert_unharmed("a file for a directory").await;

    // A file where the store or a record should be; each goes back to its place unharmed.
    let config = node.config.clone();
    for name in ["store", "GENESIS", "IDENTITY"] {
        let (path, away) = (data_dir.join(name), node.file("away"));
        fs::rename(&path, &away).unwrap_or_else(|error| panic!("{name}: {error}"));
        if name == "store" {
            fs::write(&path, "no store").expect("the folder can be written");
        } else {
            fs::create_dir(&path).expect("the folder can be written");
        }
        let said = node.refused(name, &config, &[&data_dir.display().to_string()]).await;
        assert!(said.contains("data_dir"), "{name}: {said}");
        if name == "store" { fs::remove_file(&path) } else { fs::remove_dir(&path) }
            .expect("the folder can be written");
        fs::rename(&away, &path).expect("the folder can be written");
        node.assert_unharmed(name).await;
    }
}

#[tokio::test]
async fn a_damaged_record_is_named() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    let (config, data_dir) = (node.config.clone(), node.cluster.node(1).data_dir());
    for name in ["GENESIS", "IDENTITY"] {
        let path = data_dir.join(name);
        let good = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut turned = good.clone();
        turned[good.len() / 2] ^= 1;
        let cut = &good[..good.len() - 4];
        for (damaged, problem) in
            [(turned.as_slice(), "checksum does not match"), (cut, "checksum"), (b"", "it ")]
        {
            fs::write(&path, damaged).expect("the folder can be written");
            node.refused(name, &config, &[&data_dir.display().to_string(), problem]).await;
            assert_eq!(fs::read(&path).expect("it is there"), damaged, "{name} stays for a look");
        }
        fs::write(&path, good).expect("the folder can be written");
        node.assert_unharmed(name).await;
    }
}

#[tokio::test]
async fn a_data_directory_without_its_identity_is_refused() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    let (config, data_dir) = (node.config.clone(), node.cluster.node(1).data_dir());
    let (path, away) = (data_dir.join("IDENTITY"), node.file("away"));
    fs::rename(&path, &away).expect("it is there");
    let told =
        [&data_dir.display().to_string(), "has a store but no IDENTITY", "  try     restore"];
    for start in ["the first", "the next"] {
        node.refused(start, &config, &told).await;
        assert!(!path.exists(), "{start} start makes none");
    }
    fs::rename(&away, &path).expect("the folder can be written");
    node.assert_unharmed("no identity").await;
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    // A whole other cluster, of the same name and keyspaces or of others, started on it.
    for name in ["\"test\"", "\"other\""] {
        let mut other = Cluster::builder().nodes(1).prepare();
        let config = fs::read_to_string(other.node(1).config_path()).expect("it was written");
        let (own, taken) = (other.node(1).data_dir(), node.cluster.node(1).data_dir());
        let config = config
            .replace(&format!("{own:?}"), &format!("{taken:?}"))
            .replace("cluster_name = \"test\"", &format!("cluster_name = {name}"));
        let told = ["data_dir", &taken.display().to_string()];
        node.refused(name, &config, &told).await;
        node.assert_unharmed(name).await;
    }
}

#[tokio::test]
async fn what_the_cluster_was_founded_with_cannot_change() {
    let described = Cluster::builder().setting("slot_bits", "8").keyspace("demo", 1);
    let mut node = Stopped::founded(described).await;
    let path = node.cluster.node(1).config_path().display().to_string();
    let added = format!("{}keyspaces.shop.replication = 1\n", node.config);
    let lww = format!("{}keyspaces.demo.buckets.last = \"lww\"\n", node.config);
    let none = node.with("keyspaces.demo.", "keyspaces.shop.");
    for (what, config, told) in [
        (
            "the slots",
            node.with("slot_bits = 8", "slot_bits = 9"),
            &["slot_bits is 9", "founded with 8"][..],
        ),
        ("the name", node.with("\"test\"", "\"other\""), &["cluster_name", "other"]),
        ("one keyspace more", added, &["keyspace \"shop\" was not there when", "  try     remove"]),
        ("another bucket", lww, &["keyspaces.demo", "lww"]),
        ("another keyspace", none, &["keyspaces"]),
    ] {
        let told: Vec<&str> = told.iter().copied().chain([path.as_str(), "founded"]).collect();
        node.refused(what, &config, &told).await;
        node.assert_unharmed(what).await;
    }
}

#[tokio::test]
async fn a_bad_configuration_touches_no_data() {
    let mut node = Stopped::founded(Cluster::builder()).await;
    let path = node.cluster.node(1).config_path().display().to_string();
    let internode = node.cluster.node(1).internode_address();
    let seed = format!("\"{internode}\"");
    for (what, config, told) in [
        (
            "seeds without this node",
            node.with(&seed, "\"127.0.0.1:1\""),
            vec!["seeds".to_owned(), internode.to_string(), "found".to_owned()],
        ),
        (
            "a wrong key",
            node.with("rack =", "rakc ="),
            vec![format!("{path}:3:1"), "rakc".to_owned(), "did you mean `rack`".to_owned()],
        ),
        (
            "a wrong value",
            node.with("\"rack1\"", "7"),
            vec![format!("{path}:3:8"), "found   7".to_owned(), "accepts".to_owned()],
        ),
        ("no TOML", node.with("rack =", "rack"), vec![format!("{path}:3:")]),
        ("nothing", String::new(), vec![path.clone(), "seeds".to_owned()]),
    ] {
        let mut told: Vec<&str> = told.iter().map(String::as_str).collect();
        told.push(&path);
        node.refused(what, &config, &told).await;
        node.assert_unharmed(what).await;
    }
}

#[tokio::test]
async fn the_secret_is_the_one_that_the_cluster_was_founded_with() {
    let mut cluster = Cluster::builder().nodes(1).prepare();
    let path = cluster.folder().join("secret");
    let good = "0aF1".repeat(16);
    let write = |text: &str, mode| {
        fs::write(&path, text).expect("the folder can be written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    };
    write(&good, 0o600);
    let line = format!("secret_file = {path:?}\n");
    let config = fs::read_to_string(cluster.node(1).config_path()).expect("it was written");
    // Ahead of the rest, where no section has begun.
    fs::write(cluster.node(1).config_path(), line.clone() + &config).expect("it can be written");
    let mut node = Stopped::founded_by(cluster).await;
    let shown = path.display().to_string();
    let config = node.config.clone();

    fs::remove_file(&path).expect("it is ours");
    node.refused("no file", &config, &[&shown, "cannot be read"]).await;
    for mode in [0o644, 0o640, 0o604] {
        write(&good, mode);
        let told = [&shown, &format!("mode {mode:o}"), "chmod 600"];
        node.refused("an open file", &config, &told).await;
    }
    for (text, problem) in [
        ("", "0 characters, not 64 hexadecimal digits"),
        ("0aF1", "4 characters, not 64 hexadecimal digits"),
        (&"0aG1".repeat(16), "64 characters that are not all hexadecimal digits"),
    ] {
        write(text, 0o600);
        node.refused("no secret", &config, &[&shown, problem]).await;
    }
    write(&good, 0o600);
    node.assert_unharmed("a bad secret").await;
    write(&"0aF2".repeat(16), 0o600);
    let said = node.refused("another secret", &config, &["secret_file", "founded"]).await;
    assert!(!said.contains("0aF2"), "a secret is never shown: {said}");
    write(&good, 0o600);
    node.assert_unharmed("another secret").await;
    let none = node.with(&line, "");
    node.refused("no secret_file", &none, &["secret_file", "founded"]).await;
    node.assert_unharmed("no secret_file").await;
}

/// The shorter list was complete with the first two nodes, the longer one with all: two clusters, and both took writes.
#[tokio::test]
async fn seed_lists_that_differ_found_no_cluster() {
    let mut cluster = Cluster::builder().nodes(3).keyspace("demo", 1).prepare();
    let third = format!(", \"{}\"", cluster.node(3).internode_address());
    let path = cluster.node(1).config_path();
    let right = fs::read_to_string(&path).expect("it was written");
    fs::write(&path, right.replace(&third, "")).expect("the folder can be written");
    for number in [1, 2] {
        cluster.node(number).start();
    }
    // Whoever is told by the other first.
    let until = now() + REFUSED_WITHIN;
    let refused = loop {
        assert!(now() < until, "{}\n{}", cluster.node(1).log(), cluster.node(2).log());
        match [1, 2].into_iter().find(|number| !cluster.node(*number).is_running()) {
            Some(number) => break number,
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    let said = cluster.node(refused).log();
    assert!(said.contains("has another list of seeds"), "{said}");
    for number in [1, 2] {
        let said = cluster.node(number).log();
        assert!(!said.contains("created"), "{said}");
        cluster.node(number).kill();
    }
    fs::write(&path, right).expect("the folder can be written");
    cluster.start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
}
