//! One [`Link`] per peer and the tasks that keep them connected.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use starling_protocol::{FrameDecoder, FrameError};
use starling_ring::NodeIndex;
use starling_storage::planted::{Bug, Planted};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::handshake::{self, HandshakeError};
use super::link::{Connection, Link};
use super::message::Refusal;
use crate::local::Local;
use crate::membership::{LinkEvent, LivenessTable};
use crate::net::{Network, Stream};
use crate::time::now;

/// Pauses between attempts double from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LAST: Duration = Duration::from_secs(1);
/// A peer whose own start is not done refuses for a moment, as at the founding: only one that goes on doing so is
/// worth a warning.
const STARTING_FOR: Duration = Duration::from_secs(5);
/// How often lateness and deadlines are looked at.
const SWEEP_EVERY: Duration = Duration::from_millis(50);
/// The largest frame that nodes send one another: the largest object and its key.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
const READ_CHUNK: usize = 64 * 1024;

/// The links to all other members, by their place in the epoch.
pub struct Links {
    links: Vec<Option<Arc<Link>>>,
}

/// What the tasks of the links need.
#[derive(Clone)]
pub struct LinkContext {
    /// This node.
    pub local: Arc<Local>,
    /// The sockets.
    pub network: Arc<dyn Network>,
    /// Where the last sign of life of each peer is kept.
    pub liveness: Arc<LivenessTable>,
    /// Where connections and their ends are reported.
    pub events: mpsc::Sender<LinkEvent>,
    /// A connect not complete after this long is given up.
    pub connect_timeout: Duration,
    /// Bytes that may be queued for one peer.
    pub queue_bytes_max: usize,
    /// What a test wants to be wrong.
    pub planted: Planted,
    /// Ends the tasks.
    pub stop: CancellationToken,
}

impl Links {
    /// Starts a task per peer on `tasks`.
    #[must_use]
    pub fn start(context: &LinkContext, tasks: &TaskTracker) -> Arc<Self> {
        let ring = &context.local.ring;
        let links = ring
            .members()
            .iter()
            .enumerate()
            .map(|(index, member)| {
                let peer =
                    NodeIndex(u16::try_from(index).expect("an epoch holds at most 65,535 members"));
                (peer != context.local.me).then(|| Arc::new(Link::new(peer, member.clone())))
            })
            .collect::<Vec<_>>();
        for link in links.iter().flatten() {
            tasks.spawn(keep_connected(link.clone(), context.clone()));
        }
        Arc::new(Self { links })
    }

    /// The link to `peer`; none to this node itself.
    #[must_use]
    pub fn to(&self, peer: NodeIndex) -> Option<&Arc<Link>> {
        self.links.get(usize::from(peer.0))?.as_ref()
    }

    /// Returns once everything that was sent so far has been handed to the sockets.
    pub async fn flushed(&self) {
        for link in self.iter() {
            link.flushed().await;
        }
    }

    /// All links.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().flatten()
    }
}

async fn keep_connected(link: Arc<Link>, context: LinkContext) {
    let mut backoff = BACKOFF_FIRST;
    let mut last_reason = String::new();
    let mut starting_since = None;
    loop {
        let attempt = connect(&link, &context);
        let refused = match context.stop.run_until_cancelled(attempt).await {
            None => return,
            Some(Ok((stream, received))) => {
                backoff = BACKOFF_FIRST;
                last_reason.clear();
                starting_since = None;
                info!(peer = %link.member.host_id, address = %link.member.address, "connected to peer");
                let reason = carry(&link, &context, stream, received).await;
                if context.stop.is_cancelled() {
                    return;
                }
                info!(peer = %link.member.host_id, address = %link.member.address, %reason, "connection to peer lost");
                false
            }
            Some(Err(error)) => {
                let reason = error.to_string();
                let is_starting = matches!(error, HandshakeError::Refused(Refusal::NotReady)) && {
                    let since = *starting_since.get_or_insert_with(now);
                    now().saturating_duration_since(since) < STARTING_FOR
                };
                if reason != last_reason && !is_starting {
                    log_failure(&link, &error);
                    last_reason = reason;
                }
                is_refused(&error)
            }
        };
        report(&context, LinkEvent::Down { peer: link.member.host_id, refused }).await;
        let pause = tokio::time::sleep(backoff);
        if context.stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        backoff = (backoff * 2).min(BACKOFF_LAST);
    }
}

