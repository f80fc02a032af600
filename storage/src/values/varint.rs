//! Byte-level reading and writing: minimal little-endian base-128 numbers and borrowed slices.
//!
//! Invariant: a number has one accepted encoding, and a reader never looks outside its input, whatever lengths the input claims.

use super::encoding::DecodeError;

/// Where an encoder writes: a buffer, or a counter that sizes the buffer beforehand.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes(&[value as u8 | 0x80]);
            value >>= 7;
        }
        self.bytes(&[value as u8]);
    }
}

impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Default)]
pub(super) struct Length(pub(super) usize);

impl Sink for Length {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }

    fn varint(&mut self, value: u64) {
        self.0 += (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize;
    }
}

/// Takes a payload apart from the front.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn slice(&mut self, len: u64) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for (at, &byte) in self.rest.iter().enumerate().take(MAX_VARINT) {
            // The tenth byte holds the 64th bit and nothing else.
            if at == MAX_VARINT - 1 && byte > 1 {
                return Err(DecodeError::NotCanonical("a number over 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte < 0x80 {
                if byte == 0 && at > 0 {
                    return Err(DecodeError::NotCanonical("a number with leading zeros"));
                }
                self.rest = &self.rest[at + 1..];
                return Ok(value);
            }
        }
        Err(DecodeError::Truncated)
    }

    /// A number of items to come, and how many to reserve room for: never more than the input can hold at `min_len` bytes each.
    pub(super) fn count(&mut self, min_len: usize) -> Result<(u64, usize), DecodeError> {
        let count = self.varint()?;
        let possible = self.remaining() / min_len;
        let reserve = usize::try_from(count).map_or(possible, |count| count.min(possible));
        Ok((count, reserve))
    }
}

const MAX_VARINT: usize = 10;
