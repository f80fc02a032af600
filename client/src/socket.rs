//! The sockets: the only module of the client that names `tokio::net`.
//!
//! The client reaches the nodes through [`Network`], so that a test can run it with whole clusters over
//! an in-memory network with partitions. Nothing here knows what the bytes mean.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// What arrives.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// What is sent.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// A connect that is under way.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<(Reader, Writer)>> + Send + 'a>>;

/// Opens byte streams, ordered and reliable until they end.
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Connects to `to`. No time limit: the caller has one.
    fn connect(&self, to: SocketAddr) -> Connecting<'_>;
}

/// The network of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TcpNetwork;

impl Network for TcpNetwork {
    fn connect(&self, to: SocketAddr) -> Connecting<'_> {
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            Ok((Box::new(reader) as Reader, Box::new(writer) as Writer))
        })
    }
}

/// The addresses behind `host:port`.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}
