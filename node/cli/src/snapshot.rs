//! `starling snapshot`: what all nodes held at one moment, and the way back from it.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use starling_client::{Bucket, Client, Error, SnapshotView};
use starling_node::overview::Overview;
use starling_node::snapshot::{Entry, Reading, SnapshotError, check_name};
use starling_node::time::now;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{SnapshotCommand, SnapshotCreateArgs, SnapshotListArgs, SnapshotRestoreArgs};
use crate::failure::Failure;
use crate::{connect, exit, out};

/// A node first flushes what it has in memory.
const CREATED_WITHIN: Duration = Duration::from_secs(300);
/// For one key, all attempts together.
const RESTORED_WITHIN: Duration = Duration::from_secs(30);
/// Keys on their way at once.
const IN_FLIGHT: usize = 64;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What one node has.
#[derive(Debug, Serialize)]
struct NodeSnapshots {
    address: SocketAddr,
    snapshots: Vec<SnapshotView>,
    /// Why it has told of none.
    error: Option<String>,
}

/// Does what was asked.
pub async fn run(command: &SnapshotCommand) -> Result<ExitCode, Failure> {
    match command {
        SnapshotCommand::Create(args) => create(args).await,
        SnapshotCommand::List(args) => list(args).await,
        SnapshotCommand::Restore(args) => restore(args).await,
    }
}

async fn create(args: &SnapshotCreateArgs) -> Result<ExitCode, Failure> {
    let name = args.name.clone().unwrap_or_else(name_of_now);
    check_name(&name)
        .map_err(|error| Failure::Usage { problem: error.to_string(), advice: error.advice() })?;
    let client = connect(&args.node).await?;
    let nodes = of_every_node(&client, move |client| {
        let name = name.clone();
        async move { Ok(vec![client.create_snapshot(&name, CREATED_WITHIN).await?]) }
    });
    Ok(show(&nodes.await?, args.json))
}

/// The seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a name for people; nothing goes by it")]
fn name_of_now() -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.as_secs().to_string()
}

async fn list(args: &SnapshotListArgs) -> Result<ExitCode, Failure> {
    let client = connect(&args.node).await?;
    let nodes = of_every_node(&client, |client| async move { client.snapshots().await }).await?;
    Ok(show(&nodes, args.json))
}

/// Asks all nodes of the cluster at once, each for its own.
async fn of_every_node<F>(
    client: &Client,
    ask: impl Fn(Client) -> F + Clone + Send + 'static,
) -> Result<Vec<NodeSnapshots>, Failure>
where
    F: Future<Output = Result<Vec<SnapshotView>, Error>> + Send,
{
    let mut asked = JoinSet::new();
    for node in Overview::new(&client.status().await?).nodes {
        let (ask, address) = (ask.clone(), node.address);
        asked.spawn(async move {
            let client = Client::builder().contact_point(address.to_string()).build().await;
            let answer = match client {
                Ok(client) => ask(client).await,
                Err(error) => Err(error),
            };
            let error = answer.as_ref().err().map(ToString::to_string);
            NodeSnapshots { address, snapshots: answer.unwrap_or_default(), error }
        });
    }
    let mut nodes = asked.join_all().await;
    nodes.sort_by_key(|node| node.address);
    Ok(nodes)
}

fn show(nodes: &[NodeSnapshots], json: bool) -> ExitCode {
    if json {
        out::json(&nodes);
    } else {
        let mut rows = vec![["NODE", "NAME", "BYTES", "DIRECTORY"].map(str::to_owned).to_vec()];
        for node in nodes {
            rows.extend(node.snapshots.iter().map(|snapshot| {
                vec![
                    node.address.to_string(),
                    snapshot.name.clone(),
                    snapshot.bytes.to_string(),
                    snapshot.directory.clone(),
                ]
            }));
        }
        out::line(out::table(&rows));
        for node in nodes {
            if let Some(error) = &node.error {
                out::line(format!("{}: {error}", node.address));
            }
        }
    }
    let all = nodes.iter().all(|node| node.error.is_none());
    if all { exit::DONE } else { exit::DEGRADED.into() }
}

