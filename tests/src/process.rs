//! One node as a child process.
//!
//! Invariant: no process outlives its `Node`, nor the process that made it: the child reads a pipe from
//! here and stops when it ends, and dropping the `Node` kills it. A restarted node keeps its address, its
//! data and its log.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use starling_node::time::now;
use tokio::time::sleep;

use crate::address::{ADMIN_PORT, INTERNODE_PORT, NATIVE_PORT};
use crate::admin::{self, Answer};
use crate::binary;

/// How often a condition is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// One request to the admin port.
const ADMIN_WITHIN: Duration = Duration::from_secs(5);
/// Lines of a log in the message of a failure.
const LOG_LINES_SHOWN: usize = 20;

/// A node, running or not. Numbers, as in [`crate::Cluster`], begin with 1.
#[derive(Debug)]
pub struct Node {
    number: u8,
    address: Ipv4Addr,
    folder: PathBuf,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

impl Node {
    /// A node with its configuration in `folder/nodeN.toml`, its data in `folder/nodeN` and its log in
    /// `folder/nodeN.log`. It is not started.
    pub(crate) fn new(number: u8, address: Ipv4Addr, folder: &Path) -> Node {
        Node { number, address, folder: folder.to_owned(), environment: Vec::new(), child: None }
    }

    /// Where clients connect.
    pub fn native_address(&self) -> SocketAddr {
        SocketAddr::from((self.address, NATIVE_PORT))
    }

    /// Where other nodes connect.
    pub fn internode_address(&self) -> SocketAddr {
        SocketAddr::from((self.address, INTERNODE_PORT))
    }

    /// Where the admin port listens.
    pub fn admin_address(&self) -> SocketAddr {
        SocketAddr::from((self.address, ADMIN_PORT))
    }

    /// The configuration file; a test may change it between two starts.
    pub fn config_path(&self) -> PathBuf {
        self.folder.join(format!("node{}.toml", self.number))
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join(format!("node{}", self.number))
    }

    /// Everything the node has written to standard output and error, over all its starts.
    pub fn log(&self) -> String {
        // A node that was never started has no log.
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Sets a variable of the environment for later starts, as libfaketime's `LD_PRELOAD`.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the process; it serves once [`Node::ready`] returns.
    ///
    /// # Panics
    /// If it runs already, or cannot be started.
    pub fn start(&mut self) {
        assert!(!self.is_running(), "node {} runs already", self.number);
        let open = || {
            let log = File::options().create(true).append(true).open(self.log_path());
            log.expect("the folder of the cluster can be written")
        };
        let mut command = Command::new(binary::path("starling"));
        command.args(["start", "--exit-with-parent", "--config"]).arg(self.config_path());
        command.current_dir(&self.folder);
        command.stdin(Stdio::piped()).stdout(open()).stderr(open());
        for (variable, _) in std::env::vars_os() {
            // These would set configuration keys, the same on every node.
            if variable.to_string_lossy().starts_with("STARLING_") {
                command.env_remove(variable);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.spawn().expect("the node's binary can be run"));
    }

    /// Whether there is a process, be it paused.
    pub fn is_running(&mut self) -> bool {
        self.exited().is_none() && self.child.is_some()
    }

    /// The id of the process, if there is one.
    pub fn process_id(&mut self) -> Option<u32> {
        if self.is_running() { self.child.as_ref().map(Child::id) } else { None }
    }

    /// Waits until the node serves.
    ///
    /// # Panics
    /// If it exits first, or takes longer than `within`; with the end of its log.
    pub async fn ready(&mut self, within: Duration) {
        if let Err(why) = self.serves(within).await {
            panic!("{why}:\n{}", self.log_end());
        }
    }

    /// Waits until the node serves.
    ///
    /// # Errors
    /// What happened instead: it exited first, or takes longer than `within`.
    pub async fn serves(&mut self, within: Duration) -> Result<(), String> {
        let until = now() + within;
        loop {
            if let Ok(Answer { status: 200, .. }) = self.ask("/health/ready").await {
                return Ok(());
            }
            if let Some(status) = self.exited() {
                return Err(format!("node {} ended with {status}", self.number));
            }
            if now() >= until {
                return Err(format!("node {} does not serve after {within:?}", self.number));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Panics
    /// If it was not started, or goes on for longer than `within`.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let until = now() + within;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(
                now() < until,
                "node {} still runs after {within:?}:\n{}",
                self.number,
                self.log_end()
            );
            sleep(LOOK_EVERY).await;
        }
    }

    /// Kills the process with SIGKILL, as kill -9 does, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself a moment ago, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Stops the process in good order with SIGTERM; its exit status.
    ///
    /// # Panics
    /// As [`Node::exit`].
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.ask_to_stop();
        let status = self.exit(within).await;
        self.child = None;
        status
    }

    /// Asks the process to stop in good order (SIGTERM), and does not wait for it.
    pub fn ask_to_stop(&self) {
        self.signal(Signal::TERM);
    }

    /// Stops the process from running at all, with its connections open (SIGSTOP).
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks the admin port.
    ///
    /// # Errors
    /// No connection, or no answer within seconds.
    pub async fn ask(&self, path: &str) -> std::io::Result<Answer> {
        admin::get(self.admin_address(), path, ADMIN_WITHIN).await
    }

    /// Bytes of memory that the process has resident.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that [`Node::resident_bytes`] ever was since the start.
    ///
    /// # Panics
    /// If it does not run.
    pub fn resident_bytes_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> u64 {
        let child = self.child.as_ref().expect("a running node");
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.expect("the process is there");
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.expect("the kernel reports memory") << 10
    }

    /// The end of the log, for messages.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Where [`Node::log`] is.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join(format!("node{}.log", self.number))
    }

    /// How the process ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("the child can be waited for")
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("a running node");
        kill_process(Pid::from_child(child), signal).expect("the child can be signalled");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
