//! What replicas compare to find out where they differ, read from the store: leaf hashes, entries, states.
//!
//! It does not decide who compares with whom, or when.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::{ReadError, Replica};
use crate::keys;
use crate::leaves::{Area, EntryHash, Hashed, LeafHashes, Leaves, TokenRange};
use crate::planted::Bug;

/// What reading dirty leaves came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// Bytes that were read.
    pub bytes: u64,
    /// Whether every leaf that was dirty when it began has been read.
    pub complete: bool,
}

/// States of some keys, as far as there was room for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Storage keys and their encoded states.
    pub entries: Vec<(Bytes, Bytes)>,
    /// Whether these are all that were asked for.
    pub complete: bool,
}

impl Replica {
    /// Which parts of the data have changed since they were hashed.
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Hashes the dirty leaves of an area again, until `bytes_max` have been read. Blocks.
    pub fn refresh(&self, area: Area, bytes_max: u64) -> Result<Refreshed, ReadError> {
        // One at a time: a slow reader would undo what a later one has found.
        let _one = self.refreshing.lock();
        let (end, mut from, mut bytes) = (self.leaves.range(area.slot).last, 0, 0);
        while let Some(stale) = self.leaves.take_stale(area, from) {
            if bytes >= bytes_max {
                self.leaves.put_back(area, stale);
                return Ok(Refreshed { bytes, complete: false });
            }
            let mut hashed = Hashed::default();
            let read = self.visit(area.table, stale.range(), |token, key, state| {
                bytes += (key.len() + state.len()) as u64;
                hashed.add(token, key, state);
                ControlFlow::Continue(())
            });
            if let Err(error) = read {
                self.leaves.put_back(area, stale);
                return Err(error);
            }
            from = match self.leaves.update(area, stale, &hashed) {
                true if stale.range().last == end => break,
                true => stale.range().last + 1,
                false => 0,
            };
        }
        Ok(Refreshed { bytes, complete: true })
    }

    /// The leaves of an area as they were when they were last refreshed; none while they are being read anew.
    pub fn leaf_hashes(&self, area: Area) -> Option<LeafHashes> {
        self.leaves.hashes(area)
    }

    /// The hashes of all entries in some parts of a table. Blocks.
    pub fn entry_hashes(
        &self,
        table: u32,
        ranges: &[TokenRange],
    ) -> Result<Vec<EntryHash>, ReadError> {
        let mut entries = Vec::new();
        for range in ranges {
            self.visit(table, *range, |_, key, state| {
                entries.extend(EntryHash::of(key, state));
                ControlFlow::Continue(())
            })?;
        }
        Ok(entries)
    }

    /// The states of the keys in some parts of a table whose hashes are in `wanted`, up to `bytes_max` and at least one. Blocks.
    pub fn states(
        &self,
        table: u32,
        ranges: &[TokenRange],
        wanted: &BTreeSet<u64>,
        bytes_max: usize,
    ) -> Result<States, ReadError> {
        let mut states = States { entries: Vec::new(), complete: true };
        let mut bytes = 0;
        for range in ranges {
            self.visit(table, *range, |_, key, state| {
                if !EntryHash::of(key, state).is_some_and(|entry| wanted.contains(&entry.key)) {
                    return ControlFlow::Continue(());
                }
                bytes += key.len() + state.len();
                if bytes > bytes_max && !states.entries.is_empty() {
                    states.complete = false;
                    return ControlFlow::Break(());
                }
                let (key, state) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(state));
                states.entries.push((key, state));
                ControlFlow::Continue(())
            })?;
            if !states.complete {
                break;
            }
        }
        Ok(states)
    }

    pub(super) fn visit(
        &self,
        table: u32,
        range: TokenRange,
        mut visit: impl FnMut(u64, &[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (start, end) = keys::token_bounds(table, range.first, range.last);
        self.scan(&start, &end, &mut |key, state| match keys::position(key) {
            Some((_, token)) => visit(token, key, state),
            None => ControlFlow::Continue(()),
        })
    }

    /// These keys have been written, or may have been.
    pub(super) fn mark_dirty<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        if self.planted.is(Bug::WritesLeaveLeavesClean) {
            return;
        }
        for (table, token) in keys.filter_map(keys::position) {
            self.leaves.mark(table, token);
        }
    }
}
