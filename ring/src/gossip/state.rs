//! What is known of one node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::message::{Digest, NodeDelta};

/// What a node may say of itself. Never removed, only replaced, so there are no tombstones.
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

/// The state of one node, ordered by (incarnation, version) of its parts: a join.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeState {
    /// How often the node has started; 0 while nothing is known of it.
    pub incarnation: u64,
    /// Drawn at that start: two nonces in one incarnation are two nodes.
    pub boot_nonce: u64,
    /// Counts the node's gossip rounds in this incarnation.
    pub heartbeat: u32,
    /// The highest version of a value below.
    pub version: u32,
    values: BTreeMap<Key, (u32, Vec<u8>)>,
}

impl NodeState {
    /// What the node says under `key`.
    #[must_use]
    pub fn value(&self, key: Key) -> Option<&[u8]> {
        self.values.get(&key).map(|(_, value)| value.as_slice())
    }

    /// Sets a value of this node itself.
    pub(super) fn set(&mut self, key: Key, value: Vec<u8>) {
        self.version += 1;
        self.values.insert(key, (self.version, value));
    }

    pub(super) fn digest(&self) -> Digest {
        Digest {
            incarnation_lo: self.incarnation.to_le_bytes()[0],
            heartbeat_lo: u16::from_le_bytes([self.heartbeat.to_le_bytes()[0], self.heartbeat.to_le_bytes()[1]]),
            version: self.version,
        }
    }

    /// Whether a digest speaks of a later incarnation, an earlier one, or (0) this one. The low
    /// byte suffices as long as the two are within 127 starts of one another.
    pub(super) fn compare_incarnation(&self, digest: &Digest) -> i8 {
        digest.incarnation_lo.wrapping_sub(self.incarnation.to_le_bytes()[0]).cast_signed()
    }

    /// Moves the heartbeat forward to what a digest of this incarnation says. Returns whether it moved.
    pub(super) fn hear(&mut self, digest: &Digest) -> bool {
        if self.incarnation == 0 || self.compare_incarnation(digest) != 0 {
            return false;
        }
        let ahead = digest.heartbeat_lo.wrapping_sub(self.digest().heartbeat_lo).cast_signed();
        let Ok(ahead @ 1..) = u32::try_from(ahead) else { return false };
        self.heartbeat = self.heartbeat.saturating_add(ahead);
        true
    }

    /// What a reader that has come as far as `digest` lacks, oldest first; nothing if it lacks nothing.
    pub(super) fn missing(&self, index: u16, digest: &Digest) -> Option<NodeDelta> {
        if self.incarnation == 0 {
            return None;
        }
        let read = match self.compare_incarnation(digest) {
            0 if digest.version >= self.version => return None,
            0 => digest.version,
            1.. => return None,
            _ => 0,
        };
        let mut values: Vec<(Key, u32, Vec<u8>)> = self
            .values
            .iter()
            .filter(|(_, (version, _))| *version > read)
            .map(|(key, (version, value))| (*key, *version, value.clone()))
            .collect();
        values.sort_by_key(|(_, version, _)| *version);
        Some(NodeDelta {
            index,
            incarnation: self.incarnation,
            boot_nonce: self.boot_nonce,
            heartbeat: self.heartbeat,
            values,
        })
    }

    /// Joins what somebody else has read. Returns whether anything was news.
    pub(super) fn apply(&mut self, delta: NodeDelta) -> bool {
        if delta.incarnation < self.incarnation {
            return false;
        }
        let mut news = false;
        if delta.incarnation > self.incarnation {
            *self = Self {
                incarnation: delta.incarnation,
                boot_nonce: delta.boot_nonce,
                ..Self::default()
            };
            news = true;
        }
        if delta.heartbeat > self.heartbeat {
            self.heartbeat = delta.heartbeat;
            news = true;
        }
        for (key, version, value) in delta.values {
            let known = self.values.get(&key).map_or(0, |(known, _)| *known);
            if version > known {
                self.values.insert(key, (version, value));
                news = true;
            }
            self.version = self.version.max(version);
        }
        news
    }
}
