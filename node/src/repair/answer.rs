//! The answering end of a comparison, and the reading of leaves, which both ends do.

use bytes::Bytes;
use starling_ring::NodeIndex;
use starling_storage::leaves::Area;
use starling_storage::replica::{ReadError, Replica};
use tracing::warn;

use super::Repair;
use super::error::AnswerError;
use super::wire::{self, FloorRuns, RepairAnswer, RepairRequest, SLOTS_MAX, STATES_BYTES_MAX};
use crate::internode::message::BucketName;
use crate::time::now;

/// What reading the dirty leaves of some slots came to.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// Slots and their digests.
    pub(super) digests: Vec<(u32, u64)>,
    /// Those that were too much for one go.
    pub(super) unread: Vec<u32>,
    pub(super) bytes: u64,
}

impl Repair {
    /// Answers a question of `peer`. Returns the operand, too, and the smallest clock value at which a state was read.
    pub async fn answer(
        &self,
        peer: NodeIndex,
        request: RepairRequest,
    ) -> (RepairAnswer, Bytes, u64) {
        let mint = self.parts.replica.clock().read();
        match self.try_answer(peer, request).await {
            Ok((answer, operand)) => (answer, operand, mint),
            Err(error) => (RepairAnswer::Failed { reason: error.to_string() }, Bytes::new(), mint),
        }
    }

    async fn try_answer(
        &self,
        peer: NodeIndex,
        request: RepairRequest,
    ) -> Result<(RepairAnswer, Bytes), AnswerError> {
        match request {
            RepairRequest::Begin { whole, names, floors } => {
                self.begun(peer, whole, &names, &floors).await
            }
            RepairRequest::Compare { table, slots } => self.compared(table, &slots).await,
            RepairRequest::Leaves { table, slot } => {
                let area = self.area(table, slot)?;
                let leaves = self.parts.replica.leaf_hashes(area);
                let leaves = leaves.ok_or(AnswerError::LeavesBeingRead { slot })?;
                let answer = RepairAnswer::Leaves { bits: leaves.bits() };
                Ok((answer, wire::encode_leaves(&leaves)))
            }
            RepairRequest::Entries { table, ranges } => {
                self.check(table)?;
                let ranges = wire::ranges(&ranges)?;
                let entries =
                    self.read(move |replica| replica.entry_hashes(table, &ranges)).await?;
                Ok((RepairAnswer::Entries, wire::encode_entries(&entries)))
            }
            RepairRequest::States { table, ranges, keys } => {
                self.check(table)?;
                let ranges = wire::ranges(&ranges)?;
                let read = move |replica: &Replica| {
                    replica.states(table, &ranges, &keys, STATES_BYTES_MAX)
                };
                let states = self.read(read).await?;
                let answer = RepairAnswer::States { complete: states.complete };
                Ok((answer, wire::encode_states(&states.entries)))
            }
            RepairRequest::Agreed { boot, .. } if boot != self.parts.local.boot_nonce => {
                Err(AnswerError::StartedAnew)
            }
            RepairRequest::Agreed { whole, through, .. } => {
                self.progress.agreed(peer, now(), whole, through);
                Ok((RepairAnswer::Done, Bytes::new()))
            }
            RepairRequest::Standing => {
                let standing = self.standing()?;
                let agreed = standing.agreed.into_iter().map(|(peer, at)| (peer.0, at)).collect();
                let tombstones = standing.tombstones;
                Ok((RepairAnswer::Standing { agreed, tombstones }, Bytes::new()))
            }
            RepairRequest::Promise { slots, writes } => {
                let now = self.promise(&slots, writes).await?;
                Ok((RepairAnswer::Promised { now }, Bytes::new()))
            }
            RepairRequest::Adopt { slots, writes, states } => {
                self.adopt_floor(&slots, writes, states).await?;
                Ok((RepairAnswer::Done, Bytes::new()))
            }
        }
    }

