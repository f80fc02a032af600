//! A relay for each directed link between two nodes, so that a link can be cut in one direction or both.
//!
//! Invariant: what [`Faults`] promises of cuts. The nodes' library sends their connections here: the relay
//! from node i to node j listens on the last octet 100 + 10 i + j of their network. Clients are not relayed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use starling_node::net::{Listener, Network, Stream, TcpNetwork};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::task::JoinSet;

use crate::address::{self, INTERNODE_PORT};
use crate::faults::{Faults, FaultyNetwork};

/// See the module. Dropping it ends every relay.
#[derive(Debug)]
pub(super) struct Links {
    network: address::Network,
    faults: Faults,
    /// One task for each directed link, which owns the tasks of its connections.
    _relays: JoinSet<()>,
}

impl Links {
    /// Listens for every link between nodes `1..=nodes`.
    ///
    /// # Errors
    /// A relay's address that cannot be listened on.
    pub(super) async fn open(network: address::Network, nodes: u8) -> io::Result<Links> {
        let faults = Faults::new();
        let mut relays = JoinSet::new();
        for from in 1..=nodes {
            for to in (1..=nodes).filter(|to| *to != from) {
                let relay = network.node(100 + 10 * from + to);
                let listener = TcpNetwork.listen(at(relay)).await?;
                let near = faults.host(IpAddr::V4(network.node(from)), Arc::new(TcpNetwork));
                relays.spawn(relay_all(listener, near, at(network.node(to))));
            }
        }
        Ok(Links { network, faults, _relays: relays })
    }

    /// Cuts everything from one node to another; the other way stays open.
    pub(super) fn cut(&self, from: u8, to: u8) {
        let host = |node| IpAddr::V4(self.network.node(node));
        self.faults.cut_one_way(host(from), host(to));
    }

    /// Ends every cut.
    pub(super) fn heal(&self) {
        self.faults.heal();
    }
}

fn at(host: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((host, INTERNODE_PORT))
}

async fn relay_all(mut listener: Box<dyn Listener>, near: FaultyNetwork, to: SocketAddr) {
    let mut connections = JoinSet::new();
    // A listener that fails looks to the nodes like a link that is down.
    while let Ok((accepted, _)) = listener.accept().await {
        let near = near.clone();
        connections.spawn(async move {
            // Either end may break it off at any time, which the other sees as the end of its stream.
            let _ = relay(accepted, &near, to).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(accepted: Stream, near: &FaultyNetwork, to: SocketAddr) -> io::Result<()> {
    let connected = near.connect(to).await?;
    tokio::try_join!(
        pass_on(accepted.reader, connected.writer),
        pass_on(connected.reader, accepted.writer),
    )?;
    Ok(())
}

async fn pass_on(
    mut from: Box<dyn AsyncRead + Send + Unpin>,
    mut to: Box<dyn AsyncWrite + Send + Unpin>,
) -> io::Result<()> {
    copy(&mut from, &mut to).await?;
    to.shutdown().await
}
