//! What is known of one node.
//!
//! Invariant: `(incarnation, version)` says which values are known, because only their owner
//! numbers them and nobody reads past a gap. Merging is therefore a join: commutative, idempotent
//! and monotone.

use serde::{Deserialize, Serialize};

use super::message::{Digest, NodeDelta};

/// A value is at most this long, so that all values of one node fit into one message.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// A node takes a new version after so many heartbeats even when it has nothing to say. That keeps
/// the low halves of heartbeats within one version comparable, however long a node was cut off.
pub(super) const HEARTBEATS_PER_VERSION: u32 = 4_096;

/// What a node may say of itself. Never removed, only replaced, so there are no tombstones. At present nodes say their status; of all else the
/// epoch tells, or will once it changes. The order is the format on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// Where peers reach it.
    Address,
    /// Where clients reach it.
    ClientAddress,
    /// Its datacenter.
    Datacenter,
    /// Its rack.
    Rack,
    /// Whether it serves, stops, or has amnesia.
    Status,
    /// The highest ring epoch it has.
    Epoch,
    /// Bytes it stores.
    Load,
    /// The version of its schema.
    SchemaVersion,
    /// The highest epoch it has fenced.
    Fence,
    /// How far a topology operation has come there.
    OperationProgress,
}

/// The state of one node, ordered by (incarnation, version) of its parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeState {
    /// How often the node has started; 0 while nothing is known of it.
    pub incarnation: u64,
    /// Drawn at that start: two nonces in one incarnation are two nodes.
    pub boot_nonce: u64,
    /// Counts the node's gossip rounds in this incarnation.
    pub heartbeat: u32,
    /// How far the node's values have been read; 0 while nothing is known of it.
    pub version: u32,
    /// By key. A vector, because there are at most ten, and one state for each pair of nodes.
    values: Vec<(Key, u32, Vec<u8>)>,
}

/// What merging brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Merged {
    /// Nothing that was not known, or nothing that may be believed.
    Nothing,
    /// The sender does not know of this incarnation yet.
    SenderIsBehind,
    /// Only the heartbeat moved.
    Heartbeat,
    /// Values, or a new start; `heartbeat` says whether that moved too.
    Values { heartbeat: bool },
}

impl NodeState {
    /// A node at its start. That it lives is its version 1.
    pub(super) fn born(incarnation: u64, boot_nonce: u64) -> Self {
        Self { incarnation, boot_nonce, heartbeat: 0, version: 1, values: Vec::new() }
    }

    /// What the node says under `key`.
    #[must_use]
    pub fn value(&self, key: Key) -> Option<&[u8]> {
        self.find(key).ok().map(|at| self.values[at].2.as_slice())
    }

    fn find(&self, key: Key) -> Result<usize, usize> {
        self.values.binary_search_by_key(&key, |(key, ..)| *key)
    }

    /// Sets a value of this node itself. Returns whether that is news.
    pub(super) fn set(&mut self, key: Key, value: Vec<u8>) -> bool {
        if self.value(key) == Some(&value) {
            return false;
        }
        self.version += 1;
        self.put(key, self.version, value);
        true
    }

    fn put(&mut self, key: Key, version: u32, value: Vec<u8>) {
        match self.find(key) {
            Ok(at) if self.values[at].1 < version => self.values[at] = (key, version, value),
            Ok(_) => {}
            Err(at) => self.values.insert(at, (key, version, value)),
        }
    }

    /// This node itself is still there.
    pub(super) fn beat(&mut self) {
        self.heartbeat += 1;
        if self.heartbeat.is_multiple_of(HEARTBEATS_PER_VERSION) {
            self.version += 1;
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest {
            incarnation_lo: self.incarnation.to_le_bytes()[0],
            heartbeat_lo: low_half(self.heartbeat),
            version: self.version,
        }
    }

    /// Moves the heartbeat forward to what a digest of this very version says. Returns whether it moved.
    pub(super) fn hear(&mut self, digest: &Digest) -> bool {
        if self.version == 0
            || digest.version != self.version
            || digest.incarnation_lo != self.incarnation.to_le_bytes()[0]
        {
            return false;
        }
        let ahead = digest.heartbeat_lo.wrapping_sub(low_half(self.heartbeat)).cast_signed();
        let Ok(ahead @ 1..) = u32::try_from(ahead) else { return false };
        self.heartbeat = self.heartbeat.saturating_add(ahead);
        true
    }

    /// What a reader that has come as far as `digest` lacks; nothing if it lacks nothing.
    pub(super) fn missing(&self, index: u16, digest: &Digest) -> Option<NodeDelta> {
        let ahead = digest.incarnation_lo.wrapping_sub(self.incarnation.to_le_bytes()[0]);
        let read = match ahead.cast_signed() {
            _ if digest.version == 0 => 0,
            0 => digest.version,
            1.. => return None,
            _ => 0,
        };
        (read < self.version).then(|| self.after(index, read))
    }

    /// Everything that the node said after the version `read`.
    pub(super) fn after(&self, index: u16, read: u32) -> NodeDelta {
        NodeDelta {
            index,
            incarnation: self.incarnation,
            boot_nonce: self.boot_nonce,
            heartbeat: self.heartbeat,
            after: read,
            version: self.version,
            values: self.values.iter().filter(|(_, version, _)| *version > read).cloned().collect(),
        }
    }

    /// Joins what somebody else has read.
    pub(super) fn merge(&mut self, delta: NodeDelta) -> Merged {
        if !delta.is_sound() {
            return Merged::Nothing;
        }
        if delta.incarnation < self.incarnation {
            return Merged::SenderIsBehind;
        }
        let started = delta.incarnation > self.incarnation;
        // Between two clones of a disk the first one that was heard of is believed.
        let clone = !started && delta.boot_nonce != self.boot_nonce;
        let gap = delta.after > if started { 0 } else { self.version };
        if clone || gap {
            return Merged::Nothing;
        }
        if started {
            *self = Self {
                incarnation: delta.incarnation,
                boot_nonce: delta.boot_nonce,
                ..Self::default()
            };
        }
        let beats = delta.heartbeat > self.heartbeat;
        self.heartbeat = self.heartbeat.max(delta.heartbeat);
        let mut says = started;
        if delta.version > self.version {
            self.version = delta.version;
            for (key, version, value) in delta.values {
                self.put(key, version, value);
                says = true;
            }
        }
        match (says, beats) {
            (true, _) => Merged::Values { heartbeat: beats || started },
            (false, true) => Merged::Heartbeat,
            (false, false) => Merged::Nothing,
        }
    }
}

fn low_half(heartbeat: u32) -> u16 {
    let [first, second, ..] = heartbeat.to_le_bytes();
    u16::from_le_bytes([first, second])
}
