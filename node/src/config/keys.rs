//! Every key there is: its path, its default, what it accepts and what it is for.
//!
//! One table serves the messages, the names of the environment variables, `starling config docs`
//! and the test that holds `config/production.toml` to it. It does not parse anything.

/// A key of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The dotted path; `*` stands for a name that the person chooses.
    pub path: &'static str,
    /// The default as it would be written, or a sentence where there is none to write.
    pub default: KeyDefault,
    /// What is accepted.
    pub accepts: &'static str,
    /// What it is for.
    pub about: &'static str,
}

/// What holds when a key is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyDefault {
    /// This value, in TOML.
    Value(&'static str),
    /// What this sentence says; there is no value to write.
    Described(&'static str),
}

impl Key {
    /// The environment variable that sets the key. None for keys with a name in their path.
    #[must_use]
    pub fn variable(&self) -> Option<String> {
        (!self.path.contains('*'))
            .then(|| format!("STARLING_{}", self.path.replace('.', "_").to_ascii_uppercase()))
    }

    /// Whether the dotted `path` is this key.
    #[must_use]
    pub fn matches(&self, path: &[String]) -> bool {
        let mut pattern = self.path.split('.');
        path.iter().all(|part| pattern.next().is_some_and(|p| p == "*" || p == part))
            && pattern.next().is_none()
    }

    /// Whether the dotted `path` leads to this key without being it, as `listen` does.
    #[must_use]
    pub fn is_below(&self, path: &[String]) -> bool {
        let mut pattern = self.path.split('.');
        path.iter().all(|part| pattern.next().is_some_and(|p| p == "*" || p == part))
            && pattern.next().is_some()
    }
}

const fn key(
    path: &'static str,
    default: &'static str,
    accepts: &'static str,
    about: &'static str,
) -> Key {
    Key { path, default: KeyDefault::Value(default), accepts, about }
}

const fn open(
    path: &'static str,
    default: &'static str,
    accepts: &'static str,
    about: &'static str,
) -> Key {
    Key { path, default: KeyDefault::Described(default), accepts, about }
}

const ADDRESSES: &str =
    r#"a list of "address:port", the internode addresses of every first member"#;
const NAME: &str = "1 to 48 letters, digits, '_' or '-', in quotes";
const PORT: &str = "a port, 1 to 65535";
const SIZE: &str = r#"a size such as "64MiB" (B, KiB, MiB, GiB)"#;
const DURATION: &str = r#"a duration such as "500ms" or "2s" (ms, s, m), up to an hour"#;

/// Every key, in the order in which `config/production.toml` shows them.
pub const KEYS: &[Key] = &[
    key(
        "cluster_name",
        r#""starling""#,
        NAME,
        "The cluster's name. The same on every node, fixed when the cluster is created.",
    ),
    key(
        "data_dir",
        r#""data""#,
        "a path in quotes",
        "Where the node keeps everything. Relative paths start at the current directory.",
    ),
    key(
        "datacenter",
        r#""dc1""#,
        NAME,
        "The datacenter that this node is in. LOCAL_QUORUM and network topologies go by it.",
    ),
    key(
        "rack",
        r#""rack1""#,
        NAME,
        "The rack or zone that this node is in. Replicas are spread over racks first.",
    ),
    open(
        "seeds",
        "none: it must be written",
        ADDRESSES,
        "The internode addresses of every first member of the cluster, this node among them, the same on \
         every node. The cluster is created when all of them are there; afterwards it remembers them.",
    ),
    open(
        "secret_file",
        "none: the nodes draw a secret together",
        "a path in quotes to a file of 64 hexadecimal digits that only its owner may read",
        "The cluster's secret, the same on every node; read at every start.",
    ),
    key(
        "insecure",
        "false",
        "true or false",
        "Listen on addresses off loopback although nothing is encrypted or authenticated yet.",
    ),
    key(
        "slot_bits",
        "12",
        "a number from 4 to 16",
        "The ring has 2^slot_bits slots. The same on every node, fixed when the cluster is created.",
    ),
    key(
        "durability",
        r#""group""#,
        r#""group", or { periodic_ms = 1 to 60000 }"#,
        "When a write counts as kept: \"group\" after an fsync that many writes share; periodic at once, \
         with an fsync every so many milliseconds, so that a power cut may lose that much.",
    ),
    key(
        "block_cache",
        r#""64MiB""#,
        SIZE,
        "Memory for blocks read from disk. The most useful memory there is: half of the machine's is not too much.",
    ),
    key(
        "memtable",
        r#""32MiB""#,
        SIZE,
        "Memory for writes before they go to a sorted file. Larger means fewer and larger files. A node uses between half \
         of it and all of it, so that not all replicas write their files at the same moment.",
    ),
    key(
        "compaction_max",
        r#""64MiB""#,
        SIZE,
        "Bytes a second that the store may write to sort and merge its files. Every write is sorted some five times, so a \
         node takes a fifth of it in new data for long; the less it is, the less requests wait for processors and disk.",
    ),
    key(
        "hints_max",
        r#""1GiB""#,
        SIZE,
        "Disk for writes that other nodes missed while they were away, all of them together. Beyond it the \
         oldest go, of the node that is owed the most; it then gets them by comparison, see repair_max.",
    ),
    key(
        "disk_reserve",
        r#""256MiB""#,
        r#"a size such as "256MiB", or "0B""#,
        "Space that writes leave free on the disk of data_dir, though at most an eighth of it: below it they are \
         refused, and go on when there is space again. Reads go on.",
    ),
    key(
        "repair_max",
        r#""32MiB""#,
        r#"a size such as "32MiB", or "0B""#,
        "Bytes a second that comparing data with other nodes may read and send; a quarter of it while clients \
         are served. It goes on all the time and needs no schedule. \"0B\" compares only to rebuild a node whose \
         disk was lost, at the default rate.",
    ),
    key(
        "gc_grace",
        "{}",
        r#"a time for each bucket: { "shop.sessions" = "10d" }, in d, h, m or s"#,
        "Buckets whose deletes are forgotten after a time, as Cassandra does it: a node that was away for longer \
         brings deleted values back. Others forget a delete when every replica has it, and need no time.",
    ),
    open(
        "worker_threads",
        "one for each core",
        "a number from 1 to 256",
        "Threads that run the node.",
    ),
    key(
        "blocking_threads",
        "8",
        "a number from 1 to 256",
        "Threads that wait for the disk when a read is not in the cache.",
    ),
    key(
        "listen.address",
        r#""127.0.0.1""#,
        "an IP address in quotes that the other nodes and the clients reach, not 0.0.0.0",
        "The address that the node listens on and is known by. Off loopback needs insecure = true.",
    ),
    key("listen.native_port", "9050", PORT, "The port for clients."),
    key("listen.internode_port", "7000", PORT, "The port for the other nodes."),
    key(
        "listen.admin",
        r#""127.0.0.1:9180""#,
        r#"a loopback "address:port""#,
        "/health, /metrics and /status over HTTP. Only on loopback.",
    ),
    key("limits.key_max", r#""65535B""#, r#"a size from "1B" to "65535B""#, "The longest key."),
    key(
        "limits.value_max",
        r#""8MiB""#,
        r#"a size from "1KiB" to "15MiB""#,
        "The longest value. Clients' frames may be 1 MiB longer.",
    ),
    key(
        "limits.connections_max",
        "1024",
        "a number from 1 to 100000",
        "How many clients may be connected at a time.",
    ),
    key(
        "limits.in_flight_max",
        r#""64MiB""#,
        SIZE,
        "Client requests being worked on at a time; beyond it, or a connection's share of it, the answer is Overloaded.",
    ),
    key(
        "limits.link_max",
        r#""32MiB""#,
        SIZE,
        "Bytes queued for one other node; beyond it the node gets hints instead.",
    ),
    key("timeouts.connect", r#""1s""#, DURATION, "Connecting to another node."),
    key("timeouts.read", r#""2s""#, DURATION, "A read, when the client does not say."),
    key("timeouts.write", r#""2s""#, DURATION, "A write, when the client does not say."),
    key(
        "log.level",
        r#""info""#,
        r#""error", "warn", "info", "debug" or "trace""#,
        "The least severe level that is written to standard error.",
    ),
    key("log.format", r#""text""#, r#""text" or "json""#, "For people or for machines."),
    open(
        "keyspaces.*.replication",
        "none: a keyspace must say it",
        "a number of copies, 1 to 32, or a number for each datacenter: { dc1 = 3, dc2 = 2 }",
        "How many nodes keep a copy. Keyspaces are the same on every node, fixed when the cluster is created.",
    ),
    key(
        "keyspaces.*.partitioner",
        r#""sip""#,
        r#""sip" or "murmur3""#,
        "How keys become tokens: sip with the cluster's key, so that nobody can aim at one node, or Murmur3 \
         as Cassandra's drivers compute it.",
    ),
    key(
        "keyspaces.*.buckets",
        "{}",
        r#"a mode for each named bucket: { carts = "siblings", sessions = "lww" }"#,
        "siblings keeps every concurrent write until a reader settles it; lww shows the newest only. Other \
         buckets are made on first use, with siblings.",
    ),
];

/// The key at the dotted `path`, or the one that `path` is inside of.
pub(super) fn containing(path: &[String]) -> Option<&'static Key> {
    (1..=path.len()).find_map(|end| KEYS.iter().find(|key| key.matches(&path[..end])))
}

/// The known paths nearest to the one written, best first; where only names were chosen freely the
/// written ones are kept.
pub(super) fn nearest(path: &[String]) -> Option<String> {
    let written = path.join(".");
    KEYS.iter()
        .map(|key| {
            let known: Vec<&str> = key
                .path
                .split('.')
                .enumerate()
                .map(|(i, part)| match (part, path.get(i)) {
                    ("*", Some(name)) => name.as_str(),
                    _ => part,
                })
                .collect();
            known.join(".")
        })
        .map(|known| (likeness(&known, &written), known))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The names that may stand where the last part of `path` stands; the top ones when nothing may.
pub(super) fn beside(path: &[String]) -> Vec<&'static str> {
    let above = &path[..path.len().saturating_sub(1)];
    let names = below(above);
    if names.is_empty() { below(&[]) } else { names }
}

/// The names that may stand directly below `path`.
pub(super) fn below(path: &[String]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for key in KEYS.iter().filter(|key| key.is_below(path)) {
        let name = match key.path.split('.').nth(path.len()) {
            Some("*") => "a name of your own",
            Some(name) => name,
            None => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// How alike two paths are, 0 to 1: the whole paths, or the last parts when the table is wrong.
fn likeness(known: &str, written: &str) -> f64 {
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let whole = strsim::jaro_winkler(known, written);
    let tail = strsim::jaro_winkler(&last(known), &last(written)) * 0.98;
    whole.max(tail)
}

#[cfg(test)]
mod tests {
    use super::{KEYS, nearest};

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn the_nearest_key_is_what_was_meant() {
        for (written, meant) in [
            ("seed", "seeds"),
            ("clustername", "cluster_name"),
            ("native_port", "listen.native_port"),
            ("listen.natve_port", "listen.native_port"),
            ("keyspaces.shop.replicaton", "keyspaces.shop.replication"),
            ("limits.max_value", "limits.value_max"),
            ("timeout.read", "timeouts.read"),
        ] {
            assert_eq!(nearest(&path(written)).as_deref(), Some(meant), "{written}");
        }
        assert_eq!(nearest(&path("zzz")), None);
    }

    #[test]
    fn no_two_keys_share_an_environment_variable() {
        let mut variables: Vec<String> = KEYS.iter().filter_map(super::Key::variable).collect();
        variables.sort();
        let all = variables.len();
        variables.dedup();
        assert_eq!(variables.len(), all);
    }
}
