//! The cluster as a node remembers it: the seeds that founded it and the secret they agreed on.
//! Epoch 1 is recomputed from them at every start, so it cannot differ from what they say.

use std::io;

use serde::{Deserialize, Serialize};
use starling_ring::{Candidate, ClusterId, ClusterSecret, Epoch, GenesisError, Keyspace};
use starling_storage::Files;

/// The record of the cluster's foundation.
pub const GENESIS_FILE: &str = "GENESIS";

/// The first byte of the record.
const VERSION: u8 = 2;

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
    /// Another release wrote it.
    #[error(
        "the record of the cluster's foundation is of version {version}; this release reads version {VERSION}: use the release that wrote it"
    )]
    Version {
        /// Its version.
        version: u8,
    },
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
        let Some((version, body)) = body.split_first() else {
            return Err(RecordError::Damaged("it is too short".into()));
        };
        if *version != VERSION {
            return Err(RecordError::Version { version: *version });
        }
        let decoded = starling_protocol::decode_header(body);
        decoded.map(Some).map_err(|error| RecordError::Damaged(error.to_string()))
    }

    /// Makes the record durable.
    ///
    /// # Errors
    /// [`RecordError::Io`].
    pub fn store(&self, files: &dyn Files) -> Result<(), RecordError> {
        let mut bytes = bytes::BytesMut::from(&[VERSION][..]);
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

#[cfg(test)]
mod tests {
    use starling_storage::{Files, MemoryFiles};

    use super::{ClusterRecord, GENESIS_FILE, RecordError};

    #[test]
    fn a_record_comes_back_and_another_version_or_a_damaged_one_is_refused() {
        let files = MemoryFiles::new();
        let record = ClusterRecord { candidates: Vec::new(), slot_bits: 12, keyspaces: Vec::new() };
        record.store(&files).expect("memory takes it");
        let found = ClusterRecord::load(&files).expect("it was just stored");
        assert_eq!(found, Some(record));
        let stored = files.read(GENESIS_FILE).expect("memory gives it").expect("it was stored");

        let mut newer = stored[..stored.len() - 4].to_vec();
        newer[0] += 1;
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_le_bytes());
        files.replace(GENESIS_FILE, &newer).expect("memory takes it");
        assert!(matches!(ClusterRecord::load(&files), Err(RecordError::Version { .. })));

        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            files.replace(GENESIS_FILE, &damaged).expect("memory takes it");
            let refused = ClusterRecord::load(&files);
            assert!(matches!(refused, Err(RecordError::Damaged(_))), "byte {at}: {refused:?}");
        }
    }
}
