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
        let answer = if node.answers() { ask(node.address, node.host_id).await } else { None };
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
        let mut text = match self.nodes.len() {
            1 => "one node: there is nothing to compare".to_owned(),
            _ => out::table(&rows),
        };
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
        let is_rebuilding = |host_id: Uuid| {
            let peer = self.nodes.iter().find(|node| node.host_id == host_id);
            peer.and_then(|peer| peer.repair.as_ref()).is_some_and(|repair| repair.rebuilding)
        };
        let rows = repair.pairs.iter().map(|pair| {
            let unknown = || "-".to_owned();
            // What differs is known of a pair that has been compared to the end, and whose data is to be the same.
            let (agreed, keys, bytes) = match pair.agreed_ms_ago {
                _ if repair.rebuilding || is_rebuilding(pair.peer) => {
                    (unknown(), unknown(), unknown())
                }
                None => ("not yet".to_owned(), unknown(), unknown()),
                Some(ms) => (ago(ms), pair.behind_keys.to_string(), pair.behind_bytes.to_string()),
            };
            vec![
                node.address.to_string(),
                address(pair.peer),
                agreed,
                keys,
                bytes,
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use starling_client::{PairView, RepairView};
    use uuid::Uuid;

    use super::{ClusterRepair, NodeRepair};

    /// Whether a node says that it is rebuilt, nothing for one that is silent, and when it last agreed with others.
    fn node(number: u8, says: Option<bool>, pairs: &[(u8, Option<u64>)]) -> NodeRepair {
        let host_id = |number: u8| Uuid::from_u128(number.into());
        let repair = says.map(|rebuilding| {
            let pairs = pairs.iter().map(|(peer, agreed_ms_ago)| PairView {
                peer: host_id(*peer),
                agreed_ms_ago: *agreed_ms_ago,
                behind_keys: 7,
                behind_bytes: 70,
                slots_done: 1,
                slots_total: 4,
            });
            RepairView { rebuilding, pairs: pairs.collect() }
        });
        let address = SocketAddr::from(([127, 0, 0, number], 9050));
        NodeRepair { host_id: host_id(number), address, repair }
    }

    fn text(nodes: Vec<NodeRepair>) -> String {
        ClusterRepair { nodes }.text()
    }

    #[test]
    fn one_node_has_nothing_to_compare() {
        let whole = node(1, Some(false), &[]);
        assert_eq!(text(vec![whole]), "one node: there is nothing to compare");
    }

    #[test]
    fn figures_are_shown_of_pairs_that_have_been_compared() {
        let text = text(vec![
            node(1, Some(false), &[(2, Some(6_000)), (3, Some(6_000))]),
            node(2, Some(true), &[(1, None)]),
            node(3, Some(false), &[(1, None)]),
            node(4, None, &[]),
        ]);
        let columns = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<_> = text.lines().map(columns).collect();
        assert_eq!(lines[1], "127.0.0.1:9050 127.0.0.2:9050 - - - 25%");
        assert_eq!(lines[2], "127.0.0.1:9050 127.0.0.3:9050 6 s ago 7 70 25%");
        assert_eq!(lines[3], "127.0.0.2:9050 127.0.0.1:9050 - - - 25%");
        assert_eq!(lines[4], "127.0.0.3:9050 127.0.0.1:9050 not yet - - 25%");
        assert!(lines[5].starts_with("127.0.0.2:9050 lost writes and is being rebuilt"), "{text}");
        assert_eq!(lines[6], "127.0.0.4:9050 does not answer");
    }
}
