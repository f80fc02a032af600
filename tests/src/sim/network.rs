//! The simulated network behind the seams of node and client.
//!
//! It decides nothing: turmoil delivers, delays, holds and drops, as the faults of the run tell it; and a node is deaf to some of its
//! connections while it is told to be, so that what was sent over them arrives long after the sender has given up. A connection from another
//! node may also be left behind: the sender sees it end and makes a new one, which is heard at once, and what it had sent over the old one is
//! heard later.

use std::future::Future as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use starling_client::seams::{self, Reader, Writer};
use starling_node::net::{BoxFuture, Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};
use turmoil::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use turmoil::net::{TcpListener, TcpStream};

use super::machine::INTERNODE_PORT;
use super::workload::elapsed;

/// What a node calls the network.
#[derive(Clone, Debug, Default)]
pub struct SimNetwork {
    hearing: Arc<Hearing>,
}

/// What a node does not hear for a while.
#[derive(Debug, Default)]
struct Hearing {
    /// Until when it reads nothing from every second connection that it accepted.
    deaf_until: Mutex<Duration>,
    accepted: AtomicU64,
    left_behind: Mutex<LeftBehind>,
}

/// The connections between nodes that are left behind: those among the first `accepted`.
#[derive(Clone, Copy, Debug, Default)]
struct LeftBehind {
    accepted: u64,
    /// When those at the other ends see the end.
    ends: Duration,
    /// When what they had sent is read.
    heard: Duration,
}

impl SimNetwork {
    /// Reads nothing from some of the connections of others before the run has lasted so long.
    pub fn be_deaf(&self, until: Duration) {
        *self.hearing.deaf_until.lock() = until;
    }

    /// Leaves behind every connection that other nodes have made so far: they see its end when the run has lasted until `ends`, and what they
    /// had sent over it is read when it has lasted until `heard`.
    pub fn leave_behind(&self, ends: Duration, heard: Duration) {
        let accepted = self.hearing.accepted.load(Ordering::Relaxed);
        *self.hearing.left_behind.lock() = LeftBehind { accepted, ends, heard };
    }
}

impl Network for SimNetwork {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let (reader, writer) = TcpStream::connect(to).await?.into_split();
            Ok(Stream::new(reader, writer))
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            // A simulated host has one address and binds it as "any".
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, at.port())).await?;
            let hearing = self.hearing.clone();
            Ok(Box::new(SimListener { listener, at, hearing }) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    listener: TcpListener,
    at: SocketAddr,
    hearing: Arc<Hearing>,
}

/// The writing half of an accepted connection; none once the other end has seen its end. What is written then leads nowhere.
type Answers = Arc<Mutex<Option<OwnedWriteHalf>>>;

/// The receiving half of an accepted connection.
struct SimReader {
    inner: OwnedReadHalf,
    number: u64,
    /// Of a connection between nodes.
    answers: Option<Answers>,
    hearing: Arc<Hearing>,
    waiting: Option<Pin<Box<Sleep>>>,
}

struct SimWriter(Answers);

impl SimReader {
    /// How long nothing is to be read yet.
    fn rest(&self) -> Duration {
        let is_second = self.number % 2 == 1;
        let deaf_until = if is_second { *self.hearing.deaf_until.lock() } else { Duration::ZERO };
        deaf_until.max(self.left_behind_until()).saturating_sub(elapsed())
    }

    /// Until when this connection is left behind. From the moment on when the other end is to see its end, it does.
    fn left_behind_until(&self) -> Duration {
        let left_behind = *self.hearing.left_behind.lock();
        match &self.answers {
            Some(answers) if self.number < left_behind.accepted => {
                if left_behind.ends > elapsed() {
                    return left_behind.ends;
                }
                if left_behind.heard > elapsed() {
                    drop(answers.lock().take());
                }
                left_behind.heard
            }
            _ => Duration::ZERO,
        }
    }
}

impl AsyncRead for SimReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(task));
                self.waiting = None;
            }
            let rest = self.rest();
            if rest.is_zero() {
                return Pin::new(&mut self.inner).poll_read(task, buffer);
            }
            self.waiting = Some(Box::pin(sleep(rest)));
        }
    }
}

impl AsyncWrite for SimWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self.0.lock() {
            Some(writer) => Pin::new(writer).poll_write(task, bytes),
            None => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Some(writer) => Pin::new(writer).poll_flush(task),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self.0.lock() {
            Some(writer) => Pin::new(writer).poll_shutdown(task),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            let (inner, writer) = stream.into_split();
            let number = self.hearing.accepted.fetch_add(1, Ordering::Relaxed);
            let answers: Answers = Arc::new(Mutex::new(Some(writer)));
            let is_between_nodes = self.at.port() == INTERNODE_PORT;
            let reader = SimReader {
                inner,
                number,
                answers: is_between_nodes.then(|| answers.clone()),
                hearing: self.hearing.clone(),
                waiting: None,
            };
            Ok((Stream::new(reader, SimWriter(answers)), from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

/// The outside world of one simulated client.
#[derive(Debug)]
pub struct SimClient {
    number: u64,
    /// The one machine that it can reach, if it cannot reach all.
    only: Option<IpAddr>,
    operations: AtomicU64,
}

impl SimClient {
    /// Client `number`; its operations are numbered below that.
    pub fn new(number: u64, only: Option<IpAddr>) -> SimClient {
        SimClient { number, only, operations: AtomicU64::new(0) }
    }
}

impl seams::Seams for SimClient {
    fn connect(&self, to: SocketAddr) -> seams::BoxFuture<'_, io::Result<(Reader, Writer)>> {
        Box::pin(async move {
            if self.only.is_some_and(|only| only != to.ip()) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let (reader, writer) = TcpStream::connect(to).await?.into_split();
            Ok((Box::new(reader) as Reader, Box::new(writer) as Writer))
        })
    }

    fn resolve<'a>(&'a self, name: &'a str) -> seams::BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { name.parse().map(|at| vec![at]).map_err(io::Error::other) })
    }

    fn operation_id(&self) -> [u8; 16] {
        let operation = self.operations.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.number.to_le_bytes());
        id[8..].copy_from_slice(&operation.to_le_bytes());
        id
    }
}
