//! One node, from its configuration to its graceful end.
//!
//! Start: open the data, bind the ports, find or found the cluster, serve. Stop: take nothing new,
//! finish what is in flight, tell the peers, flush, mark the stop clean.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use starling_ring::{Candidate, ClusterId, HostId, Ring};
use starling_storage::{IdentityError, Replica, StopError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::blocking::Blocking;
use crate::config::{self, Config};
use crate::coordinator::{self, Coordinator};
use crate::disk;
use crate::handoff::Handoff;
use crate::internode::links::LinkContext;
use crate::internode::server::Answering;
use crate::internode::{self, Links};
use crate::local::Local;
use crate::membership::{
    ClusterRecord, Driver, Found, Genesis, GenesisFailure, LivenessTable, PeerEvent,
};
use crate::native::{self, Service, Serving};
use crate::opening::{
    OpenedNode, StartError, bind, candidate, check_unchanged, open, other_secret,
};
use crate::overload::InFlight;
use crate::repair::{self, Repair};
use crate::seams::{Data, Fatal, Seams};
use crate::time::now;

/// How long requests in flight may take to finish when the node stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// How long telling the peers may take.
const TELL_WITHIN: Duration = Duration::from_millis(100);
/// Events that may wait for the membership driver.
const EVENTS_MAX: usize = 4_096;

/// A running node.
pub struct Node {
    replica: Arc<Replica>,
    serving: Arc<OnceLock<Arc<Serving>>>,
    genesis: Arc<Genesis>,
    ready: watch::Receiver<Progress>,
    stop_clients: CancellationToken,
    stop_peers: CancellationToken,
    tasks: TaskTracker,
    blocking: crate::blocking::Blocking,
    /// None while the data is in memory.
    data_dir: Option<std::path::PathBuf>,
    addresses: config::Listen,
}

/// How far the start has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Progress {
    Starting,
    Ready,
    Failed(String),
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
        let candidate = candidate(&config, &opened.identity);
        let seeds: Vec<SocketAddr> = config.seeds.iter().copied().collect();
        let is_new = opened.identity.cluster_id().is_none();
        let genesis = Genesis::new(candidate, &seeds, seams.network.clone(), is_new);
        let genesis = Arc::new(genesis.map_err(GenesisFailure::from)?);
        let record = ClusterRecord::load(opened.files.as_ref())
            .map_err(|source| StartError::Record { path: config.data_dir.clone(), source })?;
        if let Some(record) = &record {
            check_unchanged(&config, opened.identity.host_id(), record)?;
        }
        let serving = Arc::new(OnceLock::new());
        let (stop_clients, stop_peers) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let answering = Answering { genesis: genesis.clone(), serving: serving.clone() };
        let peers =
            internode::server::serve(ports.internode, answering, tasks.clone(), stop_peers.clone());
        tasks.spawn(peers);
        let waiting = genesis.clone();
        let waiting_for = move || waiting.missing().iter().map(ToString::to_string).collect();
        let value_bytes_max = config.limits.value_bytes_max as usize;
        let in_flight_bytes =
            usize::try_from(config.limits.in_flight_bytes_max).unwrap_or(usize::MAX);
        let in_flight = InFlight::new(in_flight_bytes);
        let service = Service::new(
            serving.clone(),
            Arc::new(waiting_for),
            value_bytes_max,
            in_flight.clone(),
        );
        let clients = native::serve(
            ports.native,
            Arc::new(service),
            config.limits.connections_max,
            tasks.clone(),
            stop_clients.clone(),
        );
        tasks.spawn(clients);
        let (progress, ready) = watch::channel(Progress::Starting);
        let node = Self {
            replica: opened.replica.clone(),
            serving: serving.clone(),
            genesis: genesis.clone(),
            ready,
            stop_clients,
            stop_peers: stop_peers.clone(),
            tasks: tasks.clone(),
            blocking: seams.blocking.clone(),
            data_dir: matches!(seams.data, Data::Disk).then(|| config.data_dir.clone()),
            addresses: config.listen,
        };
        if let Some(admin) = ports.admin {
            node.tasks.spawn(crate::admin::serve(admin, node.overview(), stop_peers.clone()));
        }
        let joining =
            Joining { config, seams, opened, genesis, serving, in_flight, tasks, stop: stop_peers };
        if matches!(joining.seams.blocking, Blocking::Inline) {
            let (replica, random) = (node.replica.clone(), joining.seams.random(4));
            let every_max = joining.seams.sync_every_max;
            node.tasks.spawn(
                node.stop_peers
                    .clone()
                    .run_until_cancelled_owned(drive_syncs(replica, random, every_max)),
            );
        }
        let stop = node.stop_peers.clone();
        node.tasks.spawn(async move {
            let outcome = match stop.run_until_cancelled(joining.run(record)).await {
                None => return,
                Some(Ok(())) => Progress::Ready,
                Some(Err(failure)) => {
                    error!(%failure, "the node cannot join its cluster");
                    Progress::Failed(failure.to_string())
                }
            };
            // Nobody may be waiting for readiness.
            let _nobody_waits = progress.send(outcome);
        });
        Ok(node)
    }

    /// Returns when the node serves, or why it never will.
    ///
    /// # Errors
    /// The failure's text; the node should then be stopped.
    pub async fn ready(&self) -> Result<(), String> {
        let mut ready = self.ready.clone();
        let progress = ready.wait_for(|progress| *progress != Progress::Starting).await;
        match progress.as_deref() {
            Ok(Progress::Failed(reason)) => Err(reason.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err("the node was stopped".to_owned()),
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
            self.data_dir.clone(),
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

/// What the commit thread does in the real world, where there are no threads.
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

/// The part of the start that waits for other nodes.
struct Joining {
    config: Config,
    seams: Seams,
    opened: OpenedNode,
    genesis: Arc<Genesis>,
    serving: Arc<OnceLock<Arc<Serving>>>,
    in_flight: InFlight,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Joining {
    async fn run(self, known: Option<ClusterRecord>) -> Result<(), StartError> {
        let began = now();
        let secret = self.config.secret()?;
        let path = self.config.data_dir.clone();
        let bad_record = |source| StartError::Record { path: path.clone(), source };
        let (record, how) = match known {
            Some(record) => (record, "rejoined"),
            None => {
                let (candidates, how) = match self.genesis.run().await? {
                    Found::Founders { candidates, before: true } => (candidates, "joined"),
                    Found::Founders { candidates, before: false } => (candidates, "created"),
                    Found::Forgotten { candidates, was, incarnation } => {
                        self.take_back(was, incarnation).await?;
                        (candidates, "returned to")
                    }
                };
                let record = ClusterRecord {
                    candidates,
                    slot_bits: self.config.slot_bits,
                    keyspaces: self.config.keyspaces.clone(),
                };
                record.epoch(secret).map_err(bad_record)?;
                record.store(self.opened.files.as_ref()).map_err(bad_record)?;
                (record, how)
            }
        };
        let (epoch, secret, cluster_id) = record.epoch(secret).map_err(bad_record)?;
        // All else that makes the id was compared with the configuration before.
        self.opened.identity.join_cluster(cluster_id.0).map_err(|error| match error {
            IdentityError::OtherCluster { .. } if how == "rejoined" => other_secret(&self.config),
            error => error.into(),
        })?;
        self.genesis.founded(&record, cluster_id);
        if how == "rejoined" {
            self.look_back(cluster_id).await?;
        }
        let ring = Arc::new(Ring::new(Arc::new(epoch), secret.partitioner_key()));
        let host_id = self.opened.identity.host_id();
        let me = ring.index_of(host_id).ok_or(StartError::NotAMember { path, host_id })?;
        let local = Arc::new(Local {
            host_id,
            me,
            incarnation: self.opened.identity.incarnation(),
            boot_nonce: self.seams.random(2).random(),
            cluster_id,
            cluster_name: self.config.cluster_name.clone(),
            ring,
            secret,
        });
        self.serve(&local);
        let took_ms =
            u64::try_from(now().saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
        info!(cluster = %local.cluster_name, %cluster_id, %host_id, members = local.ring.members().len(), took_ms, "{how} {}", local.cluster_name);
        Ok(())
    }

    /// This node's disk was lost: it goes on as the founder that it was, and has to be rebuilt.
    async fn take_back(&self, was: Candidate, incarnation: u64) -> Result<(), StartError> {
        warn!(host_id = %was.host_id, "the cluster knows this node, and its data directory is new: it takes its name back, and is rebuilt from its peers");
        self.take_name(was.host_id, was.nonce, incarnation).await
    }

    /// Peers that have met this node in its present incarnation, before it has spoken to anybody, or in a later one, know that its disk was
    /// taken back to an older copy. They are asked before it serves: it must neither answer a read nor lead a write as the one that it was.
    async fn look_back(&self, cluster_id: ClusterId) -> Result<(), StartError> {
        let mine = self.opened.identity.incarnation();
        let met = self.genesis.met_incarnation(cluster_id).await;
        if met < mine {
            return Ok(());
        }
        error!(
            mine,
            met,
            "the cluster has met this node in as many starts or more than its data knows of: its disk was taken back to an older copy, and it is rebuilt from its peers"
        );
        let (replica, path) = (self.opened.replica.clone(), self.config.data_dir.clone());
        let forgot = self.seams.blocking.run(move || replica.forget()).await;
        forgot.map_err(|source| StartError::Replica { path, source })?;
        if met > mine {
            // Its peers would end it at every start until it has caught up. Met just now, it may have a double, and has to ask them.
            let record = self.opened.identity.record();
            self.take_name(record.host_id, record.nonce, met).await?;
        }
        Ok(())
    }

    /// Goes on under a name that the cluster knows, in an incarnation above any that a peer may remember, whether or not it was asked.
    async fn take_name(
        &self,
        host_id: HostId,
        nonce: [u8; 32],
        met: u64,
    ) -> Result<(), StartError> {
        let seconds = self.seams.wall_clock.now_us() / 1_000_000;
        let incarnation = seconds.max(met + 1);
        let (replica, path) = (self.opened.replica.clone(), self.config.data_dir.clone());
        let taken = self.seams.blocking.run(move || replica.take_back(host_id, nonce, incarnation));
        taken.await.map_err(|source| StartError::Replica { path, source })
    }

    /// Ends the node as one that lost writes, under a name that it never takes again: what its peers hold against it, a disk taken back to
    /// a copy or one that runs twice, is true at the next start as well, which no peer may hold against it any more.
    fn fatal(&self) -> Fatal {
        let (replica, fatal) = (self.opened.replica.clone(), self.seams.fatal.clone());
        Arc::new(move |reason| {
            if let Err(error) = replica.forget() {
                error!(%error, "cannot note that this node lost writes");
            }
            fatal(reason);
        })
    }

    fn serve(self, local: &Arc<Local>) {
        let is_whole = self.opened.replica.is_whole();
        let liveness = LivenessTable::new(local.ring.members().len(), local.me, is_whole);
        let liveness = Arc::new(liveness);
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let (peer_events, peer_inbox) = mpsc::channel(EVENTS_MAX);
        let context = LinkContext {
            local: local.clone(),
            network: self.seams.network.clone(),
            liveness: liveness.clone(),
            events,
            connect_timeout: self.config.timeouts.connect,
            queue_bytes_max: usize::try_from(self.config.limits.link_bytes_max)
                .unwrap_or(usize::MAX),
            planted: self.seams.planted,
            stop: self.stop.clone(),
        };
        let links = Links::start(&context, &self.tasks);
        let timeouts = &self.config.timeouts;
        let limits = coordinator::Limits {
            key_bytes_max: self.config.limits.key_bytes_max as usize,
            value_bytes_max: self.config.limits.value_bytes_max as usize,
            read_timeout: timeouts.read,
            write_timeout: timeouts.write,
        };
        let fatal = self.fatal();
        let in_flight = self.in_flight;
        let replica = self.opened.replica;
        let coordinator = Arc::new(Coordinator::new(coordinator::Parts {
            local: local.clone(),
            links: links.clone(),
            liveness: liveness.clone(),
            replica: replica.clone(),
            blocking: self.seams.blocking.clone(),
            limits,
            planted: self.seams.planted,
        }));
        let wall_clock = self.seams.wall_clock.clone();
        let rng = self.seams.random(3);
        let driver = Driver::new(
            local.clone(),
            links.clone(),
            liveness.clone(),
            rng,
            wall_clock.clone(),
            fatal,
        );
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(driver.run(inbox, peer_inbox)).await;
        });
        let handoff = Handoff {
            replica: replica.clone(),
            liveness: liveness.clone(),
            blocking: self.seams.blocking.clone(),
            in_flight: in_flight.clone(),
            bytes_per_second: HANDOFF_BYTES_PER_SECOND,
            planted: self.seams.planted,
            stop: self.stop.clone(),
        };
        handoff.start(&links, &self.tasks);
        let repair = Arc::new(Repair::new(repair::Parts {
            local: local.clone(),
            links: links.clone(),
            liveness: liveness.clone(),
            replica: replica.clone(),
            blocking: self.seams.blocking.clone(),
            in_flight: in_flight.clone(),
            membership: peer_events.clone(),
            compare_every: self.seams.compare_every,
            bytes_per_second: self.config.repair_bytes_max,
            gc_grace: self.config.gc_grace.clone(),
            planted: self.seams.planted,
            stop: self.stop.clone(),
        }));
        if let Some(look_up) = self.seams.disk_space.clone() {
            let (replica, blocking) = (replica.clone(), self.seams.blocking.clone());
            let reserve = self.config.disk_reserve_bytes;
            self.tasks.spawn(disk::watch(look_up, reserve, replica, blocking, self.stop.clone()));
        }
        repair.start(self.seams.random(5), &self.tasks);
        let serving = Arc::new(Serving {
            local: local.clone(),
            coordinator,
            in_flight,
            replica,
            liveness,
            blocking: self.seams.blocking,
            wall_clock,
            membership: peer_events,
            repair,
            data_dir: match self.seams.data {
                Data::Disk => Some(self.config.data_dir.clone()),
                Data::Memory(..) => None,
            },
            stopping: AtomicBool::new(false),
        });
        assert!(self.serving.set(serving).is_ok(), "a node joins its cluster once");
    }
}

/// Hints go to a returned peer at this pace, so that they do not crowd out its clients.
const HANDOFF_BYTES_PER_SECOND: u64 = 16 << 20;

/// The id of this node: for tests that compare what two nodes believe.
impl Node {
    /// This node's id.
    #[must_use]
    pub fn host_id(&self) -> HostId {
        self.replica.identity().host_id()
    }
}
