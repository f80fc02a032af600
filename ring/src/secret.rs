//! The secret that a cluster's keys derive from.

use std::fmt;

use sha2::{Digest, Sha256};

/// 32 secret bytes, fixed when the cluster is founded.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(pub [u8; 32]);

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClusterSecret(redacted)")
    }
}

impl ClusterSecret {
    /// The key of the SipHash partitioner. Clients that route by token know it.
    #[must_use]
    pub fn partitioner_key(&self) -> [u8; 16] {
        self.derive("starling partitioner key v1")
    }

    /// The key that seals clients' causal contexts. It never leaves the nodes.
    #[must_use]
    pub fn token_mac_key(&self) -> [u8; 16] {
        self.derive("starling context token key v1")
    }

    /// The hash that the epoch carries, so that nodes with different secrets refuse one another.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        sha256(&[b"starling secret fingerprint v1", &self.0])
    }

    fn derive(&self, label: &str) -> [u8; 16] {
        let hash = sha256(&[label.as_bytes(), &self.0]);
        *hash.first_chunk().expect("the hash has 32 bytes")
    }
}

/// SHA-256 over the parts, each preceded by its length so that no two lists look the same.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
