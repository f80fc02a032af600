//! Snapshots: what a node held at one moment, as files beside its own.
//!
//! A snapshot is a directory `snapshots/NAME` in the data directory, with a checkpoint of the store and, written last, the record
//! [`MANIFEST`]: without it the snapshot is half-made and counts for nothing. Its files are links to the store's own, which the store never
//! changes, only deletes; so it costs space only as those are rewritten.
//!
//! It holds one node's share. What a quorum acknowledged is in the snapshots of all nodes together.

mod reading;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use starling_protocol::SnapshotView;
use starling_ring::{ClusterId, HostId};
use starling_storage::identity::IDENTITY_FILE;
use starling_storage::replica::Replica;
use starling_storage::{DiskFiles, Files, RocksOptions, RocksStore, Store, StoreError};

pub use reading::{Entries, Entry, Reading};

/// The record that makes a snapshot whole.
pub const MANIFEST: &str = "SNAPSHOT";
/// Where snapshots are in a data directory.
pub const DIRECTORY: &str = "snapshots";
const STORE: &str = "store";
/// The format of a snapshot: the store's, and the values' in it.
const VERSION: u32 = 1;
const NAME_BYTES_MAX: usize = 64;
/// Memory for reading a snapshot back.
const READ_CACHE_BYTES: usize = 32 << 20;

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id, as text.
    pub cluster_id: String,
    /// Whose share it is.
    pub host_id: HostId,
    /// The ring epoch.
    pub epoch: u64,
    /// In milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What the files take.
    pub bytes: u64,
    /// The buckets by table id.
    pub buckets: Vec<(u32, String)>,
    /// The ring has 2^`slot_bits` slots.
    pub slot_bits: u8,
    /// The slots that the node replicates, by keyspace, as ranges with both ends included.
    pub replicated: BTreeMap<String, Vec<(u32, u32)>>,
    /// All members of the cluster, each of which has a share. Empty in a record of an older release.
    #[serde(default)]
    pub members: Vec<Sharer>,
}

/// A member of a cluster that was snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sharer {
    /// Its name for life.
    pub host_id: HostId,
    /// Where clients reached it; none in a record of an older release.
    pub address: Option<SocketAddr>,
}

impl fmt::Display for Sharer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address} (host {})", self.host_id),
            None => write!(f, "host {}", self.host_id),
        }
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Not a name.
    #[error(
        "{0:?} cannot name a snapshot: use 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores, no dot first"
    )]
    BadName(String),
    /// The name is taken.
    #[error("there is a snapshot {0:?} already")]
    Exists(String),
    /// The directory has no record: it is something else, or its making was interrupted.
    #[error("{} is no snapshot: it has no file {MANIFEST}", .0.display())]
    NoSnapshot(PathBuf),
    /// The directory is where a node keeps everything.
    #[error("{} is no snapshot: it is a node's data directory", .0.display())]
    DataDirectory(PathBuf),
    /// Not every member's share is there, or one is there more than once.
    #[error("{}", incomplete(missing, twice))]
    Incomplete {
        /// Whose share is missing.
        missing: Vec<Sharer>,
        /// Whose share is given more than once.
        twice: Vec<Sharer>,
    },
    /// The record is not understood.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The record is of another release.
    #[error("{} is of version {version}; this release reads version {VERSION}", path.display())]
    Version {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Two snapshots of different clusters.
    #[error("{} and {} are of different clusters", one.display(), other.display())]
    OtherCluster {
        /// One.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A stored state does not decode.
    #[error("the snapshot is damaged at key {key:?}: {reason}")]
    DamagedState {
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed, or is full.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// What was used.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node lost writes, and its share would not show which.
    #[error("this node has lost writes and is being rebuilt")]
    NotWhole,
    /// The node keeps its data in memory.
    #[error("this node keeps its data in memory")]
    InMemory,
}

impl SnapshotError {
    /// What to do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::BadName(_) | Self::Exists(_) => "choose another name",
            Self::NoSnapshot(_) | Self::Io { .. } => {
                "give the directory that `starling snapshot list` shows, or a copy of it"
            }
            Self::DataDirectory(directory) => {
                let all = directory.join(DIRECTORY);
                return format!("give one of the directories in {}", all.display());
            }
            Self::Incomplete { .. } => {
                "give the snapshots of all nodes, each once; --partial restores what is there"
            }
            Self::Damaged { .. } | Self::DamagedState { .. } | Self::Store(_) => {
                "use another copy of the snapshot"
            }
            Self::Version { .. } => "use the release that made it",
            Self::OtherCluster { .. } => "restore them one after the other",
            Self::NotWhole => "ask again when `starling status` says that it is up",
            Self::InMemory => "set data_dir",
        }
        .to_owned()
    }
}

fn incomplete(missing: &[Sharer], twice: &[Sharer]) -> String {
    let named = |sharers: &[Sharer]| {
        let texts: Vec<String> = sharers.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("of the cluster's nodes these are missing: {}", named(missing)));
    }
    if !twice.is_empty() {
        parts.push(format!("given more than once: {}", named(twice)));
    }
    parts.join("; ")
}

