//! Nodes made of a listening socket and a script. They speak the native protocol, greet, open buckets
//! and tell the ring; what they answer to everything else, and whether, is the test's choice.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use starling_client::{Client, ClientBuilder};
use starling_protocol::{
    ContextToken, FrameDecoder, KeyspaceView, MemberView, Request, Response, Status, StrategyView,
    TopologyView, decode_header, encode_parts, encode_raw, kind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// The bucket that tests use.
pub const BUCKET: &str = "demo.carts";
/// Longer than anything in a test takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether something holds.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const SLOT_BITS: u8 = 6;

/// What a node does with a request.
pub enum Reply {
    /// Answers.
    With(Response, Bytes),
    /// Answers after a while; requests behind it are not held up.
    After(Duration, Response, Bytes),
    /// Answers nothing, now or ever.
    Never,
    /// Closes the connection.
    Close,
    /// Answers with a header that is no response.
    Garbled,
    /// Answers with bytes that are no frame.
    NoFrame,
}

type Script = Box<dyn FnMut(&Request) -> Option<Reply> + Send>;

/// One node. Requests that its script leaves alone are answered well.
pub struct Node {
    pub address: SocketAddr,
    /// Data requests, their operands and the milliseconds left for them.
    seen: Mutex<Vec<(Request, Bytes, u32)>>,
    script: Mutex<Script>,
    frozen: AtomicBool,
    deaf: AtomicBool,
    accepted: AtomicUsize,
    open: AtomicUsize,
    view: Arc<Mutex<TopologyView>>,
}

/// A few nodes that all tell the same ring.
pub struct Cluster {
    pub nodes: Vec<Arc<Node>>,
    pub view: Arc<Mutex<TopologyView>>,
}

impl Cluster {
    /// Nodes that share the slots in turn, each key on the next `replication_factor` of them.
    pub async fn start(count: u16, replication_factor: u8) -> Self {
        let view = Arc::new(Mutex::new(TopologyView {
            epoch: 1,
            slot_bits: SLOT_BITS,
            slots: (0..1 << SLOT_BITS).map(|slot| slot % count).collect(),
            members: Vec::new(),
            keyspaces: vec![KeyspaceView {
                name: "demo".to_owned(),
                strategy: StrategyView::Simple { replication_factor },
                murmur3: false,
                lww_buckets: Vec::new(),
            }],
            sip_key: [9; 16],
        }));
        let mut nodes = Vec::new();
        for _ in 0..count {
            let node = Node::start(view.clone()).await;
            let member = member(nodes.len(), node.address);
            view.lock().members.push(member);
            nodes.push(node);
        }
        Self { nodes, view }
    }

    /// A client that knows the first node, and is patient.
    pub fn builder(&self) -> ClientBuilder {
        Client::builder()
            .contact_point(self.nodes[0].address.to_string())
            .connect_timeout(PATIENCE)
            .attempt_timeout(PATIENCE)
            .read_timeout(PATIENCE)
            .write_timeout(PATIENCE)
    }

    /// A client of all nodes, connected to each.
    pub async fn client(&self) -> Client {
        self.warm(self.builder()).await
    }

    /// Builds the client, and lets it ask every node for something once.
    pub async fn warm(&self, builder: ClientBuilder) -> Client {
        let client = builder.build().await.expect("the first node answers");
        let bucket = client.bucket(BUCKET).await.expect("the bucket can be opened");
        for place in 0..self.nodes.len() {
            let key = key_led_by(&client, place);
            bucket.put(key, "warm").await.expect("every node answers well");
        }
        self.nodes.iter().for_each(|node| node.seen.lock().clear());
        client
    }

    /// Every node does this from now on.
    pub fn script(&self, script: impl FnMut(&Request) -> Option<Reply> + Send + Clone + 'static) {
        self.nodes.iter().for_each(|node| node.script(script.clone()));
    }

    /// What each node was asked for, by node.
    pub fn asked(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.seen.lock().len()).collect()
    }
}

