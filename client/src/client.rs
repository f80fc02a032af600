//! The client: a cluster, its defaults, its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use starling_protocol::{Request, Response, SnapshotView, StatusView, TopologyView};
use starling_ring::{ConsistencyLevel, Ring};
use tokio::time::MissedTickBehavior;

use crate::bucket::Bucket;
use crate::builder::ClientBuilder;
use crate::cluster::{Cluster, NodeHandle, ReachError};
use crate::error::Error;
use crate::seams::Seams;

/// How often the ring and the nodes' states are asked for again.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// A handle to a cluster: cheap to clone, shared by any number of tasks. The connections close
/// when the last clone, and the last bucket made from it, are dropped.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

/// What all clones share.
pub(crate) struct Shared {
    pub(crate) cluster: Cluster,
    pub(crate) consistency: ConsistencyLevel,
    pub(crate) read_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retried: AtomicU64,
    pub(crate) repeated: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) seams: Arc<dyn Seams>,
}

/// What a client has counted since it was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Requests sent again.
    pub retried: u64,
    /// Writes that were acknowledged after an earlier attempt which may have been applied too.
    pub repeated: u64,
    /// Writes that ended without a known outcome.
    pub unknown: u64,
}

impl Client {
    /// A client to be configured.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn start(shared: Shared) -> Self {
        let shared = Arc::new(shared);
        let watched = Arc::downgrade(&shared);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(REFRESH_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(shared) = watched.upgrade() else { return };
                shared.cluster.refresh().await;
            }
        });
        Self { shared }
    }

    /// The bucket `keyspace.bucket`, made on first use.
    ///
    /// # Errors
    /// A name that no bucket can have, an unknown keyspace, or no node that answers.
    pub async fn bucket(&self, name: &str) -> Result<Bucket, Error> {
        let bucket = Bucket::new(self.shared.clone(), name);
        bucket.check().await?;
        Ok(bucket)
    }

    /// The cluster as one of its nodes sees it: the contact point that answered first, if it still does.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn status(&self) -> Result<StatusView, Error> {
        let known = self.shared.cluster.known.load_full();
        let introduced_by = self.shared.cluster.introduced_by;
        let (first, others): (Vec<_>, Vec<_>) =
            known.nodes.iter().partition(|node| node.address == introduced_by);
        self.ask_status(&Request::Status, first.into_iter().chain(others)).await
    }

    /// Tells the node at the contact point that what it and its peers hold is all there is: if it lost writes, it answers reads again.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn accept_loss(&self) -> Result<StatusView, Error> {
        let known = self.shared.cluster.known.load_full();
        let introduced_by = self.shared.cluster.introduced_by;
        let nodes = known.nodes.iter().filter(|node| node.address == introduced_by);
        self.ask_status(&Request::AcceptLoss, nodes).await
    }

    /// Has the node at the contact point make a snapshot of what it holds, within `timeout`.
    ///
    /// # Errors
    /// When that node does not answer, or made none.
    pub async fn create_snapshot(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Result<SnapshotView, Error> {
        let request = Request::CreateSnapshot { name: name.to_owned() };
        let made = self.ask_snapshots(&request, timeout).await?;
        made.into_iter().next().ok_or_else(|| Error::Protocol {
            message: "the node made a snapshot and does not say which".to_owned(),
            unknown: true,
        })
    }

    /// The snapshots of the node at the contact point, by name.
    ///
    /// # Errors
    /// When that node does not answer.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, Error> {
        self.ask_snapshots(&Request::Snapshots, self.shared.attempt_timeout).await
    }

    async fn ask_snapshots(
        &self,
        request: &Request,
        timeout: Duration,
    ) -> Result<Vec<SnapshotView>, Error> {
        let known = self.shared.cluster.known.load_full();
        let introduced_by = self.shared.cluster.introduced_by;
        let node = known.nodes.iter().find(|node| node.address == introduced_by);
        let unreachable = |why: String| Error::Unreachable { tried: vec![why] };
        let node = node.ok_or_else(|| unreachable("the contact point has gone".to_owned()))?;
        let within = self.shared.cluster.connect_timeout();
        let answer = node.ask(request, within, timeout).await.and_then(|answer| match answer {
            Response::Snapshots(found) => Ok(found),
            _ => Err(ReachError::Unexpected { asked: "snapshots" }),
        });
        answer.map_err(|error| match error {
            ReachError::Refused(error) => Error::Refused { error, unknown: false },
            error => unreachable(format!("{}: {error}", node.address)),
        })
    }

    /// Asks one after the other until one answers.
    async fn ask_status<'a>(
        &self,
        request: &Request,
        nodes: impl Iterator<Item = &'a Arc<NodeHandle>>,
    ) -> Result<StatusView, Error> {
        let mut tried = Vec::new();
        for node in nodes {
            let within = self.shared.cluster.connect_timeout();
            let error = match node.ask(request, within, self.shared.attempt_timeout).await {
                Ok(Response::Status(status)) => return Ok(status),
                Ok(_) => ReachError::Unexpected { asked: "its status" },
                Err(error) => error,
            };
            tried.push(format!("{}: {error}", node.address));
        }
        Err(Error::Unreachable { tried })
    }

    /// The ring, asked for anew.
    ///
    /// # Errors
    /// None at present: where no node answers, the ring as last heard.
    pub async fn topology(&self) -> Result<TopologyView, Error> {
        self.shared.cluster.refresh().await;
        Ok(self.shared.cluster.known.load().view.clone())
    }

    /// The ring as last heard, ready to tell a key's replicas.
    #[must_use]
    pub fn ring(&self) -> Arc<Ring> {
        self.shared.cluster.known.load().ring.clone()
    }

    /// What this client has counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            retried: self.shared.retried.load(Ordering::Relaxed),
            repeated: self.shared.repeated.load(Ordering::Relaxed),
            unknown: self.shared.unknown.load(Ordering::Relaxed),
        }
    }
}
