//! The sealed causal context that a client carries from a read to its next write.
//!
//! ```text
//! version u8 | key hash u32 LE | context | mac 16        mac = SipHash-2-4-128(version | table | len of key | key | context)
//! ```
//!
//! Invariant: a context that [`open`] returns was sealed under the same secret for the same key of the same table. A forged context could
//! make a leader drop values nobody has read.
//!
//! The key hash only tells a token of another key from a forgery, so that the error can say which. The length of the key is under the
//! MAC so that no byte can move between key and context.

use std::fmt;
use std::hash::Hasher;

use bytes::Bytes;
use siphasher::sip128::{Hash128, Hasher128, SipHasher24};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::values::{Context, DecodeError};

const VERSION: u8 = 1;
const HEADER: usize = 1 + 4;
const MAC: usize = 16;

/// The secret under which a cluster seals contexts.
#[derive(Clone, Copy)]
pub struct TokenKey(pub [u8; 16]);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(redacted)")
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Too short to be a token.
    #[error("it is not a context (or only a part of one)")]
    Truncated,
    /// Made by a newer version, or no token at all.
    #[error("it is not a context, or of another release (version {0})")]
    UnknownVersion(u8),
    /// Handed out for another key or another bucket.
    #[error("the context belongs to another key")]
    OtherKey,
    /// Changed, invented, or sealed by another cluster.
    #[error("the context was not made by this cluster, or is not whole")]
    Forged,
    /// Rightly sealed, yet unreadable: the sealer is broken.
    #[error("the sealed context is malformed: {0}")]
    Malformed(DecodeError),
}

/// The token of a context for one key of one table.
pub fn seal(secret: &TokenKey, table: u32, key: &[u8], context: &Context) -> Bytes {
    let mut token = Vec::with_capacity(HEADER + 32 * context.actor_count() + MAC);
    token.push(VERSION);
    token.extend_from_slice(&key_hash(table, key).to_le_bytes());
    context.encode_into(&mut token);
    let mac = mac(secret, table, key, &token[HEADER..]);
    token.extend_from_slice(&u128::from(mac).to_le_bytes());
    token.into()
}

/// The context in a token, if it was sealed under this secret for this key of this table.
pub fn open(
    secret: &TokenKey,
    table: u32,
    key: &[u8],
    token: &[u8],
) -> Result<Context, TokenError> {
    let (sealed, claimed) = token.split_last_chunk::<MAC>().ok_or(TokenError::Truncated)?;
    let (header, context) = sealed.split_first_chunk::<HEADER>().ok_or(TokenError::Truncated)?;
    let [version, hash @ ..] = *header;
    if version != VERSION {
        return Err(TokenError::UnknownVersion(version));
    }
    if u32::from_le_bytes(hash) != key_hash(table, key) {
        return Err(TokenError::OtherKey);
    }
    // The comparison of `Hash128` takes the same time wherever the two differ.
    if mac(secret, table, key, context) != Hash128::from(u128::from_le_bytes(*claimed)) {
        return Err(TokenError::Forged);
    }
    Context::decode(context).map_err(TokenError::Malformed)
}

fn key_hash(table: u32, key: &[u8]) -> u32 {
    xxh3_64_with_seed(key, u64::from(table)) as u32
}

fn mac(secret: &TokenKey, table: u32, key: &[u8], context: &[u8]) -> Hash128 {
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    hasher.write(&[VERSION]);
    hasher.write(&table.to_le_bytes());
    hasher.write(&(key.len() as u64).to_le_bytes());
    hasher.write(key);
    hasher.write(context);
    hasher.finish128()
}
