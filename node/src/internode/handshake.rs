//! The first frame in each direction of a connection between nodes: who speaks, who is meant, and
//! of which cluster. A connection that does not agree on all three carries nothing else.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_protocol::{Frame, FrameDecoder, FrameError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::message::{Hello, Kind, Refusal, Shadow, WIRE_VERSION};
use crate::local::Local;
use crate::net::Stream;

/// A handshake not complete after this long is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// No handshake frame is larger; nothing larger is read from an unknown speaker.
pub const HANDSHAKE_FRAME_MAX: usize = 64 * 1024;

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The stream failed or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes were no frame.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// A frame, but not one that opens a connection.
    #[error("it answered with an unexpected message (kind {kind:#04x})")]
    Unexpected {
        /// The kind byte.
        kind: u8,
    },
    /// The other side will not speak with this node.
    #[error("it refused: {0}")]
    Refused(Refusal),
    /// This node will not speak with whoever answered.
    #[error("it is not the peer: {0}")]
    NotThePeer(Refusal),
    /// No answer in time.
    #[error("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
}

/// Opens a connection as the dialling side, for the node `meant`; `whole` is said of this node.
///
/// # Errors
/// [`HandshakeError`]; the stream is of no further use.
pub async fn open(
    stream: &mut Stream,
    local: &Local,
    meant: starling_ring::HostId,
    whole: bool,
    received: &mut BytesMut,
) -> Result<Hello, HandshakeError> {
    let hello = local.hello(meant, whole);
    let frame = exchange(stream, Kind::Hello, &hello, received).await?;
    let theirs: Hello = starling_protocol::decode_header(&frame.header)?;
    if theirs.host_id != meant {
        return Err(HandshakeError::NotThePeer(Refusal::WrongHost { actual: theirs.host_id }));
    }
    if theirs.cluster_id != local.cluster_id {
        let theirs = theirs.cluster_id;
        return Err(HandshakeError::NotThePeer(Refusal::WrongCluster { theirs }));
    }
    Ok(theirs)
}

/// Asks the node at the other end what it knows before the cluster exists.
///
/// # Errors
/// [`HandshakeError`].
pub async fn ask_shadow(stream: &mut Stream, mine: &Shadow) -> Result<Shadow, HandshakeError> {
    let mut received = BytesMut::new();
    let frame = exchange(stream, Kind::Shadow, mine, &mut received).await?;
    Ok(starling_protocol::decode_header(&frame.header)?)
}

/// Judges a peer's hello as the accepting side.
///
/// # Errors
/// The refusal to send.
pub fn judge(hello: &Hello, local: &Local) -> Result<(), Refusal> {
    if hello.wire_version != WIRE_VERSION {
        return Err(Refusal::WireVersion { theirs: WIRE_VERSION });
    }
    if hello.cluster_id != local.cluster_id {
        return Err(Refusal::WrongCluster { theirs: local.cluster_id });
    }
    if hello.meant_for != local.host_id {
        return Err(Refusal::WrongHost { actual: local.host_id });
    }
    if local.ring.index_of(hello.host_id).is_none() {
        return Err(Refusal::NotAMember { host_id: hello.host_id });
    }
    Ok(())
}

async fn exchange(
    stream: &mut Stream,
    kind: Kind,
    header: &impl Serialize,
    received: &mut BytesMut,
) -> Result<Frame, HandshakeError> {
    let talk = async {
        send(&mut stream.writer, kind, header).await?;
        let frame = receive(&mut stream.reader, received).await?;
        match Kind::from_byte(frame.kind) {
            Some(Kind::Welcome | Kind::Shadow) => Ok(frame),
            Some(Kind::Refused) => Err(HandshakeError::Refused(decode(&frame)?)),
            _ => Err(HandshakeError::Unexpected { kind: frame.kind }),
        }
    };
    tokio::time::timeout(HANDSHAKE_TIMEOUT, talk).await.map_err(|_| HandshakeError::Timeout)?
}

fn decode<T: DeserializeOwned>(frame: &Frame) -> Result<T, HandshakeError> {
    Ok(starling_protocol::decode_header(&frame.header)?)
}

/// Writes one frame with a header only.
///
/// # Errors
/// The write error.
pub async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    kind: Kind,
    header: &impl Serialize,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    starling_protocol::encode_parts(&mut out, kind as u8, 0, 0, 0, 0, header, &[]);
    writer.write_all(&out).await?;
    writer.flush().await
}

/// Reads one frame of at most [`HANDSHAKE_FRAME_MAX`] bytes; what follows it stays in `received`.
///
/// # Errors
/// [`HandshakeError::Io`] or [`HandshakeError::Frame`].
pub async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    received: &mut BytesMut,
) -> Result<Frame, HandshakeError> {
    let mut decoder = FrameDecoder::new(HANDSHAKE_FRAME_MAX);
    loop {
        if let Some(frame) = decoder.next(received)? {
            return Ok(frame);
        }
        if reader.read_buf(received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
