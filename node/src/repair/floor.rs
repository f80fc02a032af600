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
use super::groups::{Group, ranges};
use super::wire::{FloorRuns, RepairAnswer, RepairRequest};
use crate::internode::Link;
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
                Err(reason) => debug!(%reason, "a purge floor cannot rise now"),
            }
        }
    }

    async fn raise_floor(
        &self,
        group: &Group,
        standings: &mut BTreeMap<NodeIndex, Standing>,
    ) -> Result<(), String> {
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
        if states - earliest > SKEW_MAX_US.saturating_add(took) {
            return Err("the clocks of its members are too far apart".to_owned());
        }
        for member in &group.members {
            self.adoption_of(*member, &slots, writes, states).await?;
        }
        debug!(slots = group.slots.len(), floor = writes, "a purge floor has risen");
        Ok(())
    }

    async fn standing_of(&self, member: NodeIndex) -> Result<Standing, String> {
        if member == self.parts.local.me {
            return self.standing();
        }
        match self.ask(self.link_to(member)?, &RepairRequest::Standing).await? {
            (RepairAnswer::Standing { agreed, tombstones }, _) => {
                let agreed = agreed.into_iter().map(|(peer, at)| (NodeIndex(peer), at)).collect();
                Ok(Standing { agreed, tombstones })
            }
            _ => Err("the peer's answer is not understood".to_owned()),
        }
    }

    async fn promise_of(
        &self,
        member: NodeIndex,
        slots: &[(u32, u32)],
        writes: u64,
    ) -> Result<u64, String> {
        if member == self.parts.local.me {
            return self.promise(slots, writes).await;
        }
        let request = RepairRequest::Promise { slots: slots.to_vec(), writes };
        match self.ask(self.link_to(member)?, &request).await? {
            (RepairAnswer::Promised { now }, _) => Ok(now),
            _ => Err("the peer's answer is not understood".to_owned()),
        }
    }

    async fn adoption_of(
        &self,
        member: NodeIndex,
        slots: &[(u32, u32)],
        writes: u64,
        states: u64,
    ) -> Result<(), String> {
        if member == self.parts.local.me {
            return self.adopt_floor(slots, writes, states).await;
        }
        let request = RepairRequest::Adopt { slots: slots.to_vec(), writes, states };
        self.ask(self.link_to(member)?, &request).await.map(drop)
    }

    fn link_to(&self, member: NodeIndex) -> Result<&Link, String> {
        let link = self.parts.links.iter().find(|link| link.peer == member);
        let link = link.filter(|_| self.parts.liveness.is_reachable(member));
        link.map(AsRef::as_ref).ok_or_else(|| format!("node {} cannot be reached", member.0))
    }

    /// What this node says of its comparisons.
    pub(super) fn standing(&self) -> Result<Standing, String> {
        if !self.is_whole() {
            return Err("this node has lost writes".to_owned());
        }
        let tombstones = self.parts.replica.leaves().has_tombstones();
        Ok(Standing { agreed: self.progress.through(), tombstones })
    }

    /// Promises to mint nothing up to `writes`. Returns the clock's present: states read from here on have seen all of it.
    pub(super) async fn promise(&self, slots: &[(u32, u32)], writes: u64) -> Result<u64, String> {
        let groups = self.groups_in(slots)?;
        let replica = self.parts.replica.clone();
        if !self.is_whole() || !self.parts.liveness.may_lead() {
            return Err("this node has lost writes, or its clock is off".to_owned());
        }
        if writes > replica.clock().now_us().saturating_add(SKEW_MAX_US) {
            return Err("the floor is ahead of this node's clock".to_owned());
        }
        for group in &groups {
            let others = group.members.iter().filter(|member| **member != self.parts.local.me);
            for other in others {
                let host_id = self.parts.local.ring.member(*other).host_id;
                let agreed = self.progress.through().get(other).copied().unwrap_or(0);
                if agreed < writes && !self.parts.planted.is(Bug::FloorWithoutAgreement) {
                    return Err(format!("this node and {host_id} have not compared so far"));
                }
                if replica.hints().pending(host_id).0 > 0 {
                    return Err(format!("this node keeps hints for {host_id}"));
                }
            }
        }
        let slots = each(slots);
        let promised = self.parts.blocking.run(move || replica.promise(&slots, writes)).await;
        promised.map_err(|error| error.to_string())
    }

    /// Adopts a floor that all members have promised.
    pub(super) async fn adopt_floor(
        &self,
        slots: &[(u32, u32)],
        writes: u64,
        states: u64,
    ) -> Result<(), String> {
        self.groups_in(slots)?;
        let replica = self.parts.replica.clone();
        if states > replica.clock().now_us().saturating_add(SKEW_MAX_US) {
            return Err("the floor is ahead of this node's clock".to_owned());
        }
        let slots = each(slots);
        if let Some(slot) = slots.iter().find(|slot| replica.floors().of(**slot).promised < writes)
        {
            return Err(format!("this node has not promised {writes} for slot {slot}"));
        }
        self.take_floor(slots, Floor { promised: writes, writes, states }).await
    }

    /// Takes over the floors of a peer that has kept its memory. Where they are above what this node has promised, it has lost memory.
    pub(super) async fn learn_floors(
        &self,
        peer: NodeIndex,
        runs: &FloorRuns,
    ) -> Result<(), String> {
        let mut higher: BTreeMap<Floor, Vec<u32>> = BTreeMap::new();
        let theirs = floors::slots(&decode(runs), self.slots).ok_or("floors of other slots")?;
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
            if is_ahead(&floor, self.parts.replica.clock().now_us()) {
                return Err("a peer's floor is ahead of this node's clock".to_owned());
            }
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

    async fn take_floor(&self, slots: Vec<u32>, floor: Floor) -> Result<(), String> {
        let replica = self.parts.replica.clone();
        let taken = self.parts.blocking.run(move || replica.adopt_floor(&slots, floor)).await;
        taken.map_err(|error| error.to_string())?;
        self.risen.notify_one();
        Ok(())
    }

    /// Its peers have forgotten deletes that this node would remember, had it kept its memory: it was taken back to an older state.
    async fn lose_memory(&self) -> Result<(), String> {
        error!(
            "this node's data is older than what it has promised its peers: it is rebuilt from them"
        );
        let replica = self.parts.replica.clone();
        let forgot = self.parts.blocking.run(move || replica.forget()).await;
        forgot.map_err(|error| error.to_string())?;
        self.parts.liveness.set_whole(self.parts.local.me, false);
        let _stopping = self.parts.membership.send(PeerEvent::Lost).await;
        Ok(())
    }

    /// The groups of slots, all of which must be this node's.
    fn groups_in(&self, slots: &[(u32, u32)]) -> Result<Vec<&Group>, String> {
        let slots = each(slots);
        let is_in =
            |group: &&Group| slots.iter().any(|slot| group.slots.binary_search(slot).is_ok());
        let groups: Vec<&Group> = self.groups.iter().filter(is_in).collect();
        let known = |slot: &u32| groups.iter().any(|group| group.slots.binary_search(slot).is_ok());
        match slots.iter().find(|slot| !known(slot)) {
            Some(slot) => Err(format!("slot {slot} has no replica here")),
            None => Ok(groups),
        }
    }
}

/// Whether a clock that is right cannot have told this floor by now.
fn is_ahead(floor: &Floor, now_us: u64) -> bool {
    floor.writes.max(floor.states) > now_us.saturating_add(SKEW_MAX_US)
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
    use super::{Floor, SKEW_MAX_US, is_ahead};

    #[test]
    fn a_floor_of_either_kind_ahead_of_the_clock_is_not_believed() {
        let now_us = 1_000_000_000;
        let (right, ahead) = (now_us + SKEW_MAX_US, now_us + SKEW_MAX_US + 1);
        assert!(!is_ahead(&Floor { promised: 0, writes: right, states: right }, now_us));
        assert!(is_ahead(&Floor { promised: 0, writes: ahead, states: right }, now_us));
        assert!(is_ahead(&Floor { promised: 0, writes: right, states: ahead }, now_us));
    }
}
