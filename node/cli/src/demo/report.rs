//! What the demo says: sentences for people, or one JSON object a line for machines.

use serde::Serialize;
use starling_node::overview::Overview;

use crate::{out, status};

/// Lines between two headers.
const HEADER_EVERY: u64 = 20;

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All nodes serve.
    Started {
        /// Where clients connect.
        nodes: Vec<String>,
        /// Where the data is.
        data: String,
        /// Whether it is deleted at the end.
        temporary: bool,
    },
    /// A second has passed.
    Second(Second),
    /// A node was killed with SIGKILL.
    Killed {
        /// Its name.
        node: String,
        /// Its process.
        process_id: Option<u32>,
    },
    /// What the cluster looks like without it.
    Without {
        /// Its name.
        node: String,
        /// The share of slots with a quorum, and not all replicas.
        degraded: f64,
        /// Slots without a quorum.
        below_quorum: u64,
    },
    /// It runs again.
    Restarted {
        /// Its name.
        node: String,
        /// From start to serving.
        took_ms: u64,
    },
    /// No node owes another a write.
    HintsSettled,
    /// The end.
    Checked(Checked),
}

/// One second of load.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Second {
    /// Seconds since the load began.
    pub at_s: u64,
    /// Requests that succeeded.
    pub ok_per_s: u64,
    /// Requests that failed, this second.
    pub errors: u64,
    /// Median latency.
    pub p50_us: u64,
    /// 99th percentile of latency.
    pub p99_us: u64,
    /// Nodes that are up.
    pub up: usize,
    /// Nodes there are.
    pub nodes: usize,
    /// Writes that nodes owe to others.
    pub hints: u64,
}

/// What the reading back of everything found.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Writes that were acknowledged at QUORUM.
    pub acked_writes: u64,
    /// Keys read at ALL.
    pub keys: u64,
    /// Requests that failed during the whole run.
    pub errors: u64,
    /// Acknowledged values that are gone.
    pub lost: u64,
    /// Values older than the acknowledged one.
    pub stale: u64,
    /// Values that had been replaced or deleted.
    pub resurrected: u64,
    /// Whether the scan hashes of all nodes are equal.
    pub replicas_equal: bool,
    /// Keys in the bucket, and its hash, by node.
    pub digests: Vec<NodeDigest>,
    /// Whether everything is as it should be.
    pub passed: bool,
}

/// What one node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeDigest {
    /// Its name.
    pub node: String,
    /// Keys in the bucket.
    pub keys: u64,
    /// The hash over all of them.
    pub digest: String,
}

/// Tells what happens.
pub struct Report {
    json: bool,
    seconds: u64,
}

impl Report {
    /// For machines with `json`, else for people.
    pub fn new(json: bool) -> Self {
        Self { json, seconds: 0 }
    }

    /// A line for people that machines do not need.
    pub fn say(&self, text: impl AsRef<str>) {
        if !self.json {
            out::line(text);
        }
    }

    /// The table of nodes.
    pub fn table(&self, overview: &Overview) {
        self.say(status::nodes(overview));
    }

    /// Something happened.
    pub fn tell(&mut self, event: &Event) {
        if self.json {
            out::json(event);
            return;
        }
        match event {
            Event::Second(second) => self.second(second),
            other => out::line(sentence(other)),
        }
    }

    /// A line a second, under a header that comes again before the one before has left the screen.
    fn second(&mut self, second: &Second) {
        if self.seconds.is_multiple_of(HEADER_EVERY) {
            out::line("      s      ok/s   err    p50 ms    p99 ms   up     hints");
        }
        self.seconds += 1;
        out::line(format!(
            "  {:>5}  {:>8}  {:>4}  {:>8.2}  {:>8.2}  {}/{}  {:>8}",
            second.at_s,
            grouped(second.ok_per_s),
            second.errors,
            milliseconds(second.p50_us),
            milliseconds(second.p99_us),
            second.up,
            second.nodes,
            grouped(second.hints),
        ));
    }
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Started { nodes, data, temporary } => {
            let fate = if *temporary { "is temporary and deleted at the end" } else { "is kept" };
            format!("connect to {}\ndata in {data} {fate}\n", nodes.join(", "))
        }
        Event::Killed { node, process_id } => {
            let process = process_id.map_or_else(String::new, |id| format!(" (process {id})"));
            format!("\nkill -9 {node}{process}, under load at QUORUM")
        }
        Event::Without { node, degraded, below_quorum } => format!(
            "without {node}: {:.0}% of slots at 2/3, {below_quorum} below quorum",
            degraded * 100.0
        ),
        Event::Restarted { node, took_ms } => {
            format!(
                "\n{node} is back and serves after {took_ms} ms; the others send what it missed"
            )
        }
        Event::HintsSettled => "no hints are owed any more".to_owned(),
        Event::Checked(checked) => verdict(checked),
        Event::Second(_) => String::new(),
    }
}

fn verdict(checked: &Checked) -> String {
    let mut lines = vec![format!(
        "\nchecked {} acknowledged writes at QUORUM: {} lost, {}",
        grouped(checked.acked_writes),
        checked.lost,
        if checked.replicas_equal { "replicas equal" } else { "REPLICAS DIFFER" },
    )];
    lines.push(format!(
        "  {} keys read at ALL, {} stale, {} resurrected; {} requests failed",
        grouped(checked.keys),
        checked.stale,
        checked.resurrected,
        checked.errors
    ));
    for digest in &checked.digests {
        let keys = grouped(digest.keys);
        lines.push(format!("  {} holds {keys} keys, scan hash {}", digest.node, digest.digest));
    }
    if !checked.passed {
        lines.push(
            "error[S950] the demo has FAILED: what was acknowledged is not all there".to_owned(),
        );
    }
    lines.join("\n")
}

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// `118402` as `118,402`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (118_402, "118,402"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