fn log_failure(link: &Link, error: &HandshakeError) {
    let (peer, address) = (link.member.host_id, link.member.address);
    if matches!(error, HandshakeError::Refused(_) | HandshakeError::Unexpected { .. }) {
        warn!(%peer, %address, %error, "the peer does not accept this node");
    } else if matches!(error, HandshakeError::NotThePeer(_)) {
        warn!(%peer, %address, %error, "another node answers in the peer's place");
    } else {
        debug!(%peer, %address, %error, "cannot connect to peer");
    }
}

fn is_refused(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

async fn report(context: &LinkContext, event: LinkEvent) {
    // The receiver outlives the links except while the node stops; then nobody needs the event.
    let _nobody_listens = context.events.send(event).await;
}

async fn connect(link: &Link, context: &LinkContext) -> Result<(Stream, BytesMut), HandshakeError> {
    let dial = context.network.connect(link.member.address);
    let mut stream = tokio::time::timeout(context.connect_timeout, dial)
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let mut received = BytesMut::new();
    let (peer, whole) = (link.member.host_id, context.liveness.is_whole(context.local.me));
    let hello = handshake::open(&mut stream, &context.local, peer, whole, &mut received).await?;
    let event = LinkEvent::Up {
        peer: hello.host_id,
        incarnation: hello.incarnation,
        boot_nonce: hello.boot_nonce,
        whole: hello.whole,
    };
    report(context, event).await;
    Ok((stream, received))
}

/// Carries requests and answers until the stream ends. Returns why it ended.
async fn carry(link: &Link, context: &LinkContext, stream: Stream, received: BytesMut) -> String {
    let Stream { mut reader, mut writer } = stream;
    let connection = Arc::new(Connection::new(context.queue_bytes_max));
    link.connected(connection.clone());
    // Only a peer whose clock is known is forwarded to.
    connection.ping();
    let reason = tokio::select! {
        biased;
        () = context.stop.cancelled() => "the node is stopping".to_owned(),
        ended = connection.outbound.write_to(&mut writer) => match ended {
            Ok(()) => "closed".to_owned(),
            Err(error) => error.to_string(),
        },
        ended = read_answers(link, context, &connection, &mut reader, received) => ended,
        () = sweep(link, context, &connection) => "no answer for too long".to_owned(),
    };
    link.disconnected();
    reason
}

async fn read_answers(
    link: &Link,
    context: &LinkContext,
    connection: &Connection,
    reader: &mut (impl AsyncRead + Unpin),
    mut received: BytesMut,
) -> String {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    loop {
        loop {
            match decoder.next(&mut received) {
                Ok(Some(frame)) => link.answered(connection, frame),
                Ok(None) => break,
                Err(error @ FrameError::BadChecksum { .. }) => {
                    crate::metrics::observe_bad_frame("peer");
                    return error.to_string();
                }
                Err(error) => return error.to_string(),
            }
        }
        received.reserve(READ_CHUNK);
        match reader.read_buf(&mut received).await {
            Ok(0) => return "closed by the peer".to_owned(),
            Ok(_) => {
                connection.heard();
                context.liveness.heard(link.peer);
            }
            Err(error) => return error.to_string(),
        }
    }
}

/// Looks after the requests in flight until the connection leads nowhere.
async fn sweep(link: &Link, context: &LinkContext, connection: &Connection) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !connection.is_dead() || context.planted.is(Bug::KeepDeadConnections) {
        ticks.tick().await;
        let silence = context.liveness.silence(link.peer);
        connection.sweep(now().checked_sub(silence).unwrap_or_else(now));
    }
}
