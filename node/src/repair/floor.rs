//! Raising purge floors, so that deletes can be forgotten: what the replicas of a group of slots say to one another.
//!
//! Every comparison of two replicas begins with both sealing what they have minted, and so tells up to where each has what the other had
//! ([`super::session`]). Once all pairs of a group have come that far, the group's first member has all of them *promise* (no dot up to
//! there any more; durable, with what they hold) and then *adopt* the floor: from then on a replica refuses what was made before, and
//! forgets its tombstones ([`super::sweep`]).
//!
//! Invariant: a replica adopts only what it has promised, and promises only what its own comparisons since its start bear out.

use std::collections::BTreeMap;

use starling_ring::NodeIndex;
use starling_storage::clock::SKEW_MAX_US;
use starling_storage::floors::{self, Floor};
use starling_storage::planted::Bug;
use tracing::{debug, error};

use super::Repair;
use super::error::{AskError, FloorError};
use super::groups::{Group, ranges};
use super::wire::{FloorRuns, RepairAnswer, RepairRequest};
use crate::membership::PeerEvent;
use crate::time::now;

/// What a member says of its comparisons.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    /// Up to where it and each other node agree.
    pub(super) agreed: BTreeMap<NodeIndex, u64>,
    /// Whether it holds a tombstone.
    pub(super) tombstones: bool,
}

impl Repair {
    /// Raises the floors of the groups that this node leads, as far as all of their members are.
    pub(super) async fn raise_floors(&self) {
        let mut standings: BTreeMap<NodeIndex, Standing> = BTreeMap::new();
        for group in self.groups.iter().filter(|group| group.members[0] == self.parts.local.me) {
            match self.raise_floor(group, &mut standings).await {
                Ok(()) => {}
                Err(reason) => {
                    let slot = group.slots[0];
                    debug!(slot, slots = group.slots.len(), %reason, "a purge floor cannot rise now");
                }
            }
        }
    }

    async fn raise_floor(
        &self,
        group: &Group,
        standings: &mut BTreeMap<NodeIndex, Standing>,
    ) -> Result<(), FloorError> {
        for member in &group.members {
            if !standings.contains_key(member) {
                standings.insert(*member, self.standing_of(*member).await?);
            }
        }
        let members = || group.members.iter().filter_map(|member| standings.get(member));
        let says = |one: NodeIndex, other: NodeIndex| {
            standings.get(&one).and_then(|of| of.agreed.get(&other)).copied().unwrap_or(0)
        };
        // What has risen by less than half a round is not worth telling; and so far behind, what is on its way has arrived.
        let step = u64::try_from(self.parts.compare_every.as_micros() / 2).unwrap_or(u64::MAX);
        let reached = match group.members.len() {
            1 => self.seal().await,
            _ if self.parts.planted.is(Bug::FloorWithoutAgreement) => self.seal().await,
            _ => group.agreed(says),
        };
        let writes = reached.saturating_sub(step);
        let from = self.parts.replica.floors().of(group.slots[0]).writes;
        if writes < from.saturating_add(step) || !members().any(|member| member.tombstones) {
            return Ok(());
        }
        let slots = ranges(&group.slots);
        let began = now();
        let (mut earliest, mut states) = (u64::MAX, 0);
        for member in &group.members {
            let present = self.promise_of(*member, &slots, writes).await?;
            (earliest, states) = (earliest.min(present), states.max(present));
        }
        // A floor ahead of a clock would have that node's states refused until it is there.
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let apart_us = states - earliest;
        if apart_us > SKEW_MAX_US.saturating_add(took) {
            return Err(FloorError::ClocksApart { apart_us });
        }
        for member in &group.members {
            self.adoption_of(*member, &slots, writes, states).await?;
        }
        debug!(slots = group.slots.len(), floor = writes, "a purge floor has risen");
        Ok(())
    }

    async fn standing_of(&self, member: NodeIndex) -> Result<Standing, FloorError> {
        if member == self.parts.local.me {
            return self.standing();
        }
        self.ask_member(member, &RepairRequest::Standing, |answer| match answer {
            RepairAnswer::Standing { agreed, tombstones } => {
                let agreed = agreed.into_iter().map(|(peer, at)| (NodeIndex(peer), at)).collect();
                Some(Standing { agreed, tombstones })
            }
            _ => None,
        })
        .await
    }