/// What a snapshot is to say of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: ClusterId,
    /// Whose share it is.
    pub host_id: HostId,
    /// The ring epoch.
    pub epoch: u64,
    /// When it is made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// The buckets by table id.
    pub buckets: Vec<(u32, String)>,
    /// As in [`Manifest`].
    pub slot_bits: u8,
    /// As in [`Manifest`].
    pub replicated: BTreeMap<String, Vec<(u32, u32)>>,
    /// As in [`Manifest`].
    pub members: Vec<Sharer>,
}

/// Whether a snapshot may have this name: it becomes that of a directory.
///
/// # Errors
/// [`SnapshotError::BadName`].
pub fn check_name(name: &str) -> Result<(), SnapshotError> {
    let is_named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.');
    match fits && name.bytes().all(is_named) {
        true => Ok(()),
        false => Err(SnapshotError::BadName(name.to_owned())),
    }
}

/// Makes a snapshot of a replica's store in `data_dir`. What is acknowledged is in it. Blocks.
///
/// # Errors
/// [`SnapshotError`]; what was begun is removed again.
pub fn create(
    data_dir: &Path,
    name: &str,
    replica: &Replica,
    about: About,
) -> Result<SnapshotView, SnapshotError> {
    check_name(name)?;
    let all = data_dir.join(DIRECTORY);
    let directory = all.join(name);
    fs::create_dir_all(&all).map_err(|source| io_error(&all, source))?;
    match fs::create_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(SnapshotError::Exists(name.to_owned()));
        }
        made => made.map_err(|source| io_error(&directory, source))?,
    }
    let filled = fill(&all, &directory, replica, about);
    if filled.is_err() {
        // What cannot be removed has no manifest, and says so when it is met.
        let _half_made = fs::remove_dir_all(&directory);
    }
    Ok(view(&directory, &filled?))
}

fn fill(
    all: &Path,
    directory: &Path,
    replica: &Replica,
    about: About,
) -> Result<Manifest, SnapshotError> {
    let was_whole = replica.is_whole();
    replica.store().checkpoint(&directory.join(STORE))?;
    if !(was_whole && replica.is_whole()) {
        return Err(SnapshotError::NotWhole);
    }
    let manifest = Manifest {
        version: VERSION,
        cluster: about.cluster,
        cluster_id: about.cluster_id.to_string(),
        host_id: about.host_id,
        epoch: about.epoch,
        created_unix_ms: about.created_unix_ms,
        bytes: size(&directory.join(STORE))?,
        buckets: about.buckets,
        slot_bits: about.slot_bits,
        replicated: about.replicated,
        members: about.members,
    };
    let text = serde_json::to_vec_pretty(&manifest).expect("a manifest is plain data");
    let written = DiskFiles::open(directory).and_then(|files| files.replace(MANIFEST, &text));
    written.map_err(|source| io_error(&directory.join(MANIFEST), source))?;
    let synced = File::open(all).and_then(|directory| directory.sync_all());
    synced.map_err(|source| io_error(all, source))?;
    Ok(manifest)
}

/// The whole snapshots in `data_dir`, by name. Blocks.
///
/// # Errors
/// If the directory cannot be read.
pub fn list(data_dir: &Path) -> Result<Vec<SnapshotView>, SnapshotError> {
    let all = data_dir.join(DIRECTORY);
    let entries = match fs::read_dir(&all) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|source| io_error(&all, source))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let directory = entry.map_err(|source| io_error(&all, source))?.path();
        match read(&directory) {
            Ok(manifest) => found.push(view(&directory, &manifest)),
            Err(error) => tracing::warn!(%error, "a snapshot cannot be used"),
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// Opens a snapshot to read it, wherever it was copied to.
fn open(directory: &Path) -> Result<(Manifest, Arc<dyn Store>), SnapshotError> {
    let manifest = read(directory)?;
    let options = RocksOptions { block_cache_bytes: READ_CACHE_BYTES, ..RocksOptions::default() };
    let store = RocksStore::open_read_only(&directory.join(STORE), &options)?;
    Ok((manifest, Arc::new(store)))
}

fn read(directory: &Path) -> Result<Manifest, SnapshotError> {
    let path = directory.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.is_dir() => {
            let is_node = directory.join(IDENTITY_FILE).exists();
            let wrong =
                if is_node { SnapshotError::DataDirectory } else { SnapshotError::NoSnapshot };
            return Err(wrong(directory.to_owned()));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io_error(directory, error));
        }
        text => text.map_err(|source| io_error(&path, source))?,
    };
    let damaged = |reason: String| SnapshotError::Damaged { path: path.clone(), reason };
    let value: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    match version {
        Some(version) if version != u64::from(VERSION) => {
            let version = u32::try_from(version).unwrap_or(u32::MAX);
            Err(SnapshotError::Version { path, version })
        }
        _ => serde_json::from_value(value).map_err(|error| damaged(error.to_string())),
    }
}

fn view(directory: &Path, manifest: &Manifest) -> SnapshotView {
    let name = directory.file_name().unwrap_or_default();
    SnapshotView {
        name: name.to_string_lossy().into_owned(),
        directory: path::absolute(directory).as_deref().unwrap_or(directory).display().to_string(),
        created_unix_ms: manifest.created_unix_ms,
        bytes: manifest.bytes,
    }
}

fn size(directory: &Path) -> Result<u64, SnapshotError> {
    let failed = |source| io_error(directory, source);
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(bytes)
}

fn io_error(path: &Path, source: io::Error) -> SnapshotError {
    SnapshotError::Io { path: path.to_owned(), source }
}
