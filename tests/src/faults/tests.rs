//! The same faults over memory and over TCP.

use std::future::Future;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use starling_node::net::{Network, Stream, TcpNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Faults, FaultyNetwork};
use crate::memory_network::MemoryNetwork;

/// What does not happen within this does not happen.
const A_MOMENT: Duration = Duration::from_millis(30);

struct Pair {
    faults: Faults,
    network: FaultyNetwork,
    near: Stream,
    far: Stream,
    hosts: (IpAddr, IpAddr),
    at: SocketAddr,
}

/// A stream from one host to another, over memory and over TCP.
async fn pairs() -> Vec<Pair> {
    let networks: [Arc<dyn Network>; 2] = [Arc::new(MemoryNetwork::new()), Arc::new(TcpNetwork)];
    let mut pairs = Vec::new();
    for network in networks {
        let faults = Faults::new();
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut listener = network.listen((other, 0).into()).await.expect("a port is free");
        let at = listener.local_address().expect("it is bound");
        let network = faults.host(one, network);
        let near = Network::connect(&network, at).await.expect("somebody listens");
        let (far, _) = listener.accept().await.expect("somebody connected");
        // Kept, so that later connects find somebody.
        tokio::spawn(async move {
            let mut accepted = Vec::new();
            while let Ok(stream) = listener.accept().await {
                accepted.push(stream);
            }
        });
        pairs.push(Pair { faults, network, near, far, hosts: (one, other), at });
    }
    pairs
}

async fn never<T>(happens: impl Future<Output = T>) {
    assert!(timeout(A_MOMENT, happens).await.is_err(), "it happened all the same");
}

#[tokio::test]
async fn what_is_cut_off_arrives_after_the_cut_and_the_other_way_stays_open() {
    for mut pair in pairs().await {
        let (one, other) = pair.hosts;
        pair.faults.cut_one_way(other, one);
        pair.near.writer.write_all(b"there").await.expect("this way is open");
        let mut received = [0; 5];
        pair.far.reader.read_exact(&mut received).await.expect("this way is open");
        pair.far.writer.write_all(b"back!").await.expect("buffers take it");
        never(pair.near.reader.read_exact(&mut received)).await;
        pair.faults.cut_one_way(one, other);
        never(pair.near.writer.write_all(b"there")).await;
        pair.faults.heal();
        pair.near.reader.read_exact(&mut received).await.expect("the cut is healed");
        assert_eq!(&received, b"back!");
        pair.near.writer.write_all(b"there").await.expect("the cut is healed");
    }
}

#[tokio::test]
async fn nobody_sees_an_end_or_connects_during_a_cut() {
    for mut pair in pairs().await {
        let (one, other) = pair.hosts;
        pair.faults.partition(one, other);
        never(Network::connect(&pair.network, pair.at)).await;
        drop(pair.near);
        let mut byte = [0];
        never(pair.far.reader.read(&mut byte)).await;
        let connect = Network::connect(&pair.network, pair.at);
        let (connected, ()) = tokio::join!(connect, async { pair.faults.heal() });
        connected.expect("the cut is healed");
        assert_eq!(pair.far.reader.read(&mut byte).await.expect("it ends well"), 0);
    }
}

#[tokio::test]
async fn the_streams_of_a_severed_host_end() {
    for mut pair in pairs().await {
        let mut byte = [0];
        let reading = pair.near.reader.read(&mut byte);
        let (read, ()) = tokio::join!(reading, async { pair.faults.sever(pair.hosts.1) });
        assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        assert!(pair.near.writer.write_all(b"there").await.is_err());
        // A stream made later is not concerned.
        let mut next = Network::connect(&pair.network, pair.at).await.expect("it listens");
        next.writer.write_all(b"there").await.expect("it is whole");
    }
}
