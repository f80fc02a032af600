//! One node, from its configuration to its graceful end.
//!
//! Start: open the data, bind the ports, find or found the cluster, serve. Stop: take nothing new,
//! finish what is in flight, tell the peers, flush, mark the stop clean.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use starling_ring::HostId;
use starling_storage::{Replica, StopError};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::blocking::Blocking;
use crate::config::{self, Config};
use crate::internode;
use crate::internode::server::Answering;
use crate::joining::Joining;
use crate::membership::{ClusterRecord, Genesis, GenesisFailure, PeerEvent};
use crate::native::{self, Service, Serving};
use crate::opening::{OpenedNode, Ports, StartError, bind, candidate, check_place, open};
use crate::overload::InFlight;
use crate::seams::Seams;
use crate::time::now;

/// How long requests in flight may take to finish when the node stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long telling the peers may take.
const TELL_WITHIN: Duration = Duration::from_millis(100);

/// A running node.
pub struct Node {
    replica: Arc<Replica>,
    serving: Arc<OnceLock<Arc<Serving>>>,
    genesis: Arc<Genesis>,
    ready: watch::Receiver<Progress>,
    stop_clients: CancellationToken,
    stop_peers: CancellationToken,
    tasks: TaskTracker,
    blocking: Blocking,
    /// None while the data is in memory.
    addresses: config::Listen,
}

/// How far the start has come.
#[derive(Debug, Clone)]
enum Progress {
    Starting,
    Ready,
    Failed(Arc<StartError>),
}

/// Why a node that was started never serves.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError {
    /// It cannot join its cluster; it should be stopped.
    #[error(transparent)]
    Failed(Arc<StartError>),
    /// It was stopped before.
    #[error("the node was stopped")]
    Stopped,
}

impl Node {
    /// Opens the data, binds the ports and begins to look for the cluster. Clients are answered
    /// `NotReady` until [`Node::ready`].
    ///
    /// # Errors
    /// [`StartError`]; nothing stays bound or open.
    pub async fn start(config: Config, seams: Seams) -> Result<Self, StartError> {
        let opened = open(&config, &seams).await?;
        let ports = bind(&config, &seams).await?;
        let (genesis, record) = way_in(&config, &seams, &opened)?;
        let in_flight = usize::try_from(config.limits.in_flight_bytes_max).unwrap_or(usize::MAX);
        let in_flight = InFlight::new(in_flight);
        let (progress, ready) = watch::channel(Progress::Starting);
        let node = Self {
            replica: opened.replica.clone(),
            serving: Arc::new(OnceLock::new()),
            genesis,
            ready,
            stop_clients: CancellationToken::new(),
            stop_peers: CancellationToken::new(),
            tasks: TaskTracker::new(),
            blocking: seams.blocking.clone(),
            addresses: config.listen,
        };
        node.listen(ports, &config.limits, in_flight.clone());
        if matches!(seams.blocking, Blocking::Inline) {
            let syncs = drive_syncs(node.replica.clone(), seams.random(4), seams.sync_every_max);
            node.tasks.spawn(node.stop_peers.clone().run_until_cancelled_owned(syncs));
        }
        let joining = Joining {
            config,
            seams,
            opened,
            genesis: node.genesis.clone(),
            serving: node.serving.clone(),
            in_flight,
            tasks: node.tasks.clone(),
            stop: node.stop_peers.clone(),
        };
        let stop = node.stop_peers.clone();
        node.tasks.spawn(async move {
            let outcome = match stop.run_until_cancelled(joining.run(record)).await {
                None => return,
                Some(Ok(())) => Progress::Ready,
                Some(Err(failure)) => {
                    error!(%failure, "the node cannot join its cluster");
                    Progress::Failed(Arc::new(failure))
                }
            };
            // Nobody may be waiting for readiness.
            let _nobody_waits = progress.send(outcome);
        });
        Ok(node)
    }