    async fn promise_of(
        &self,
        member: NodeIndex,
        slots: &[(u32, u32)],
        writes: u64,
    ) -> Result<u64, FloorError> {
        if member == self.parts.local.me {
            return self.promise(slots, writes).await;
        }
        let request = RepairRequest::Promise { slots: slots.to_vec(), writes };
        self.ask_member(member, &request, |answer| match answer {
            RepairAnswer::Promised { now } => Some(now),
            _ => None,
        })
        .await
    }

    async fn adoption_of(
        &self,
        member: NodeIndex,
        slots: &[(u32, u32)],
        writes: u64,
        states: u64,
    ) -> Result<(), FloorError> {
        if member == self.parts.local.me {
            return self.adopt_floor(slots, writes, states).await;
        }
        let request = RepairRequest::Adopt { slots: slots.to_vec(), writes, states };
        self.ask_member(member, &request, |_| Some(())).await
    }

    /// Asks another member; `read` takes what is wanted from an answer of the right kind.
    async fn ask_member<T>(
        &self,
        member: NodeIndex,
        request: &RepairRequest,
        read: impl FnOnce(RepairAnswer) -> Option<T>,
    ) -> Result<T, FloorError> {
        let host_id = self.parts.local.ring.member(member).host_id;
        let link = self.parts.links.to(member);
        let link = link.filter(|_| self.parts.liveness.is_reachable(member));
        let link = link.ok_or(FloorError::Unreachable { host_id })?;
        let failed = |source: AskError| FloorError::Member { host_id, source };
        let (answer, _) = self.ask(link, request).await.map_err(failed)?;
        read(answer).ok_or_else(|| failed(request.misunderstood()))
    }

    /// What this node says of its comparisons.
    pub(super) fn standing(&self) -> Result<Standing, FloorError> {
        if !self.is_whole() {
            return Err(FloorError::LostWrites);
        }
        let tombstones = self.parts.replica.leaves().has_tombstones();
        Ok(Standing { agreed: self.progress.through(), tombstones })
    }

    /// Promises to mint nothing up to `writes`. Returns the clock's present: states read from here on have seen all of it.
    pub(super) async fn promise(
        &self,
        slots: &[(u32, u32)],
        writes: u64,
    ) -> Result<u64, FloorError> {
        let groups = self.groups_in(slots)?;
        let replica = self.parts.replica.clone();
        if !self.is_whole() {
            return Err(FloorError::LostWrites);
        }
        if !self.parts.liveness.may_lead() {
            return Err(FloorError::ClockOff);
        }
        check_ahead(&Floor { writes, ..Floor::default() }, replica.clock().now_us())?;
        for group in &groups {
            let others = group.members.iter().filter(|member| **member != self.parts.local.me);
            for other in others {
                let host_id = self.parts.local.ring.member(*other).host_id;
                let agreed = self.progress.through().get(other).copied().unwrap_or(0);
                if agreed < writes && !self.parts.planted.is(Bug::FloorWithoutAgreement) {
                    return Err(FloorError::NotCompared { host_id });
                }
                let (hints, _) = replica.hints().pending(host_id);
                if hints > 0 {
                    return Err(FloorError::KeepsHints { host_id, hints });
                }
            }
        }
        let slots = each(slots);
        Ok(self.parts.blocking.run(move || replica.promise(&slots, writes)).await?)
    }

    /// Adopts a floor that all members have promised.
    pub(super) async fn adopt_floor(
        &self,
        slots: &[(u32, u32)],
        writes: u64,
        states: u64,
    ) -> Result<(), FloorError> {
        self.groups_in(slots)?;
        let replica = self.parts.replica.clone();
        check_ahead(&Floor { states, ..Floor::default() }, replica.clock().now_us())?;
        let slots = each(slots);
        let short = |slot: &u32| replica.floors().of(*slot).promised < writes;
        if let Some(slot) = slots.iter().copied().find(short) {
            return Err(FloorError::NotPromised { slot, writes });
        }
        self.take_floor(slots, Floor { promised: writes, writes, states }).await
    }

