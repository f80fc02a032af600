//! The outside world of a client: sockets, names and randomness. A test or a simulator brings its own;
//! the client's code is the same. The only module that names `tokio::net`. Nothing here knows what the
//! bytes mean.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use uuid::Uuid;

/// What arrives.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// What is sent.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// A boxed future, as object-safe traits need one.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// See the module.
pub trait Seams: Send + Sync + 'static {
    /// Connects; no time limit of its own.
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<(Reader, Writer)>>;
    /// The addresses behind `host:port`.
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host(name).await?.collect()) })
    }
    /// A name for one write that no other write has.
    fn operation_id(&self) -> [u8; 16] {
        *Uuid::new_v4().as_bytes()
    }
}

/// The operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Seams for System {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<(Reader, Writer)>> {
        Box::pin(async move {
            let stream = TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            Ok((Box::new(reader) as Reader, Box::new(writer) as Writer))
        })
    }
}
