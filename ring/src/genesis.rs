//! How a cluster comes to be: a pure state machine that collects the seeds' introductions and
//! refuses everything that would make two founders arrive at different clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::{Candidate, HostId, SlotBitsError};

/// Why the seeds cannot found a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// The seed list does not name this node.
    #[error(
        "the seed list {seeds:?} does not contain this node's internode address {me}; add it: the first members are exactly the seeds"
    )]
    NotASeed {
        /// This node.
        me: SocketAddr,
        /// The list.
        seeds: Vec<SocketAddr>,
    },
    /// Somebody who is no seed introduced itself.
    #[error(
        "the node at {address} is not in the seed list of this node; give all first members the same list"
    )]
    Stranger {
        /// Its address.
        address: SocketAddr,
    },
    /// Two different data directories were used at one address.
    #[error(
        "the seed at {address} was {known} before and is {found} now: it was wiped after it had introduced itself; wipe the other seeds too before the cluster is founded, or restore its data directory"
    )]
    Wiped {
        /// The address.
        address: SocketAddr,
        /// Who it was.
        known: HostId,
        /// Who it is.
        found: HostId,
    },
    /// One data directory is used at two addresses.
    #[error(
        "host {host_id} answers at {first} and at {second}: a data directory was copied; wipe one of the two"
    )]
    Twice {
        /// The host.
        host_id: HostId,
        /// One address.
        first: SocketAddr,
        /// The other.
        second: SocketAddr,
    },
    /// A seed is configured for another cluster.
    #[error(
        "the seed at {address} has another cluster_name, slot_bits or keyspaces; give all first members the same"
    )]
    Configuration {
        /// Its address.
        address: SocketAddr,
    },
    /// A seed has another seed list: it would found another cluster.
    #[error(
        "the seed at {address} has another list of seeds; give all first members the same, and found the cluster anew if it has founded one"
    )]
    SeedList {
        /// Its address.
        address: SocketAddr,
    },
    /// A seed changed what it says of itself.
    #[error(
        "the seed at {address} has changed its client address, datacenter, rack or nonce; restart all seeds of the cluster that is being founded"
    )]
    Changed {
        /// Its address.
        address: SocketAddr,
    },
    /// A keyspace wants more replicas than there are members.
    #[error("keyspace {keyspace:?} wants {wanted} replicas{}, where there are {members} members; lower it or add seeds", in_datacenter(datacenter.as_deref()))]
    ReplicationFactor {
        /// The keyspace.
        keyspace: String,
        /// The datacenter, where the strategy names one.
        datacenter: Option<String>,
        /// Replicas wanted.
        wanted: u8,
        /// Members there.
        members: usize,
    },
    /// The slot count is out of range.
    #[error(transparent)]
    SlotBits(#[from] SlotBitsError),
}

fn in_datacenter(datacenter: Option<&str>) -> String {
    datacenter.map(|name| format!(" in datacenter {name:?}")).unwrap_or_default()
}

/// See the module. Order and repetition of what is learned do not matter.
#[derive(Debug, Clone)]
pub struct Genesis {
    seeds: BTreeSet<SocketAddr>,
    config_hash: [u8; 32],
    seeds_hash: [u8; 32],
    known: BTreeMap<SocketAddr, Candidate>,
}

impl Genesis {
    /// A founder that knows only itself.
    ///
    /// # Errors
    /// [`GenesisError::NotASeed`].
    pub fn new(me: Candidate, seeds: BTreeSet<SocketAddr>) -> Result<Self, GenesisError> {
        if !seeds.contains(&me.address) {
            let seeds = seeds.into_iter().collect();
            return Err(GenesisError::NotASeed { me: me.address, seeds });
        }
        let (config_hash, seeds_hash) = (me.config_hash, me.seeds_hash);
        Ok(Self { seeds, config_hash, seeds_hash, known: BTreeMap::from([(me.address, me)]) })
    }

    /// Takes in an introduction. Returns whether it was news.
    ///
    /// # Errors
    /// A contradiction; what was known before stays.
    pub fn learn(&mut self, candidate: Candidate) -> Result<bool, GenesisError> {
        let address = candidate.address;
        if !self.seeds.contains(&address) {
            return Err(GenesisError::Stranger { address });
        }
        if candidate.config_hash != self.config_hash {
            return Err(GenesisError::Configuration { address });
        }
        if candidate.seeds_hash != self.seeds_hash {
            return Err(GenesisError::SeedList { address });
        }
        if let Some(known) = self.known.get(&address) {
            return match known {
                known if *known == candidate => Ok(false),
                known if known.host_id != candidate.host_id => Err(GenesisError::Wiped {
                    address,
                    known: known.host_id,
                    found: candidate.host_id,
                }),
                _ => Err(GenesisError::Changed { address }),
            };
        }
        let host_id = candidate.host_id;
        if let Some(other) = self.known.values().find(|known| known.host_id == host_id) {
            let (first, second) = (other.address, address);
            return Err(GenesisError::Twice { host_id, first, second });
        }
        self.known.insert(address, candidate);
        Ok(true)
    }

    /// All introductions so far, this node's own among them.
    #[must_use]
    pub fn known(&self) -> Vec<Candidate> {
        self.known.values().cloned().collect()
    }

    /// The founders by host id, once all seeds are known.
    #[must_use]
    pub fn complete(&self) -> Option<Vec<Candidate>> {
        if self.known.len() < self.seeds.len() {
            return None;
        }
        let mut founders = self.known();
        founders.sort_by_key(|candidate| candidate.host_id);
        Some(founders)
    }

    /// The seeds not heard of yet.
    #[must_use]
    pub fn missing(&self) -> Vec<SocketAddr> {
        self.seeds.iter().filter(|seed| !self.known.contains_key(seed)).copied().collect()
    }
}
