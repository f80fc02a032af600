//! The simulated network behind the seams of node and client.
//!
//! It decides nothing: turmoil delivers, delays, holds and drops, as the faults of the run tell it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use starling_client::seams::{self, Reader, Writer};
use starling_node::net::{BoxFuture, Listener, Network, Stream};
use turmoil::net::{TcpListener, TcpStream};

/// What a node calls the network.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNetwork;

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
            Ok(Box::new(SimListener { listener, at }) as Box<dyn Listener>)
        })
    }
}

struct SimListener {
    listener: TcpListener,
    at: SocketAddr,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = self.listener.accept().await?;
            let (reader, writer) = stream.into_split();
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
