//! The cluster as a node remembers it: the seeds that founded it and the secret they agreed on.
//! Epoch 1 is recomputed from them at every start, so it cannot differ from what they say.

use std::io;

use serde::{Deserialize, Serialize};
use starling_ring::{Candidate, ClusterId, ClusterSecret, Epoch, GenesisError, Keyspace};
use starling_storage::Files;

/// The record of the cluster's foundation.
pub const GENESIS_FILE: &str = "GENESIS";

/// What was agreed on when the cluster was founded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The founding members, by host id.
    pub candidates: Vec<Candidate>,
    /// The slot grid.
    pub slot_bits: u8,
    /// The keyspaces.
    pub keyspaces: Vec<Keyspace>,
}

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// It cannot be read or written.
    #[error("cannot access the record of the cluster's foundation: {0}")]
    Io(#[from] io::Error),
    /// It does not decode.
    #[error(
        "the record of the cluster's foundation is damaged: {0}; restore it from a backup, or empty the data directory: the node is then rebuilt from its peers"
    )]
    Damaged(String),
    /// The seeds do not make a cluster.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
}

impl ClusterRecord {
    /// The record in `files`, if the cluster was founded.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn load(files: &dyn Files) -> Result<Option<Self>, RecordError> {
        let Some(stored) = files.read(GENESIS_FILE)? else { return Ok(None) };
        let Some((body, crc)) = stored.split_last_chunk::<4>() else {
            return Err(RecordError::Damaged("it is too short".into()));
        };
        if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
            return Err(RecordError::Damaged("its checksum does not match".into()));
        }
        let decoded = starling_protocol::decode_header(body);
        decoded.map(Some).map_err(|error| RecordError::Damaged(error.to_string()))
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn store(&self, files: &dyn Files) -> Result<(), RecordError> {
        let mut bytes = bytes::BytesMut::new();
        starling_protocol::encode_header(self, &mut bytes);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        Ok(files.replace(GENESIS_FILE, &bytes)?)
    }

    /// Epoch 1, its secret and the cluster's id.
    ///
    /// # Errors
    /// [`RecordError::Genesis`].
    pub fn epoch(
        &self,
        secret: Option<[u8; 32]>,
    ) -> Result<(Epoch, ClusterSecret, ClusterId), RecordError> {
        let (epoch, secret) = Epoch::genesis(
            self.candidates.clone(),
            self.slot_bits,
            self.keyspaces.clone(),
            secret,
        )?;
        let cluster_id = epoch.cluster_id();
        Ok((epoch, secret, cluster_id))
    }
}
