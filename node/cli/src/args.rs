//! The command line: nouns, verbs and flags. It decides nothing.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};
use clap_complete::Shell;
use starling_client::{ConsistencyLevel, parse_contact_point};

/// Starling, a leaderless database that keeps every write.
#[derive(Debug, Parser)]
#[command(name = "starling", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Everything `starling` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a node until SIGTERM or SIGINT.
    Start(StartArgs),
    /// Starts three nodes, kills one under load, and proves that nothing was lost.
    Demo(DemoArgs),
    /// Shows the cluster as one node sees it, and the hints of all nodes that answer.
    ///
    /// Exit status: 0 healthy, 10 degraded, 11 some slots below quorum, 12 unreachable or not serving yet.
    Status(StatusArgs),
    /// Succeeds when the node serves; for containers.
    Health(HealthArgs),
    /// Shows how far the nodes' data are from one another. Comparing goes on all the time and needs no command.
    #[command(subcommand)]
    Repair(RepairCommand),
    /// Makes, lists and restores snapshots: what the nodes held at one moment, as files.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Checks and explains configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Reads a key. Exit status: 0 found, 3 nothing there, 12 unreachable, 1 failed.
    Get(GetArgs),
    /// Stores a value and prints its context.
    ///
    /// Exit status: 0 done, 1 surely not done, 4 outcome unknown, or done and the context not printed, 12 unreachable.
    Put(PutArgs),
    /// Deletes a key and prints the context. Exit status as of put.
    Delete(DeleteArgs),
    /// Writes the completions of a shell to standard output.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Shows the version.
    Version,
}

/// Flags of `start`.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub source: ConfigSource,
    /// Where the node keeps everything, as the key data_dir. With --dev it is data/dev by default.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Stop when standard input ends, as it does when the parent process dies.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("source").required(true)))]
pub struct ConfigSource {
    /// The configuration file.
    #[arg(long, value_name = "FILE", group = "source")]
    pub config: Option<PathBuf>,
    /// One node by itself on loopback, without a file.
    #[arg(long, group = "source")]
    pub dev: bool,
    /// Sets a key of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

/// Flags of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep the data, the configurations and the logs of the nodes in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// One JSON object a line, for machines.
    #[arg(long)]
    pub json: bool,
    /// The first three parts of the nodes' addresses.
    #[arg(long, value_name = "A.B.C", default_value = "127.0.0", value_parser = network)]
    pub network: String,
    /// How long each of the phases takes: before the kill, without the node, and after.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub phase: u64,
    /// Writes and reads in flight.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
}

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    pub node: NodeAddress,
}

/// Verbs of `repair`.
#[derive(Debug, Subcommand)]
pub enum RepairCommand {
    /// Shows for each pair of nodes when they last agreed, and what is known to differ.
    ///
    /// Exit status: 0 every node is whole, 10 one is being rebuilt or does not answer, 12 unreachable.
    Status(RepairStatusArgs),
    /// Lets a node that lost writes answer reads with what it holds.
    ///
    /// Needed only where a majority of a key's replicas lost writes at once, so that none can know what is missing.
    Accept(RepairAcceptArgs),
}

impl RepairCommand {
    /// Whether the answer is to be JSON.
    pub fn is_json(&self) -> bool {
        matches!(self, Self::Status(RepairStatusArgs { json: true, .. }))
    }
}

/// Flags of `repair status`.
#[derive(Debug, Args)]
pub struct RepairStatusArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `repair accept`.
#[derive(Debug, Args)]
pub struct RepairAcceptArgs {
    /// The client address of the node that shall serve.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_contact_point)]
    pub node: String,
}

