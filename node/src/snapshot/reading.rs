//! Reading snapshots back: several nodes' shares of one cluster as one, key by key, joined.
//!
//! Joined before anything is restored: what one node has seen deleted must not come back from another that had missed it. Nor what one has
//! seen deleted and forgotten since: its purge floors say up to where it had seen every write, so what it lacks of those was deleted or replaced.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use starling_ring::{ClusterId, SlotGrid};
use starling_storage::floors::Floors;
use starling_storage::values::{self, Causal, DecodeError, Dot};
use starling_storage::{Family, Store, keys};

use super::{MANIFEST, Manifest, Sharer, SnapshotError, open};

/// Read from a snapshot in one go.
const ENTRIES_MAX: usize = 256;
const BYTES_MAX: usize = 4 << 20;

/// Snapshots of one cluster.
pub struct Reading {
    shares: Vec<Arc<Share>>,
}

/// What one node held.
struct Share {
    manifest: Manifest,
    store: Arc<dyn Store>,
    floors: Floors,
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
        let mut shares: Vec<Arc<Share>> = Vec::new();
        for directory in directories {
            let share = Share::open(directory)?;
            if let Some(first) = shares.first()
                && first.manifest.cluster_id != share.manifest.cluster_id
            {
                let (one, other) = (directories[0].clone(), directory.clone());
                return Err(SnapshotError::OtherCluster { one, other });
            }
            shares.push(Arc::new(share));
        }
        Ok(Self { shares })
    }

    /// What each says of itself.
    pub fn manifests(&self) -> impl Iterator<Item = &Manifest> {
        self.shares.iter().map(|share| &share.manifest)
    }

    /// Whether they are of the cluster with this id.
    #[must_use]
    pub fn is_of(&self, cluster: [u8; 16]) -> bool {
        let cluster = ClusterId(cluster).to_string();
        self.manifests().any(|manifest| manifest.cluster_id == cluster)
    }

    /// Whether every member's share is there, once. None if no record says who the members were, as those of older releases do not.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`], naming them.
    pub fn check_whole(&self) -> Result<Option<()>, SnapshotError> {
        // The members of the latest epoch, into which those before have handed their data.
        let latest = self.manifests().max_by_key(|manifest| manifest.epoch);
        let members = latest.map(|manifest| manifest.members.as_slice()).unwrap_or_default();
        let (mut given, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for Manifest { host_id, .. } in self.manifests() {
            if !given.insert(*host_id) {
                let known = members.iter().find(|member| member.host_id == *host_id);
                let unknown = || Sharer { host_id: *host_id, address: None };
                twice.insert(known.cloned().unwrap_or_else(unknown));
            }
        }
        let is_missing = |member: &&Sharer| !given.contains(&member.host_id);
        let missing: Vec<Sharer> = members.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() && twice.is_empty() {
            return Ok((!members.is_empty()).then_some(()));
        }
        Err(SnapshotError::Incomplete { missing, twice: twice.into_iter().collect() })
    }

    /// All buckets by table id.
    #[must_use]
    pub fn buckets(&self) -> BTreeMap<u32, String> {
        self.manifests().flat_map(|manifest| manifest.buckets.iter().cloned()).collect()
    }

    /// The keys of a bucket that have a value, in the order of the ring.
    pub fn entries(&self, table: u32, name: &str) -> Entries {
        let keyspace = name.split_once('.').map_or(name, |(keyspace, _)| keyspace);
        let (start, end) = keys::token_bounds(table, 0, u64::MAX);
        let cursors = self.shares.iter().map(|share| Cursor {
            share: share.clone(),
            replicated: share.manifest.replicated.get(keyspace).cloned().unwrap_or_default(),
            next: Some(start.clone()),
            end: end.clone(),
            read: VecDeque::new(),
        });
        Entries { cursors: cursors.collect() }
    }
}

