//! `starling status` and `starling health`: the cluster as one node sees it, and the hints of all that answer.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use starling_client::{Client, Status, StatusView, WireError};
use starling_node::overview::{NodeOverview, Overview, Verdict};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::args::{HealthArgs, StatusArgs};
use crate::failure::Failure;
use crate::{connect, exit, out};

/// How long a node may take to tell of its hints, when another has told of the cluster already.
const HINTS_WITHIN: Duration = Duration::from_secs(2);

/// What `starling status` shows: one node's view, and what only each node itself knows.
#[derive(Serialize)]
struct ClusterStatus {
    #[serde(flatten)]
    overview: Overview,
    /// The writes that nodes keep for others, by the node that keeps them.
    hints_by_node: Vec<NodeHints>,
}

/// The writes that one node keeps for others.
#[derive(Serialize)]
struct NodeHints {
    address: SocketAddr,
    /// Nothing where the node does not answer.
    hints_pending: Option<u64>,
    /// For whom, as far as they are members.
    #[serde(skip)]
    targets: Vec<(SocketAddr, u64)>,
}

/// Shows the cluster. Whatever keeps a node from answering is 12, unreachable.
pub async fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let overview = match overview(args).await {
        Ok(overview) => overview,
        Err(failure) => {
            tell(&failure, args.json);
            return Ok(exit::UNREACHABLE.into());
        }
    };
    let verdict = overview.verdict;
    let status = ClusterStatus { hints_by_node: hints(&overview).await, overview };
    if args.json {
        out::json(&status);
    } else {
        out::line(status.text());
    }
    Ok(match verdict {
        Verdict::Healthy => exit::DONE,
        Verdict::Degraded => exit::DEGRADED.into(),
        Verdict::BelowQuorum => exit::BELOW_QUORUM.into(),
        Verdict::Starting => exit::UNREACHABLE.into(),
    })
}

/// Succeeds when the node serves.
pub async fn health(args: &HealthArgs) -> Result<ExitCode, Failure> {
    let status = connect(&args.node).await?.status().await?;
    out::line(format!("serving in cluster {}", status.cluster));
    Ok(exit::DONE)
}

async fn overview(args: &StatusArgs) -> Result<Overview, Failure> {
    Ok(Overview::new(&connect(&args.node).await?.status().await?))
}

/// A node that has no cluster yet has a status all the same, as its admin port shows it.
fn tell(failure: &Failure, json: bool) {
    let waiting_for = match failure {
        Failure::Client(error) => match error.wire() {
            Some(WireError::NotReady { waiting_for }) => Some(waiting_for.clone()),
            _ => None,
        },
        _ => None,
    };
    match waiting_for {
        Some(waiting_for) if json => {
            failure.tell(false);
            let overview = Overview::starting(waiting_for);
            out::json(&ClusterStatus { overview, hints_by_node: Vec::new() });
        }
        _ => failure.tell(json),
    }
}

/// Asks all nodes that are up at the same time: each knows only what it keeps itself.
async fn hints(overview: &Overview) -> Vec<NodeHints> {
    let mut asked = JoinSet::new();
    for node in &overview.nodes {
        let (address, host_id, answers) = (node.address, node.host_id, node.answers());
        let own = (Some(host_id) == overview.node).then(|| NodeHints::of(address, overview));
        asked.spawn(async move {
            match own {
                Some(hints) => hints,
                None if answers => {
                    let answer = tokio::time::timeout(HINTS_WITHIN, ask(address, host_id)).await;
                    let view = answer.ok().flatten().map(|status| Overview::new(&status));
                    view.map_or(NodeHints::unknown(address), |view| NodeHints::of(address, &view))
                }
                None => NodeHints::unknown(address),
            }
        });
    }
    let mut hints = asked.join_all().await;
    hints.sort_by_key(|node| node.address);
    hints
}