    /// Answers peers, clients and people on the ports that are bound.
    fn listen(&self, ports: Ports, limits: &config::Limits, in_flight: InFlight) {
        let (genesis, serving) = (self.genesis.clone(), self.serving.clone());
        let peers = internode::server::serve(
            ports.internode,
            Answering { genesis, serving },
            self.tasks.clone(),
            self.stop_peers.clone(),
        );
        self.tasks.spawn(peers);
        let waiting = self.genesis.clone();
        let waiting_for = move || waiting.missing().iter().map(ToString::to_string).collect();
        let service = Service::new(
            self.serving.clone(),
            Arc::new(waiting_for),
            limits.value_bytes_max as usize,
            in_flight,
        );
        let clients = native::serve(
            ports.native,
            Arc::new(service),
            limits.connections_max,
            self.tasks.clone(),
            self.stop_clients.clone(),
        );
        self.tasks.spawn(clients);
        if let Some(admin) = ports.admin {
            let served = crate::admin::serve(admin, self.overview(), self.stop_peers.clone());
            self.tasks.spawn(served);
        }
    }

    /// Returns when the node serves, or why it never will.
    ///
    /// # Errors
    /// [`ReadyError`].
    pub async fn ready(&self) -> Result<(), ReadyError> {
        let mut ready = self.ready.clone();
        let progress = ready.wait_for(|progress| !matches!(progress, Progress::Starting)).await;
        match progress.as_deref() {
            Ok(Progress::Failed(failure)) => Err(ReadyError::Failed(failure.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(ReadyError::Stopped),
        }
    }

    /// Where the node listens.
    #[must_use]
    pub fn addresses(&self) -> &config::Listen {
        &self.addresses
    }

    /// What the admin port and the status command show.
    #[must_use]
    pub fn overview(&self) -> Arc<crate::overview::Source> {
        Arc::new(crate::overview::Source::new(
            self.serving.clone(),
            self.genesis.clone(),
            self.blocking.clone(),
        ))
    }

    /// Stops in good order: requests, connections and late hints have [`DRAIN_WITHIN`] each, one after
    /// another, and then comes a flush.
    ///
    /// # Errors
    /// What kept the stop from being clean; the next start treats it like a crash.
    pub async fn stop(self) -> Result<(), StopError> {
        info!("stopping");
        if let Some(serving) = self.serving.get() {
            serving.stopping.store(true, Ordering::Release);
            let (told, announced) = oneshot::channel();
            serving.report(PeerEvent::Stopping { told });
            // They find out by themselves what they are not told.
            let _in_vain = tokio::time::timeout(TELL_WITHIN, announced).await;
            let in_flight = &serving.in_flight;
            until(|| in_flight.is_empty(), "requests were still in flight").await;
        }
        self.stop_clients.cancel();
        self.stop_peers.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_WITHIN, self.tasks.wait()).await.is_err() {
            warn!("some connections did not end in time");
        }
        if let Some(serving) = self.serving.get() {
            // Connections that ended have left hints for what was in flight on them.
            until(|| serving.coordinator.late_hints().is_idle(), "hints were still unwritten")
                .await;
        }
        let replica = self.replica.clone();
        self.blocking.run(move || replica.stop()).await?;
        info!("stopped");
        Ok(())
    }
}

/// The way into the cluster, and the record of it if this node has been there before.
fn way_in(
    config: &Config,
    seams: &Seams,
    opened: &OpenedNode,
) -> Result<(Arc<Genesis>, Option<ClusterRecord>), StartError> {
    let candidate = candidate(config, &opened.identity);
    let seeds: Vec<SocketAddr> = config.seeds.iter().copied().collect();
    let is_new = opened.identity.cluster_id().is_none();
    let genesis =
        Genesis::new(candidate, &seeds, seams.network.clone(), is_new, opened.record.is_some());
    let genesis = Arc::new(genesis.map_err(GenesisFailure::from)?);
    if let Some(record) = &opened.record {
        check_place(config, opened.identity.host_id(), record)?;
    }
    Ok((genesis, opened.record.clone()))
}

/// Syncs the log where no thread does: in a simulation.
async fn drive_syncs(replica: Arc<Replica>, mut random: StdRng, every_max: Duration) {
    loop {
        tokio::time::sleep(every_max.mul_f64(random.random_range(0.1..=1.0))).await;
        replica.commit().sync_now();
    }
}

/// Waits until it is so, for [`DRAIN_WITHIN`] at most.
async fn until(holds: impl Fn() -> bool, otherwise: &'static str) {
    let until = now() + DRAIN_WITHIN;
    while !holds() {
        if now() >= until {
            return warn!("{otherwise}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The id of this node: for tests that compare what two nodes believe.
impl Node {
    /// This node's id.
    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.replica.identity().host_id()
    }
}
