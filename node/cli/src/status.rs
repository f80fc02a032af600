//! `starling status` and `starling health`: the cluster as one node sees it.

use std::process::ExitCode;

use starling_client::Status;
use starling_node::overview::{NodeOverview, Overview, Verdict};

use crate::args::{HealthArgs, StatusArgs};
use crate::failure::Failure;
use crate::{connect, exit, out};

/// Shows the cluster. Whatever keeps a node from answering is 12, unreachable.
pub async fn status(args: &StatusArgs) -> Result<ExitCode, Failure> {
    let overview = match overview(args).await {
        Ok(overview) => overview,
        Err(failure) => {
            out::note(failure.to_string());
            return Ok(exit::UNREACHABLE.into());
        }
    };
    if args.json {
        out::json(&overview);
    } else {
        out::line(text(&overview));
    }
    Ok(match overview.verdict {
        Verdict::Healthy => exit::DONE,
        Verdict::Degraded => exit::DEGRADED.into(),
        Verdict::BelowQuorum => exit::BELOW_QUORUM.into(),
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

fn text(overview: &Overview) -> String {
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
    if overview.hints_pending > 0 {
        lines.push(format!(
            "hints: {} writes are kept for nodes that missed them",
            overview.hints_pending
        ));
    }
    lines.join("\n")
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
    };
    match node.down_for_ms {
        Some(ms) => format!("{word} {} s", ms / 1000),
        None => word.to_owned(),
    }
}