impl NodeHints {
    /// What the node at `address` says in its own view.
    fn of(address: SocketAddr, view: &Overview) -> Self {
        let owed = view.nodes.iter().filter(|node| node.hints_pending > 0);
        let mut targets: Vec<_> = owed.map(|node| (node.address, node.hints_pending)).collect();
        targets.sort_unstable();
        Self { address, hints_pending: Some(view.hints_pending), targets }
    }

    fn unknown(address: SocketAddr) -> Self {
        Self { address, hints_pending: None, targets: Vec::new() }
    }

    /// For whom it keeps how many, if it keeps any.
    fn told(&self) -> Option<String> {
        let hints = self.hints_pending.filter(|hints| *hints > 0)?;
        let targets = self.targets.iter().map(|(target, hints)| format!("{hints} for {target}"));
        let mut targets = targets.collect::<Vec<_>>().join(", ");
        if targets.is_empty() {
            targets = hints.to_string();
        }
        Some(format!("{targets} (kept by {})", self.address))
    }
}

/// What one node says of itself; nothing if it does not answer, or another answers in its place.
pub async fn ask(address: SocketAddr, host_id: Uuid) -> Option<StatusView> {
    let client = Client::builder().contact_point(address.to_string()).build().await.ok()?;
    let status = client.status().await.ok()?;
    (status.node == host_id).then_some(status)
}

impl ClusterStatus {
    fn text(&self) -> String {
        let overview = &self.overview;
        let seen_from = overview
            .nodes
            .iter()
            .find(|node| Some(node.host_id) == overview.node)
            .map_or_else(|| "a node of another epoch".to_owned(), |node| node.address.to_string());
        let mut lines = vec![format!(
            "cluster {}, epoch {}: {}, as seen from {seen_from}",
            overview.cluster.as_deref().unwrap_or("none"),
            overview.epoch,
            overview.verdict,
        )];
        lines.push(nodes(overview));
        let slots = overview.slots;
        if slots.total() > 0 && slots.full < slots.total() {
            lines.push(format!(
                "slots: {} of {} with all replicas, {} with a quorum, {} below quorum",
                slots.full,
                slots.total(),
                slots.degraded,
                slots.below_quorum
            ));
        }
        lines.extend(self.hints_line());
        lines.join("\n")
    }

    /// What is kept for whom and where, if anything is, and who did not say.
    fn hints_line(&self) -> Option<String> {
        let kept: Vec<_> = self.hints_by_node.iter().filter_map(NodeHints::told).collect();
        if kept.is_empty() {
            return None;
        }
        // A node that is down is in the table as that; one that is up should have said.
        let answers = |address| {
            self.overview.nodes.iter().any(|node| node.address == address && node.answers())
        };
        let silent = self.hints_by_node.iter();
        let silent = silent.filter(|node| node.hints_pending.is_none() && answers(node.address));
        let silent: Vec<_> = silent.map(|node| node.address.to_string()).collect();
        let mut line = format!("hints: {}", kept.join("; "));
        if !silent.is_empty() {
            line = format!("{line}; those of {} are not known", silent.join(", "));
        }
        Some(line)
    }
}

/// The table of nodes, which the demo shows too.
pub fn nodes(overview: &Overview) -> String {
    let header = ["ADDRESS", "STATUS", "OWNS", "DATACENTER", "RACK", "HOST ID"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let mut nodes: Vec<&NodeOverview> = overview.nodes.iter().collect();
    nodes.sort_by_key(|node| node.address);
    rows.extend(nodes.into_iter().map(|node| {
        vec![
            node.address.to_string(),
            state(node),
            format!("{:.1}%", node.owns * 100.0),
            node.datacenter.clone(),
            node.rack.clone(),
            node.host_id.to_string(),
        ]
    }));
    out::table(&rows)
}

fn state(node: &NodeOverview) -> String {
    let word = match node.status {
        Status::Up => "up",
        Status::Suspect => "suspect",
        Status::Unreachable => "unreachable",
        Status::Down => "down",
        Status::Joining => "joining",
        Status::Rebuilding => "rebuilding",
    };
    match node.down_for_ms {
        Some(ms) => format!("{word} {} s", ms / 1000),
        None => word.to_owned(),
    }
}
