//! What the client knows of the cluster: the ring, a connection per node, who is worth asking.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use starling_protocol::{
    Request, Response, Status, StrategyView, TopologyView, WIRE_VERSION, WireError,
};
use starling_ring::{
    BucketMode, Epoch, EpochHash, HostId, Keyspace, Member, NodeIndex, PartitionerKind,
    ReplicationStrategy, Ring,
};
use tokio::time::Instant;

use crate::connection::{Accepts, CallError, Connection, Held, SILENCE, now};
use crate::error::Error;
use crate::seams::Seams;

/// A node that could not be reached is left alone for so long, doubling up to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

/// One node.
pub(crate) struct NodeHandle {
    pub(crate) address: SocketAddr,
    connection: ArcSwapOption<Held>,
    dialling: tokio::sync::Mutex<Backoff>,
    /// There is no connection, and until then there will hardly be one.
    not_before: Mutex<Option<Instant>>,
    buckets: Mutex<BTreeMap<String, u32>>,
    seams: Arc<dyn Seams>,
}

#[derive(Default)]
struct Backoff {
    until: Option<Instant>,
    pause: Duration,
}

/// Why a node cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    /// It is there, and said why not.
    #[error("{0}")]
    Refused(WireError),
    /// Somebody else's attempt has not ended.
    #[error("another request is still trying to reach it")]
    BeingTried,
    /// Too soon after the last attempt.
    #[error("it could not be reached a moment ago")]
    BackingOff,
    /// It took too long.
    #[error("no connection within {} ms", within.as_millis())]
    Timeout {
        /// How long it was given.
        within: Duration,
    },
    /// There is no socket.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It answered something else than was asked.
    #[error("it answered something else than {asked}")]
    Unexpected {
        /// What was asked for.
        asked: &'static str,
    },
}

/// The ring as last heard, and how its answering node saw the others.
pub(crate) struct Known {
    pub(crate) view: TopologyView,
    pub(crate) ring: Arc<Ring>,
    pub(crate) nodes: Vec<Arc<NodeHandle>>,
}

/// See the module.
pub(crate) struct Cluster {
    pub(crate) known: ArcSwap<Known>,
    /// The contact point that told of the others.
    pub(crate) introduced_by: SocketAddr,
    connect_timeout: Duration,
    seams: Arc<dyn Seams>,
}

impl NodeHandle {
    fn new(address: SocketAddr, seams: Arc<dyn Seams>) -> Arc<Self> {
        Arc::new(Self {
            address,
            connection: ArcSwapOption::empty(),
            dialling: tokio::sync::Mutex::default(),
            not_before: Mutex::default(),
            buckets: Mutex::default(),
            seams,
        })
    }

    /// The standing connection.
    pub(crate) fn connected(&self) -> Option<Arc<Held>> {
        self.connection.load_full().filter(|connection| !connection.is_closed())
    }

    /// Whether there is a connection on which the node has not gone silent.
    pub(crate) fn is_answering(&self) -> bool {
        self.connected().is_some_and(|connection| !connection.is_silent())
    }

    /// Whether a request should go to it rather than to another: not while it is silent, being tried, or
    /// was not reached a moment ago.
    fn is_promising(&self) -> bool {
        match self.connected() {
            Some(connection) => !connection.is_silent(),
            None => self.not_before.lock().is_none_or(|until| now() >= until),
        }
    }

    /// A connection, made if there is none and the last failure is long enough ago.
    pub(crate) async fn connect(&self, within: Duration) -> Result<Arc<Held>, ReachError> {
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        let until = now() + within;
        // Whoever asked first goes on trying; it is not worth more to the others than an answer is.
        let patience = within.min(SILENCE);
        let Ok(mut backoff) = tokio::time::timeout(patience, self.dialling.lock()).await else {
            return Err(ReachError::BeingTried);
        };
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        if backoff.until.is_some_and(|until| now() < until) {
            return Err(ReachError::BackingOff);
        }
        *self.not_before.lock() = Some(until);
        match tokio::time::timeout_at(until, self.dial()).await {
            Ok(Ok(connection)) => {
                *backoff = Backoff::default();
                *self.not_before.lock() = None;
                self.buckets.lock().clear();
                self.connection.store(Some(connection.clone()));
                Ok(connection)
            }
            failed => {
                backoff.pause = (backoff.pause * 2).clamp(BACKOFF_FIRST, BACKOFF_LAST);
                backoff.until = Some(now() + backoff.pause);
                *self.not_before.lock() = backoff.until;
                failed.unwrap_or(Err(ReachError::Timeout { within }))
            }
        }
    }

