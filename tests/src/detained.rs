//! A network that keeps back single messages between nodes: one answer of one node, the first state that it sends after a digest; or loses
//! every mutation that is sent to some.
//!
//! Invariant: everything else passes, in its order, and what was kept back comes when it is let go. This is what a coordinator sees that was
//! stopped between the answers to a read, or whose messages were lost and sent again.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use starling_node::internode::message::Kind;
use starling_node::net::{AdminListener, BoxFuture, Listener, Network, Stream};
use starling_protocol::{Frame, FrameDecoder, encode_raw};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::sync::watch;

const FRAME_BYTES_MAX: usize = 64 << 20;
const IN_FLIGHT_MAX: usize = 256 * 1024;

/// What becomes of the answers of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// All pass.
    Off,
    /// The next digest has to come first.
    UntilDigest,
    /// The next state is kept back.
    UntilState,
    /// One is kept back.
    Kept,
}

/// What becomes of a message.
enum Fate {
    Passes,
    /// Until everything is let go.
    IsKept,
    IsLost,
}

/// See the module. Clones are the same network.
#[derive(Clone)]
pub struct Detained {
    network: Arc<dyn Network>,
    of: Arc<Mutex<Option<SocketAddr>>>,
    no_mutations_to: Arc<Mutex<BTreeSet<SocketAddr>>>,
    watch: watch::Sender<Watch>,
}

impl Detained {
    /// A network that keeps back nothing yet.
    pub fn new(network: Arc<dyn Network>) -> Detained {
        let (of, no_mutations_to) = (Arc::default(), Arc::default());
        Detained { network, of, no_mutations_to, watch: watch::Sender::new(Watch::Off) }
    }

    /// Keeps back the first state after a digest that the node at `of` answers from here on.
    pub fn detain(&self, of: SocketAddr) {
        *self.of.lock() = Some(of);
        self.watch.send_replace(Watch::UntilDigest);
    }

    /// Loses every mutation that is sent to the node at `to` from here on.
    pub fn lose_mutations_to(&self, to: SocketAddr) {
        self.no_mutations_to.lock().insert(to);
    }

    /// Whether something is kept back.
    pub fn has_kept(&self) -> bool {
        *self.watch.borrow() == Watch::Kept
    }

    /// Lets everything pass.
    pub fn let_go(&self) {
        self.watch.send_replace(Watch::Off);
    }

    fn is_kept(&self, from: SocketAddr, frame: &Frame) -> bool {
        let of_another = *self.of.lock() != Some(from);
        let mut is_kept = false;
        self.watch.send_if_modified(|watch| {
            let kind = Kind::from_byte(frame.kind);
            let next = match (*watch, kind) {
                (Watch::UntilDigest, Some(Kind::DigestIs)) => Watch::UntilState,
                (Watch::UntilState, Some(Kind::State)) => Watch::Kept,
                (same, _) => same,
            };
            if of_another || next == *watch {
                return false;
            }
            *watch = next;
            is_kept = next == Watch::Kept;
            true
        });
        is_kept
    }

    fn pass_later(
        &self,
        to: Arc<tokio::sync::Mutex<impl AsyncWrite + Send + Unpin + 'static>>,
        frame: Frame,
    ) {
        let mut watch = self.watch.subscribe();
        tokio::spawn(async move {
            if watch.wait_for(|watch| *watch == Watch::Off).await.is_ok() {
                pass(&to, &frame).await;
            }
        });
    }

    async fn pump(
        self,
        mut reader: impl AsyncRead + Unpin,
        to: impl AsyncWrite + Send + Unpin + 'static,
        fate: impl Fn(&Self, &Frame) -> Fate,
    ) {
        let (mut decoder, mut received) = (FrameDecoder::new(FRAME_BYTES_MAX), BytesMut::new());
        let to = Arc::new(tokio::sync::Mutex::new(to));
        while let Ok(1..) = reader.read_buf(&mut received).await {
            while let Ok(Some(frame)) = decoder.next(&mut received) {
                match fate(&self, &frame) {
                    Fate::Passes => pass(&to, &frame).await,
                    Fate::IsKept => self.pass_later(to.clone(), frame),
                    Fate::IsLost => {}
                }
            }
        }
    }
}

async fn pass(to: &tokio::sync::Mutex<impl AsyncWrite + Unpin>, frame: &Frame) {
    let Frame { kind, flags, request_id, budget_ms, mint, header, operand } = frame;
    let mut out = BytesMut::new();
    encode_raw(&mut out, *kind, *flags, *request_id, *budget_ms, *mint, header, operand);
    // Who has hung up gets nothing.
    let _gone = to.lock().await.write_all(&out).await;
}

impl Network for Detained {
    fn connect(&self, to: SocketAddr) -> BoxFuture<'_, io::Result<Stream>> {
        Box::pin(async move {
            let Stream { reader, writer } = self.network.connect(to).await?;
            let (near_reader, answers) = duplex(IN_FLIGHT_MAX);
            let (near_writer, requests) = duplex(IN_FLIGHT_MAX);
            let of_peer = move |network: &Detained, frame: &Frame| {
                if network.is_kept(to, frame) { Fate::IsKept } else { Fate::Passes }
            };
            let to_peer = move |network: &Detained, frame: &Frame| {
                let is_mutation = Kind::from_byte(frame.kind) == Some(Kind::Mutate);
                let is_lost = is_mutation && network.no_mutations_to.lock().contains(&to);
                if is_lost { Fate::IsLost } else { Fate::Passes }
            };
            tokio::spawn(self.clone().pump(reader, answers, of_peer));
            tokio::spawn(self.clone().pump(requests, writer, to_peer));
            Ok(Stream::new(near_reader, near_writer))
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.network.listen(at)
    }

    fn listen_admin(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Option<AdminListener>>> {
        self.network.listen_admin(at)
    }
}
