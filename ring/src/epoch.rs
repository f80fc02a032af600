//! The record that says who is a member and who owns what. Epochs form a chain; the first is
//! computed from the founders alone, so that every founder arrives at the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::claim::claim;
use crate::secret::sha256;
use crate::{
    Candidate, ClusterId, ClusterSecret, GenesisError, Keyspace, Member, NodeIndex,
    ReplicationStrategy, SlotGrid,
};

/// The SHA-256 of an epoch's canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochHash(pub [u8; 32]);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    /// Its number, from 1.
    pub n: u64,
    /// The hash of the epoch before it; zeros for the first.
    pub parent_hash: EpochHash,
    /// The members, by host id.
    pub members: Vec<Member>,
    /// log2 of the number of slots.
    pub slot_bits: u8,
    /// The owner of each slot.
    pub slots: Vec<NodeIndex>,
    /// The keyspaces, by name.
    pub keyspaces: Vec<Keyspace>,
    /// The fingerprint of the cluster's secret.
    pub secret_hash: [u8; 32],
}

impl Epoch {
    /// The first epoch of the cluster that `candidates` found, and its secret: the given one, or
    /// the hash of the founders' sorted nonces.
    ///
    /// # Errors
    /// [`GenesisError`]: a keyspace that the founders cannot hold, or a bad slot count.
    pub fn genesis(
        mut candidates: Vec<Candidate>,
        slot_bits: u8,
        mut keyspaces: Vec<Keyspace>,
        secret: Option<[u8; 32]>,
    ) -> Result<(Self, ClusterSecret), GenesisError> {
        let grid = SlotGrid::new(slot_bits)?;
        candidates.sort_by_key(|candidate| candidate.host_id);
        keyspaces.sort_by(|one, other| one.name.cmp(&other.name));
        let members: Vec<Member> = candidates.iter().map(Candidate::to_member).collect();
        for keyspace in &keyspaces {
            check_replication(keyspace, &members)?;
        }
        let secret = ClusterSecret(secret.unwrap_or_else(|| from_nonces(&candidates)));
        let epoch = Self {
            n: 1,
            parent_hash: EpochHash([0; 32]),
            slots: claim(&members, grid),
            members,
            slot_bits,
            keyspaces,
            secret_hash: secret.fingerprint(),
        };
        Ok((epoch, secret))
    }

    /// The hash of the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> EpochHash {
        EpochHash(sha256(&[&self.encode()]))
    }

    /// The id of the cluster whose first epoch this is.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        ClusterId(*self.hash().0.first_chunk().expect("the hash has 32 bytes"))
    }

    /// One byte string per epoch: every field in order, texts and lists behind their length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"starling epoch v1".to_vec();
        out.extend(self.n.to_le_bytes());
        out.extend(self.parent_hash.0);
        length(&mut out, self.members.len());
        for member in &self.members {
            out.extend(member.host_id.0.as_bytes());
            text(&mut out, &member.address.to_string());
            text(&mut out, &member.client_address.to_string());
            text(&mut out, &member.datacenter);
            text(&mut out, &member.rack);
        }
        out.push(self.slot_bits);
        self.slots.iter().for_each(|owner| out.extend(owner.0.to_le_bytes()));
        length(&mut out, self.keyspaces.len());
        for keyspace in &self.keyspaces {
            encode_keyspace(&mut out, keyspace);
        }
        out.extend(self.secret_hash);
        out
    }
}

fn encode_keyspace(out: &mut Vec<u8>, keyspace: &Keyspace) {
    text(out, &keyspace.name);
    out.push(keyspace.partitioner as u8);
    let factors: BTreeMap<&str, u8> = match &keyspace.strategy {
        ReplicationStrategy::Simple { replication_factor } => {
            out.push(0);
            BTreeMap::from([("", *replication_factor)])
        }
        ReplicationStrategy::NetworkTopology { datacenters } => {
            out.push(1);
            datacenters.iter().map(|(name, factor)| (name.as_str(), *factor)).collect()
        }
    };
    length(out, factors.len());
    for (datacenter, factor) in factors {
        text(out, datacenter);
        out.push(factor);
    }
    length(out, keyspace.buckets.len());
    for (bucket, mode) in &keyspace.buckets {
        text(out, bucket);
        out.push(*mode as u8);
    }
}

fn length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    length(out, text.len());
    out.extend(text.as_bytes());
}

/// `candidates` are sorted by host id, so the nonces come in one order on every founder.
fn from_nonces(candidates: &[Candidate]) -> [u8; 32] {
    let mut nonces: Vec<&[u8]> = candidates.iter().map(|one| one.nonce.as_slice()).collect();
    nonces.sort_unstable();
    sha256(&nonces)
}

fn check_replication(keyspace: &Keyspace, members: &[Member]) -> Result<(), GenesisError> {
    let too_few = |datacenter: Option<&str>, wanted: u8, there: usize| {
        if wanted > 0 && usize::from(wanted) <= there {
            return Ok(());
        }
        Err(GenesisError::ReplicationFactor {
            keyspace: keyspace.name.clone(),
            datacenter: datacenter.map(str::to_owned),
            wanted,
            members: there,
        })
    };
    match &keyspace.strategy {
        ReplicationStrategy::Simple { replication_factor } => {
            too_few(None, *replication_factor, members.len())
        }
        ReplicationStrategy::NetworkTopology { datacenters } => {
            datacenters.iter().try_for_each(|(name, factor)| {
                let there = members.iter().filter(|member| member.datacenter == *name).count();
                too_few(Some(name), *factor, there)
            })
        }
    }
}
