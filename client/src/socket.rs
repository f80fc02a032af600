//! The sockets: the only module of the client that names `tokio::net`.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What arrives.
pub(crate) type Reader = OwnedReadHalf;
/// What is sent.
pub(crate) type Writer = OwnedWriteHalf;

/// Connects; no time limit of its own.
pub(crate) async fn connect(to: SocketAddr) -> io::Result<(Reader, Writer)> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}

/// The addresses behind `host:port`.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(name).await?.collect())
}
