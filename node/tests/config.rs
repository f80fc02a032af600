//! The configuration through the crate's boundary: every sample, every kind of mistake with the
//! whole text that a person reads, and who wins over whom.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_node::config::{
    Config, Durability, KEYS, KeyDefault, LogFormat, LogLevel, Overrides, SecretError,
};
use starling_ring::{BucketMode, PartitionerKind, ReplicationStrategy};

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &Overrides::default())
}

fn parse_with(text: &str, overrides: &Overrides) -> Result<Config, String> {
    Config::parse(Path::new("node.toml"), text, overrides).map_err(|error| error.to_string())
}

fn seeds(text: &str) -> BTreeSet<std::net::SocketAddr> {
    text.split_whitespace().map(|seed| seed.parse().expect("an address")).collect()
}

const SEEDS: &str = "seeds = [\"127.0.0.1:7000\"]\n";

#[test]
fn every_sample_is_accepted() {
    let mut checked = 0;
    let mut folders = vec![samples()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the samples are there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "toml") {
                let loaded = Config::load(&path, &Overrides::default());
                assert!(loaded.is_ok(), "{}", loaded.expect_err("not ok"));
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "only {checked} samples found");
}

#[test]
fn the_demo_is_one_cluster_of_three() {
    let nodes: Vec<Config> = (1..=3)
        .map(|n| {
            let path = samples().join(format!("demo/node{n}.toml"));
            Config::load(&path, &Overrides::default()).expect("a sample")
        })
        .collect();
    for (i, node) in nodes.iter().enumerate() {
        assert_eq!(node.cluster_hash(), nodes[0].cluster_hash());
        assert_eq!(node.seeds, seeds("127.0.0.1:7000 127.0.0.2:7000 127.0.0.3:7000"));
        assert_eq!(node.listen.native.to_string(), format!("127.0.0.{}:9050", i + 1));
        assert_eq!(node.listen.admin.to_string(), format!("127.0.0.{}:9180", i + 1));
        assert_eq!(node.keyspaces[0].name, "demo");
        let three = ReplicationStrategy::Simple { replication_factor: 3 };
        assert_eq!(node.keyspaces[0].strategy, three);
    }
    let directories: BTreeSet<&Path> = nodes.iter().map(|node| node.data_dir.as_path()).collect();
    assert_eq!(directories.len(), 3);
}

#[test]
fn production_shows_every_key_with_its_default() {
    let path = samples().join("production.toml");
    let text = fs::read_to_string(&path).expect("the sample");
    let shown = Config::load(&path, &Overrides::default()).expect("the sample");
    assert_eq!(shown, parse(SEEDS).expect("nothing but seeds"), "the values are the defaults");

    let mut section = String::new();
    let mut written: Vec<(String, String)> = Vec::new();
    for line in text.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{}.", name.replace("keyspaces.shop", "keyspaces.*"));
        } else if let Some((name, value)) = line.split_once(" = ").filter(|(n, _)| !n.contains(' '))
        {
            written.push((format!("{section}{name}"), value.to_owned()));
        }
    }
    for key in KEYS {
        let Some((_, value)) = written.iter().find(|(path, _)| path == key.path) else {
            panic!("production.toml does not show {}", key.path);
        };
        let chosen_by_name = key.path.starts_with("keyspaces");
        if let (KeyDefault::Value(default), false) = (key.default, chosen_by_name) {
            assert_eq!(value, default, "{}", key.path);
        }
    }
    assert_eq!(written.len(), KEYS.len(), "something is written that is no key: {written:?}");
}