impl Node {
    /// A node that tells `view`.
    pub async fn start(view: Arc<Mutex<TopologyView>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let node = Arc::new(Self {
            address: listener.local_addr().expect("a bound socket has an address"),
            seen: Mutex::default(),
            script: Mutex::new(Box::new(|_| None)),
            frozen: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            view,
        });
        let accepting = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.accepted.fetch_add(1, Ordering::SeqCst);
                accepting.open.fetch_add(1, Ordering::SeqCst);
                let node = accepting.clone();
                tokio::spawn(async move {
                    node.serve(stream).await;
                    node.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        node
    }

    /// From now on it does this; `None` answers well.
    pub fn script(&self, script: impl FnMut(&Request) -> Option<Reply> + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    /// Accepts and answers nothing, as a stopped process would; all answers come when it thaws.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
    }

    /// Reads nothing more from its connections.
    pub fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// The data requests so far, with operand and budget.
    pub fn seen(&self) -> Vec<(Request, Bytes, u32)> {
        self.seen.lock().clone()
    }

    /// How many connections were ever made to it.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Waits until as many connections are open as expected.
    pub async fn until_open(&self, expected: usize) {
        eventually(|| self.open.load(Ordering::SeqCst) == expected).await;
    }

    async fn serve(self: &Arc<Self>, stream: TcpStream) {
        let (mut reader, writer) = stream.into_split();
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let (mut decoder, mut received) = (FrameDecoder::new(1 << 20), BytesMut::new());
        loop {
            while let Some(frame) = decoder.next(&mut received).expect("the client sends frames") {
                let request: Request =
                    decode_header(&frame.header).expect("the client sends requests");
                let reply = self.reply(&request, &frame.operand, frame.budget_ms);
                if self.frozen.load(Ordering::SeqCst) {
                    let (node, writer) = (self.clone(), writer.clone());
                    tokio::spawn(async move {
                        until(|| !node.frozen.load(Ordering::SeqCst)).await;
                        carry_out(reply, frame.request_id, &writer).await
                    });
                } else if !carry_out(reply, frame.request_id, &writer).await {
                    return;
                }
            }
            until(|| !self.deaf.load(Ordering::SeqCst)).await;
            if !matches!(reader.read_buf(&mut received).await, Ok(1..)) {
                return;
            }
        }
    }

    fn reply(&self, request: &Request, operand: &Bytes, budget_ms: u32) -> Reply {
        let data =
            matches!(request, Request::Get { .. } | Request::Put { .. } | Request::Delete { .. });
        if data {
            self.seen.lock().push((request.clone(), operand.clone(), budget_ms));
        }
        let scripted = (self.script.lock())(request);
        scripted.unwrap_or_else(|| Reply::With(self.well(request), Bytes::new()))
    }

    /// The answer of a node with nothing stored.
    fn well(&self, request: &Request) -> Response {
        match request {
            Request::Hello { .. } => Response::Hello {
                cluster_id: [1; 16],
                cluster: "test".to_owned(),
                host_id: Uuid::nil(),
                epoch: 1,
                max_frame: 1 << 20,
                max_value: 1 << 20,
            },
            Request::OpenBucket { .. } => {
                Response::BucketOpened { bucket: 7, keyspace: "demo".to_owned(), lww: false }
            }
            Request::Topology => Response::Topology(self.view.lock().clone()),
            Request::Get { .. } => {
                Response::Value { sibling_lens: Vec::new(), context: token("empty") }
            }
            _ => Response::Written { context: token("written") },
        }
    }
}

/// Whether the connection goes on.
async fn carry_out(
    reply: Reply,
    request_id: u64,
    writer: &Arc<tokio::sync::Mutex<OwnedWriteHalf>>,
) -> bool {
    let mut out = BytesMut::new();
    let (wait, response) = match reply {
        Reply::With(response, operand) => (None, Some((response, operand))),
        Reply::After(wait, response, operand) => (Some(wait), Some((response, operand))),
        Reply::Never => return true,
        Reply::Close => return false,
        Reply::Garbled => {
            encode_raw(&mut out, kind::RESPONSE, 0, request_id, 0, 0, &[0xff; 9], &[]);
            (None, None)
        }
        Reply::NoFrame => {
            out.extend_from_slice(&[0x41; 64]);
            (None, None)
        }
    };
    if let Some((response, operand)) = response {
        encode_parts(&mut out, kind::RESPONSE, 0, request_id, 0, 0, &response, &operand);
    }
    let writer = writer.clone();
    let write = async move {
        if let Some(wait) = wait {
            tokio::time::sleep(wait).await;
        }
        writer.lock().await.write_all(&out).await.is_ok()
    };
    if wait.is_none() {
        return write.await;
    }
    tokio::spawn(write);
    true
}

/// A member at `address`; host ids follow `place`.
pub fn member(place: usize, address: SocketAddr) -> MemberView {
    MemberView {
        host_id: Uuid::from_u128(place as u128),
        client_address: address,
        internode_address: address,
        datacenter: "dc1".to_owned(),
        rack: "r1".to_owned(),
        status: Status::Up,
    }
}

/// A context that the fake nodes hand out.
pub fn token(text: &'static str) -> ContextToken {
    ContextToken(Bytes::from_static(text.as_bytes()))
}

/// The answer to a get that finds one value.
pub fn one_value(value: &'static str) -> (Response, Bytes) {
    let len = u32::try_from(value.len()).expect("a short value");
    let response = Response::Value { sibling_lens: vec![len], context: token("read") };
    (response, Bytes::from_static(value.as_bytes()))
}

/// The nodes that keep a key, the leader first.
pub fn replicas(client: &Client, key: &str) -> Vec<usize> {
    let ring = client.ring();
    let placement = ring.keyspace("demo").expect("the ring has the keyspace");
    placement.replicas(placement.token(key.as_bytes())).iter().map(|node| node.0.into()).collect()
}

/// A key whose first replica is the node at `place`.
pub fn key_led_by(client: &Client, place: usize) -> String {
    (0..10_000)
        .map(|number| format!("key{number}"))
        .find(|key| replicas(client, key)[0] == place)
        .expect("every node leads some key of many")
}

/// Waits until `holds`.
///
/// # Panics
/// When it does not come to hold.
pub async fn eventually(holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, until(holds)).await;
    waited.expect("what is waited for comes to hold");
}

async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How many requests each operation id was sent with.
pub fn operations(nodes: &[Arc<Node>]) -> BTreeMap<[u8; 16], usize> {
    let mut counts = BTreeMap::new();
    for (request, ..) in nodes.iter().flat_map(|node| node.seen()) {
        if let Request::Put { operation, .. } | Request::Delete { operation, .. } = request {
            *counts.entry(operation).or_insert(0) += 1;
        }
    }
    counts
}