async fn restore(args: &SnapshotRestoreArgs) -> Result<ExitCode, Failure> {
    let from = args.from.clone();
    let reading = blocking(move || Reading::open(&from)).await?;
    match reading.check_whole() {
        Ok(Some(())) => {}
        Ok(None) => out::note(
            "warning: an older release made these snapshots, which do not say of how many nodes the cluster was: see that all are given",
        ),
        Err(error) if args.partial => out::note(format!("warning: {error}")),
        Err(error) => return Err(refused(&error)),
    }
    let client = connect(&args.node).await?;
    let status = client.status().await?;
    if reading.is_of(status.cluster_id) {
        return Err(Failure::Usage {
            problem: "the snapshots are of this very cluster, whose later deletes they would undo"
                .to_owned(),
            advice: "restore into a new cluster; a node that lost its disk is rebuilt by its peers"
                .to_owned(),
        });
    }
    let buckets = reading.buckets();
    let wanted = |name: &str| args.bucket.as_deref().is_none_or(|only| only == name);
    let wanted: Vec<_> = buckets.into_iter().filter(|(_, name)| wanted(name)).collect();
    if wanted.is_empty() {
        return Err(Failure::Usage {
            problem: "the snapshots hold no such bucket".to_owned(),
            advice: "leave out --bucket to restore all".to_owned(),
        });
    }
    for (table, name) in wanted {
        let bucket = client.bucket(&name).await?;
        let (send, entries) = mpsc::channel(IN_FLIGHT);
        let keys = reading.entries(table, &name);
        let reader = tokio::task::spawn_blocking(move || {
            for entry in keys {
                // Whoever receives has stopped at an error.
                if send.blocking_send(entry).is_err() {
                    return;
                }
            }
        });
        let done = restore_bucket(&bucket, entries).await;
        // It ends with the channel.
        let _ended = reader.await;
        let Progress { keys, bytes } = done?;
        out::line(format!("{name}: {keys} keys restored, {bytes} bytes"));
    }
    Ok(exit::DONE)
}

/// What is restored so far.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    keys: u64,
    bytes: u64,
}

async fn restore_bucket(
    bucket: &Bucket,
    mut entries: mpsc::Receiver<Result<Entry, SnapshotError>>,
) -> Result<Progress, Failure> {
    let (mut progress, mut told_at) = (Progress::default(), now());
    let mut flying: JoinSet<Result<u64, Error>> = JoinSet::new();
    let mut is_over = false;
    while !(is_over && flying.is_empty()) {
        tokio::select! {
            entry = entries.recv(), if !is_over && flying.len() < IN_FLIGHT => match entry {
                None => is_over = true,
                Some(entry) => {
                    let (bucket, Entry { key, state }) = (bucket.clone(), entry.map_err(|error| broken_off(&error))?);
                    let bytes = (key.len() + state.len()) as u64;
                    flying.spawn(async move {
                        bucket.restore(key, state, RESTORED_WITHIN).await.map(|()| bytes)
                    });
                }
            },
            Some(done) = flying.join_next() => {
                progress.bytes += done.expect("restoring a key does not panic")?;
                progress.keys += 1;
                if told_at.elapsed() >= PROGRESS_EVERY {
                    told_at = now();
                    out::note(format!("{}: {} keys", bucket.name(), progress.keys));
                }
            }
        }
    }
    Ok(progress)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("reading a snapshot does not panic").map_err(|error| refused(&error))
}

/// Before anything was restored.
fn refused(error: &SnapshotError) -> Failure {
    Failure::Snapshot { problem: error.to_string(), advice: error.advice(), has_begun: false }
}

/// In the middle of it.
fn broken_off(error: &SnapshotError) -> Failure {
    Failure::Snapshot { problem: error.to_string(), advice: error.advice(), has_begun: true }
}
