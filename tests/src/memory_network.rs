//! A network in memory: the second implementation of the node's sockets.
//!
//! Invariant: a stream is ordered and reliable until one end is dropped; then the other reads what was
//! sent, and after it the end. An address has one listener at a time, and without one a connect is
//! refused. It delays nothing and cuts nothing: that is for [`crate::faults`].

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;
use starling_node::net::{BoxFuture, Listener, Network, Stream};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// Bytes on their way in one direction of a stream, as a socket's buffers would hold them.
const IN_FLIGHT_MAX: usize = 256 * 1024;
/// Streams that wait to be accepted; further connects wait for them.
const BACKLOG: usize = 128;
/// Ports below are given only to who asks for them.
const EPHEMERAL_MIN: u16 = 32_768;

type Connected = (Stream, SocketAddr);

/// See the module. Clones are the same network.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<Connected>>,
    ports_given: u16,
}

impl State {
    fn next_port(&mut self) -> u16 {
        self.ports_given = self.ports_given.wrapping_add(1) % (u16::MAX - EPHEMERAL_MIN);
        EPHEMERAL_MIN + self.ports_given
    }

    /// `at`, with a port that nobody has where it asks for any.
    fn free(&mut self, mut at: SocketAddr) -> io::Result<SocketAddr> {
        if at.port() == 0 {
            // More often than there are ports, so that a free one is found if there is one.
            for _ in 0..=u16::MAX {
                at.set_port(self.next_port());
                if !self.listeners.contains_key(&at) {
                    return Ok(at);
                }
            }
        }
        if self.listeners.contains_key(&at) { Err(ErrorKind::AddrInUse.into()) } else { Ok(at) }
    }
}

impl MemoryNetwork {
    /// A network on which nobody listens.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }
}

impl Network for MemoryNetwork {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let (listener, port) = {
                let mut state = self.0.lock();
                let listener = state.listeners.get(&to).cloned();
                (listener.ok_or(ErrorKind::ConnectionRefused)?, state.next_port())
            };
            let (near, far) = stream();
            // Nodes only log where a stream comes from, so nobody's own address is not needed.
            let from = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let sent = listener.send((far, from)).await;
            sent.map_err(|_| ErrorKind::ConnectionRefused)?;
            Ok(near)
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (sender, backlog) = mpsc::channel(BACKLOG);
            let mut state = self.0.lock();
            let at = state.free(at)?;
            state.listeners.insert(at, sender);
            let listener = MemoryListener { at, backlog, network: self.clone() };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }
}

/// The two ends of a stream. Each direction is a pipe of its own, so that one half can be dropped.
fn stream() -> (Stream, Stream) {
    let pipe = || -> (DuplexStream, DuplexStream) { duplex(IN_FLIGHT_MAX) };
    let ((there_in, there_out), (back_in, back_out)) = (pipe(), pipe());
    (Stream::new(back_out, there_in), Stream::new(there_out, back_in))
}

struct MemoryListener {
    at: SocketAddr,
    backlog: mpsc::Receiver<Connected>,
    network: MemoryNetwork,
}

impl Listener for MemoryListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connected>> {
        Box::pin(async move {
            let next = self.backlog.recv().await;
            Ok(next.expect("the network holds a sender for as long as the listener lives"))
        })
    }

    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok(self.at)
    }
}

impl Drop for MemoryListener {
    fn drop(&mut self) {
        self.network.0.lock().listeners.remove(&self.at);
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::SocketAddr;

    use starling_node::net::Network;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::MemoryNetwork;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[tokio::test]
    async fn what_was_sent_arrives_before_the_end_does() {
        let network = MemoryNetwork::new();
        let mut listener = network.listen(address(1)).await.expect("the address is free");
        let mut near = network.connect(address(1)).await.expect("somebody listens");
        let (mut far, _) = listener.accept().await.expect("somebody connected");
        near.writer.write_all(b"question").await.expect("the other end is there");
        drop(near.writer);
        let mut received = String::new();
        far.reader.read_to_string(&mut received).await.expect("the stream ends well");
        assert_eq!(received, "question");
        // The other direction goes on.
        far.writer.write_all(b"answer").await.expect("the other end is there");
        drop(far);
        received.clear();
        near.reader.read_to_string(&mut received).await.expect("the stream ends well");
        assert_eq!(received, "answer");
    }

    #[tokio::test]
    async fn an_address_has_one_listener_and_without_it_connects_are_refused() {
        let network = MemoryNetwork::new();
        let refused = network.connect(address(1)).await.err().map(|error| error.kind());
        assert_eq!(refused, Some(ErrorKind::ConnectionRefused));
        let listener = network.listen(address(1)).await.expect("the address is free");
        let taken = network.listen(address(1)).await.err().map(|error| error.kind());
        assert_eq!(taken, Some(ErrorKind::AddrInUse));
        drop(listener);
        assert!(network.connect(address(1)).await.is_err());
        let any = network.listen(address(0)).await.expect("there are free ports");
        let other = network.listen(address(0)).await.expect("there are free ports");
        let ports = [&any, &other].map(|listener| listener.local_address().expect("it is bound"));
        assert_ne!(ports[0], ports[1]);
    }
}
