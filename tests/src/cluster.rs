//! A cluster of real processes in a temporary folder.
//!
//! Invariant: when a [`Cluster`] is dropped its processes are gone; its folder is gone too, unless the
//! test failed: then configurations, data and logs are kept, and where is printed.
//!
//! ```no_run
//! # async fn example() {
//! use starling_tests::Cluster;
//!
//! let mut cluster = Cluster::builder().nodes(3).keyspace("demo", 3).start().await;
//! let client = cluster.client().await;
//! cluster.node(2).kill();
//! // ...
//! cluster.node(2).start();
//! cluster.node(2).ready(starling_tests::cluster::READY_WITHIN).await;
//! # }
//! ```

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use starling_client::{Client, Status};
use starling_node::overview::{Digest, Overview};
use starling_node::time::now;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::address::{INTERNODE_PORT, Network};
use crate::process::Node;

/// How long a node may take to serve, on a machine that also runs other tests.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// All nodes forget what was deleted within so much of one another: less than it takes them to compare what they hold.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(3);
/// Between two looks at a condition.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Describes a cluster. Defaults: three nodes, and the keyspace `demo` with three replicas, or as many
/// as there are nodes.
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    nodes: u8,
    keyspaces: Vec<(String, u8)>,
    lww_buckets: Vec<(String, String)>,
    settings: Vec<(String, String)>,
}

impl ClusterBuilder {
    /// How many nodes there are.
    pub fn nodes(mut self, nodes: u8) -> ClusterBuilder {
        self.nodes = nodes;
        self
    }

    /// Adds a keyspace; with it the default one is gone.
    pub fn keyspace(mut self, name: &str, replication: u8) -> ClusterBuilder {
        self.keyspaces.push((name.to_owned(), replication));
        self
    }

    /// Makes a bucket of a keyspace `lww`.
    pub fn lww_bucket(mut self, keyspace: &str, bucket: &str) -> ClusterBuilder {
        self.lww_buckets.push((keyspace.to_owned(), bucket.to_owned()));
        self
    }

    /// Sets a configuration key of every node to a value as TOML writes it:
    /// `setting("limits.value_max", "\"1KiB\"")`.
    pub fn setting(mut self, key: &str, value: &str) -> ClusterBuilder {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Writes the configurations and starts nothing.
    pub fn prepare(self) -> Cluster {
        let network = Network::claim(self.nodes);
        let folder = tempfile::Builder::new().prefix("starling-test-").tempdir();
        let folder = folder.expect("the temporary folder can be written");
        let nodes: Vec<_> = (1..=self.nodes)
            .map(|number| {
                let node = Node::new(number, network.node(number), folder.path());
                fs::write(node.config_path(), self.config(network, number, &node))
                    .expect("the temporary folder can be written");
                node
            })
            .collect();
        Cluster { network, nodes, folder: Some(folder) }
    }

    /// Starts every node and waits until all serve.
    ///
    /// # Panics
    /// If a node does not serve; with the end of its log.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        cluster.start().await;
        cluster
    }

    fn config(&self, network: Network, number: u8, node: &Node) -> String {
        let seeds: Vec<_> = (1..=self.nodes)
            .map(|seed| format!("\"{}:{INTERNODE_PORT}\"", network.node(seed)))
            .collect();
        let mut config = String::new();
        let mut line = |key: &str, value: &str| {
            writeln!(config, "{key} = {value}").expect("a string can be written");
        };
        line("cluster_name", "\"test\"");
        line("data_dir", &format!("{:?}", node.data_dir()));
        line("rack", &format!("\"rack{number}\""));
        line("seeds", &format!("[{}]", seeds.join(", ")));
        line("listen.address", &format!("\"{}\"", network.node(number)));
        line("listen.admin", &format!("\"{}\"", node.admin_address()));
        for (key, value) in &self.settings {
            line(key, value);
        }
        let default = [("demo".to_owned(), self.nodes.min(3))];
        let keyspaces = if self.keyspaces.is_empty() { &default[..] } else { &self.keyspaces };
        for (keyspace, replication) in keyspaces {
            line(&format!("keyspaces.{keyspace}.replication"), &replication.to_string());
            let lww = self.lww_buckets.iter().filter(|(of, _)| of == keyspace);
            for (_, bucket) in lww {
                line(&format!("keyspaces.{keyspace}.buckets.{bucket}"), "\"lww\"");
            }
        }
        config
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    network: Network,
    nodes: Vec<Node>,
    /// `None` once it is to be kept.
    folder: Option<TempDir>,
}

impl Cluster {
    /// A description to begin with.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            nodes: 3,
            keyspaces: Vec::new(),
            lww_buckets: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// Starts every node that does not run, and waits until all serve.
    ///
    /// # Panics
    /// As [`Node::ready`].
    pub async fn start(&mut self) {
        for node in &mut self.nodes {
            if !node.is_running() {
                node.start();
            }
        }
        for node in &mut self.nodes {
            node.ready(READY_WITHIN).await;
        }
    }

    /// A node, from 1.
    pub fn node(&mut self, number: u8) -> &mut Node {
        &mut self.nodes[usize::from(number) - 1]
    }

