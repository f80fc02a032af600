//! From keys to tokens.

use std::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use crate::Token;

/// Which partitioner a keyspace is placed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionerKind {
    /// SipHash-1-3 under the cluster's key: nobody outside can aim many keys at one node.
    #[default]
    Sip,
    /// Cassandra's Murmur3: what CQL drivers route by.
    Murmur3,
}

/// A function from partition keys to tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitioner {
    /// See [`PartitionerKind::Sip`].
    Sip {
        /// The cluster's key.
        key: [u8; 16],
    },
    /// See [`PartitionerKind::Murmur3`].
    Murmur3,
}

impl Partitioner {
    /// The token of a partition key.
    #[must_use]
    pub fn token(&self, key: &[u8]) -> Token {
        match self {
            Self::Sip { key: secret } => {
                let mut hasher = SipHasher13::new_with_key(secret);
                hasher.write(key);
                Token(hasher.finish().cast_signed())
            }
            Self::Murmur3 => Token(cassandra_murmur3(key)),
        }
    }
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// The first half of MurmurHash3 x64/128 with seed 0, with the two habits of Cassandra's
/// `MurmurHash.hash3_x64_128` and `Murmur3Partitioner`: the bytes of the tail are signed, and the
/// smallest i64 belongs to the empty key alone: any other key that hashes to it has the largest.
fn cassandra_murmur3(key: &[u8]) -> i64 {
    if key.is_empty() {
        return i64::MIN;
    }
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let mut blocks = key.chunks_exact(16);
    for block in &mut blocks {
        let (first, second) = block.split_at(8);
        h1 ^= mix_first(little_endian(first));
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix_second(little_endian(second));
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let tail = blocks.remainder();
    let (first, second) = tail.split_at(tail.len().min(8));
    if !second.is_empty() {
        h2 ^= mix_second(signed_tail(second));
    }
    if !first.is_empty() {
        h1 ^= mix_first(signed_tail(first));
    }
    let len = key.len() as u64;
    h1 ^= len;
    h2 ^= len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = avalanche(h1);
    h2 = avalanche(h2);
    let token = h1.wrapping_add(h2).cast_signed();
    if token == i64::MIN { i64::MAX } else { token }
}

fn little_endian(eight: &[u8]) -> u64 {
    u64::from_le_bytes(eight.try_into().expect("blocks are halved into eight bytes"))
}

/// Java's bytes are signed: a byte over 127 sets all bits above it too.
fn signed_tail(bytes: &[u8]) -> u64 {
    bytes.iter().enumerate().fold(0, |word, (place, byte)| {
        word ^ (i64::from(byte.cast_signed()).cast_unsigned() << (8 * place))
    })
}

fn mix_first(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_second(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn avalanche(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}
