//! A network that keeps back one answer of one node: the first state that it sends after a digest.
//!
//! Invariant: everything else passes, in its order, and what was kept back comes when it is let go. This is what a coordinator sees that was
//! stopped between the answers to a read, or whose answer was lost and sent again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use starling_node::internode::message::Kind;
use starling_node::net::{AdminListener, BoxFuture, Listener, Network, Stream};
use starling_protocol::{Frame, FrameDecoder, encode_raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
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

/// See the module. Clones are the same network.
#[derive(Clone)]
pub struct Detained {
    network: Arc<dyn Network>,
    of: Arc<Mutex<Option<SocketAddr>>>,
    watch: watch::Sender<Watch>,
}

impl Detained {
    /// A network that keeps back nothing yet.
    pub fn new(network: Arc<dyn Network>) -> Detained {
        Detained { network, of: Arc::default(), watch: watch::Sender::new(Watch::Off) }
    }

    /// Keeps back the first state after a digest that the node at `of` answers from here on.
    pub fn detain(&self, of: SocketAddr) {
        *self.of.lock() = Some(of);
        self.watch.send_replace(Watch::UntilDigest);
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

    async fn pump(
        self,
        from: SocketAddr,
        mut reader: impl tokio::io::AsyncRead + Unpin,
        to: DuplexStream,
    ) {
        let (mut decoder, mut received) = (FrameDecoder::new(FRAME_BYTES_MAX), BytesMut::new());
        let to = Arc::new(tokio::sync::Mutex::new(to));
        while let Ok(1..) = reader.read_buf(&mut received).await {
            while let Ok(Some(frame)) = decoder.next(&mut received) {
                if self.is_kept(from, &frame) {
                    let (to, mut watch) = (to.clone(), self.watch.subscribe());
                    tokio::spawn(async move {
                        if watch.wait_for(|watch| *watch == Watch::Off).await.is_ok() {
                            pass(&to, &frame).await;
                        }
                    });
                } else {
                    pass(&to, &frame).await;
                }
            }
        }
    }
}

async fn pass(to: &tokio::sync::Mutex<DuplexStream>, frame: &Frame) {
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
            let (near, far) = duplex(IN_FLIGHT_MAX);
            tokio::spawn(self.clone().pump(to, reader, far));
            Ok(Stream { reader: Box::new(near), writer })
        })
    }

    fn listen(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        self.network.listen(at)
    }

    fn listen_admin(&self, at: SocketAddr) -> BoxFuture<'_, io::Result<Option<AdminListener>>> {
        self.network.listen_admin(at)
    }
}
