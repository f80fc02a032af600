//! The demo's nodes: real child processes of this very binary, killed for real.
//!
//! No orphans: each child reads its standard input and stops when that ends, which the kernel sees
//! to even when this process is killed.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use starling_node::config::{Config, Listen, Overrides};
use starling_node::overview::{Digest, NodeState, Overview};
use starling_node::time::now;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::failure::Failure;
use crate::http;

/// The very files that a person starts the nodes from.
const CONFIGS: [&str; 3] = [
    include_str!("../../../../config/demo/node1.toml"),
    include_str!("../../../../config/demo/node2.toml"),
    include_str!("../../../../config/demo/node3.toml"),
];
/// How long the nodes may take to find one another.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a node may take to stop in good order.
const STOP_WITHIN: Duration = Duration::from_secs(15);
const ASK_EVERY: Duration = Duration::from_millis(50);
const ADMIN_WITHIN: Duration = Duration::from_secs(2);
/// A digest scans the whole bucket.
const DIGEST_WITHIN: Duration = Duration::from_secs(60);
/// Lines of a node's log that are shown when it does not start.
const LOG_LINES_SHOWN: usize = 12;

/// One node, running or not.
pub struct DemoNode {
    /// `n1`, `n2`, `n3`.
    pub name: String,
    /// Where it listens.
    pub listen: Listen,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

/// Writes the configurations of the nodes below `dir`, for the loopback network `network`.
pub fn prepare(dir: &Path, network: &str) -> Result<Vec<DemoNode>, Failure> {
    CONFIGS.iter().zip(1..).map(|(text, number)| node(dir, network, text, number)).collect()
}

fn node(dir: &Path, network: &str, text: &str, number: usize) -> Result<DemoNode, Failure> {
    let name = format!("n{number}");
    let data_dir = dir.join(format!("node{number}"));
    let text = text.replace("127.0.0.", &format!("{network}."));
    let overrides = Overrides::default().with("data_dir", data_dir.to_string_lossy());
    let written = dir.join(format!("node{number}.toml"));
    let config = Config::parse(&written, &text, &overrides)?;
    fs::create_dir_all(dir)?;
    // What is on disk is what runs, so that `--keep` leaves files that start the same cluster.
    fs::write(&written, config.effective())?;
    let log = dir.join(format!("node{number}.log"));
    Ok(DemoNode { name, listen: config.listen, config: written, log, child: None })
}

impl DemoNode {
    /// Says so, with the way out, when another process has one of the node's ports.
    pub fn check_ports(&self) -> Result<(), Failure> {
        let listen = self.listen;
        for address in [listen.native, listen.internode, listen.admin] {
            TcpListener::bind(address).map_err(|error| Failure::Start {
                problem: format!(
                    "{} cannot listen on {address}: {error}; stop the process that has the port, or name another network, as in --network 127.0.1",
                    self.name
                ),
                file: None,
            })?;
        }
        Ok(())
    }

    /// Starts the process; it serves once [`DemoNode::ready`] returns.
    pub fn start(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["start", "--exit-with-parent", "--config"]).arg(&self.config);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        // One variable of this shell would set the same key on all nodes.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("STARLING_") {
                command.env_remove(variable);
            }
        }
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Waits until the node serves.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        let until = now() + READY_WITHIN;
        loop {
            if let Ok(overview) = self.overview().await
                && overview.state == NodeState::Serving
            {
                return Ok(());
            }
            let exited = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if let Some(status) = exited {
                return Err(self.failed(&format!("ended with {status}")));
            }
            if now() > until {
                return Err(self.failed("does not serve yet"));
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// SIGKILL: no drain, no flush, no goodbye.
    pub async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// Stops in good order: the child's standard input ends. One that has ended by itself is no
    /// news here: [`DemoNode::ready`] has told.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            drop(child.stdin.take());
            match timeout(STOP_WITHIN, child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(_) => return Err(self.failed("did not stop cleanly")),
                Err(_) => {
                    child.kill().await?;
                    return Err(self.failed("did not stop in time and was killed"));
                }
            }
        }
        Ok(())
    }

    /// The process id, for a person who wants to look.
    pub fn process_id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// The cluster as this node sees it.
    pub async fn overview(&self) -> std::io::Result<Overview> {
        http::get(self.listen.admin, "/status".to_owned(), ADMIN_WITHIN).await
    }

    /// What the node holds of a bucket.
    pub async fn digest(&self, bucket: &str) -> std::io::Result<Digest> {
        let path = format!("/v1/digest?bucket={bucket}");
        http::get(self.listen.admin, path, DIGEST_WITHIN).await
    }

    fn failed(&self, problem: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n    ");
        Failure::Demo {
            problem: format!(
                "{} ({}) {problem}; its log ends with\n    {tail}",
                self.name, self.listen.native
            ),
        }
    }
}

/// Where clients reach the nodes.
pub fn contact_points(nodes: &[DemoNode]) -> Vec<SocketAddr> {
    nodes.iter().map(|node| node.listen.native).collect()
}
