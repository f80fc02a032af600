//! Three nodes with three replicas of everything, and a session to each that runs.
//!
//! Invariant: when a method returns, the running nodes know of one another who is up, so that a quorum
//! answers at once. It says what is shown, not what ought to be.

use std::collections::BTreeMap;

use starling_protocol::Level;

use crate::cluster::{Cluster, ClusterBuilder, READY_WITHIN};
use crate::session::Session;

/// See the module.
#[derive(Debug)]
pub struct Trio {
    cluster: Cluster,
    bucket: String,
    sessions: BTreeMap<u8, Session>,
}

impl Trio {
    /// Starts three nodes as described, and opens `bucket` at each.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub async fn start(described: ClusterBuilder, bucket: &str) -> Trio {
        let cluster = described.nodes(3).start().await;
        let mut trio = Trio { cluster, bucket: bucket.to_owned(), sessions: BTreeMap::new() };
        trio.cluster.wait_until_up(3, READY_WITHIN).await;
        for number in 1..=3 {
            trio.open(number).await;
        }
        trio
    }

    /// The cluster. Who stops a node through it does without the session's care.
    pub fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// The session with a node that runs.
    ///
    /// # Panics
    /// If it does not.
    pub fn at(&mut self, number: u8) -> &mut Session {
        self.sessions.get_mut(&number).unwrap_or_else(|| panic!("node {number} does not run"))
    }

    /// Another session with a node.
    pub async fn another_at(&mut self, number: u8) -> Session {
        Session::open(self.cluster.node(number), &self.bucket).await
    }

    /// The nodes that run.
    pub fn up(&self) -> Vec<u8> {
        self.sessions.keys().copied().collect()
    }

    /// The nodes that were killed.
    pub fn down(&self) -> Vec<u8> {
        (1..=3).filter(|number| !self.sessions.contains_key(number)).collect()
    }

    /// Kills a node with SIGKILL; the others know when this returns.
    pub async fn kill(&mut self, number: u8) {
        self.sessions.remove(&number);
        self.cluster.node(number).kill();
        self.cluster.wait_until_up(self.sessions.len(), READY_WITHIN).await;
    }

    /// Starts a node that was killed; it serves and the others know when this returns.
    pub async fn restart(&mut self, number: u8) {
        self.cluster.node(number).start();
        self.cluster.node(number).ready(READY_WITHIN).await;
        self.cluster.wait_until_up(self.sessions.len() + 1, READY_WITHIN).await;
        self.open(number).await;
    }

    /// The siblings that every running node shows at a level, in alphabetical order.
    ///
    /// # Panics
    /// If the nodes do not show the same, or one cannot tell.
    pub async fn shown(&mut self, key: &str, level: Level) -> Vec<String> {
        let mut first: Option<Vec<String>> = None;
        for (number, session) in &mut self.sessions {
            let value = session.get(key, level, None).await;
            let value = value.unwrap_or_else(|error| panic!("{key} at {number}: {error}"));
            let mut shown: Vec<_> =
                value.siblings.iter().map(|value| String::from_utf8_lossy(value).into()).collect();
            shown.sort();
            let first = first.get_or_insert_with(|| shown.clone());
            assert_eq!(*first, shown, "{key} at {level:?} through node {number}");
        }
        first.expect("a node runs")
    }

    async fn open(&mut self, number: u8) {
        let session = self.another_at(number).await;
        self.sessions.insert(number, session);
    }
}
