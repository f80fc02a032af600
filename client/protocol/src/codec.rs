//! How headers become bytes: bincode with serde, behind two functions so that it can be replaced.
//!
//! Invariant: whatever lengths a header claims, what decoding sets aside stays in proportion to the
//! bytes that are there.

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::FrameError;

/// bincode counts what it decodes by its size in memory, and believes a claimed length up to its
/// limit, which must be a constant. One byte on the wire counts as 16 at most (a small `u128`), so
/// each limit fits every header of its length and little more.
const COUNTED_PER_BYTE_MAX: usize = 16;
const SMALL: usize = 4 << 10;
const LARGE: usize = 256 << 10;
/// The longest header that is decoded.
const HEADER_BYTES_MAX: usize = 16 << 20;

/// Appends the encoded header to `out`.
///
/// # Panics
/// On a header that is no plain data: a map or sequence that does not know its length.
pub fn encode_header<T: Serialize>(header: &T, out: &mut BytesMut) {
    bincode::serde::encode_into_std_write(header, &mut out.writer(), standard())
        .expect("headers are plain data and memory takes any number of bytes");
}

/// Decodes a header. Bytes left over are an error.
///
/// # Errors
/// [`FrameError::BadHeader`].
pub fn decode_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, FrameError> {
    let len = header.len();
    if len <= SMALL {
        limited::<T, { SMALL * COUNTED_PER_BYTE_MAX }>(header)
    } else if len <= LARGE {
        limited::<T, { LARGE * COUNTED_PER_BYTE_MAX }>(header)
    } else if len <= HEADER_BYTES_MAX {
        limited::<T, { HEADER_BYTES_MAX * COUNTED_PER_BYTE_MAX }>(header)
    } else {
        let reason = format!("{len} bytes; at most {HEADER_BYTES_MAX} are decoded");
        Err(FrameError::BadHeader { reason })
    }
}

fn limited<T: DeserializeOwned, const LIMIT: usize>(header: &[u8]) -> Result<T, FrameError> {
    let config: Configuration<LittleEndian, Varint, Limit<LIMIT>> =
        standard().with_limit::<LIMIT>();
    let (decoded, read) = bincode::serde::decode_from_slice(header, config)
        .map_err(|error| FrameError::BadHeader { reason: error.to_string() })?;
    if read != header.len() {
        let reason = format!("{} bytes are left over", header.len() - read);
        return Err(FrameError::BadHeader { reason });
    }
    Ok(decoded)
}
