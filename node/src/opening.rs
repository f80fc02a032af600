//! What a node opens before it meets others: its data and its ports. And why a start may fail.

use std::net::SocketAddr;
use std::sync::Arc;

use starling_ring::Candidate;
use starling_storage::replica::OpenError;
use starling_storage::{
    Durability, Files, HintLimits, Identity, IdentityError, Replica, ReplicaConfig, ReplicaLimits,
};
use tracing::warn;

use crate::blocking::Blocking;
use crate::config::{self, Config};
use crate::data::{self, DataError};
use crate::membership::{ClusterRecord, GenesisFailure, RecordError};
use crate::net::{AdminListener, Listener};
use crate::seams::Seams;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The identity in the data directory cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The replica could not be opened.
    #[error(transparent)]
    Replica(#[from] OpenError),
    /// A port cannot be bound.
    #[error(
        "cannot listen on {address} ({purpose}): {source}; stop the process that has the port, or set {key} to another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// The configuration key.
        key: &'static str,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// The cluster's record cannot be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The cluster could not be founded or found.
    #[error(transparent)]
    Genesis(#[from] GenesisFailure),
    /// The configuration differs from what the cluster was founded with.
    #[error(
        "{what} differs from what this cluster was founded with, and cannot change: restore it in the configuration, or set data_dir to another directory"
    )]
    Changed {
        /// What differs.
        what: &'static str,
    },
    /// The secret file cannot be used.
    #[error(transparent)]
    Secret(#[from] config::SecretError),
    /// The operating system refused something else.
    #[error("the operating system refused: {0}")]
    System(#[from] std::io::Error),
}

/// A node's data.
pub(crate) struct OpenedNode {
    pub(crate) replica: Arc<Replica>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) files: Arc<dyn Files>,
}

/// Opens the data, and learns who this node is.
pub(crate) async fn open(config: &Config, seams: &Seams) -> Result<OpenedNode, StartError> {
    let (config, world) = (config.clone(), seams.clone());
    let opened = seams.blocking.run(move || -> Result<OpenedNode, StartError> {
        let (store, files) = data::open(&config, &world)?;
        let random = Box::new(world.random(1));
        let identity = Arc::new(Identity::open_or_create(
            files.clone(),
            &world.boot_id,
            random,
            world.planted,
        )?);
        let durability = match config.durability {
            config::Durability::Group if matches!(world.blocking, Blocking::Inline) => {
                Durability::Driven
            }
            config::Durability::Group => Durability::Group,
            config::Durability::Periodic { interval } => {
                Durability::Periodic(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let replica = Replica::open(ReplicaConfig {
            store,
            files: files.clone(),
            identity: identity.clone(),
            wall: world.wall_clock.clone(),
            durability,
            limits: ReplicaLimits::default(),
            hint_limits: HintLimits { bytes_max: config.hints_bytes_max },
            observe_sync: crate::metrics::observe_sync,
            fatal: Box::new(move |reason| (world.fatal)(reason)),
            planted: world.planted,
        })?;
        for change in &replica.report().actor_changes {
            warn!(reason = %change, "this node writes under a new actor");
            crate::metrics::observe_actor_change(*change);
        }
        Ok(OpenedNode { replica: Arc::new(replica), identity, files })
    });
    opened.await
}

/// A node's bound ports.
pub(crate) struct Ports {
    pub(crate) native: Box<dyn Listener>,
    pub(crate) internode: Box<dyn Listener>,
    pub(crate) admin: Option<AdminListener>,
}

/// Binds the ports.
pub(crate) async fn bind(config: &Config, seams: &Seams) -> Result<Ports, StartError> {
    let at = config.listen;
    let failed =
        |address, purpose, key| move |source| StartError::Listen { address, purpose, key, source };
    let network = &seams.network;
    let internode = network.listen(at.internode).await;
    let internode =
        internode.map_err(failed(at.internode, "other nodes", "listen.internode_port"))?;
    let native = network.listen(at.native).await;
    let native = native.map_err(failed(at.native, "clients", "listen.native_port"))?;
    let admin = network.listen_admin(at.admin).await;
    let admin = admin.map_err(failed(at.admin, "administration", "listen.admin"))?;
    Ok(Ports { native, internode, admin })
}

/// What this node says of itself before there is a cluster.
pub(crate) fn candidate(config: &Config, identity: &Identity) -> Candidate {
    Candidate {
        host_id: identity.host_id(),
        address: config.listen.internode,
        client_address: config.listen.native,
        datacenter: config.datacenter.clone(),
        rack: config.rack.clone(),
        nonce: identity.record().nonce,
        config_hash: config.cluster_hash(),
    }
}

/// What the cluster was founded with cannot change.
pub(crate) fn check_unchanged(config: &Config, record: &ClusterRecord) -> Result<(), StartError> {
    if config.slot_bits != record.slot_bits {
        return Err(StartError::Changed { what: "slot_bits" });
    }
    if config.keyspaces != record.keyspaces {
        return Err(StartError::Changed { what: "the list of keyspaces" });
    }
    // The founders' hashes are equal, and cover the name beside what was compared above.
    if record.candidates.iter().any(|founder| founder.config_hash != config.cluster_hash()) {
        return Err(StartError::Changed { what: "cluster_name" });
    }
    Ok(())
}
