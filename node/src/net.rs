//! The sockets: the only module of the node that names `tokio::net`.
//!
//! The node reaches its peers and its clients through [`Network`], so that a test can run whole
//! clusters over an in-memory network with partitions. Nothing here knows what the bytes mean.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// An established byte stream, ordered and reliable until it ends. The halves are apart because
/// one task reads while another writes, and neither may wait for the other.
pub struct Stream {
    /// What arrives.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What is sent.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Stream {
    /// Joins two halves.
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }

    fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self::new(reader, writer))
    }
}

/// A boxed future, as object-safe traits need one.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// What the admin server listens on. Always TCP on loopback: it is not part of the protocol.
pub type AdminListener = TcpListener;

/// Opens and accepts streams.
pub trait Network: Send + Sync + 'static {
    /// Connects to `to`. No time limit: the caller has one.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>>;
    /// Binds `at`.
    ///
    /// # Errors
    /// Whatever binding answers, `AddrInUse` first of all.
    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;
    /// Binds the admin port; nothing where there is nobody to administer.
    ///
    /// # Errors
    /// Whatever binding answers.
    fn listen_admin(&self, _at: SocketAddr) -> BoxFuture<'_, io::Result<Option<AdminListener>>> {
        Box::pin(async { Ok(None) })
    }
}

/// A bound address.
pub trait Listener: Send + 'static {
    /// The next stream and where it comes from.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>>;
    /// The bound address, with the port that was given for port 0.
    ///
    /// # Errors
    /// When the socket no longer knows it.
    fn local_address(&self) -> io::Result<SocketAddr>;
}

/// The network of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNetwork;

impl Network for TcpNetwork {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move { Stream::tcp(TcpStream::connect(to).await?) })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move { Ok(Box::new(TcpListener::bind(at).await?) as Box<dyn Listener>) })
    }

    fn listen_admin(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Option<AdminListener>>> {
        Box::pin(async move { TcpListener::bind(at).await.map(Some) })
    }
}

impl Listener for TcpListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Stream, SocketAddr)>> {
        Box::pin(async move {
            let (stream, from) = TcpListener::accept(self).await?;
            Ok((Stream::tcp(stream)?, from))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}
