//! What a node opens before it meets others: its data and its ports. And why a start may fail.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starling_ring::{Candidate, HostId, Keyspace, SlotGrid};
use starling_storage::identity::IDENTITY_FILE;
use starling_storage::replica::OpenError;
use starling_storage::{
    Durability, Files, HintLimits, Identity, IdentityError, Replica, ReplicaConfig, ReplicaLimits,
};
use tracing::{info, warn};

use crate::blocking::Blocking;
use crate::config::{self, Config};
use crate::data::{self, DataError};
use crate::membership::{ClusterRecord, GenesisFailure, RecordError};
use crate::net::{AdminListener, Listener};
use crate::seams::Seams;
use crate::time::now;

/// How long another process may take to let go of the data directory, and the first of the pauses between two
/// looks, which double.
const IN_USE_WITHIN: Duration = Duration::from_secs(10);
const IN_USE_PAUSE_FIRST: Duration = Duration::from_millis(250);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The identity in the data directory cannot be used.
    #[error("{0}; restore it from a backup, or set data_dir to another directory")]
    Identity(#[from] IdentityError),
    /// The replica could not be opened.
    #[error("cannot open the data in data_dir, {}: {source}", path.display())]
    Replica {
        /// The data directory.
        path: PathBuf,
        /// What is wrong with it.
        source: OpenError,
    },
    /// A port cannot be bound.
    #[error("cannot listen on {address} ({purpose}): {}", unbound(*address, key, source))]
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
    /// The directory is not new, and nobody knows whose it was.
    #[error(
        "the data directory {} has a store but no {IDENTITY_FILE}; restore the file from a backup, or empty the directory to rebuild this node from its peers", path.display()
    )]
    NoIdentity {
        /// The data directory.
        path: PathBuf,
    },
    /// The cluster's record cannot be used.
    #[error("in data_dir, {}: {source}", path.display())]
    Record {
        /// The data directory.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The cluster could not be founded or found.
    #[error(transparent)]
    Genesis(#[from] GenesisFailure),
    /// The configuration differs from what the cluster was founded with.
    #[error(
        "{key} is {found}; this cluster was founded with {founded}, which cannot change; restore it, or set data_dir to another directory"
    )]
    Changed {
        /// The configuration key.
        key: String,
        /// What it is.
        found: String,
        /// What it has to be.
        founded: String,
    },
    /// The configuration has a keyspace that the cluster was not founded with.
    #[error(
        "keyspace {name:?} was not there when the cluster was founded, and none can be added yet; remove keyspaces.{name}, or set data_dir to another directory"
    )]
    AddedKeyspace {
        /// The keyspace.
        name: String,
    },
    /// The data directory belongs to another member, or to a member of another cluster.
    #[error(
        "the data directory {} belongs to the node at {founded} ({purpose}), not to one at {found}; set data_dir to this node's own directory, or restore {key}", path.display()
    )]
    OtherNode {
        /// The data directory.
        path: PathBuf,
        /// Where this node is to listen.
        found: SocketAddr,
        /// Where the cluster knows it.
        founded: SocketAddr,
        /// What the address is for.
        purpose: &'static str,
        /// The configuration key.
        key: &'static str,
    },
    /// The data directory holds the record of a cluster that this node did not found.
    #[error(
        "the data directory {} belongs to a cluster of which {host_id}, the node in it, is no member; restore it from a backup, or set data_dir to another directory", path.display()
    )]
    NotAMember {
        /// The data directory.
        path: PathBuf,
        /// The node that it names.
        host_id: HostId,
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
    /// Of the cluster, if this node has been there before.
    pub(crate) record: Option<ClusterRecord>,
}

/// What keeps a port from being bound, and the way out.
fn unbound(address: SocketAddr, key: &str, source: &std::io::Error) -> String {
    let ip = address.ip();
    match source.kind() {
        ErrorKind::AddrNotAvailable if key == "listen.admin" => {
            format!("{ip} is no address of this machine; set {key} to one that is")
        }
        ErrorKind::AddrNotAvailable => format!(
            "{ip} is no address of this machine; set listen.address to one that is, and the same in seeds"
        ),
        ErrorKind::AddrInUse => {
            format!("{source}; stop the process that has the port, or set {key} to another port")
        }
        _ => format!("{source}; set {key} to another port"),
    }
}

/// Opens the data, and learns who this node is. The process that had the data before may still be ending: a
/// large one that was killed has its lock for a while yet.
pub(crate) async fn open(config: &Config, seams: &Seams) -> Result<OpenedNode, StartError> {
    let until = now() + IN_USE_WITHIN;
    let mut pause = IN_USE_PAUSE_FIRST;
    loop {
        let (own, world) = (config.clone(), seams.clone());
        let opened = seams.blocking.run(move || open_blocking(&own, &world)).await;
        let Err(StartError::Data(DataError::InUse { path })) = &opened else { return opened };
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return opened;
        }
        if pause == IN_USE_PAUSE_FIRST {
            info!(data_dir = %path.display(), "another process has the data directory open; waiting up to {} s for its end", IN_USE_WITHIN.as_secs());
        }
        tokio::time::sleep(pause.min(left)).await;
        pause *= 2;
    }
}

