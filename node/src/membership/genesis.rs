//! The way into a cluster: asks the other seeds who they are until all are known, then founds the
//! cluster with them; or, once it was founded, tells late seeds who founded it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use starling_ring::{Candidate, ClusterId, GenesisError};
use tokio::task::JoinSet;
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
/// How long a node that comes back waits for what its peers remember of it.
const REMEMBERED_WITHIN: Duration = Duration::from_millis(300);
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

/// What a node that has no record of a cluster has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Those who found the cluster with it, itself among them.
    Founders {
        /// All of them.
        candidates: Vec<Candidate>,
        /// Whether another of them had founded the cluster already.
        before: bool,
    },
    /// A cluster whose founder at this node's address it is, under a name that it has forgotten: its disk was lost.
    Forgotten {
        /// The founders.
        candidates: Vec<Candidate>,
        /// The one that it was.
        was: Box<Candidate>,
        /// The highest incarnation in which it was met.
        incarnation: u64,
    },
}

/// See the module. Answers shadow questions for as long as the node runs.
pub struct Genesis {
    state: Mutex<State>,
    seeds: Vec<SocketAddr>,
    network: Arc<dyn Network>,
    /// Whether the data directory is new, so that this node may be a founder that lost its own.
    may_have_forgotten: bool,
    /// Whether this node has a record of its cluster.
    is_member: bool,
}

struct State {
    me: Candidate,
    machine: starling_ring::Genesis,
    founded: Option<(Vec<Candidate>, ClusterId)>,
}

impl Genesis {
    /// A node that is `me` among `seeds`; `may_have_forgotten` if its data directory is new, `is_member` if it has a record of its cluster.
    ///
    /// # Errors
    /// A seed list without this node's address.
    pub fn new(
        me: Candidate,
        seeds: &[SocketAddr],
        network: Arc<dyn Network>,
        may_have_forgotten: bool,
        is_member: bool,
    ) -> Result<Self, GenesisError> {
        let machine = starling_ring::Genesis::new(me.clone(), seeds.iter().copied().collect())?;
        let state = Mutex::new(State { me, machine, founded: None });
        Ok(Self { state, seeds: seeds.to_vec(), network, may_have_forgotten, is_member })
    }

    /// The seeds not heard of yet.
    #[must_use]
    pub fn missing(&self) -> Vec<SocketAddr> {
        let state = self.state.lock();
        if state.founded.is_some() { Vec::new() } else { state.machine.missing() }
    }

    /// The cluster exists: late seeds are told who founded it.
    pub fn founded(&self, record: &ClusterRecord, cluster_id: ClusterId) {
        let mut state = self.state.lock();
        let founders = record.candidates.iter();
        if let Some(me) = founders.clone().find(|founder| founder.address == state.me.address) {
            state.me = me.clone();
        }
        state.founded = Some((founders.cloned().collect(), cluster_id));
    }

    /// Learns from a seed's question and answers it.
    pub fn shadow_from(&self, shadow: Shadow) -> Shadow {
        let mut state = self.state.lock();
        let may_found = state.founded.is_none() && shadow.cluster_id.is_none();
        if may_found && shadow.wire_version == WIRE_VERSION {
            // Who asks as a member of a cluster founds no other. A stranger's words are no reason to stop: what a seed answers when asked is.
            if let Some(error) = learn(&mut state, shadow) {
                warn!(%error, "a node contradicts what is known of the seeds");
            }
        } else if let Some((founders, _)) = &state.founded
            && let Some(asking) = &shadow.me
            && !founders.contains(asking)
        {
            warn!(host_id = %asking.host_id, address = %asking.address, "a node that did not found this cluster asks to join it; a founder that lost its disk takes its name back");
        }
        self.shadow(&state)
    }

    fn shadow(&self, state: &State) -> Shadow {
        let (candidates, cluster_id) = match &state.founded {
            Some((founders, cluster_id)) => (founders.clone(), Some(*cluster_id)),
            // A member that is just starting founds nothing, and says so in a moment.
            None if self.is_member => (Vec::new(), None),
            None => (state.machine.known(), None),
        };
        let founds = state.founded.is_some() || !self.is_member;
        Shadow {
            wire_version: WIRE_VERSION,
            me: founds.then(|| state.me.clone()),
            candidates,
            cluster_id,
            met_incarnation: 0,
        }
    }

