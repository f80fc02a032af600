//! Which table id stands for which bucket.
//!
//! Invariant: an id has one name for ever, and the pair is durable before the first key under it is written: a table id is a hash, and two
//! names on one id would mix their keys.
//!
//! Modes and keyspaces are not known here; they belong to the ring's configuration.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use thiserror::Error;

use crate::keys;
use crate::store::{Batch, Family, Store, StoreError};

/// Buckets that may come into being by first use.
pub const BUCKETS_MAX: usize = 1_000;
/// Letters of a keyspace's or a bucket's name.
pub const NAME_PART_MAX: usize = 48;

const PREFIX: &[u8] = b"bucket/";
/// One above the prefix in byte order.
const PREFIX_END: &[u8] = b"bucket0";

/// Why a bucket cannot be used.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BucketError {
    /// The name is not of the form `keyspace.bucket`.
    #[error("{name:?} is no bucket name: {reason}")]
    BadName {
        /// What was asked for.
        name: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Another bucket has the id that this name hashes to.
    #[error("the bucket names {name:?} and {other:?} share a table id; choose another name")]
    Collision {
        /// What was asked for.
        name: String,
        /// Who has the id.
        other: String,
    },
    /// There are too many buckets already.
    #[error("there are {max} buckets already")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// The pair could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BucketError {
    /// Whether it would be refused again.
    pub fn is_final(&self) -> bool {
        !matches!(self, BucketError::Store(_))
    }
}

/// The durable table of buckets.
pub struct BucketRegistry {
    store: Arc<dyn Store>,
    names: RwLock<BTreeMap<u32, Arc<str>>>,
}

impl BucketRegistry {
    /// Loads the registry from the store's `Meta` family. Blocks.
    pub fn load(store: Arc<dyn Store>) -> Result<BucketRegistry, StoreError> {
        let mut names = BTreeMap::new();
        let mut damaged = false;
        store.scan(Family::Meta, PREFIX, PREFIX_END, &mut |key, value| {
            match decode_entry(key, value) {
                Some((id, name)) => {
                    names.insert(id, Arc::from(name));
                }
                None => damaged = true,
            }
            ControlFlow::Continue(())
        })?;
        if damaged {
            return Err(StoreError::Corruption {
                operation: "load buckets",
                reason: "an entry of the bucket registry is malformed".to_owned(),
            });
        }
        Ok(BucketRegistry { store, names: RwLock::new(names) })
    }

    /// The id of the bucket `name` (`keyspace.bucket`), made durable at first use. Blocks then.
    pub fn open(&self, name: &str) -> Result<u32, BucketError> {
        check_name(name)?;
        let id = keys::table_id(name);
        self.adopt(id, name)?;
        Ok(id)
    }

    /// Takes over a pair that another replica made. Blocks if it is new here.
    pub fn adopt(&self, id: u32, name: &str) -> Result<(), BucketError> {
        check_name(name)?;
        if let Some(known) = self.name(id) {
            return same_name(&known, name);
        }
        let mut names = self.names.write();
        if let Some(known) = names.get(&id) {
            return same_name(known, name);
        }
        if names.len() >= BUCKETS_MAX {
            return Err(BucketError::TooMany { max: BUCKETS_MAX });
        }
        let mut batch = Batch::with_capacity(1);
        let key = [PREFIX, &id.to_be_bytes()].concat();
        let value = Bytes::copy_from_slice(name.as_bytes());
        batch.put(Family::Meta, Bytes::from(key), value);
        self.store.write_waiting(batch)?;
        self.store.sync()?;
        names.insert(id, Arc::from(name));
        Ok(())
    }

    /// The name of a known bucket.
    pub fn name(&self, id: u32) -> Option<Arc<str>> {
        self.names.read().get(&id).cloned()
    }

    /// All known buckets by id.
    pub fn all(&self) -> Vec<(u32, Arc<str>)> {
        let names = self.names.read();
        names.iter().map(|(id, name)| (*id, name.clone())).collect()
    }
}

fn same_name(known: &Arc<str>, name: &str) -> Result<(), BucketError> {
    if known.as_ref() == name {
        return Ok(());
    }
    Err(BucketError::Collision { name: name.to_owned(), other: known.to_string() })
}

fn decode_entry<'a>(key: &[u8], value: &'a [u8]) -> Option<(u32, &'a str)> {
    let id = key.strip_prefix(PREFIX)?.try_into().ok()?;
    let name = std::str::from_utf8(value).ok()?;
    Some((u32::from_be_bytes(id), name))
}

/// Checks a full bucket name: two parts of letters, digits, `_` and `-`, joined by one dot.
pub fn check_name(name: &str) -> Result<(), BucketError> {
    let bad = |reason| BucketError::BadName { name: name.to_owned(), reason };
    let (keyspace, bucket) =
        name.split_once('.').ok_or_else(|| bad("it has to be written keyspace.bucket"))?;
    for part in [keyspace, bucket] {
        if part.is_empty() || part.len() > NAME_PART_MAX {
            return Err(bad("each part has 1 to 48 characters"));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !part.bytes().all(is_plain) {
            return Err(bad("only letters, digits, '_' and '-' are allowed"));
        }
    }
    Ok(())
}
