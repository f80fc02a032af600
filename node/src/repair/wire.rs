//! What two replicas say to one another while they compare: a bincode header, and beside it, as the frame's operand, what there is many of.
//!
//! Nothing that a peer sends is trusted to be well formed.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use starling_storage::leaves::{EntryHash, LeafHashes, TokenRange};

use super::error::{AnswerError, AskError};
use crate::internode::message::BucketName;

/// Slots that are compared in one message.
pub const SLOTS_MAX: usize = 256;
/// Parts of a table whose entries are exchanged in one message.
pub const RANGES_MAX: usize = 64;
/// Bytes of states in one answer, unless a single one has more.
pub const STATES_BYTES_MAX: usize = 1 << 20;

const ENTRY_LEN: usize = 8 + 8 + 4;

/// A question of the replica that leads a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairRequest {
    /// A session begins. What is known there?
    Begin {
        /// Whether the asking replica holds every write that it acknowledged.
        whole: bool,
        /// The buckets that are known here.
        names: Vec<BucketName>,
        /// The purge floors here; none if this replica lost writes.
        floors: FloorRuns,
    },
    /// These are the digests of a table's slots here; where are yours others?
    Compare {
        /// The table.
        table: u32,
        /// Slots and their digests.
        slots: Vec<(u32, u64)>,
    },
    /// What are the hashes of this slot's leaves? As they were at the last `Compare`.
    Leaves {
        /// The table.
        table: u32,
        /// The slot.
        slot: u32,
    },
    /// What are the hashes of the entries here?
    Entries {
        /// The table.
        table: u32,
        /// First and last tokens.
        ranges: Vec<(u64, u64)>,
    },
    /// What are the states of these keys?
    States {
        /// The table.
        table: u32,
        /// Where they are.
        ranges: Vec<(u64, u64)>,
        /// The hashes of their storage keys.
        keys: BTreeSet<u64>,
    },
    /// A session has ended, and everything that differed has been exchanged.
    Agreed {
        /// The start of the answering node in which the session began, see [`RepairAnswer::Begun`].
        boot: u64,
        /// Whether the asking replica held every write that it acknowledged, and all tables of both were compared.
        whole: bool,
        /// Every write up to here that either held at the beginning is at both; 0 if that is not sure.
        through: u64,
    },
    /// Up to where do you and each other node agree?
    Standing,
    /// Promise to mint nothing up to `writes` in these slots.
    Promise {
        /// Ranges of slots, both ends included.
        slots: Vec<(u32, u32)>,
        /// The floor to be.
        writes: u64,
    },
    /// All have promised: forget what is below.
    Adopt {
        /// Ranges of slots, both ends included.
        slots: Vec<(u32, u32)>,
        /// The floor of writes.
        writes: u64,
        /// The floor of states.
        states: u64,
    },
}

impl RepairRequest {
    /// What is asked, in a word for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Compare { .. } => "compare",
            Self::Leaves { .. } => "leaves",
            Self::Entries { .. } => "entries",
            Self::States { .. } => "states",
            Self::Agreed { .. } => "agreed",
            Self::Standing => "standing",
            Self::Promise { .. } => "promise",
            Self::Adopt { .. } => "adopt",
        }
    }

    /// That what the peer said is no answer to this.
    pub(super) fn misunderstood(&self) -> AskError {
        AskError::NotUnderstood { question: self.name() }
    }
}

/// Purge floors of neighbouring slots: how many, and what is promised, the floor of writes and that of states.
pub type FloorRuns = Vec<(u32, u64, u64, u64)>;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RepairAnswer {
    /// A session has begun.
    Begun {
        /// The present start of the answering node: in another one it may hold less.
        boot: u64,
        /// Whether the answering replica holds every write that it acknowledged.
        whole: bool,
        /// Every write up to here that it leads is in its store.
        sealed: u64,
        /// Its buckets.
        names: Vec<BucketName>,
        /// Its purge floors; none if it lost writes.
        floors: FloorRuns,
    },
    /// How the slots compare.
    Compared {
        /// Those that differ.
        differing: Vec<u32>,
        /// Those that could not be read in one go: ask again.
        unread: Vec<u32>,
    },
    /// The operand holds the hashes of `2^bits` leaves, 8 bytes each.
    Leaves {
        /// log2 of the number of leaves.
        bits: u8,
    },
    /// The operand holds the entries, see [`encode_entries`].
    Entries,
    /// The operand holds keys and states, see [`encode_states`].
    States {
        /// Whether these are all that were asked for and found.
        complete: bool,
    },
    /// Noted, adopted.
    Done,
    /// Where the answering replica stands.
    Standing {
        /// Nodes, and up to where it agrees with each.
        agreed: Vec<(u16, u64)>,
        /// Whether it holds tombstones.
        tombstones: bool,
    },
    /// Promised, durably.
    Promised {
        /// The clock's present.
        now: u64,
    },
    /// It cannot be answered.
    Failed {
        /// Why.
        reason: String,
    },
}