    /// Asks for something that is no data. `timeout` begins once there is a connection.
    pub(crate) async fn ask(
        &self,
        request: &Request,
        within: Duration,
        timeout: Duration,
    ) -> Result<Response, ReachError> {
        let connection = self.connect(within).await?;
        match connection.call(request, &[], now() + timeout).await?.0 {
            Response::Error(error) => Err(ReachError::Refused(error)),
            answer => Ok(answer),
        }
    }

    async fn dial(&self) -> Result<Arc<Held>, ReachError> {
        let (reader, writer) = self.seams.connect(self.address).await?;
        let connection = Connection::start(reader, writer);
        let client = format!("starling-client {}", env!("CARGO_PKG_VERSION"));
        let hello = Request::Hello { wire_version: WIRE_VERSION, client };
        match connection.call(&hello, &[], now() + REFRESH_TIMEOUT).await?.0 {
            Response::Hello { max_frame, max_value, .. } => {
                connection.greeted(Accepts {
                    frame_bytes_max: max_frame as usize,
                    value_bytes_max: max_value as usize,
                });
                Ok(connection)
            }
            Response::Error(error) => Err(ReachError::Refused(error)),
            _ => Err(ReachError::Unexpected { asked: "a greeting" }),
        }
    }

    /// The id of a bucket on the standing connection, opened there if need be.
    pub(crate) async fn open(
        &self,
        connection: &Connection,
        name: &str,
        deadline: Instant,
    ) -> Result<u32, OpenError> {
        if let Some(id) = self.buckets.lock().get(name) {
            return Ok(*id);
        }
        let request = Request::OpenBucket { name: name.to_owned() };
        match connection.call(&request, &[], deadline).await? {
            (Response::BucketOpened { bucket, .. }, _) => {
                self.buckets.lock().insert(name.to_owned(), bucket);
                Ok(bucket)
            }
            (Response::Error(error), _) => Err(OpenError::Refused(error)),
            _ => Err(OpenError::Call(CallError::Garbled)),
        }
    }

    /// Forgets a bucket that the node says was not opened.
    pub(crate) fn forget(&self, name: &str) {
        self.buckets.lock().remove(name);
    }
}

/// Why a bucket could not be opened; no write was sent.
pub(crate) enum OpenError {
    Call(CallError),
    Refused(WireError),
}

impl From<CallError> for OpenError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Cluster {
    /// Asks the contact points in turn until one tells the ring.
    pub(crate) async fn discover(
        contact_points: &[String],
        connect_timeout: Duration,
        seams: Arc<dyn Seams>,
    ) -> Result<Self, Error> {
        if contact_points.is_empty() {
            return Err(Error::NoContactPoint);
        }
        let mut tried = Vec::new();
        let mut refused = None;
        for name in contact_points {
            let addresses = match seams.resolve(name).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    tried.push(format!("{name}: {error}"));
                    continue;
                }
            };
            for address in addresses {
                let node = NodeHandle::new(address, seams.clone());
                match fetch(&node, connect_timeout).await {
                    Ok(view) => {
                        let known = Known::new(view, &[node], &seams)?;
                        let known = ArcSwap::from_pointee(known);
                        return Ok(Self { known, introduced_by: address, connect_timeout, seams });
                    }
                    Err(missed) => {
                        tried.push(format!("{name}: {missed}"));
                        if let ReachError::Refused(error) = missed {
                            refused.get_or_insert(error);
                        }
                    }
                }
            }
        }
        // Who answers is there: what it says is worth more than that the others could not be reached.
        Err(match refused {
            Some(error) => Error::Refused { error, unknown: false },
            None => Error::Unreachable { tried },
        })
    }

    /// Asks any node for the ring again. Keeps what is known where nobody answers.
    pub(crate) async fn refresh(&self) {
        let known = self.known.load_full();
        let mut nodes: Vec<_> = known.nodes.iter().collect();
        nodes.sort_by_key(|node| node.connected().is_none_or(|connection| connection.is_silent()));
        for node in nodes {
            if let Ok(view) = fetch(node, self.connect_timeout).await {
                if view != known.view
                    && let Ok(fresh) = Known::new(view, &known.nodes, &self.seams)
                {
                    self.known.store(Arc::new(fresh));
                }
                return;
            }
        }
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }
}