#[test]
fn what_is_shown_can_be_read_back() {
    let rich = r#"
        seeds = ["127.0.0.1:7000", "127.0.0.9:7000"]
        secret_file = "/etc/starling/se \"cret"
        durability = { periodic_ms = 25 }
        memtable = "12345678B"
        worker_threads = 3
        log = { level = "trace", format = "json" }
        timeouts.read = "1500ms"
        [keyspaces.shop]
        replication = { dc1 = 3, dc2 = 2 }
        partitioner = "murmur3"
        buckets = { carts = "siblings", sessions = "lww" }
        [keyspaces.logs]
        replication = 2
    "#;
    let config = parse(rich).expect("accepted");
    assert_eq!(parse(&config.effective()).expect("read back"), config);
    let shop = &config.keyspaces[1];
    assert_eq!(shop.partitioner, PartitionerKind::Murmur3);
    assert_eq!(shop.buckets["sessions"], BucketMode::Lww);
    assert_eq!(config.durability, Durability::Periodic { interval: Duration::from_millis(25) });
    let dev = Config::dev(Path::new("data/dev"));
    assert_eq!(parse(&dev.effective()).expect("read back"), dev);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let environment = |pairs: &[(&str, &str)]| Overrides {
        environment: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        flags: Vec::new(),
    };
    let level = |text: &str, overrides: &Overrides| {
        parse_with(text, overrides).expect("accepted").log.level
    };
    let file = format!("{SEEDS}log.level = \"warn\"\n");
    let env = environment(&[("STARLING_LOG_LEVEL", "debug")]);
    assert_eq!(level(SEEDS, &Overrides::default()), LogLevel::Info);
    assert_eq!(level(&file, &Overrides::default()), LogLevel::Warn);
    assert_eq!(level(&file, &env), LogLevel::Debug);
    let flags = env.clone().with("log.level", "error").with("log.level", "trace");
    assert_eq!(level(&file, &flags), LogLevel::Trace, "the last flag wins");

    let all = environment(&[
        ("STARLING_SEEDS", "127.0.0.1:7001, 127.0.0.2:7000"),
        ("STARLING_LISTEN_INTERNODE_PORT", "7001"),
        ("STARLING_CLUSTER_NAME", "123"),
        ("STARLING_TIMEOUTS_READ", "3s"),
        ("STARLING_DURABILITY", "{ periodic_ms = 5 }"),
        ("STARLING_LOG_FORMAT", "\"json\""),
        ("STARLING_DATA_DIR", "C:\\odd \"name"),
        ("STARLING_NODE", "not a key"),
        ("STARLING_PORT_9050_TCP", "tcp://10.0.0.1:9050"),
        ("PATH", "/bin"),
    ]);
    let config = parse_with(SEEDS, &all).expect("accepted");
    assert_eq!(config.seeds, seeds("127.0.0.1:7001 127.0.0.2:7000"));
    assert_eq!(config.cluster_name, "123");
    assert_eq!(config.timeouts.read, Duration::from_secs(3));
    assert_eq!(config.durability, Durability::Periodic { interval: Duration::from_millis(5) });
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.data_dir, PathBuf::from("C:\\odd \"name"));
    assert_eq!(
        config.warnings,
        [
            "the environment variable STARLING_PORT_9050_TCP is no key and is ignored",
            "no keyspace is declared: nothing can be stored, and none can be added later",
        ]
    );

    let flags = Overrides::default().with("keyspaces.demo.replication", "2");
    let text = format!("{SEEDS}[keyspaces.demo]\nreplication = 1\nbuckets = {{ a = \"lww\" }}\n");
    let config = parse_with(&text, &flags).expect("accepted");
    let two = ReplicationStrategy::Simple { replication_factor: 2 };
    assert_eq!(config.keyspaces[0].strategy, two);
    assert_eq!(config.keyspaces[0].buckets["a"], BucketMode::Lww, "the rest of the file stays");
}

#[test]
fn a_development_node_takes_flags_and_is_its_own_cluster() {
    let flags = Overrides::default()
        .with("listen.address", "127.0.0.7")
        .with("listen.admin", "127.0.0.7:9180");
    let config = Config::dev_with(Path::new("d"), &flags).expect("accepted");
    assert_eq!(config.seeds, seeds("127.0.0.7:7000"));
    assert_eq!(config.data_dir, Path::new("d"));
    assert_eq!(config.keyspaces[0].name, "demo");
}

