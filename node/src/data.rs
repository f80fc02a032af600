//! Opens what a node keeps: the store and the small records beside it.

use std::path::PathBuf;
use std::sync::Arc;

use starling_storage::{DiskFiles, Files, RocksOptions, RocksStore, Store, StoreError};

use crate::config::Config;
use crate::seams::{Data, Opened, Seams};

/// Sizes that nodes may choose for their memory tables, between half of what is configured and all of it.
const STEPS: usize = 8;
/// From the step of one node to that of the next.
const STRIDE: usize = 5;

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {source}; check that it exists and belongs to this user, or set data_dir to another", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
    /// Another process has the directory open.
    #[error("another process has the data directory {} open; stop that process, or set data_dir to another directory", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The store in it cannot be opened.
    #[error("{0}; restore it from a backup, or set data_dir to another directory")]
    Store(StoreError),
}

/// Replicas of the same data would fill memory tables of the same size at the same moment, and then all be slow at once. Nodes that follow
/// one another in the list of seeds differ most.
fn staggered(config: &Config) -> usize {
    let me = config.seeds.iter().position(|seed| *seed == config.listen.internode);
    let most = config.memtable_bytes as usize;
    most - most / 2 / STEPS * (me.unwrap_or(0) * STRIDE % STEPS)
}

/// Opens the store, which locks the directory, and the records. Blocks.
///
/// # Errors
/// [`DataError`].
pub fn open(config: &Config, seams: &Seams) -> Result<Opened, DataError> {
    match &seams.data {
        Data::Memory(store, files) => Ok((store.clone(), files.clone())),
        Data::Disk => {
            let failed = |source| DataError::Directory { path: config.data_dir.clone(), source };
            let files: Arc<dyn Files> =
                Arc::new(DiskFiles::open(&config.data_dir).map_err(failed)?);
            let options = RocksOptions {
                block_cache_bytes: config.block_cache_bytes as usize,
                memtable_bytes: staggered(config),
                compaction_bytes_max: config.compaction_bytes_max,
                ..RocksOptions::default()
            };
            let store = RocksStore::open(&config.data_dir.join("store"), &options);
            let store = store.map_err(|error| match error {
                StoreError::Locked { .. } => DataError::InUse { path: config.data_dir.clone() },
                error => DataError::Store(error),
            })?;
            let store: Arc<dyn Store> = Arc::new(store);
            Ok((store, files))
        }
    }
}
