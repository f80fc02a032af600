//! The way into a cluster: asks the other seeds who they are until all are known, then founds the
//! cluster with them; or, once it was founded, tells late seeds who founded it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_ring::{Candidate, ClusterId, GenesisError};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::records::ClusterRecord;
use crate::internode::handshake::{self, HandshakeError};
use crate::internode::message::{Shadow, WIRE_VERSION};
use crate::net::Network;
use crate::time::now;

/// Pause between rounds of asking.
const ASK_EVERY: Duration = Duration::from_millis(200);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a node that waits says for whom.
const REMIND_EVERY: Duration = Duration::from_secs(5);

/// Why no cluster came to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisFailure {
    /// The seeds contradict one another.
    #[error(transparent)]
    Seeds(#[from] GenesisError),
    /// A seed speaks another version.
    #[error(
        "the seed at {address} speaks wire version {theirs}, this node {WIRE_VERSION}; run the same release on both"
    )]
    WireVersion {
        /// The seed.
        address: SocketAddr,
        /// Its version.
        theirs: u16,
    },
}

/// See the module. Answers shadow questions for as long as the node runs.
pub struct Genesis {
    state: Mutex<State>,
    seeds: Vec<SocketAddr>,
    network: Arc<dyn Network>,
    me: Candidate,
}

struct State {
    machine: starling_ring::Genesis,
    founded: Option<(Vec<Candidate>, ClusterId)>,
}

impl Genesis {
    /// A node that is `me` among `seeds`.
    ///
    /// # Errors
    /// A seed list without this node's address.
    pub fn new(
        me: Candidate,
        seeds: &[SocketAddr],
        network: Arc<dyn Network>,
    ) -> Result<Self, GenesisError> {
        let machine = starling_ring::Genesis::new(me.clone(), seeds.iter().copied().collect())?;
        let state = State { machine, founded: None };
        Ok(Self { state: Mutex::new(state), seeds: seeds.to_vec(), network, me })
    }

    /// The seeds not heard of yet.
    #[must_use]
    pub fn missing(&self) -> Vec<SocketAddr> {
        let state = self.state.lock();
        if state.founded.is_some() { Vec::new() } else { state.machine.missing() }
    }

    /// The cluster exists: late seeds are told who founded it.
    pub fn founded(&self, record: &ClusterRecord, cluster_id: ClusterId) {
        self.state.lock().founded = Some((record.candidates.clone(), cluster_id));
    }

    /// Learns from a seed's question and answers it.
    pub fn shadow_from(&self, shadow: Shadow) -> Shadow {
        let mut state = self.state.lock();
        if state.founded.is_none() && shadow.wire_version == WIRE_VERSION {
            // A stranger's words are no reason to stop: what a seed answers when asked is.
            if let Some(error) = learn(&mut state, shadow) {
                warn!(%error, "a node contradicts what is known of the seeds");
            }
        } else if let Some((founders, _)) = &state.founded
            && let Some(asking) = &shadow.me
            && !founders.contains(asking)
        {
            warn!(host_id = %asking.host_id, address = %asking.address, "a node that did not found this cluster asks to join it; if it is a founder that was wiped, it must be replaced under a new address");
        }
        self.shadow(&state)
    }

    fn shadow(&self, state: &State) -> Shadow {
        let (candidates, cluster_id) = match &state.founded {
            Some((founders, cluster_id)) => (founders.clone(), Some(*cluster_id)),
            None => (state.machine.known(), None),
        };
        Shadow { wire_version: WIRE_VERSION, me: Some(self.me.clone()), candidates, cluster_id }
    }

    /// Asks the seeds until all are known. Returns them, and whether another of them had founded
    /// the cluster already.
    ///
    /// # Errors
    /// [`GenesisFailure`]; asking again would not help.
    pub async fn run(&self) -> Result<(Vec<Candidate>, bool), GenesisFailure> {
        let began = now();
        let mut reminded = began;
        let mut joined = false;
        loop {
            let complete = self.state.lock().machine.complete();
            if let Some(all) = complete {
                return Ok((all, joined));
            }
            for seed in self.seeds.iter().filter(|seed| **seed != self.me.address) {
                joined |= self.ask(*seed).await?;
            }
            if self.state.lock().machine.complete().is_none() {
                remind(&mut reminded, &self.missing());
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    /// One question to one seed. Returns whether it belongs to a cluster already.
    async fn ask(&self, seed: SocketAddr) -> Result<bool, GenesisFailure> {
        let mine = self.shadow(&self.state.lock());
        let theirs = match self.exchange(seed, &mine).await {
            Ok(theirs) => theirs,
            Err(error) => {
                debug!(%seed, %error, "cannot ask a seed yet");
                return Ok(false);
            }
        };
        if theirs.wire_version != WIRE_VERSION {
            return Err(GenesisFailure::WireVersion { address: seed, theirs: theirs.wire_version });
        }
        let founded = theirs.cluster_id.is_some();
        match learn(&mut self.state.lock(), theirs) {
            None => Ok(founded),
            Some(error) => Err(error.into()),
        }
    }

    async fn exchange(&self, seed: SocketAddr, mine: &Shadow) -> Result<Shadow, HandshakeError> {
        let dial = self.network.connect(seed);
        let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, dial)
            .await
            .map_err(|_| HandshakeError::Timeout)??;
        handshake::ask_shadow(&mut stream, mine).await
    }
}

/// Takes in what a seed says. Returns the first contradiction.
fn learn(state: &mut State, shadow: Shadow) -> Option<GenesisError> {
    let mut contradiction = None;
    for candidate in shadow.me.into_iter().chain(shadow.candidates) {
        let address = candidate.address;
        match state.machine.learn(candidate) {
            Ok(true) => info!(%address, "found a seed"),
            Ok(false) => {}
            Err(error) => {
                contradiction.get_or_insert(error);
            }
        }
    }
    contradiction
}

fn remind(reminded: &mut Instant, missing: &[SocketAddr]) {
    if now().saturating_duration_since(*reminded) >= REMIND_EVERY {
        *reminded = now();
        info!(?missing, "waiting for the other seeds");
    }
}