#[test]
fn the_cluster_hash_covers_what_all_nodes_must_agree_on() {
    let base = format!("{SEEDS}[keyspaces.a]\nreplication = 3\nbuckets = {{ x = \"lww\" }}\n");
    let hash = |text: &str| parse(text).expect("accepted").cluster_hash();
    let same = base.replace("seeds", "rack = \"other\"\ndata_dir = \"else\"\nseeds");
    assert_eq!(hash(&base), hash(&same), "where a node is does not matter");
    for (from, to) in [
        ("seeds", "cluster_name = \"b\"\nseeds"),
        ("seeds", "slot_bits = 11\nseeds"),
        ("keyspaces.a", "keyspaces.b"),
        ("replication = 3", "replication = 2"),
        ("replication = 3", "replication = { dc1 = 3 }"),
        ("replication = 3", "replication = 3\npartitioner = \"murmur3\""),
        ("\"lww\"", "\"siblings\""),
        ("x = ", "y = "),
    ] {
        assert_ne!(hash(&base), hash(&base.replace(from, to)), "{to}");
    }
}

/// A mistake and every word that is said about it.
#[track_caller]
fn check(text: &str, expected: &str) {
    let message = parse(text).expect_err("a mistake");
    assert_eq!(message.trim_end(), expected.trim_matches('\n'), "\n{message}\n");
}

#[test]
fn mistakes_are_told_with_file_line_and_remedy() {
    check(
        "cluster_name = \"a\"\nseed = [\"127.0.0.1:7000\"]\n",
        r#"
error[S003] config: unknown key `seed`
  --> node.toml:2:1
    |
  2 | seed = ["127.0.0.1:7000"]
    | ^^^^
  accepts cluster_name, data_dir, datacenter, rack, seeds, secret_file, insecure, slot_bits, durability, block_cache, memtable, compaction_max, hints_max, disk_reserve, repair_max, gc_grace, worker_threads, blocking_threads, listen, limits, timeouts, log, keyspaces
  effect  the node does not start
  try     did you mean `seeds`?
"#,
    );
    check(
        "[listen]\nnative_prot = 9050\n",
        r"
error[S003] config: unknown key `listen.native_prot`
  --> node.toml:2:1
    |
  2 | native_prot = 9050
    | ^^^^^^^^^^^
  accepts address, native_port, internode_port, admin
  effect  the node does not start
  try     did you mean `listen.native_port`?
",
    );
    check(
        "[listen]\nnative_port = \"9050\"\n",
        r#"
error[S004] config: `listen.native_port` has a value that is not accepted
  --> node.toml:2:15
    |
  2 | native_port = "9050"
    |               ^^^^^^
  found   "9050"
  accepts a port, 1 to 65535
  effect  the node does not start
  try     the default is 9050
"#,
    );
    check(
        "seeds = [\"127.0.0.1:7000\"]\n\nblock_cache = \"64MB\" # half\n",
        r#"
error[S004] config: `block_cache` has a value that is not accepted
  --> node.toml:3:15
    |
  3 | block_cache = "64MB" # half
    |               ^^^^^^
  found   "64MB"
  accepts a size such as "64MiB" (B, KiB, MiB, GiB)
  effect  the node does not start
  try     the default is "64MiB"
"#,
    );
    check(
        "rack = r1\n",
        r#"
error[S002] config: not TOML: string values must be quoted, expected literal string
  --> node.toml:1:8
    |
  1 | rack = r1
    |        ^^
  effect  the node does not start
  try     see https://toml.io for the syntax; config/production.toml shows every key
"#,
    );
}

