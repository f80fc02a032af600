//! Why a connection that a peer has opened ended.

use std::io;

use serde::de::DeserializeOwned;
use starling_protocol::{Frame, FrameError};
use starling_storage::BucketError;

use super::handshake::HandshakeError;
use super::message::{Kind, Refusal};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The node stops.
    #[error("the node is stopping")]
    Stopping,
    /// The peer closed it, between two frames.
    #[error("closed by the peer")]
    Closed,
    /// The peer asked what is known before the cluster exists, and was told.
    #[error("shadow answered")]
    ShadowAnswered,
    /// The peer is not spoken with.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The peer said nothing.
    #[error("no greeting in time")]
    NoGreeting,
    /// It ended before it had said anything: somebody looked whether the port is open.
    #[error(transparent)]
    Unheard(HandshakeError),
    /// A bucket's name cannot be noted now: the peer names it again on its next connection.
    #[error("cannot take note of a bucket: {0}")]
    Bucket(#[from] BucketError),
    /// The peer sent what no node sends.
    #[error(transparent)]
    Misbehaved(#[from] Misbehaviour),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What no node sends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Misbehaviour {
    /// The bytes are no frame.
    #[error("its bytes are no frame: {0}")]
    Frame(FrameError),
    /// The stream ended where a frame has not.
    #[error("closed in the middle of a frame")]
    CutShort,
    /// A frame, but not one that opens a connection.
    #[error("unexpected first message (kind {kind:#04x})")]
    FirstMessage {
        /// The kind byte.
        kind: u8,
    },
    /// The header of a frame that matters to the connection does not decode.
    #[error("its {kind:?} message is not understood: {source}")]
    Header {
        /// Which.
        kind: Kind,
        /// What is wrong with it.
        source: FrameError,
    },
}

/// The header of a frame that the connection cannot do without.
pub(super) fn decode<T: DeserializeOwned>(kind: Kind, frame: &Frame) -> Result<T, Misbehaviour> {
    let header = starling_protocol::decode_header(&frame.header);
    header.map_err(|source| Misbehaviour::Header { kind, source })
}
