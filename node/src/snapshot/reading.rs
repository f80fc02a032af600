//! Reading snapshots back: several nodes' shares of one cluster as one, key by key, joined.
//!
//! Joined before anything is restored: what one node has seen deleted must not come back from another that had missed it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use starling_ring::ClusterId;
use starling_storage::values::{self, Causal};
use starling_storage::{Family, Store, keys};

use super::{Manifest, SnapshotError, open};

/// Read from a snapshot in one go.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// Snapshots of one cluster.
pub struct Reading {
    sources: Vec<(Manifest, Arc<dyn Store>)>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The partition key.
    pub key: Bytes,
    /// The join of what the snapshots hold, encoded.
    pub state: Bytes,
}

impl Reading {
    /// Opens the snapshots in these directories, wherever they were copied to. Blocks.
    ///
    /// # Errors
    /// [`SnapshotError`]: one is not whole, damaged, of another release or another cluster.
    pub fn open(directories: &[PathBuf]) -> Result<Self, SnapshotError> {
        let mut sources: Vec<(Manifest, Arc<dyn Store>)> = Vec::new();
        for directory in directories {
            let source = open(directory)?;
            if let Some((first, _)) = sources.first()
                && first.cluster_id != source.0.cluster_id
            {
                let (one, other) = (directories[0].clone(), directory.clone());
                return Err(SnapshotError::OtherCluster { one, other });
            }
            sources.push(source);
        }
        Ok(Self { sources })
    }

    /// What each says of itself.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.sources.iter().map(|(manifest, _)| manifest)
    }

    /// Whether they are of the cluster with this id.
    #[must_use]
    pub fn is_of(&self, cluster: [u8; 16]) -> bool {
        let cluster = ClusterId(cluster).to_string();
        self.manifests().any(|manifest| manifest.cluster_id == cluster)
    }

    /// All buckets by table id.
    #[must_use]
    pub fn buckets(&self) -> BTreeMap<u32, String> {
        self.manifests().flat_map(|manifest| manifest.buckets.iter().cloned()).collect()
    }

    /// The keys of a table that have a value, in the order of the ring.
    pub fn entries(&self, table: u32) -> Entries {
        let (start, end) = keys::token_bounds(table, 0, u64::MAX);
        let cursors = self.sources.iter().map(|(_, store)| Cursor {
            store: store.clone(),
            next: Some(start.clone()),
            end: end.clone(),
            read: VecDeque::new(),
        });
        Entries { cursors: cursors.collect() }
    }
}

/// See [`Reading::entries`]. Blocks.
pub struct Entries {
    cursors: Vec<Cursor>,
}

/// How far one snapshot was read.
struct Cursor {
    store: Arc<dyn Store>,
    /// Where to read on; none at the end.
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    read: VecDeque<(Vec<u8>, Bytes)>,
}

/// What the snapshots hold of one key.
struct States {
    key: Vec<u8>,
    states: Vec<Bytes>,
}

impl Cursor {
    fn fill(&mut self) -> Result<(), SnapshotError> {
        if !self.read.is_empty() {
            return Ok(());
        }
        let Some(start) = self.next.take() else { return Ok(()) };
        let mut bytes = 0;
        let read = &mut self.read;
        self.store.scan(Family::Data, &start, &self.end, &mut |key, state| {
            bytes += key.len() + state.len();
            read.push_back((key.to_vec(), Bytes::copy_from_slice(state)));
            if read.len() >= ENTRIES_MAX || bytes >= BYTES_MAX {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        // Just above the last one.
        self.next = read.back().map(|(key, _)| [key.as_slice(), &[0]].concat());
        Ok(())
    }
}

impl Entries {
    /// The next key of all, with its states.
    fn next_states(&mut self) -> Result<Option<States>, SnapshotError> {
        for cursor in &mut self.cursors {
            cursor.fill()?;
        }
        let fronts = self.cursors.iter().filter_map(|cursor| cursor.read.front());
        let Some(key) = fronts.map(|(key, _)| key).min().cloned() else { return Ok(None) };
        let mut states = Vec::new();
        for cursor in &mut self.cursors {
            if cursor.read.front().is_some_and(|(front, _)| *front == key) {
                states.extend(cursor.read.pop_front().map(|(_, state)| state));
            }
        }
        Ok(Some(States { key, states }))
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, SnapshotError> {
        while let Some(States { key, states }) = self.next_states()? {
            let damaged = |reason: String| SnapshotError::DamagedState {
                key: String::from_utf8_lossy(&key).into_owned(),
                reason,
            };
            let partition_key =
                keys::decode(&key).map_err(|error| damaged(error.to_string()))?.partition_key;
            let state = Bytes::from(values::merge(None, states.iter().map(AsRef::as_ref)));
            let joined = Causal::decode(state.clone());
            if joined.map_err(|error| damaged(error.to_string()))?.sibling_count() > 0 {
                return Ok(Some(Entry { key: Bytes::copy_from_slice(partition_key), state }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}
