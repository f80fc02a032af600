//! The hashes of one area's leaves, and what two replicas conclude from them; pure.
//!
//! Invariant: a hash is the wrapping sum over a leaf's keys, so leaves fold into coarser ones by addition, and replicas that cut an area
//! into different numbers of leaves can still compare.
//!
//! Dynamo's Merkle trees (DeCandia et al., 2007, section 4.7), flattened: two levels, and the lower one is recomputed where it is dirty.

use std::collections::{BTreeMap, BTreeSet};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::values;

/// Leaves of one area, at most `2^LEAF_BITS_MAX`.
pub const LEAF_BITS_MAX: u8 = 16;

/// Tokens in ring order, from 0 for the smallest: both ends belong to the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenRange {
    /// The first token.
    pub first: u64,
    /// The last token.
    pub last: u64,
}

/// The hashes of an area's `2^bits` leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafHashes {
    bits: u8,
    hashes: Vec<u64>,
}

/// One key of a leaf, hashed: what replicas exchange where their leaves differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHash {
    /// Of the storage key.
    pub key: u64,
    /// Of the storage key and its state.
    pub state: u64,
    /// How long key and state are.
    pub bytes: u32,
}

/// What two replicas lack of each other, as hashes of storage keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys whose state there is not the one here.
    pub fetch: BTreeSet<u64>,
    /// Keys that are only here.
    pub push: BTreeSet<u64>,
    /// The bytes of all these states, where they are.
    pub bytes: u64,
}

impl LeafHashes {
    /// Hashes of `2^bits` leaves; none if the number is another one.
    pub fn new(bits: u8, hashes: Vec<u64>) -> Option<LeafHashes> {
        (bits <= LEAF_BITS_MAX && hashes.len() == 1 << bits).then_some(LeafHashes { bits, hashes })
    }

    /// log2 of the number of leaves.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The hash of each leaf, in token order.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The whole area in one number: the same however it is cut.
    pub fn digest(&self) -> u64 {
        self.hashes.iter().fold(0, |sum, hash| sum.wrapping_add(*hash))
    }

    /// The parts of `area` in which the two differ, at the coarser of their resolutions.
    pub fn differing(&self, other: &LeafHashes, area: TokenRange) -> Vec<TokenRange> {
        let bits = self.bits.min(other.bits);
        let (ours, theirs) = (self.fold(bits), other.fold(bits));
        let differs = ours.iter().zip(&theirs).map(|(ours, theirs)| ours != theirs);
        let differing = differs.enumerate().filter(|(_, differs)| *differs);
        differing.map(|(leaf, _)| leaf_range(area, bits, leaf)).collect()
    }

    fn fold(&self, bits: u8) -> Vec<u64> {
        let sum = |part: &[u64]| part.iter().fold(0_u64, |sum, hash| sum.wrapping_add(*hash));
        self.hashes.chunks(1 << (self.bits - bits)).map(sum).collect()
    }
}

impl EntryHash {
    /// The hash of a stored entry; none for a state that says nothing, which is the same as no entry.
    pub fn of(key: &[u8], state: &[u8]) -> Option<EntryHash> {
        if values::digest(state) == 0 {
            return None;
        }
        let bytes = u32::try_from(key.len() + state.len()).unwrap_or(u32::MAX);
        let key = xxh3_64(key);
        Some(EntryHash { key, state: xxh3_64_with_seed(state, key), bytes })
    }
}

impl Difference {
    /// What has to travel so that both sides hold the join of each key.
    pub fn between(ours: &[EntryHash], theirs: &[EntryHash]) -> Difference {
        let by_key = |entries: &[EntryHash]| -> BTreeMap<u64, EntryHash> {
            entries.iter().map(|entry| (entry.key, *entry)).collect()
        };
        let (ours, theirs) = (by_key(ours), by_key(theirs));
        let is_here =
            |entry: &EntryHash| ours.get(&entry.key).is_some_and(|our| our.state == entry.state);
        let fetch = || theirs.values().filter(|entry| !is_here(entry));
        let push = || ours.values().filter(|entry| !theirs.contains_key(&entry.key));
        Difference {
            fetch: fetch().map(|entry| entry.key).collect(),
            push: push().map(|entry| entry.key).collect(),
            bytes: fetch().chain(push()).map(|entry| u64::from(entry.bytes)).sum(),
        }
    }

    /// How many keys differ.
    pub fn keys(&self) -> usize {
        self.fetch.len() + self.push.len()
    }
}

/// The tokens of one of the `2^bits` leaves of `area`.
pub fn leaf_range(area: TokenRange, bits: u8, leaf: usize) -> TokenRange {
    let width = (area.last - area.first) >> bits;
    let first = area.first + (width + 1) * leaf as u64;
    TokenRange { first, last: first + width }
}

/// The leaf of `area`, cut into `2^bits`, that holds `token`.
pub fn leaf_of(area: TokenRange, bits: u8, token: u64) -> usize {
    let width = (area.last - area.first) >> bits;
    usize::try_from((token - area.first) / (width + 1)).expect("an area has at most 2^16 leaves")
}
