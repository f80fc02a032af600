//! The simulated network behind the seams of node and client.
//!
//! It decides nothing: turmoil delivers, delays, holds and drops, as the faults of the run tell it; and a node is deaf to some of its
//! connections while it is told to be, so that what was sent over them arrives long after the sender has given up.

use std::future::Future as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use starling_client::seams::{self, Reader, Writer};
use starling_node::net::{BoxFuture, Listener, Network, Stream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Sleep, sleep};
use turmoil::net::tcp::OwnedReadHalf;
use turmoil::net::{TcpListener, TcpStream};

use super::workload::elapsed;

/// What a node calls the network.
#[derive(Clone, Debug, Default)]
pub struct SimNetwork {
    deafness: Arc<Deafness>,
}

/// Until when a node reads nothing from every second connection that it accepted.
#[derive(Debug, Default)]
struct Deafness {
    until: Mutex<Duration>,
    accepted: AtomicU64,
}

impl SimNetwork {
    /// Reads nothing from some of the connections of others before the run has lasted so long.
    pub fn be_deaf(&self, until: Duration) {
        *self.deafness.until.lock() = until;
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
            let deafness = self.deafness.clone();
            Ok(Box::new(SimListener { listener, at, deafness }) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    listener: TcpListener,
    at: SocketAddr,
    deafness: Arc<Deafness>,
}

/// The receiving half of an accepted connection.
struct SimReader {
    inner: OwnedReadHalf,
    deafness: Option<Arc<Deafness>>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for SimReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let until =
            self.deafness.as_ref().map_or(Duration::ZERO, |deafness| *deafness.until.lock());
        let rest = until.saturating_sub(elapsed());
        if !rest.is_zero() || self.waiting.is_some() {
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(rest)));
            ready!(waiting.as_mut().poll(task));
            self.waiting = None;
        }
        Pin::new(&mut self.inner).poll_read(task, buffer)
    }
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            let (inner, writer) = stream.into_split();
            let is_second = self.deafness.accepted.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            let deafness = is_second.then(|| self.deafness.clone());
            let reader = SimReader { inner, deafness, waiting: None };
            Ok((Stream::new(reader, writer), from))
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
    operations: AtomicU64,
}

impl SimClient {
    /// Client `number`; its operations are numbered below that.
    pub fn new(number: u64) -> SimClient {
        SimClient { number, operations: AtomicU64::new(0) }
    }
}

impl seams::Seams for SimClient {
    fn connect(&self, to: SocketAddr) -> seams::BoxFuture<'_, io::Result<(Reader, Writer)>> {
        Box::pin(async move {
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