fn open_blocking(config: &Config, world: &Seams) -> Result<OpenedNode, StartError> {
    let (store, files) = data::open(config, world)?;
    let path = &config.data_dir;
    let record = ClusterRecord::load(files.as_ref())
        .map_err(|source| StartError::Record { path: path.clone(), source })?;
    // Before anything is read by it, or written.
    if let Some(record) = &record {
        check_unchanged(config, record)?;
        compare_seeds(config, record);
    }
    let is_used = record.is_some() || store.latest_sequence() > 0;
    if is_used && matches!(files.read(IDENTITY_FILE), Ok(None)) {
        return Err(StartError::NoIdentity { path: path.clone() });
    }
    let random = Box::new(world.random(1));
    let identity =
        Arc::new(Identity::open_or_create(files.clone(), &world.boot_id, random, world.planted)?);
    let durability = match config.durability {
        config::Durability::Group if matches!(world.blocking, Blocking::Inline) => {
            Durability::Driven
        }
        config::Durability::Group => Durability::Group,
        config::Durability::Periodic { interval } => {
            Durability::Periodic(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX))
        }
    };
    let fatal = world.fatal.clone();
    let replica = Replica::open(ReplicaConfig {
        store,
        files: files.clone(),
        identity: identity.clone(),
        wall: world.wall_clock.clone(),
        durability,
        limits: ReplicaLimits::default(),
        hint_limits: HintLimits { bytes_max: config.hints_bytes_max },
        grid: SlotGrid::new(config.slot_bits).expect("checked with the configuration"),
        observe_sync: crate::metrics::observe_sync,
        fatal: Box::new(move |reason| fatal(reason)),
        planted: world.planted,
    });
    let replica = replica.map_err(|source| StartError::Replica { path: path.clone(), source })?;
    for change in &replica.report().actor_changes {
        warn!(reason = %change, "this node writes under a new actor");
        crate::metrics::observe_actor_change(*change);
    }
    Ok(OpenedNode { replica: Arc::new(replica), identity, files, record })
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
        seeds_hash: config.seeds_hash(),
    }
}

/// What the cluster was founded with cannot change.
fn check_unchanged(config: &Config, record: &ClusterRecord) -> Result<(), StartError> {
    let changed = |key: String, found, founded| StartError::Changed { key, found, founded };
    if config.slot_bits != record.slot_bits {
        let (found, founded) = (config.slot_bits.to_string(), record.slot_bits.to_string());
        return Err(changed("slot_bits".to_owned(), found, founded));
    }
    for Keyspace { name, .. } in config.keyspaces.iter().chain(&record.keyspaces) {
        let (found, founded) =
            (keyspace(name, &config.keyspaces), keyspace(name, &record.keyspaces));
        if !record.keyspaces.iter().any(|keyspace| keyspace.name == *name) {
            return Err(StartError::AddedKeyspace { name: name.clone() });
        }
        if found != founded {
            return Err(changed(format!("keyspaces.{name}"), found, founded));
        }
    }
    // The founders' hashes are equal, and cover the name beside what was compared above.
    if record.candidates.iter().any(|founder| founder.config_hash != config.cluster_hash()) {
        let found = format!("{:?}", config.cluster_name);
        return Err(changed("cluster_name".to_owned(), found, "another name".to_owned()));
    }
    Ok(())
}

fn keyspace(name: &str, among: &[Keyspace]) -> String {
    let found = among.iter().find(|keyspace| keyspace.name == name);
    found.map_or_else(|| "absent".to_owned(), config::keyspace_table)
}

/// The members are the first seeds, whatever list a node is given later.
fn compare_seeds(config: &Config, record: &ClusterRecord) {
    let members: BTreeSet<_> = record.candidates.iter().map(|founder| founder.address).collect();
    if members != config.seeds {
        warn!(?members, seeds = ?config.seeds, "`seeds` is not the list this cluster was founded with, which stays; a cluster with other members has to be founded anew");
    }
}

/// Members find one another where the record says, so that a node anywhere else would be alone.
pub(crate) fn check_place(
    config: &Config,
    host_id: HostId,
    record: &ClusterRecord,
) -> Result<(), StartError> {
    let path = || config.data_dir.clone();
    let founder = record.candidates.iter().find(|founder| founder.host_id == host_id);
    let founder = founder.ok_or_else(|| StartError::NotAMember { path: path(), host_id })?;
    let listen = config.listen;
    for (found, founded, purpose, key) in [
        (listen.internode, founder.address, "other nodes", "listen.internode_port"),
        (listen.native, founder.client_address, "clients", "listen.native_port"),
    ] {
        if found != founded {
            let key = if found.ip() == founded.ip() { key } else { "listen.address" };
            return Err(StartError::OtherNode { path: path(), found, founded, purpose, key });
        }
    }
    Ok(())
}

/// The secret does not make the cluster that the data directory belongs to.
pub(crate) fn other_secret(config: &Config) -> StartError {
    let found = config.secret_file.as_ref().map_or_else(
        || "absent".to_owned(),
        |file| format!("{:?}, whose secret makes another cluster", file.display().to_string()),
    );
    let founded = "another secret, or none of its own".to_owned();
    StartError::Changed { key: "secret_file".to_owned(), found, founded }
}
