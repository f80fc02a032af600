//! Partitions and crashes over any network: hosts are told apart by their IP addresses.
//!
//! Invariant: while a direction is cut nothing passes in it that was not on its way already, not even the
//! end of a stream, and nothing is lost: as with TCP, what was sent arrives after the cut is healed. A
//! connect waits, as if its packets were dropped.
//!
//! All of it happens at the end that connects, which knows both hosts. So every host must connect through
//! the network that [`Faults::host`] gives it; what listens needs no care.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Waker};

use parking_lot::Mutex;
use starling_client::seams;
use starling_node::net::{BoxFuture, Listener, Network, Stream};
use tokio::sync::watch;

use half::Half;

mod half;

/// From one host to another.
type Direction = (IpAddr, IpAddr);

/// See the module. Clones are the same faults.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<Mutex<State>>,
    /// Wakes connects that wait for a cut to heal.
    healed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    cut: BTreeSet<Direction>,
    streams: BTreeMap<u64, Watched>,
    streams_made: u64,
    /// Halves that were dropped during a cut: the other end must not see it before the cut heals.
    limbo: Vec<half::Kept>,
}

#[derive(Debug)]
struct Watched {
    near: IpAddr,
    far: IpAddr,
    severed: bool,
    halves: u8,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Which half of a stream.
#[derive(Clone, Copy, Debug)]
enum Side {
    Reader,
    Writer,
}

/// What a half may do now.
enum Gate {
    Open,
    Shut,
    Severed,
}

impl State {
    fn is_cut(&self, near: IpAddr, far: IpAddr) -> bool {
        self.cut.contains(&(near, far)) || self.cut.contains(&(far, near))
    }
}

impl Default for Faults {
    fn default() -> Faults {
        Faults { state: Arc::default(), healed: watch::Sender::new(()) }
    }
}

impl Faults {
    /// No faults yet.
    pub fn new() -> Faults {
        Faults::default()
    }

    /// `network` as the host `address` sees it.
    pub fn host(&self, address: IpAddr, network: Arc<dyn Network>) -> FaultyNetwork {
        FaultyNetwork { faults: self.clone(), address, network, only: None }
    }

    /// Cuts everything from one host to another; the other way stays open.
    pub fn cut_one_way(&self, from: IpAddr, to: IpAddr) {
        self.state.lock().cut.insert((from, to));
    }

    /// Cuts both directions between two hosts.
    pub fn partition(&self, one: IpAddr, other: IpAddr) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    /// Ends every cut. What waited goes on.
    pub fn heal(&self) {
        let (ended, wakers) = {
            let mut state = self.state.lock();
            state.cut.clear();
            let ended = std::mem::take(&mut state.limbo);
            let wakers: Vec<_> = state.streams.values_mut().flat_map(Watched::wakers).collect();
            (ended, wakers)
        };
        // Ends of streams that nobody saw yet are seen now.
        drop(ended);
        wakers.into_iter().for_each(Waker::wake);
        self.healed.send_replace(());
    }

    /// Resets every stream of a host, as the end of its process would. What is cut off from the host sees
    /// it after the cut.
    pub fn sever(&self, host: IpAddr) {
        let wakers: Vec<_> = {
            let mut state = self.state.lock();
            let touched = |stream: &&mut Watched| stream.near == host || stream.far == host;
            let streams = state.streams.values_mut().filter(touched);
            streams
                .flat_map(|stream| {
                    stream.severed = true;
                    stream.wakers()
                })
                .collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn reachable(&self, near: IpAddr, far: IpAddr) {
        let mut healed = self.healed.subscribe();
        while self.state.lock().is_cut(near, far) {
            healed.changed().await.expect("these faults hold the sender");
        }
    }

    fn watch(&self, near: IpAddr, far: IpAddr, stream: Stream) -> Stream {
        let id = {
            let mut state = self.state.lock();
            state.streams_made += 1;
            let watched =
                Watched { near, far, severed: false, halves: 2, reader: None, writer: None };
            let id = state.streams_made;
            state.streams.insert(id, watched);
            id
        };
        let Stream { reader, writer } = stream;
        Stream::new(Half::new(self.clone(), id, reader), Half::new(self.clone(), id, writer))
    }

    /// What a half may do; it is woken when that changes.
    fn gate(&self, id: u64, side: Side, context: &Context<'_>) -> Gate {
        let state = &mut *self.state.lock();
        let stream = state.streams.get_mut(&id).expect("a stream is watched while it has halves");
        let (waker, direction) = match side {
            Side::Reader => (&mut stream.reader, (stream.far, stream.near)),
            Side::Writer => (&mut stream.writer, (stream.near, stream.far)),
        };
        *waker = Some(context.waker().clone());
        if state.cut.contains(&direction) {
            Gate::Shut
        } else if stream.severed {
            Gate::Severed
        } else {
            Gate::Open
        }
    }

    /// A half is dropped; during a cut it is kept instead.
    fn drop_half(&self, id: u64, half: half::Kept) {
        let mut state = self.state.lock();
        let stream = state.streams.get_mut(&id).expect("a stream is watched while it has halves");
        let (near, far) = (stream.near, stream.far);
        stream.halves -= 1;
        if stream.halves == 0 {
            state.streams.remove(&id);
        }
        if state.is_cut(near, far) {
            state.limbo.push(half);
        }
    }
}

impl Watched {
    fn wakers(&mut self) -> impl Iterator<Item = Waker> + use<> {
        self.reader.take().into_iter().chain(self.writer.take())
    }
}

/// See [`Faults::host`].
#[derive(Clone)]
pub struct FaultyNetwork {
    faults: Faults,
    address: IpAddr,
    network: Arc<dyn Network>,
    only: Option<IpAddr>,
}

impl FaultyNetwork {
    /// The same, but every connect to another host than this one is refused at once.
    pub fn only(self, host: IpAddr) -> FaultyNetwork {
        FaultyNetwork { only: Some(host), ..self }
    }
}

impl std::fmt::Debug for FaultyNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the network of {}", self.address)
    }
}

impl Network for FaultyNetwork {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            if self.only.is_some_and(|only| only != to.ip()) {
                return Err(ErrorKind::ConnectionRefused.into());
            }
            self.faults.reachable(self.address, to.ip()).await;
            let stream = self.network.connect(to).await?;
            Ok(self.faults.watch(self.address, to.ip(), stream))
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.network.listen(at)
    }
}

impl seams::Seams for FaultyNetwork {
    fn connect(
        &self,
        to: SocketAddr,
    ) -> seams::BoxFuture<'_, io::Result<(seams::Reader, seams::Writer)>> {
        Box::pin(async move {
            let stream = Network::connect(self, to).await?;
            Ok((stream.reader, stream.writer))
        })
    }
}

#[cfg(test)]
mod tests;
