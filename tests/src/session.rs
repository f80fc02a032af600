//! A conversation with one node, for tests that choose the coordinator of each request.
//!
//! Invariant: a request is sent once, to this node. The client library would take whichever replica suits
//! it, and go on to another. Contexts and values are those of the client library, so that the two mix.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use starling_client::{CausalContext, Value};
use starling_node::time::now;
use starling_protocol::{
    ContextToken, Frame, FrameDecoder, Level, NodeClock, Request, Response, WIRE_VERSION,
    WireError, decode_header, encode_parts, kind,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::process::Node;

/// How long a node may work on a request.
const BUDGET: Duration = Duration::from_secs(10);
/// When a node is given up that does not even say that the time is over.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
pub(crate) const FRAME_BYTES_MAX: usize = 16 << 20;

/// Distinct within the process, and no cluster outlives the process that tests it.
static NEXT_OPERATION: AtomicU64 = AtomicU64::new(1);

/// A connection to one node with one bucket open.
///
/// # Panics
/// Every request panics when the connection ends, or no answer comes.
#[derive(Debug)]
pub struct Session {
    node: SocketAddr,
    stream: TcpStream,
    received: BytesMut,
    requests: u64,
    bucket: u32,
    opened: Instant,
    clock: NodeClock,
    budget: Duration,
    begin_within: Option<Duration>,
}

impl Session {
    /// Connects to a node and opens the bucket `keyspace.bucket`.
    ///
    /// # Panics
    /// If the node does not let it.
    pub async fn open(node: &Node, bucket: &str) -> Session {
        let address = node.native_address();
        let stream = TcpStream::connect(address).await.expect("a running node takes connections");
        stream.set_nodelay(true).expect("the connection is open");
        let received = BytesMut::new();
        let mut session = Session {
            node: address,
            stream,
            received,
            requests: 0,
            bucket: 0,
            opened: now(),
            clock: NodeClock::default(),
            budget: BUDGET,
            begin_within: None,
        };
        let hello = Request::Hello { wire_version: WIRE_VERSION, client: "test".to_owned() };
        let (greeting, _) = session.ask(&hello, &[]).await;
        assert!(matches!(greeting, Response::Hello { .. }), "{address} greets with {greeting:?}");
        let (opened, _) = session.ask(&Request::OpenBucket { name: bucket.to_owned() }, &[]).await;
        let Response::BucketOpened { bucket, .. } = opened else {
            panic!("{address} does not open {bucket}: {opened:?}");
        };
        session.bucket = bucket;
        session
    }

    /// The node may work no longer than `budget` on a request from here on, and begins no write later than `begin_within` after it was sent.
    #[must_use]
    pub fn in_a_hurry(mut self, budget: Duration, begin_within: Duration) -> Session {
        (self.budget, self.begin_within) = (budget, Some(begin_within));
        self
    }

    /// The connection's halves, for who goes on by himself, and the id of the bucket that is open on it.
    pub(crate) fn into_parts(
        self,
    ) -> (impl AsyncRead + Send + Unpin + 'static, impl AsyncWrite + Send + Unpin + 'static, u32)
    {
        let (reader, writer) = self.stream.into_split();
        (reader, writer, self.bucket)
    }

    /// Reads a key; with a floor, the answer has seen it.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn get(
        &mut self,
        key: &str,
        level: Level,
        floor: Option<&CausalContext>,
    ) -> Result<Value, WireError> {
        let (bucket, key, floor) = (self.bucket, Bytes::copy_from_slice(key.as_bytes()), floor);
        let request = Request::Get { bucket, key, level, floor: floor.map(token) };
        match self.ask(&request, &[]).await {
            (Response::Value { sibling_lens, context }, mut operand) => {
                let siblings =
                    sibling_lens.iter().map(|length| operand.split_to(*length as usize)).collect();
                Ok(Value { siblings, context: causal(&context) })
            }
            (Response::Error(error), _) => Err(error),
            (other, _) => panic!("{} answers a get with {other:?}", self.node),
        }
    }

    /// Stores a value in place of what the context covers, and beside everything else.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn put(
        &mut self,
        key: &str,
        value: &str,
        level: Level,
        context: Option<&CausalContext>,
    ) -> Result<CausalContext, WireError> {
        let request = Request::Put {
            bucket: self.bucket,
            key: Bytes::copy_from_slice(key.as_bytes()),
            level,
            context: context.map(token),
            operation: next_operation(),
        };
        self.write(&request, value.as_bytes()).await
    }

    /// Deletes what the context covers; without one, what a quorum shows.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn delete(
        &mut self,
        key: &str,
        level: Level,
        context: Option<&CausalContext>,
    ) -> Result<CausalContext, WireError> {
        let context = match context {
            Some(context) => token(context),
            None => token(&self.get(key, Level::Quorum, None).await?.context),
        };
        let request = Request::Delete {
            bucket: self.bucket,
            key: Bytes::copy_from_slice(key.as_bytes()),
            level,
            context,
            operation: next_operation(),
        };
        self.write(&request, &[]).await
    }

    /// Joins a state, encoded, into what all replicas have.
    ///
    /// # Errors
    /// The node's refusal.
    pub async fn restore(
        &mut self,
        key: &str,
        state: &[u8],
        level: Level,
    ) -> Result<(), WireError> {
        let (bucket, key) = (self.bucket, Bytes::copy_from_slice(key.as_bytes()));
        match self.ask(&Request::Restore { bucket, key, level }, state).await {
            (Response::Restored, _) => Ok(()),
            (Response::Error(error), _) => Err(error),
            (other, _) => panic!("{} answers a restore with {other:?}", self.node),
        }
    }

    async fn write(
        &mut self,
        request: &Request,
        operand: &[u8],
    ) -> Result<CausalContext, WireError> {
        match self.ask(request, operand).await {
            (Response::Written { context }, _) => Ok(causal(&context)),
            (Response::Error(error), _) => Err(error),
            (other, _) => panic!("{} answers a write with {other:?}", self.node),
        }
    }

    async fn ask(&mut self, request: &Request, operand: &[u8]) -> (Response, Bytes) {
        self.requests += 1;
        let id = self.requests;
        let budget_ms = u32::try_from(self.budget.as_millis()).expect("it is a few seconds");
        let begin_by = self.begin_within.map_or(0, |within| {
            let uptime = self.clock.uptime(milliseconds(self.opened.elapsed()));
            uptime.expect("the greeting told it") + milliseconds(within)
        });
        let mut frame = BytesMut::new();
        encode_parts(&mut frame, kind::REQUEST, 0, id, budget_ms, begin_by, request, operand);
        let exchange = async {
            self.stream.write_all(&frame).await.expect("the connection is open");
            self.receive().await
        };
        let answer = timeout(ANSWER_WITHIN, exchange).await;
        let answer = answer.unwrap_or_else(|_| panic!("{request:?} is not answered in time"));
        self.clock.observe(answer.mint, milliseconds(self.opened.elapsed()));
        assert_eq!((answer.kind, answer.request_id), (kind::RESPONSE, id), "answers come in order");
        (decode_header(&answer.header).expect("answers decode"), answer.operand)
    }

    async fn receive(&mut self) -> Frame {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        loop {
            let frame = decoder.next(&mut self.received).expect("a node sends whole frames");
            if let Some(frame) = frame {
                return frame;
            }
            let read = self.stream.read_buf(&mut self.received).await;
            let read = read.expect("the connection is open");
            assert!(read > 0, "{} closed the connection", self.node);
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("it is a few minutes")
}

/// The public way between the two forms of a context.
fn token(context: &CausalContext) -> ContextToken {
    ContextToken::from_text(&context.to_text()).expect("it was written as text just now")
}

fn causal(token: &ContextToken) -> CausalContext {
    CausalContext::from_text(&token.to_text()).expect("it was written as text just now")
}

pub(crate) fn next_operation() -> [u8; 16] {
    u128::from(NEXT_OPERATION.fetch_add(1, Ordering::Relaxed)).to_le_bytes()
}
