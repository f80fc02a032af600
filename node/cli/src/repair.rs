//! `starling repair`: how far the nodes' data are from one another, and an operator's word where no node can know.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use starling_client::{Client, RepairView};
use starling_node::overview::Overview;
use uuid::Uuid;

use crate::args::{RepairAcceptArgs, RepairCommand, RepairStatusArgs};
use crate::failure::Failure;
use crate::status::ask;
use crate::{connect, exit, out};

/// What one node says of itself and its peers.
#[derive(Debug, Serialize)]
struct NodeRepair {
    host_id: Uuid,
    address: SocketAddr,
    /// Nothing where the node does not answer.
    repair: Option<RepairView>,
}

/// All nodes.
#[derive(Debug, Serialize)]
struct ClusterRepair {
    nodes: Vec<NodeRepair>,
}

/// Does what was asked.
pub async fn run(command: &RepairCommand) -> Result<ExitCode, Failure> {
    match command {
        RepairCommand::Status(args) => status(args).await,
        RepairCommand::Accept(args) => accept(args).await,
    }
}

/// Asks every node for its own view.
async fn status(args: &RepairStatusArgs) -> Result<ExitCode, Failure> {
    let overview = Overview::new(&connect(&args.node).await?.status().await?);
    let mut nodes = Vec::new();
    for node in &overview.nodes {
        let answer = if node.is_up() { ask(node.address, node.host_id).await } else { None };
        let repair = answer.map(|status| status.repair);
        nodes.push(NodeRepair { host_id: node.host_id, address: node.address, repair });
    }
    nodes.sort_by_key(|node| node.address);
    let cluster = ClusterRepair { nodes };
    if args.json {
        out::json(&cluster);
    } else {
        out::line(cluster.text());
    }
    let is_whole =
        |node: &NodeRepair| node.repair.as_ref().is_some_and(|repair| !repair.rebuilding);
    Ok(if cluster.nodes.iter().all(is_whole) { exit::DONE } else { exit::DEGRADED.into() })
}

/// Tells one node that what it and its peers hold is all there is.
async fn accept(args: &RepairAcceptArgs) -> Result<ExitCode, Failure> {
    let client = Client::builder().contact_point(&args.node).build().await?;
    client.accept_loss().await?;
    out::line(format!("{} serves what it holds", args.node));
    Ok(exit::DONE)
}

impl ClusterRepair {
    fn text(&self) -> String {
        let header = ["NODE", "PEER", "AGREED", "KEYS BEHIND", "BYTES BEHIND", "COMPARING"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        let mut notes = Vec::new();
        for node in &self.nodes {
            match &node.repair {
                None => notes.push(format!("{} does not answer", node.address)),
                Some(repair) => {
                    if repair.rebuilding {
                        notes.push(format!(
                            "{} lost writes and is being rebuilt; it takes writes and answers no reads",
                            node.address
                        ));
                    }
                    rows.extend(self.rows(node, repair));
                }
            }
        }
        let mut text = out::table(&rows);
        for note in notes {
            text.push('\n');
            text.push_str(&note);
        }
        text
    }

    fn rows(&self, node: &NodeRepair, repair: &RepairView) -> Vec<Vec<String>> {
        let address = |host_id: Uuid| {
            let peer = self.nodes.iter().find(|node| node.host_id == host_id);
            peer.map_or_else(|| host_id.to_string(), |peer| peer.address.to_string())
        };
        let rows = repair.pairs.iter().map(|pair| {
            vec![
                node.address.to_string(),
                address(pair.peer),
                pair.agreed_ms_ago.map_or_else(|| "not yet".to_owned(), ago),
                pair.behind_keys.to_string(),
                pair.behind_bytes.to_string(),
                match pair.slots_total {
                    0 => "-".to_owned(),
                    total => format!("{}%", pair.slots_done * 100 / total),
                },
            ]
        });
        rows.collect()
    }
}

fn ago(ms: u64) -> String {
    let seconds = Duration::from_millis(ms).as_secs();
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3_600),
    }
}