/// Verbs of `snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Has every node of the cluster make a snapshot of its share, in its own data directory.
    ///
    /// Everything that was acknowledged before is in them. They take no space at first: their files are the node's own. Copy the
    /// directories elsewhere, and delete them when they are not needed any more. Exit status: 0 done, 10 some node has none, 12 unreachable.
    Create(SnapshotCreateArgs),
    /// Lists the snapshots of every node. Exit status: 0 done, 10 some node does not answer, 12 unreachable.
    List(SnapshotListArgs),
    /// Restores snapshots into a running cluster, of whatever size.
    ///
    /// Give the snapshots of all nodes at once: what was acknowledged is in all of them together. Keys that the cluster has already are
    /// joined with what is restored. It may be repeated, after an interruption above all. Exit status: 0 done, 1 or 4 not (all) done,
    /// 12 unreachable.
    Restore(SnapshotRestoreArgs),
}

impl SnapshotCommand {
    /// Whether the answer is to be JSON.
    pub fn is_json(&self) -> bool {
        match self {
            Self::Create(args) => args.json,
            Self::List(args) => args.json,
            Self::Restore(_) => false,
        }
    }
}

/// Flags of `snapshot create`.
#[derive(Debug, Args)]
pub struct SnapshotCreateArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// The snapshot's name: letters, digits, dots, dashes, underscores. By default the seconds since 1970.
    #[arg(long)]
    pub name: Option<String>,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `snapshot list`.
#[derive(Debug, Args)]
pub struct SnapshotListArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `snapshot restore`.
#[derive(Debug, Args)]
pub struct SnapshotRestoreArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// The directory of a snapshot, which holds the file SNAPSHOT; repeat it for each node's.
    #[arg(long, value_name = "DIR", required = true)]
    pub from: Vec<PathBuf>,
    /// Only this bucket, as keyspace.bucket; all of them by default.
    #[arg(long)]
    pub bucket: Option<String>,
    /// Restore although the snapshots of some nodes are missing: what only those held is lost.
    #[arg(long)]
    pub partial: bool,
}

/// Which node to ask.
#[derive(Debug, Args)]
pub struct NodeAddress {
    /// The node's client address; may be repeated, the first that answers is used.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "STARLING_NODE",
        value_delimiter = ',',
        value_parser = parse_contact_point,
        default_value = "127.0.0.1:9050"
    )]
    pub node: Vec<String>,
}

/// Verbs of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Says whether a file, with the STARLING_ variables of the environment, can start a node of a new cluster.
    Check {
        /// The files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Shows a configuration.
    Show {
        #[command(flatten)]
        source: ConfigSource,
        /// Every key with the value that holds, after environment and flags.
        #[arg(long)]
        effective: bool,
    },
    /// Explains every key.
    Docs,
}

/// What `get`, `put` and `delete` share.
#[derive(Debug, Args)]
pub struct BucketArgs {
    #[command(flatten)]
    pub node: NodeAddress,
    /// The bucket.
    #[arg(long, value_name = "KEYSPACE.BUCKET", env = "STARLING_BUCKET")]
    pub bucket: String,
    /// How many replicas must agree: one, two, three, quorum, all, local_quorum, ..., or a number.
    #[arg(long, value_name = "LEVEL", default_value = "quorum")]
    pub consistency: ConsistencyLevel,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The answer must have seen this context.
    #[arg(long, value_name = "CONTEXT")]
    pub floor: Option<String>,
    /// The key.
    pub key: String,
}

/// Flags of `put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The context of the read that this replaces; without it the value stands beside what is there.
    #[arg(long, value_name = "CONTEXT", conflicts_with = "overwrite")]
    pub context: Option<String>,
    /// Replace whatever a quorum shows.
    #[arg(long)]
    pub overwrite: bool,
    /// The key.
    pub key: String,
    /// The value; `-` reads it from standard input.
    pub value: String,
}

/// Flags of `delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The context of the read that this deletes; without it, what a quorum shows.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// The key.
    pub key: String,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn network(text: &str) -> Result<String, String> {
    match format!("{text}.1").parse::<std::net::Ipv4Addr>() {
        Ok(address) if address.is_loopback() => Ok(text.to_owned()),
        _ => Err("write the first three parts of loopback addresses, such as 127.0.0".to_owned()),
    }
}