    /// Takes over the floors of a peer that has kept its memory. Where they are above what this node has promised, it has lost memory.
    pub(super) async fn learn_floors(
        &self,
        peer: NodeIndex,
        runs: &FloorRuns,
    ) -> Result<(), FloorError> {
        let mut higher: BTreeMap<Floor, Vec<u32>> = BTreeMap::new();
        let theirs = floors::slots(&decode(runs), self.slots).ok_or(FloorError::OtherSlots)?;
        for group in self.groups.iter().filter(|group| group.members.contains(&peer)) {
            for slot in &group.slots {
                let (own, their) = (self.parts.replica.floors().of(*slot), theirs[*slot as usize]);
                if their.writes > own.writes || their.states > own.states {
                    higher.entry(Floor { promised: 0, ..their }).or_default().push(*slot);
                }
            }
        }
        for (floor, slots) in higher {
            // Durable once it is taken: a broken clock's would stop this node's at every start.
            check_ahead(&floor, self.parts.replica.clock().now_us())?;
            let forgot = |slot: &u32| self.parts.replica.floors().of(*slot).promised < floor.writes;
            if self.is_whole() && slots.iter().any(forgot) {
                self.lose_memory().await?;
            }
            self.take_floor(slots, floor).await?;
        }
        Ok(())
    }

    /// The floors of all slots, for a peer.
    pub(super) fn floor_runs(&self) -> FloorRuns {
        let runs = self.parts.replica.floors().runs();
        runs.into_iter().map(|(len, of)| (len, of.promised, of.writes, of.states)).collect()
    }

    /// Up to where everything that this node has led is in its store.
    pub(super) async fn seal(&self) -> u64 {
        let replica = self.parts.replica.clone();
        self.parts.blocking.run(move || replica.seal()).await
    }

    async fn take_floor(&self, slots: Vec<u32>, floor: Floor) -> Result<(), FloorError> {
        let replica = self.parts.replica.clone();
        self.parts.blocking.run(move || replica.adopt_floor(&slots, floor)).await?;
        self.risen.notify_one();
        Ok(())
    }

    /// Its peers have forgotten deletes that this node would remember, had it kept its memory: it was taken back to an older state.
    async fn lose_memory(&self) -> Result<(), FloorError> {
        error!(
            "this node's data is older than what it has promised its peers: it is rebuilt from them"
        );
        let replica = self.parts.replica.clone();
        self.parts.blocking.run(move || replica.forget()).await?;
        self.parts.liveness.set_whole(self.parts.local.me, false);
        let _stopping = self.parts.membership.send(PeerEvent::Lost).await;
        Ok(())
    }

    /// The groups of slots, all of which must be this node's.
    fn groups_in(&self, slots: &[(u32, u32)]) -> Result<Vec<&Group>, FloorError> {
        let slots = each(slots);
        let is_in =
            |group: &&Group| slots.iter().any(|slot| group.slots.binary_search(slot).is_ok());
        let groups: Vec<&Group> = self.groups.iter().filter(is_in).collect();
        let known = |slot: &u32| groups.iter().any(|group| group.slots.binary_search(slot).is_ok());
        match slots.iter().copied().find(|slot| !known(slot)) {
            Some(slot) => Err(FloorError::NoReplica { slot }),
            None => Ok(groups),
        }
    }
}

/// Refuses a floor that no clock which is right can have told by now.
fn check_ahead(floor: &Floor, now_us: u64) -> Result<(), FloorError> {
    let ahead_us = floor.writes.max(floor.states).saturating_sub(now_us);
    if ahead_us > SKEW_MAX_US { Err(FloorError::AheadOfClock { ahead_us }) } else { Ok(()) }
}

/// The slots of ranges, as many as a ring can have at most.
fn each(ranges: &[(u32, u32)]) -> Vec<u32> {
    ranges.iter().flat_map(|(first, last)| *first..=*last).take(1 << 16).collect()
}

fn decode(runs: &FloorRuns) -> floors::Runs {
    let floor = |&(len, promised, writes, states)| (len, Floor { promised, writes, states });
    runs.iter().map(floor).collect()
}

#[cfg(test)]
mod tests {
    use super::{Floor, SKEW_MAX_US, check_ahead};

    #[test]
    fn a_floor_of_either_kind_ahead_of_the_clock_is_not_believed() {
        let now_us = 1_000_000_000;
        let (right, ahead) = (now_us + SKEW_MAX_US, now_us + SKEW_MAX_US + 1);
        let is_believed =
            |writes, states| check_ahead(&Floor { promised: 0, writes, states }, now_us).is_ok();
        assert!(is_believed(right, right));
        assert!(!is_believed(ahead, right));
        assert!(!is_believed(right, ahead));
    }
}