#[test]
fn values_that_do_not_fit_together_are_told() {
    check(
        "[listen]\naddress = \"127.0.0.2\"\n",
        r#"
error[S005] config: `seeds` is missing
  --> node.toml
  accepts a list of "address:port", the internode addresses of every first member
  effect  the node does not start
  try     write it; config/demo shows three nodes, config/single.toml one
"#,
    );
    check(
        "seeds = [\"127.0.0.1:7000\", \"127.0.0.3:7000\"]\n[listen]\naddress = \"127.0.0.2\"\n",
        r#"
error[S005] config: `seeds` does not name this node, 127.0.0.2:7000
  --> node.toml:1:9
    |
  1 | seeds = ["127.0.0.1:7000", "127.0.0.3:7000"]
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  found   ["127.0.0.1:7000", "127.0.0.3:7000"]
  accepts a list with 127.0.0.2:7000, which is listen.address with listen.internode_port
  effect  the node does not start
  try     add "127.0.0.2:7000", or correct listen.address or listen.internode_port
"#,
    );
    check(
        "seeds = [\"10.0.0.1:7000\"]\nlisten.address = \"10.0.0.1\"\n",
        r#"
error[S005] config: `listen.address` is off loopback, where nothing is encrypted or authenticated yet
  --> node.toml:2:18
    |
  2 | listen.address = "10.0.0.1"
    |                  ^^^^^^^^^^
  found   "10.0.0.1"
  accepts an address of 127.0.0.0/8 or ::1, or any together with insecure = true
  effect  the node does not start
  try     write insecure = true if everybody who reaches this address may read and write everything
"#,
    );
    check(
        "seeds = [\"127.0.0.1:7000\"]\n[keyspaces.shop]\npartitioner = \"sip\"\n",
        r"
error[S005] config: `keyspaces.shop.replication` is missing
  --> node.toml:2:12
  accepts a number of copies, 1 to 32, or a number for each datacenter: { dc1 = 3, dc2 = 2 }
  effect  the node does not start
  try     write it; config/demo shows three nodes, config/single.toml one
",
    );
}