/// The hashes of leaves as an operand.
pub fn encode_leaves(leaves: &LeafHashes) -> Bytes {
    leaves.hashes().iter().flat_map(|hash| hash.to_le_bytes()).collect()
}

/// What [`encode_leaves`] made.
pub fn decode_leaves(bits: u8, operand: &[u8]) -> Option<LeafHashes> {
    let (hashes, rest) = operand.as_chunks();
    let hashes = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
    LeafHashes::new(bits, hashes).filter(|_| rest.is_empty())
}

/// The hashes of entries as an operand.
pub fn encode_entries(entries: &[EntryHash]) -> Bytes {
    let mut out = BytesMut::with_capacity(entries.len() * ENTRY_LEN);
    for entry in entries {
        out.put_u64_le(entry.key);
        out.put_u64_le(entry.state);
        out.put_u32_le(entry.bytes);
    }
    out.freeze()
}

/// What [`encode_entries`] made.
pub fn decode_entries(mut operand: &[u8]) -> Option<Vec<EntryHash>> {
    if !operand.len().is_multiple_of(ENTRY_LEN) {
        return None;
    }
    let mut entries = Vec::with_capacity(operand.len() / ENTRY_LEN);
    while operand.has_remaining() {
        let (key, state) = (operand.get_u64_le(), operand.get_u64_le());
        entries.push(EntryHash { key, state, bytes: operand.get_u32_le() });
    }
    Some(entries)
}

/// Storage keys and states as an operand.
pub fn encode_states(entries: &[(Bytes, Bytes)]) -> Bytes {
    let bytes = entries.iter().map(|(key, state)| 8 + key.len() + state.len()).sum();
    let mut out = BytesMut::with_capacity(bytes);
    for part in entries.iter().flat_map(|(key, state)| [key, state]) {
        out.put_u32_le(u32::try_from(part.len()).expect("states are limited to 64 MiB"));
        out.extend_from_slice(part);
    }
    out.freeze()
}

/// What [`encode_states`] made.
pub fn decode_states(mut operand: Bytes) -> Option<Vec<(Bytes, Bytes)>> {
    fn part(operand: &mut Bytes) -> Option<Bytes> {
        let len = operand.try_get_u32_le().ok()? as usize;
        (len <= operand.len()).then(|| operand.split_to(len))
    }
    let mut entries = Vec::new();
    while !operand.is_empty() {
        entries.push((part(&mut operand)?, part(&mut operand)?));
    }
    Some(entries)
}

/// Ranges as they travel.
pub fn pairs(ranges: &[TokenRange]) -> Vec<(u64, u64)> {
    ranges.iter().map(|range| (range.first, range.last)).collect()
}

/// Ranges as they came, unless there are too many.
pub(super) fn ranges(pairs: &[(u64, u64)]) -> Result<Vec<TokenRange>, AnswerError> {
    let count = pairs.len();
    if count > RANGES_MAX {
        return Err(AnswerError::TooMany { what: "ranges", count, max: RANGES_MAX });
    }
    Ok(pairs.iter().map(|(first, last)| TokenRange { first: *first, last: *last }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_come_back() {
        let leaves = LeafHashes::new(2, vec![1, u64::MAX, 3, 4]).expect("four leaves");
        assert_eq!(decode_leaves(2, &encode_leaves(&leaves)), Some(leaves.clone()));
        assert_eq!(decode_leaves(3, &encode_leaves(&leaves)), None);
        let entries = vec![EntryHash { key: 1, state: u64::MAX, bytes: 3 }; 5];
        assert_eq!(decode_entries(&encode_entries(&entries)), Some(entries));
        let states = vec![
            (Bytes::from_static(b"key"), Bytes::from_static(b"state")),
            (Bytes::from_static(b"k"), Bytes::new()),
        ];
        assert_eq!(decode_states(encode_states(&states)), Some(states));
    }

    #[test]
    fn operands_that_are_cut_short_are_refused() {
        let states = encode_states(&[(Bytes::from_static(b"key"), Bytes::from_static(b"state"))]);
        for len in 1..states.len() {
            assert_eq!(decode_states(states.slice(..len)), None, "{len} bytes");
        }
        assert_eq!(decode_entries(&[0; ENTRY_LEN + 1]), None);
        assert!(ranges(&[(0, 1); RANGES_MAX + 1]).is_err());
    }
}
