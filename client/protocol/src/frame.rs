//! The frame that every message travels in, between clients and nodes and between nodes.
//!
//! ```text
//! len u32 | version u8 | kind u8 | flags u8 | request_id u64 | budget_ms u32 | mint u64 | header_len u32
//!         | header | operand | crc32c u32          all little-endian; len counts everything after itself
//! ```
//!
//! The operand is a value's bytes as they lie on disk: a slice of the receive buffer, never
//! through serde. The checksum covers everything between `len` and itself. Decoding never
//! allocates by a length it has not received, and never panics.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;

use crate::codec::encode_header;

/// The version in every frame; a frame of another version ends the connection.
pub const FRAME_VERSION: u8 = 1;

const LEN_BYTES: usize = 4;
const FIXED_BYTES: usize = 1 + 1 + 1 + 8 + 4 + 8 + 4;
const CRC_BYTES: usize = 4;
const HEADER_LEN_AT: usize = FIXED_BYTES - 4;

/// One decoded frame. The header and the operand share the receive buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the message is.
    pub kind: u8,
    /// Bits whose meaning belongs to the kind.
    pub flags: u8,
    /// Chosen by the asking side; the answer carries the same.
    pub request_id: u64,
    /// How many milliseconds the answer is worth waiting for, from its arrival; 0: not said.
    pub budget_ms: u32,
    /// Between nodes: the hybrid clock value of the operand; where a message has none it may carry another number, which its kind says. In a
    /// client's put or delete: the node's uptime in milliseconds by which it must have begun. In an answer to a client: that uptime
    /// now. 0: not said.
    pub mint: u64,
    /// The encoded header.
    pub header: Bytes,
    /// The raw operand.
    pub operand: Bytes,
}

/// Why bytes are no frame. After any of these the stream has lost its framing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than this side accepts.
    #[error("a frame of {len} bytes; at most {max} are accepted")]
    TooLarge {
        /// Bytes announced.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// The frame is too short for its fixed part, or its header reaches over its end.
    #[error("a frame whose lengths do not fit one another")]
    Malformed,
    /// A frame of another version.
    #[error("frame version {found}; this side speaks {FRAME_VERSION}")]
    BadVersion {
        /// The version found.
        found: u8,
    },
    /// The bytes were damaged on the way.
    #[error("the checksum of the frame does not match (request {request_id})")]
    BadChecksum {
        /// The request, as far as the damaged bytes can be believed.
        request_id: u64,
    },
    /// The header does not decode as what it should be.
    #[error("the header does not decode: {reason}")]
    BadHeader {
        /// The codec's words.
        reason: String,
    },
}

impl Frame {
    /// Appends the frame to `out`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        encode_raw(
            out,
            self.kind,
            self.flags,
            self.request_id,
            self.budget_ms,
            self.mint,
            &self.header,
            &self.operand,
        );
    }
}

/// Appends a frame whose header is `header`, encoded in place.
#[expect(
    clippy::too_many_arguments,
    reason = "the fields of the frame, in their order on the wire"
)]
pub fn encode_parts(
    out: &mut BytesMut,
    kind: u8,
    flags: u8,
    request_id: u64,
    budget_ms: u32,
    mint: u64,
    header: &impl Serialize,
    operand: &[u8],
) {
    let start = begin(out, kind, flags, request_id, budget_ms, mint, operand.len());
    let header_at = out.len();
    encode_header(header, out);
    finish(out, start, out.len() - header_at, operand);
}

/// Appends a frame whose header is already encoded.
#[expect(
    clippy::too_many_arguments,
    reason = "the fields of the frame, in their order on the wire"
)]
pub fn encode_raw(
    out: &mut BytesMut,
    kind: u8,
    flags: u8,
    request_id: u64,
    budget_ms: u32,
    mint: u64,
    header: &[u8],
    operand: &[u8],
) {
    let start = begin(out, kind, flags, request_id, budget_ms, mint, header.len() + operand.len());
    out.extend_from_slice(header);
    finish(out, start, header.len(), operand);
}

fn begin(
    out: &mut BytesMut,
    kind: u8,
    flags: u8,
    request_id: u64,
    budget_ms: u32,
    mint: u64,
    expected: usize,
) -> usize {
    let start = out.len();
    out.reserve(LEN_BYTES + FIXED_BYTES + expected + CRC_BYTES);
    out.put_u32_le(0);
    out.put_u8(FRAME_VERSION);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u64_le(request_id);
    out.put_u32_le(budget_ms);
    out.put_u64_le(mint);
    out.put_u32_le(0);
    start
}

fn finish(out: &mut BytesMut, start: usize, header_len: usize, operand: &[u8]) {
    out.extend_from_slice(operand);
    let body = start + LEN_BYTES;
    let len = u32::try_from(out.len() - body + CRC_BYTES).expect("a frame is under 4 GiB");
    let header_len = u32::try_from(header_len).expect("a header is under 4 GiB");
    out[start..body].copy_from_slice(&len.to_le_bytes());
    let at = body + HEADER_LEN_AT;
    out[at..at + 4].copy_from_slice(&header_len.to_le_bytes());
    let crc = crc32c::crc32c(&out[body..]);
    out.put_u32_le(crc);
}

/// Cuts frames off the front of a receive buffer.
#[derive(Debug, Clone)]
pub struct FrameDecoder {
    frame_bytes_max: usize,
}

impl FrameDecoder {
    /// A decoder that accepts frames of at most `frame_bytes_max` bytes, their length excluded.
    #[must_use]
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max }
    }

    /// The next frame, or nothing while it is incomplete.
    ///
    /// # Errors
    /// [`FrameError`]; the connection should then be closed.
    pub fn next(&mut self, received: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        let Some(len) = received.first_chunk::<LEN_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > self.frame_bytes_max {
            return Err(FrameError::TooLarge { len, max: self.frame_bytes_max });
        }
        if len < FIXED_BYTES + CRC_BYTES {
            return Err(FrameError::Malformed);
        }
        if received.len() < LEN_BYTES + len {
            return Ok(None);
        }
        received.advance(LEN_BYTES);
        parse(received.split_to(len).freeze()).map(Some)
    }
}

fn parse(mut body: Bytes) -> Result<Frame, FrameError> {
    let covered = body.len() - CRC_BYTES;
    let stated = (&body[covered..]).get_u32_le();
    let actual = crc32c::crc32c(&body[..covered]);
    let mut fixed = &body[..FIXED_BYTES];
    let version = fixed.get_u8();
    let (kind, flags) = (fixed.get_u8(), fixed.get_u8());
    let request_id = fixed.get_u64_le();
    let (budget_ms, mint) = (fixed.get_u32_le(), fixed.get_u64_le());
    let header_len = fixed.get_u32_le() as usize;
    if stated != actual {
        return Err(FrameError::BadChecksum { request_id });
    }
    if version != FRAME_VERSION {
        return Err(FrameError::BadVersion { found: version });
    }
    body.truncate(covered);
    body.advance(FIXED_BYTES);
    if header_len > body.len() {
        return Err(FrameError::Malformed);
    }
    let operand = body.split_off(header_len);
    Ok(Frame { kind, flags, request_id, budget_ms, mint, header: body, operand })
}