impl Share {
    fn open(directory: &Path) -> Result<Share, SnapshotError> {
        let (manifest, store) = open(directory)?;
        let grid = SlotGrid::new(manifest.slot_bits).map_err(|error| SnapshotError::Damaged {
            path: directory.join(MANIFEST),
            reason: error.to_string(),
        })?;
        let floors = Floors::load(store.clone(), grid)?;
        Ok(Share { manifest, store, floors })
    }
}

/// See [`Reading::entries`]. Blocks.
pub struct Entries {
    cursors: Vec<Cursor>,
}

/// How far one snapshot was read.
struct Cursor {
    share: Arc<Share>,
    /// The slots of the bucket that the share has, as ranges.
    replicated: Vec<(u32, u32)>,
    /// Where to read on; none at the end.
    next: Option<Vec<u8>>,
    end: Vec<u8>,
    read: VecDeque<(Vec<u8>, Bytes)>,
}

/// What the snapshots hold of one key.
struct States {
    key: Vec<u8>,
    /// Of each share: up to where it had seen every write of the key, and what it holds.
    held: Vec<(u64, Option<Bytes>)>,
}

impl Cursor {
    fn fill(&mut self) -> Result<(), SnapshotError> {
        if !self.read.is_empty() {
            return Ok(());
        }
        let Some(start) = self.next.take() else { return Ok(()) };
        let mut bytes = 0;
        let read = &mut self.read;
        self.share.store.scan(Family::Data, &start, &self.end, &mut |key, state| {
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

impl Cursor {
    /// Up to where the share had every write at a token; 0 where it is no replica.
    fn saw_all_of(&self, token: u64) -> u64 {
        let slot = self.share.floors.slot_of(token);
        let has = |(first, last): &(u32, u32)| (*first..=*last).contains(&slot);
        if self.replicated.iter().any(has) { self.share.floors.of(slot).writes } else { 0 }
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
        let token = keys::position(&key).map(|(_, token)| token);
        let held = self.cursors.iter_mut().map(|cursor| {
            let is_next = cursor.read.front().is_some_and(|(front, _)| *front == key);
            let state = if is_next { cursor.read.pop_front() } else { None };
            (token.map_or(0, |token| cursor.saw_all_of(token)), state.map(|(_, state)| state))
        });
        let held = held.collect();
        Ok(Some(States { key, held }))
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, SnapshotError> {
        while let Some(States { key, held }) = self.next_states()? {
            let damaged = |reason: String| SnapshotError::DamagedState {
                key: String::from_utf8_lossy(&key).into_owned(),
                reason,
            };
            let partition_key =
                keys::decode(&key).map_err(|error| damaged(error.to_string()))?.partition_key;
            let state = joined(&held).map_err(|error| damaged(error.to_string()))?;
            if state.sibling_count() > 0 {
                let key = Bytes::copy_from_slice(partition_key);
                return Ok(Some(Entry { key, state: state.encode() }));
            }
        }
        Ok(None)
    }
}

/// The join, without what a share must have seen and has forgotten.
fn joined(held: &[(u64, Option<Bytes>)]) -> Result<Causal, DecodeError> {
    let all = held.iter().filter_map(|(_, state)| state.as_deref());
    let all = Causal::decode(Bytes::from(values::merge(None, all)))?;
    let each = held.iter().map(|(saw_all, state)| {
        let state = state.clone().map_or_else(|| Ok(Causal::default()), Causal::decode);
        state.map(|state| (*saw_all, state))
    });
    let each = each.collect::<Result<Vec<_>, _>>()?;
    let stays = |dot: Dot| {
        each.iter().all(|(saw_all, state)| dot.seq > *saw_all || state.sibling(dot).is_some())
    };
    let kept = all.siblings().filter(|(dot, _)| stays(*dot));
    let kept = kept.map(|(dot, sibling)| (dot, sibling.clone()));
    let kept = Causal::from_parts(all.context().clone(), kept);
    Ok(kept.expect("the context has seen what it had seen"))
}

impl Iterator for Entries {
    type Item = Result<Entry, SnapshotError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_entry().transpose()
    }
}