async fn fetch(node: &NodeHandle, connect_timeout: Duration) -> Result<TopologyView, ReachError> {
    match node.ask(&Request::Topology, connect_timeout, REFRESH_TIMEOUT).await? {
        Response::Topology(view) => Ok(view),
        _ => Err(ReachError::Unexpected { asked: "the ring" }),
    }
}

impl Known {
    /// Keeps the handles of nodes that are known already.
    fn new(
        view: TopologyView,
        before: &[Arc<NodeHandle>],
        seams: &Arc<dyn Seams>,
    ) -> Result<Self, Error> {
        let nodes = view.members.iter().map(|member| {
            let known = before.iter().find(|node| node.address == member.client_address);
            let fresh = || NodeHandle::new(member.client_address, seams.clone());
            known.cloned().unwrap_or_else(fresh)
        });
        Ok(Self { nodes: nodes.collect(), ring: Arc::new(ring(&view)?), view })
    }

    /// The nodes to ask about a key, best first: living replicas, the other replicas, the rest.
    /// Writes keep the natural order, so that one replica leads a key; reads go to the least loaded.
    pub(crate) fn route(&self, keyspace: &str, key: &[u8], write: bool) -> Vec<NodeIndex> {
        let replicas = match self.ring.keyspace(keyspace) {
            Some(placement) => placement.replicas(placement.token(key)),
            None => &[],
        };
        let mut order = replicas.to_vec();
        order.sort_by_cached_key(|node| {
            let connection = self.node(*node).connected();
            let usable = self.is_up(*node) && self.node(*node).is_promising();
            let load = connection.map_or(0, |connection| connection.load());
            (!usable, if write { 0 } else { load })
        });
        let everybody = (0..).map(NodeIndex).take(self.nodes.len());
        order.extend(everybody.filter(|node| !replicas.contains(node)));
        order
    }

    pub(crate) fn node(&self, index: NodeIndex) -> &Arc<NodeHandle> {
        &self.nodes[usize::from(index.0)]
    }

    fn is_up(&self, index: NodeIndex) -> bool {
        self.view.members[usize::from(index.0)].status == Status::Up
    }
}

fn ring(view: &TopologyView) -> Result<Ring, Error> {
    let members: Vec<Member> = view
        .members
        .iter()
        .map(|member| Member {
            host_id: HostId(member.host_id),
            address: member.internode_address,
            client_address: member.client_address,
            datacenter: member.datacenter.clone(),
            rack: member.rack.clone(),
        })
        .collect();
    let slots_expected = 1_usize.checked_shl(u32::from(view.slot_bits)).unwrap_or(0);
    let members_counted = members.len() <= usize::from(u16::MAX);
    let owners_known = view.slots.iter().all(|owner| usize::from(*owner) < members.len());
    let grid_known = (4..=16).contains(&view.slot_bits) && view.slots.len() == slots_expected;
    if !grid_known || !owners_known || !members_counted {
        let message = "the ring's slots do not fit its members".to_owned();
        return Err(Error::Protocol { message, unknown: false });
    }
    let keyspaces = view.keyspaces.iter().map(|keyspace| Keyspace {
        name: keyspace.name.clone(),
        strategy: match &keyspace.strategy {
            StrategyView::Simple { replication_factor } => {
                ReplicationStrategy::Simple { replication_factor: *replication_factor }
            }
            StrategyView::NetworkTopology { datacenters } => {
                ReplicationStrategy::NetworkTopology { datacenters: datacenters.clone() }
            }
        },
        partitioner: if keyspace.murmur3 { PartitionerKind::Murmur3 } else { PartitionerKind::Sip },
        buckets: keyspace.lww_buckets.iter().map(|name| (name.clone(), BucketMode::Lww)).collect(),
    });
    let epoch = Epoch {
        n: view.epoch,
        parent_hash: EpochHash([0; 32]),
        keyspaces: keyspaces.collect(),
        members,
        slot_bits: view.slot_bits,
        slots: view.slots.iter().map(|owner| NodeIndex(*owner)).collect(),
        secret_hash: [0; 32],
    };
    Ok(Ring::new(Arc::new(epoch), view.sip_key))
}
