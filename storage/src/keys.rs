//! Storage keys: the order in which partitions lie on disk, and the table ids of buckets.
//!
//! ```text
//! table u32 BE | token u64 BE, sign flipped | len u16 BE | partition key | kind u8
//! ```
//!
//! Invariant: keys sort by table, then token, then partition, so a token range is one iterator range and a partition one prefix.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

/// The longest partition key, in bytes.
pub const MAX_KEY: usize = 65_535;

/// The kind of a causal value, the last byte of its key.
pub const KIND_CAUSAL: u8 = 0x08;

/// The bytes before the token.
const TABLE_LEN: usize = 4;
const FIXED_LEN: usize = TABLE_LEN + 8 + 2;

/// Ids from here up are derived from bucket names; those below belong to the schema.
const NAMED_TABLES: u32 = 0x8000_0000;

/// Why bytes are not the storage key of a causal value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Its length is not the one its partition key's length implies.
    #[error("a storage key of {0} bytes is cut short or too long")]
    Length(usize),
    /// The last byte names no kind known here.
    #[error("unknown kind {0:#04x} in a storage key")]
    UnknownKind(u8),
}

/// A storage key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageKey<'a> {
    /// The table's id.
    pub table: u32,
    /// The partition's token.
    pub token: i64,
    /// The key as the client sent it.
    pub partition_key: &'a [u8],
}

/// The storage key of a causal value.
///
/// # Panics
///
/// If the partition key is longer than [`MAX_KEY`]: whoever accepts a key from outside checks that first.
pub fn storage_key(table: u32, token: i64, partition_key: &[u8]) -> Vec<u8> {
    let len = u16::try_from(partition_key.len())
        .expect("partition keys are limited to MAX_KEY bytes where they enter");
    let mut key = Vec::with_capacity(FIXED_LEN + partition_key.len() + 1);
    key.extend_from_slice(&table.to_be_bytes());
    key.extend_from_slice(&flip(token).to_be_bytes());
    key.extend_from_slice(&len.to_be_bytes());
    key.extend_from_slice(partition_key);
    key.push(KIND_CAUSAL);
    key
}

/// The parts of a storage key.
pub fn decode(key: &[u8]) -> Result<StorageKey<'_>, KeyError> {
    let short = KeyError::Length(key.len());
    let (table, rest) = key.split_first_chunk().ok_or(short)?;
    let (token, rest) = rest.split_first_chunk().ok_or(short)?;
    let (len, rest) = rest.split_first_chunk().ok_or(short)?;
    let (kind, partition_key) = rest.split_last().ok_or(short)?;
    if partition_key.len() != usize::from(u16::from_be_bytes(*len)) {
        return Err(short);
    }
    if *kind != KIND_CAUSAL {
        return Err(KeyError::UnknownKind(*kind));
    }
    Ok(StorageKey {
        table: u32::from_be_bytes(*table),
        token: unflip(u64::from_be_bytes(*token)),
        partition_key,
    })
}

/// The table of a storage key, and its token in ring order, from 0.
pub fn position(key: &[u8]) -> Option<(u32, u64)> {
    let (table, rest) = key.split_first_chunk()?;
    let token = rest.first_chunk()?;
    Some((u32::from_be_bytes(*table), u64::from_be_bytes(*token)))
}

/// The storage keys of a table with tokens from `first` to `last`, in ring order, as `[start, end)`.
pub fn token_bounds(table: u32, first: u64, last: u64) -> (Vec<u8>, Vec<u8>) {
    let at =
        |table: u32, token: u64| [table.to_be_bytes().as_slice(), &token.to_be_bytes()].concat();
    let end = match (last.checked_add(1), table.checked_add(1)) {
        (Some(next), _) => at(table, next),
        (None, Some(next_table)) => next_table.to_be_bytes().to_vec(),
        (None, None) => Vec::new(),
    };
    (at(table, first), end)
}

/// The id of a bucket that no schema describes, from its full name `keyspace.bucket`.
///
/// Two names can share an id; who registers names must refuse the second.
pub fn table_id(name: &str) -> u32 {
    NAMED_TABLES | (xxh3_64(name.as_bytes()) as u32 & !NAMED_TABLES)
}

/// Two's complement order as unsigned order.
fn flip(token: i64) -> u64 {
    token.cast_unsigned() ^ (1 << 63)
}

fn unflip(flipped: u64) -> i64 {
    (flipped ^ (1 << 63)).cast_signed()
}