#[test]
fn graces_are_of_keyspaces_that_there_are() {
    let with = |graces: &str| {
        parse(&format!("{SEEDS}gc_grace = {graces}\n[keyspaces.shop]\nreplication = 1\n"))
    };
    let config = with("{ \"shop.carts\" = \"10s\" }").expect("the keyspace is declared");
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let message = with("{ \"shpo.carts\" = \"10s\" }").expect_err("a mistake");
    for part in ["[S005]", "node.toml:2:12", "\"shpo.carts\"", "buckets of: shop"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn flags_and_variables_are_named_in_messages() {
    let flag = Overrides::default().with("limits.value_max", "1GiB");
    assert_eq!(
        parse_with(SEEDS, &flag).expect_err("a mistake"),
        r#"error[S004] config: `limits.value_max` has a value that is not accepted
  --> flag --set limits.value_max
  found   "1GiB"
  accepts a size from "1KiB" to "15MiB"
  effect  the node does not start
  try     the default is "8MiB""#
    );
    let misspelt = Overrides {
        environment: vec![("STARLING_SLOTBITS".to_owned(), "9".to_owned())],
        flags: Vec::new(),
    };
    let message = parse_with(SEEDS, &misspelt).expect_err("a mistake");
    assert!(message.contains("environment variable STARLING_SLOTBITS"), "{message}");
    for (name, advice) in [
        ("STARLING_SLOTBITS", "did you mean STARLING_SLOT_BITS?"),
        ("STARLING_LIMITS_VALUE_MX", "did you mean STARLING_LIMITS_VALUE_MAX?"),
        ("STARLING_KEYSPACES_SHOP_REPLICATION", "set keyspaces in the file, or with --set"),
    ] {
        let environment = vec![(name.to_owned(), "3".to_owned())];
        let wrong = Overrides { environment, flags: Vec::new() };
        let message = parse_with(SEEDS, &wrong).expect_err("a mistake");
        assert!(message.contains(advice) && message.contains(name), "{message}");
    }
    let unknown = Overrides::default().with("a b.c\n", "1");
    assert!(parse_with(SEEDS, &unknown).expect_err("a mistake").contains("unknown key"));
}

#[test]
fn every_value_out_of_range_is_refused_with_its_key() {
    for (line, key) in [
        ("slot_bits = 3", "slot_bits"),
        ("slot_bits = 17", "slot_bits"),
        ("slot_bits = -1", "slot_bits"),
        ("cluster_name = \"\"", "cluster_name"),
        ("rack = \"a b\"", "rack"),
        ("data_dir = 5", "data_dir"),
        ("insecure = \"yes\"", "insecure"),
        ("durability = \"none\"", "durability"),
        ("durability = { periodic_ms = 0 }", "durability"),
        ("durability = { periodic = 5 }", "durability"),
        ("worker_threads = 0", "worker_threads"),
        ("blocking_threads = 1000", "blocking_threads"),
        ("memtable = \"1KiB\"", "memtable"),
        ("compaction_max = \"0B\"", "compaction_max"),
        ("timeouts.read = \"0ms\"", "timeouts.read"),
        ("timeouts.read = 2000", "timeouts.read"),
        ("limits.key_max = \"65536B\"", "limits.key_max"),
        ("limits.connections_max = 0", "limits.connections_max"),
        ("limits.in_flight_max = \"1MiB\"", "limits.in_flight_max"),
        ("listen.address = \"0.0.0.0\"", "listen.address"),
        ("listen.address = \"localhost\"", "listen.address"),
        ("listen.admin = \"10.0.0.1:9180\"", "listen.admin"),
        ("listen.native_port = 0", "listen.native_port"),
        ("listen.native_port = 7000", "listen.native_port"),
        ("listen = \"127.0.0.1\"", "`listen` is a section"),
        ("log.level = \"verbose\"", "log.level"),
        ("keyspaces.a.replication = 0", "keyspaces.a.replication"),
        ("keyspaces.a.replication = {}", "keyspaces.a.replication"),
        ("keyspaces.a.replication = { dc1 = 0 }", "keyspaces.a.replication"),
        ("keyspaces.a.replication = 300", "keyspaces.a.replication"),
        ("keyspaces.a.replica = 3", "keyspaces.a.replication"),
        ("keyspaces.\"a.b\".replication = 3", "a.b"),
        ("keyspaces.a = { replication = 1, buckets = { x = \"best\" } }", "keyspaces.a.buckets.x"),
        ("keyspaces.a = { replication = 1, buckets = { \"x/y\" = \"lww\" } }", "x/y"),
        ("seeds = [\"127.0.0.1:7000\"]", "duplicate key"),
    ] {
        let message = parse(&format!("{SEEDS}{line}\n")).expect_err(line);
        assert!(message.contains(key), "{line}\n{message}");
        assert!(message.contains("node.toml:2:"), "{line}\n{message}");
        assert!(message.contains("the node does not start"), "{line}\n{message}");
    }
    let twice = parse("seeds = [\"127.0.0.1:7000\", \"127.0.0.1:7000\"]").expect_err("twice");
    assert!(twice.contains("names 127.0.0.1:7000 twice"), "{twice}");
    let off_loopback =
        "insecure = true\nseeds = [\"10.0.0.1:7000\"]\nlisten.address = \"10.0.0.1\"";
    assert!(parse(off_loopback).is_ok(), "asked for");
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nowhere/node.toml"), &Overrides::default());
    let message = error.expect_err("no such file").to_string();
    assert!(
        message.starts_with("error[S001] config: /nowhere/node.toml cannot be read"),
        "{message}"
    );
}

#[test]
fn the_secret_is_read_from_a_file_that_only_its_owner_reads() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("secret");
    let config = Config { secret_file: Some(path.clone()), ..Config::dev(dir.path()) };
    assert!(matches!(config.secret(), Err(SecretError::Unreadable { .. })));
    fs::write(&path, format!("{}\n", "0aF1".repeat(16))).expect("written");
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
    mode(0o644);
    assert!(matches!(config.secret(), Err(SecretError::Exposed { mode: 0o644, .. })));
    mode(0o600);
    let expected = [[0x0a, 0xf1]; 16].concat();
    assert_eq!(config.secret().expect("read").expect("there").as_slice(), expected);
    fs::write(&path, "0aF1").expect("written");
    assert!(matches!(config.secret(), Err(SecretError::Malformed { digits: 4, .. })));
    assert_eq!(Config::dev(dir.path()).secret().expect("none is fine"), None);
}