    async fn begun(
        &self,
        peer: NodeIndex,
        whole: bool,
        names: &[BucketName],
        floors: &FloorRuns,
    ) -> Result<(RepairAnswer, Bytes), AnswerError> {
        // Before its gossip says so: meanwhile this node must not take it for one that has kept everything.
        self.parts.liveness.set_whole(peer, whole);
        if !floors.is_empty() {
            self.learn_floors(peer, floors).await?;
        }
        // Before the buckets are told: what is led from here on may be in a new one.
        let sealed = self.seal().await;
        self.adopt(names).await;
        let (whole, names) = (self.is_whole(), self.bucket_names());
        let floors = if whole { self.floor_runs() } else { FloorRuns::new() };
        let boot = self.parts.local.boot_nonce;
        Ok((RepairAnswer::Begun { boot, whole, sealed, names, floors }, Bytes::new()))
    }

    async fn compared(
        &self,
        table: u32,
        slots: &[(u32, u64)],
    ) -> Result<(RepairAnswer, Bytes), AnswerError> {
        self.check(table)?;
        if slots.len() > SLOTS_MAX {
            let count = slots.len();
            return Err(AnswerError::TooMany { what: "slots", count, max: SLOTS_MAX });
        }
        let read = self.refresh(table, slots.iter().map(|(slot, _)| *slot).collect()).await?;
        let differing = read.digests.iter().filter(|digest| !slots.contains(digest));
        let differing = differing.map(|(slot, _)| *slot).collect();
        self.pace(read.bytes).await;
        Ok((RepairAnswer::Compared { differing, unread: read.unread }, Bytes::new()))
    }

    /// Reads the dirty leaves of `slots`, as far as one question may go.
    pub(super) async fn refresh(&self, table: u32, slots: Vec<u32>) -> Result<Read, AnswerError> {
        let areas = slots.iter().map(|slot| self.area(table, *slot));
        let areas = areas.collect::<Result<Vec<Area>, AnswerError>>()?;
        let bytes_max = self.read_bytes_max();
        let read = move |replica: &Replica| -> Result<Read, ReadError> {
            let mut read = Read::default();
            for area in areas {
                if read.bytes >= bytes_max {
                    read.unread.push(area.slot);
                    continue;
                }
                let refreshed = replica.refresh(area, bytes_max - read.bytes)?;
                read.bytes += refreshed.bytes;
                // Another session may have begun to read it anew.
                match replica.leaf_hashes(area).filter(|_| refreshed.complete) {
                    Some(leaves) => read.digests.push((area.slot, leaves.digest())),
                    None => read.unread.push(area.slot),
                }
            }
            Ok(read)
        };
        Ok(self.read(read).await?)
    }

    pub(super) fn bucket_names(&self) -> Vec<BucketName> {
        let all = self.parts.replica.buckets().all();
        all.into_iter().map(|(id, name)| BucketName { id, name: name.to_string() }).collect()
    }

    /// Takes the peer's word for buckets that are not known here.
    pub(super) async fn adopt(&self, names: &[BucketName]) {
        for BucketName { id, name } in names.iter().cloned() {
            if self.parts.replica.buckets().name(id).is_some() {
                continue;
            }
            let replica = self.parts.replica.clone();
            let adopted = self.parts.blocking.run(move || replica.buckets().adopt(id, &name)).await;
            if let Err(error) = adopted {
                warn!(%error, "cannot take over a peer's bucket");
            }
        }
    }

    /// Only tables that have a name here: a peer's mistake must not cost memory.
    fn check(&self, table: u32) -> Result<(), AnswerError> {
        match self.parts.replica.buckets().name(table) {
            Some(_) => Ok(()),
            None => Err(AnswerError::UnknownTable { table }),
        }
    }

    fn area(&self, table: u32, slot: u32) -> Result<Area, AnswerError> {
        self.check(table)?;
        let area = Area { table, slot };
        let has = self.parts.replica.leaves().has(area);
        has.then_some(area).ok_or(AnswerError::NoSlot { slot })
    }
}
