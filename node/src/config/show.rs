//! A configuration written back as a file, and the table of keys as documentation.
//!
//! `Config::parse(config.effective())` is the same configuration: a test holds that.

use std::fmt::Write as _;
use std::path::Path;

use starling_ring::{BucketMode, Keyspace, PartitionerKind, ReplicationStrategy};

use super::Config;
use super::keys::{KEYS, KeyDefault};
use super::value::{Durability, Graces, LogFormat, Size, Span};

impl Config {
    /// Every key with the value that holds, as a file that a node could be started from.
    #[must_use]
    pub fn effective(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        for (path, value) in self.values() {
            let (above, name) = path.split_once('.').unwrap_or(("", path));
            if above != section {
                section = above;
                line(&mut out, &format!("\n[{section}]"));
            }
            match value {
                Some(value) => line(&mut out, &format!("{name} = {value}")),
                None => line(&mut out, &format!("# {name} is not set")),
            }
        }
        for keyspace in &self.keyspaces {
            line(&mut out, &keyspace_text(keyspace));
        }
        out
    }

    /// The value of every key that has a fixed path, in TOML; none for what is not set.
    fn values(&self) -> Vec<(&'static str, Option<String>)> {
        let seeds: Vec<String> = self.seeds.iter().map(|seed| quoted(&seed.to_string())).collect();
        let (limits, timeouts) = (&self.limits, &self.timeouts);
        vec![
            ("cluster_name", Some(quoted(&self.cluster_name))),
            ("data_dir", Some(quoted_path(&self.data_dir))),
            ("datacenter", Some(quoted(&self.datacenter))),
            ("rack", Some(quoted(&self.rack))),
            ("seeds", Some(format!("[{}]", seeds.join(", ")))),
            ("secret_file", self.secret_file.as_deref().map(quoted_path)),
            ("insecure", Some(self.insecure.to_string())),
            ("slot_bits", Some(self.slot_bits.to_string())),
            ("durability", Some(durability(self.durability))),
            ("block_cache", Some(size(self.block_cache_bytes))),
            ("memtable", Some(size(self.memtable_bytes))),
            ("compaction_max", Some(size(self.compaction_bytes_max))),
            ("hints_max", Some(size(self.hints_bytes_max))),
            ("disk_reserve", Some(size(self.disk_reserve_bytes))),
            ("repair_max", Some(size(self.repair_bytes_max))),
            ("gc_grace", Some(Graces(self.gc_grace.clone()).to_string())),
            ("worker_threads", Some(self.worker_threads.to_string())),
            ("blocking_threads", Some(self.blocking_threads.to_string())),
            ("listen.address", Some(quoted(&self.listen.native.ip().to_string()))),
            ("listen.native_port", Some(self.listen.native.port().to_string())),
            ("listen.internode_port", Some(self.listen.internode.port().to_string())),
            ("listen.admin", Some(quoted(&self.listen.admin.to_string()))),
            ("limits.key_max", Some(size(limits.key_bytes_max.into()))),
            ("limits.value_max", Some(size(limits.value_bytes_max.into()))),
            ("limits.connections_max", Some(limits.connections_max.to_string())),
            ("limits.in_flight_max", Some(size(limits.in_flight_bytes_max))),
            ("limits.link_max", Some(size(limits.link_bytes_max))),
            ("timeouts.connect", Some(quoted(&Span(timeouts.connect).to_string()))),
            ("timeouts.read", Some(quoted(&Span(timeouts.read).to_string()))),
            ("timeouts.write", Some(quoted(&Span(timeouts.write).to_string()))),
            ("log.level", Some(quoted(self.log.level.as_str()))),
            (
                "log.format",
                Some(quoted(match self.log.format {
                    LogFormat::Text => "text",
                    LogFormat::Json => "json",
                })),
            ),
        ]
    }

    /// Every key with its default, what it accepts, its variable and what it is for.
    #[must_use]
    pub fn docs() -> String {
        let mut out = String::new();
        line(
            &mut out,
            "A value comes from a flag, else the environment, else the file, else the default.\n",
        );
        for key in KEYS {
            line(&mut out, key.path);
            line(&mut out, &format!("    {}", key.about));
            let default = match key.default {
                KeyDefault::Value(text) | KeyDefault::Described(text) => text,
            };
            line(&mut out, &format!("    default   {default}"));
            line(&mut out, &format!("    accepts   {}", key.accepts));
            if let Some(variable) = key.variable() {
                line(&mut out, &format!("    variable  {variable}"));
            }
            line(
                &mut out,
                &format!("    flag      --set {}=VALUE\n", key.path.replace('*', "NAME")),
            );
        }
        out
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String does not fail");
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Paths that are not UTF-8 cannot be written in TOML; they are shown with replacements.
fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

fn size(bytes: u64) -> String {
    quoted(&Size(bytes).to_string())
}

fn durability(durability: Durability) -> String {
    match durability {
        Durability::Group => quoted("group"),
        Durability::Periodic { interval } => {
            format!("{{ periodic_ms = {} }}", interval.as_millis())
        }
    }
}

fn keyspace_text(keyspace: &Keyspace) -> String {
    let keys = keyspace_keys(keyspace).join("\n");
    format!("\n[keyspaces.{}]\n{keys}", quoted(&keyspace.name))
}

/// A keyspace in one line, for messages.
pub(crate) fn keyspace_table(keyspace: &Keyspace) -> String {
    format!("{{ {} }}", keyspace_keys(keyspace).join(", "))
}

fn keyspace_keys(keyspace: &Keyspace) -> [String; 3] {
    let inline = |entries: Vec<String>| {
        if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
    };
    let replication = match &keyspace.strategy {
        ReplicationStrategy::Simple { replication_factor } => replication_factor.to_string(),
        ReplicationStrategy::NetworkTopology { datacenters } => inline(
            datacenters
                .iter()
                .map(|(name, copies)| format!("{} = {copies}", quoted(name)))
                .collect(),
        ),
    };
    let partitioner = match keyspace.partitioner {
        PartitionerKind::Sip => "sip",
        PartitionerKind::Murmur3 => "murmur3",
    };
    let mode = |mode: &BucketMode| match mode {
        BucketMode::Siblings => "siblings",
        BucketMode::Lww => "lww",
    };
    let buckets = inline(
        keyspace
            .buckets
            .iter()
            .map(|(name, of)| format!("{} = {}", quoted(name), quoted(mode(of))))
            .collect(),
    );
    [
        format!("replication = {replication}"),
        format!("partitioner = {}", quoted(partitioner)),
        format!("buckets = {buckets}"),
    ]
}
