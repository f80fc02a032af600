//! How headers become bytes: bincode with serde, behind two functions so that it can be replaced.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::FrameError;

/// No header claims, or makes its decoder allocate, more than this.
const HEADER_BYTES_MAX: usize = 16 << 20;

const CONFIG: bincode::config::Configuration<
    bincode::config::LittleEndian,
    bincode::config::Varint,
    bincode::config::Limit<HEADER_BYTES_MAX>,
> = bincode::config::standard().with_limit::<HEADER_BYTES_MAX>();

/// Appends the encoded header to `out`.
pub fn encode_header<T: Serialize>(header: &T, out: &mut BytesMut) {
    bincode::serde::encode_into_std_write(header, &mut out.writer(), CONFIG)
        .expect("headers are plain data and memory takes any number of bytes");
}

/// Decodes a header. Bytes left over are an error.
///
/// # Errors
/// [`FrameError::BadHeader`].
pub fn decode_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, FrameError> {
    let (decoded, read) = bincode::serde::decode_from_slice(header, CONFIG)
        .map_err(|error| FrameError::BadHeader { reason: error.to_string() })?;
    if read != header.len() {
        let reason = format!("{} bytes are left over", header.len() - read);
        return Err(FrameError::BadHeader { reason });
    }
    Ok(decoded)
}
