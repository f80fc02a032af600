//! The hint's bytes: the original envelope of a write, kept for one replica that missed it.
//!
//! Invariant: what decodes is what was encoded; a damaged hint is refused before it can reach a join.
//!
//! Keys are `target host id (16 bytes) | sequence (u64, big-endian)`: one target's hints are one range, in order.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use starling_ring::HostId;
use uuid::Uuid;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 24;

/// A write owed to a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The table (bucket) of the key.
    pub table: u32,
    /// The hybrid clock's number under which the write was led: of the envelope, not of the replay.
    pub mint: u64,
    /// The storage key.
    pub key: Bytes,
    /// The delta.
    pub operand: Bytes,
}

impl Hint {
    /// The hint as stored: version, table, mint, key length, key, operand, checksum.
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(21 + self.key.len() + self.operand.len());
        bytes.put_u8(VERSION);
        bytes.put_u32_le(self.table);
        bytes.put_u64_le(self.mint);
        bytes.put_u32_le(self.key.len() as u32);
        bytes.put_slice(&self.key);
        bytes.put_slice(&self.operand);
        let checksum = crc32c::crc32c(&bytes);
        bytes.put_u32_le(checksum);
        bytes.freeze()
    }

    /// Reads a stored hint; `None` if it is damaged.
    pub fn decode(stored: &[u8]) -> Option<Hint> {
        let (body, mut checksum) = stored.split_at_checked(stored.len().checked_sub(4)?)?;
        if checksum.get_u32_le() != crc32c::crc32c(body) {
            return None;
        }
        let mut rest = Bytes::copy_from_slice(body);
        if rest.try_get_u8().ok()? != VERSION {
            return None;
        }
        let table = rest.try_get_u32_le().ok()?;
        let mint = rest.try_get_u64_le().ok()?;
        let key_len = rest.try_get_u32_le().ok()? as usize;
        if key_len > rest.len() {
            return None;
        }
        let key = rest.split_to(key_len);
        Some(Hint { table, mint, key, operand: rest })
    }
}

/// The store key of a target's hint.
pub fn hint_key(target: HostId, sequence: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(KEY_BYTES);
    key.put_slice(target.0.as_bytes());
    key.put_u64(sequence);
    key.freeze()
}

/// The first store key above all hints of a target up to and including `sequence`.
pub fn hint_key_after(target: HostId, sequence: u64) -> Bytes {
    match sequence.checked_add(1) {
        Some(next) => hint_key(target, next),
        // One byte longer than the last key, so just above it.
        None => [hint_key(target, sequence).as_ref(), &[0]].concat().into(),
    }
}

/// Target and sequence of a store key.
pub fn decode_hint_key(key: &[u8]) -> Option<(HostId, u64)> {
    let (target, sequence) = key.split_at_checked(16)?;
    let target = Uuid::from_slice(target).ok()?;
    Some((HostId(target), u64::from_be_bytes(sequence.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Hint};

    #[test]
    fn a_hint_survives_its_bytes_and_damage_is_noticed() {
        let hint = Hint {
            table: 7,
            mint: u64::MAX,
            key: Bytes::from_static(b"key"),
            operand: Bytes::from_static(b"operand"),
        };
        let stored = hint.encode();
        assert_eq!(Hint::decode(&stored), Some(hint));
        for at in 0..stored.len() {
            let mut damaged = stored.to_vec();
            damaged[at] ^= 0x10;
            assert_eq!(Hint::decode(&damaged), None, "byte {at}");
            assert_eq!(Hint::decode(&stored[..at]), None, "cut at {at}");
        }
    }
}
