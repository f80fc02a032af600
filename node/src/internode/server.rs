//! Where peers connect: accepts them, hears who they are, and hands those that are members to [`super::answerer`].

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use starling_protocol::Frame;
use starling_ring::NodeIndex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answerer::answer_all;
use super::end::{End, Misbehaviour, decode};
use super::handshake::{self, HandshakeError};
use super::message::{Hello, Kind, Refusal, Shadow};
use crate::membership::{Genesis, PeerEvent};
use crate::native::Serving;
use crate::net::{Listener, Stream};

/// Who answers: at first only for the creation of the cluster, then for everything.
#[derive(Clone)]
pub struct Answering {
    /// The way into the cluster, answering until and after it exists.
    pub genesis: Arc<Genesis>,
    /// Set once the cluster exists.
    pub serving: Arc<std::sync::OnceLock<Arc<Serving>>>,
}

/// Accepts peers until `stop`.
pub async fn serve(
    mut listener: Box<dyn Listener>,
    answering: Answering,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((mut stream, from)) => {
                let (answering, stop) = (answering.clone(), stop.clone());
                tasks.spawn(async move {
                    let talk = talk(&mut stream, &answering, &stop);
                    let Some(end) = stop.run_until_cancelled(talk).await else { return };
                    // Before the stream is closed: whoever sees the end finds it counted.
                    if matches!(end, End::Misbehaved(_)) {
                        crate::metrics::observe_bad_frame("peer");
                    }
                    debug!(%from, reason = %end, "peer connection ended");
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Greets, then answers until the stream ends. Returns why it ended.
async fn talk(stream: &mut Stream, answering: &Answering, stop: &CancellationToken) -> End {
    let mut received = BytesMut::new();
    let first = handshake::receive(&mut stream.reader, &mut received);
    let first = match tokio::time::timeout(handshake::HANDSHAKE_TIMEOUT, first).await {
        Ok(Ok(frame)) => frame,
        Ok(Err(HandshakeError::Frame(error))) => return Misbehaviour::Frame(error).into(),
        Ok(Err(_)) if !received.is_empty() => return Misbehaviour::CutShort.into(),
        Ok(Err(error)) => return End::Unheard(error),
        Err(_) => return End::NoGreeting,
    };
    match Kind::from_byte(first.kind) {
        Some(Kind::Shadow) => answer_shadow(stream, answering, &first)
            .await
            .map_or_else(|end| end, |()| End::ShadowAnswered),
        Some(Kind::Hello) => match greet(stream, answering, &first).await {
            Ok((peer, serving)) => answer_all(stream, received, peer, serving, stop).await,
            Err(end) => end,
        },
        _ => Misbehaviour::FirstMessage { kind: first.kind }.into(),
    }
}

async fn answer_shadow(
    stream: &mut Stream,
    answering: &Answering,
    frame: &Frame,
) -> Result<(), End> {
    let shadow: Shadow = decode(Kind::Shadow, frame)?;
    let asking = shadow.me.as_ref().map(|asking| asking.address);
    let mut reply = answering.genesis.shadow_from(shadow);
    if let (Some(address), Some(serving)) = (asking, answering.serving.get()) {
        reply.met_incarnation = serving.met_incarnation(address);
    }
    Ok(handshake::send(&mut stream.writer, Kind::Shadow, &reply).await?)
}

async fn greet(
    stream: &mut Stream,
    answering: &Answering,
    frame: &Frame,
) -> Result<(NodeIndex, Arc<Serving>), End> {
    let hello: Hello = decode(Kind::Hello, frame)?;
    let judged = match answering.serving.get() {
        None => Err(Refusal::NotReady),
        Some(serving) => handshake::judge(&hello, &serving.local).map(|()| serving.clone()),
    };
    match judged {
        Ok(serving) => {
            let whole = serving.liveness.is_whole(serving.local.me);
            let welcome = serving.local.hello(hello.host_id, whole);
            handshake::send(&mut stream.writer, Kind::Welcome, &welcome).await?;
            let peer = serving.local.ring.index_of(hello.host_id).expect("judged to be a member");
            serving.report(PeerEvent::Greeted {
                peer: hello.host_id,
                incarnation: hello.incarnation,
                boot_nonce: hello.boot_nonce,
                whole: hello.whole,
            });
            Ok((peer, serving))
        }
        Err(refusal) => {
            if refusal != Refusal::NotReady {
                warn!(peer = %hello.host_id, %refusal, "refused a peer");
            }
            handshake::send(&mut stream.writer, Kind::Refused, &refusal).await?;
            Err(refusal.into())
        }
    }
}