    /// Every node, in order.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The folder with the configurations, the data and the logs.
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("only dropping takes the folder").path()
    }

    /// Where its nodes listen.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Ends every process and keeps the folder, whose path it returns.
    pub fn keep(mut self) -> PathBuf {
        self.nodes.iter_mut().for_each(Node::kill);
        self.folder.take().expect("only dropping and this take the folder").keep()
    }

    /// Where clients connect.
    pub fn contact_points(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.native_address().to_string()).collect()
    }

    /// A client of the cluster that knows every node.
    ///
    /// # Panics
    /// If no node answers.
    pub async fn client(&self) -> Client {
        let mut builder = Client::builder();
        for address in self.contact_points() {
            builder = builder.contact_point(address);
        }
        builder.build().await.expect("a node of the cluster answers")
    }

    /// The cluster as node `number` sees it; `None` if it does not answer.
    pub async fn overview(&self, number: u8) -> Option<Overview> {
        let answer = self.nodes[usize::from(number) - 1].ask("/v1/overview").await.ok()?;
        Some(serde_json::from_str(&answer.body).expect("the overview is JSON"))
    }

    /// Waits until `holds` of the cluster as node `number` sees it.
    ///
    /// # Panics
    /// If it does not within `within`.
    pub async fn wait_until(
        &self,
        number: u8,
        within: Duration,
        holds: impl Fn(&Overview) -> bool,
    ) -> Overview {
        let until = now() + within;
        loop {
            let overview = self.overview(number).await;
            if let Some(overview) = overview.as_ref().filter(|overview| holds(overview)) {
                return overview.clone();
            }
            assert!(now() < until, "still so after {within:?} at node {number}: {overview:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until every running node is sure that `up` nodes are up, and connected to them.
    ///
    /// # Panics
    /// If one does not within `within`.
    pub async fn wait_until_up(&mut self, up: usize, within: Duration) {
        let running = self.running();
        for number in running {
            self.wait_until(number, within, |overview| sees_up(overview, up)).await;
        }
    }

    /// Waits until no running node owes another a write.
    ///
    /// # Panics
    /// If one still does after `within`.
    pub async fn wait_until_settled(&mut self, within: Duration) {
        let running = self.running();
        for number in running {
            self.wait_until(number, within, |overview| overview.hints_pending == 0).await;
        }
    }

    /// Waits until `holds` of what `/metrics` of node `number` says.
    ///
    /// # Panics
    /// If it does not within `within`.
    pub async fn wait_for_metrics(
        &self,
        number: u8,
        within: Duration,
        holds: impl Fn(&str) -> bool,
    ) {
        let until = now() + within;
        loop {
            let answer = self.nodes[usize::from(number) - 1].ask("/metrics").await;
            if answer.as_ref().is_ok_and(|answer| holds(&answer.body)) {
                return;
            }
            assert!(now() < until, "still not so after {within:?} at node {number}: {answer:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    /// The count of keys and the scan hash of a bucket at node `number`.
    ///
    /// # Panics
    /// If the node does not answer.
    pub async fn digest(&self, number: u8, bucket: &str) -> Digest {
        let node = &self.nodes[usize::from(number) - 1];
        let answer = node.ask(&format!("/v1/digest?bucket={bucket}")).await;
        let answer = answer.expect("a running node answers");
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("the digest is JSON")
    }

    /// The digest of a bucket, which all nodes share; or will in a moment, if they are just forgetting deletes.
    ///
    /// # Panics
    /// If one has another, or does not answer.
    pub async fn assert_equal(&self, bucket: &str) -> Digest {
        self.wait_until_equal(bucket, FORGOTTEN_WITHIN).await
    }

    /// Waits until all nodes hold the same of a bucket. Reads nothing: a read would repair.
    ///
    /// # Panics
    /// If they do not within `within`, or one does not answer.
    pub async fn wait_until_equal(&self, bucket: &str, within: Duration) -> Digest {
        let until = now() + within;
        loop {
            let mut digests = Vec::new();
            for (_, number) in self.nodes.iter().zip(1..) {
                digests.push(self.digest(number, bucket).await);
            }
            if digests.iter().all(|digest| *digest == digests[0]) {
                return digests.swap_remove(0);
            }
            assert!(now() < until, "still different after {within:?}: {digests:?}");
            sleep(LOOK_EVERY).await;
        }
    }

    fn running(&mut self) -> Vec<u8> {
        let numbered = self.nodes.iter_mut().zip(1..);
        let running = numbered.filter_map(|(node, number)| node.is_running().then_some(number));
        running.collect()
    }
}

/// Whether the node whose view it is reaches exactly `up` nodes, itself among them, and doubts none.
pub(crate) fn sees_up(overview: &Overview, up: usize) -> bool {
    let count = |status| overview.nodes.iter().filter(|node| node.status == status).count();
    count(Status::Up) == up && count(Status::Suspect) == 0
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.kill();
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            let kept = folder.keep();
            eprintln!("the cluster's configurations, data and logs are kept in {}", kept.display());
            for node in &self.nodes {
                eprintln!("--- end of node {}'s log\n{}", node.native_address(), node.log_end());
            }
        }
    }
}