    /// Asks the seeds until all are known, or a cluster that this node has forgotten.
    ///
    /// # Errors
    /// [`GenesisFailure`]; asking again would not help.
    pub async fn run(&self) -> Result<Found, GenesisFailure> {
        let mut reminder = Reminder::default();
        let mut before = false;
        let my_address = self.state.lock().me.address;
        let others: Vec<_> =
            self.seeds.iter().copied().filter(|seed| *seed != my_address).collect();
        loop {
            let complete = self.state.lock().machine.complete();
            if let Some(candidates) = complete {
                return Ok(Found::Founders { candidates, before });
            }
            reminder.say(&others, &self.missing());
            let mut forgotten: Option<Found> = None;
            for seed in &others {
                let Some(theirs) = self.ask(*seed, &mut reminder).await? else { continue };
                before |= theirs.cluster_id.is_some();
                match self.forgotten(&theirs) {
                    Some(found) => forgotten = Some(latest(forgotten, found)),
                    None => {
                        if let Some(error) = learn(&mut self.state.lock(), theirs) {
                            return Err(error.into());
                        }
                    }
                }
            }
            if let Some(found) = forgotten {
                return Ok(found);
            }
            if self.state.lock().machine.complete().is_none() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    /// The highest incarnation in which a peer has met this node, as far as peers of its cluster answer within [`REMEMBERED_WITHIN`]; 0 if
    /// none has.
    pub async fn met_incarnation(&self, cluster_id: ClusterId) -> u64 {
        let (mine, my_address) = {
            let state = self.state.lock();
            (self.shadow(&state), state.me.address)
        };
        let mut asked = JoinSet::new();
        for seed in self.seeds.iter().copied().filter(|seed| *seed != my_address) {
            let (network, mine) = (self.network.clone(), mine.clone());
            asked.spawn(async move { exchange(network.as_ref(), seed, &mine).await });
        }
        let until = now() + REMEMBERED_WITHIN;
        let mut met = 0;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.join_next()).await {
            // A peer that is down says nothing; once it is up its gossip does.
            if let Ok(Ok(theirs)) = answer
                && theirs.wire_version == WIRE_VERSION
                && theirs.cluster_id == Some(cluster_id)
            {
                met = met.max(theirs.met_incarnation);
            }
        }
        met
    }

    /// What a founder's answer says of the founder at this node's address, if that is another name than this node's.
    fn forgotten(&self, theirs: &Shadow) -> Option<Found> {
        let me = &self.state.lock().me;
        let was = theirs.candidates.iter().find(|founder| founder.address == me.address)?;
        let Candidate { host_id, nonce, seeds_hash, .. } = *was;
        let renamed = Candidate { host_id, nonce, seeds_hash, ..me.clone() };
        let is_me = self.may_have_forgotten && theirs.cluster_id.is_some();
        (is_me && *was == renamed && was.host_id != me.host_id).then(|| Found::Forgotten {
            candidates: theirs.candidates.clone(),
            was: Box::new(was.clone()),
            incarnation: theirs.met_incarnation,
        })
    }

    /// One question to one seed, and its answer.
    async fn ask(
        &self,
        seed: SocketAddr,
        reminder: &mut Reminder,
    ) -> Result<Option<Shadow>, GenesisFailure> {
        let mine = self.shadow(&self.state.lock());
        let theirs = match exchange(self.network.as_ref(), seed, &mine).await {
            Ok(theirs) => theirs,
            Err(error) => {
                debug!(%seed, %error, "cannot ask a seed yet");
                reminder.unasked.insert(seed, error.to_string());
                return Ok(None);
            }
        };
        if theirs.wire_version != WIRE_VERSION {
            return Err(GenesisFailure::WireVersion { address: seed, theirs: theirs.wire_version });
        }
        Ok(Some(theirs))
    }
}

async fn exchange(
    network: &dyn Network,
    seed: SocketAddr,
    mine: &Shadow,
) -> Result<Shadow, HandshakeError> {
    let dial = network.connect(seed);
    let mut stream = tokio::time::timeout(CONNECT_TIMEOUT, dial)
        .await
        .map_err(|_| HandshakeError::Timeout)??;
    handshake::ask_shadow(&mut stream, mine).await
}

/// Of two founders' words on what this node has forgotten, the one that met it last.
fn latest(known: Option<Found>, found: Found) -> Found {
    let incarnation = |found: &Found| match found {
        Found::Forgotten { incarnation, .. } => *incarnation,
        Found::Founders { .. } => 0,
    };
    match known {
        Some(known) if incarnation(&known) >= incarnation(&found) => known,
        _ => found,
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

/// Says for whom the node waits: at once, and again while that lasts.
#[derive(Default)]
struct Reminder {
    said: Option<Instant>,
    /// Why a seed could not be asked, the last time that it was tried.
    unasked: BTreeMap<SocketAddr, String>,
}

impl Reminder {
    fn say(&mut self, others: &[SocketAddr], missing: &[SocketAddr]) {
        let now = now();
        let began = self.said.is_none();
        if self.said.is_some_and(|said| now.saturating_duration_since(said) < REMIND_EVERY) {
            return;
        }
        self.said = Some(now);
        let waiting_for = missing.iter().map(|seed| match self.unasked.get(seed) {
            Some(reason) => format!("{seed} ({reason})"),
            None => seed.to_string(),
        });
        let waiting_for = waiting_for.collect::<Vec<_>>().join(", ");
        if began {
            info!(%waiting_for, "waiting for the other seeds: the cluster is there once all of them are");
            return;
        }
        let found: Vec<_> = others.iter().filter(|seed| !missing.contains(seed)).collect();
        info!(%waiting_for, ?found, "still waiting for the other seeds");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use starling_ring::{Candidate, ClusterId, HostId};
    use uuid::Uuid;

    use super::Genesis;
    use crate::internode::message::{Shadow, WIRE_VERSION};
    use crate::net::TcpNetwork;

    fn candidate(number: u8) -> Candidate {
        let at = |port| SocketAddr::from(([127, 0, 0, number], port));
        Candidate {
            host_id: HostId(Uuid::from_u128(number.into())),
            nonce: [number; 32],
            address: at(7000),
            client_address: at(9050),
            datacenter: "dc1".to_owned(),
            rack: "rack1".to_owned(),
            config_hash: [0; 32],
            seeds_hash: [0; 32],
        }
    }

    fn asking(number: u8, cluster_id: Option<ClusterId>) -> Shadow {
        let me = Some(candidate(number));
        let candidates = (1..=3).map(candidate).collect();
        Shadow { wire_version: WIRE_VERSION, me, candidates, cluster_id, met_incarnation: 0 }
    }

    fn genesis(is_member: bool) -> Genesis {
        let seeds: Vec<_> = (1..=3).map(|number| candidate(number).address).collect();
        let network = Arc::new(TcpNetwork);
        Genesis::new(candidate(1), &seeds, network, !is_member, is_member).expect("it is a seed")
    }

    /// A node that had lost its disk founded a second cluster with those that came back at the same moment.
    #[test]
    fn who_asks_as_a_member_of_a_cluster_is_no_founder_of_another() {
        let forgot = genesis(false);
        for number in [2, 3] {
            forgot.shadow_from(asking(number, Some(ClusterId([7; 16]))));
        }
        assert_eq!(forgot.missing(), [candidate(2).address, candidate(3).address]);
        forgot.shadow_from(asking(2, None));
        assert_eq!(forgot.missing(), []);
    }

    #[test]
    fn a_member_that_is_just_starting_is_nobody_s_founder() {
        let answer = genesis(true).shadow_from(asking(2, None));
        assert_eq!((answer.me, answer.candidates), (None, Vec::new()));
    }
}
