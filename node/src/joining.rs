//! From open data to a member that serves: finding the cluster, or founding it, and finding out what became of this node's memory.
//!
//! Invariant: whatever a node can learn of writes that it has lost, it learns before it serves; what it learns later ends it, and holds at
//! the next start.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use rand::RngExt;
use starling_ring::{Candidate, ClusterId, HostId, Ring};
use starling_storage::IdentityError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::coordinator::{self, Coordinator};
use crate::disk;
use crate::handoff::Handoff;
use crate::internode::Links;
use crate::internode::links::LinkContext;
use crate::local::Local;
use crate::membership::{
    ClusterRecord, Driver, Found, Genesis, GenesisFailure, LinkEvent, LivenessTable, PeerEvent,
    RecordError,
};
use crate::native::Serving;
use crate::opening::{OpenedNode, StartError, other_secret};
use crate::overload::InFlight;
use crate::repair::{self, Repair};
use crate::seams::{Data, Fatal, Seams};
use crate::time::now;

/// Events that may wait for the membership driver.
const EVENTS_MAX: usize = 4_096;

/// The part of the start that waits for other nodes.
pub(crate) struct Joining {
    pub(crate) config: Config,
    pub(crate) seams: Seams,
    pub(crate) opened: OpenedNode,
    pub(crate) genesis: Arc<Genesis>,
    /// Set once the node serves.
    pub(crate) serving: Arc<OnceLock<Arc<Serving>>>,
    pub(crate) in_flight: InFlight,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// The cluster, what is believed of it, and the way to it.
struct Known {
    local: Arc<Local>,
    liveness: Arc<LivenessTable>,
    links: Arc<Links>,
}

impl Joining {
    /// Finds the cluster or founds it, and then serves as a member of it.
    ///
    /// # Errors
    /// [`StartError`]; the node then never serves.
    pub(crate) async fn run(self, known: Option<ClusterRecord>) -> Result<(), StartError> {
        let began = now();
        let secret = self.config.secret()?;
        let path = self.config.data_dir.clone();
        let bad_record = |source| match source {
            // The seeds' fault, not that of anything in the directory.
            RecordError::Genesis(error) => GenesisFailure::from(error).into(),
            source => StartError::Record { path: path.clone(), source },
        };
        let (record, how) = match known {
            Some(record) => (record, "rejoined"),
            None => {
                let (candidates, how) = match self.genesis.run().await? {
                    Found::Founders { candidates, before: true } => (candidates, "joined"),
                    Found::Founders { candidates, before: false } => (candidates, "created"),
                    Found::Forgotten { candidates, was, incarnation } => {
                        self.take_back(*was, incarnation).await?;
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
        let data_dir = std::path::absolute(&self.config.data_dir);
        let data_dir = data_dir.unwrap_or_else(|_| self.config.data_dir.clone());
        self.serve(&local);
        let took_ms =
            u64::try_from(now().saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX);
        info!(cluster = %local.cluster_name, %cluster_id, %host_id, members = local.ring.members().len(), took_ms, data_dir = %data_dir.display(), pid = std::process::id(), "{how} {}", local.cluster_name);
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

    /// Starts everything that a member does, and takes requests.
    fn serve(self, local: &Arc<Local>) {
        let is_whole = self.opened.replica.is_whole();
        let liveness = LivenessTable::new(local.ring.members().len(), local.me, is_whole);
        let liveness = Arc::new(liveness);
        let (links, inbox) = self.connect(local, &liveness);
        let known = Known { local: local.clone(), liveness, links };
        let (membership, peer_inbox) = mpsc::channel(EVENTS_MAX);
        let driver = Driver::new(
            local.clone(),
            known.links.clone(),
            known.liveness.clone(),
            self.seams.random(3),
            self.seams.wall_clock.clone(),
            self.fatal(),
        );
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(driver.run(inbox, peer_inbox)).await;
        });
        self.hand_over(&known);
        self.watch_disk();
        let repair = self.repair(&known, membership.clone());
        repair.start(self.seams.random(5), &self.tasks);
        let serving = Arc::new(Serving {
            local: local.clone(),
            coordinator: self.coordinator(&known),
            in_flight: self.in_flight,
            replica: self.opened.replica,
            liveness: known.liveness,
            blocking: self.seams.blocking,
            wall_clock: self.seams.wall_clock,
            membership,
            repair,
            data_dir: match self.seams.data {
                Data::Disk => Some(self.config.data_dir.clone()),
                Data::Memory(..) => None,
            },
            stopping: AtomicBool::new(false),
        });
        assert!(self.serving.set(serving).is_ok(), "a node joins its cluster once");
    }

    fn connect(
        &self,
        local: &Arc<Local>,
        liveness: &Arc<LivenessTable>,
    ) -> (Arc<Links>, mpsc::Receiver<LinkEvent>) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let queue_bytes_max = self.config.limits.link_bytes_max;
        let context = LinkContext {
            local: local.clone(),
            network: self.seams.network.clone(),
            liveness: liveness.clone(),
            events,
            connect_timeout: self.config.timeouts.connect,
            queue_bytes_max: usize::try_from(queue_bytes_max).unwrap_or(usize::MAX),
            planted: self.seams.planted,
            stop: self.stop.clone(),
        };
        (Links::start(&context, &self.tasks), inbox)
    }

    fn coordinator(&self, known: &Known) -> Arc<Coordinator> {
        let (limits, timeouts) = (&self.config.limits, &self.config.timeouts);
        Arc::new(Coordinator::new(coordinator::Parts {
            local: known.local.clone(),
            links: known.links.clone(),
            liveness: known.liveness.clone(),
            replica: self.opened.replica.clone(),
            blocking: self.seams.blocking.clone(),
            limits: coordinator::Limits {
                key_bytes_max: limits.key_bytes_max as usize,
                value_bytes_max: limits.value_bytes_max as usize,
                read_timeout: timeouts.read,
                write_timeout: timeouts.write,
            },
            planted: self.seams.planted,
        }))
    }

    fn repair(&self, known: &Known, membership: mpsc::Sender<PeerEvent>) -> Arc<Repair> {
        Arc::new(Repair::new(repair::Parts {
            local: known.local.clone(),
            links: known.links.clone(),
            liveness: known.liveness.clone(),
            replica: self.opened.replica.clone(),
            blocking: self.seams.blocking.clone(),
            in_flight: self.in_flight.clone(),
            membership,
            compare_every: self.seams.compare_every,
            bytes_per_second: self.config.repair_bytes_max,
            gc_grace: self.config.gc_grace.clone(),
            planted: self.seams.planted,
            stop: self.stop.clone(),
        }))
    }

    fn hand_over(&self, known: &Known) {
        let handoff = Handoff {
            replica: self.opened.replica.clone(),
            liveness: known.liveness.clone(),
            blocking: self.seams.blocking.clone(),
            in_flight: self.in_flight.clone(),
            planted: self.seams.planted,
            stop: self.stop.clone(),
        };
        handoff.start(&known.links, &self.tasks);
    }

    fn watch_disk(&self) {
        if let Some(look_up) = self.seams.disk_space.clone() {
            let (replica, blocking) = (self.opened.replica.clone(), self.seams.blocking.clone());
            let reserve = self.config.disk_reserve_bytes;
            self.tasks.spawn(disk::watch(look_up, reserve, replica, blocking, self.stop.clone()));
        }
    }
}
