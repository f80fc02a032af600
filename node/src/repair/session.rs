//! The leading end of a comparison: digests of slots, then hashes of leaves where those differ, then of entries, then states.
//!
//! What costs is in proportion to what has changed and what differs, not to what is stored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use rand::rngs::StdRng;
use starling_protocol::{Frame, decode_header, encode_header};
use starling_ring::{Placement, Slot, SlotGrid};
use starling_storage::leaves::{Area, Difference, EntryHash, TokenRange};
use starling_storage::planted::Bug;
use starling_storage::replica::{Carries, Envelope, ReadError, States};
use tracing::warn;

use super::error::{AnswerError, AskError, SessionError};
use super::wire::{
    self, FloorRuns, RANGES_MAX, RepairAnswer, RepairRequest, SLOTS_MAX, STATES_BYTES_MAX,
};
use super::{ANSWER_WITHIN, Repair};
use crate::internode::link::Request;
use crate::internode::message::{BucketName, Kind};
use crate::internode::{Link, Window};
use crate::time::now;

/// How often a slot whose leaves could not be read in one go is asked for again.
const COMPARE_TRIES: usize = 10_000;

/// The table of a session, and where it is in the ring.
struct Table {
    id: u32,
    name: Arc<str>,
    /// Those of which both hold a replica.
    slots: Vec<u32>,
}

/// One comparison under way.
struct Session<'a> {
    link: &'a Link,
    /// The peer's start in which the session began.
    boot: u64,
    /// Whether the peer holds every write that it acknowledged, and all tables of both are compared.
    with_whole: bool,
    /// The same of this replica.
    is_whole: bool,
    /// Whether this replica lost writes and the peer did not: what is deleted there is deleted.
    drops_deleted: bool,
    /// If the session succeeds, both ends hold every write that was minted up to here.
    through: u64,
    /// The peer refused a state for good: the two do not agree.
    refused: AtomicBool,
}

impl Repair {
    /// Compares everything that this node and the peer both hold, and exchanges what differs. Returns how many keys that were.
    pub(super) async fn compare_with(
        &self,
        link: &Link,
        random: &mut StdRng,
    ) -> Result<u64, SessionError> {
        let began = now();
        let Some((session, names)) = self.begin(link).await? else { return Ok(0) };
        let tables = self.tables(link, &names, random);
        self.progress.begin(link.peer, tables.iter().map(|table| table.slots.len() as u64).sum());
        let mut keys = 0;
        for table in &tables {
            for slots in table.slots.chunks(SLOTS_MAX) {
                for slot in self.differing(link, table.id, slots).await? {
                    keys += self.settle(&session, table, slot).await?;
                }
                self.progress.compared(link.peer, slots.len() as u64);
            }
        }
        let agrees = !session.refused.load(Ordering::Relaxed);
        let through = if agrees { session.through } else { 0 };
        let (boot, whole) = (session.boot, session.is_whole && self.is_whole());
        // Refused if the peer has been started anew meanwhile: it may have lost what the session began with.
        self.ask(link, &RepairRequest::Agreed { boot, whole, through }).await?;
        self.progress.agreed(link.peer, began, session.with_whole, through);
        Ok(keys)
    }

    /// Both know the same buckets and purge floors afterwards. None if the peer is to lead, having lost writes.
    async fn begin<'a>(
        &self,
        link: &'a Link,
    ) -> Result<Option<(Session<'a>, Vec<BucketName>)>, SessionError> {
        // Before the buckets are told: what is led from here on may be in a new one.
        let own_seal = self.seal().await;
        let was_whole = self.is_whole();
        let floors = if was_whole { self.floor_runs() } else { FloorRuns::new() };
        let told = self.bucket_names();
        let request = RepairRequest::Begin { whole: was_whole, names: told.clone(), floors };
        let (RepairAnswer::Begun { boot, whole, sealed, names, floors }, _) =
            self.ask(link, &request).await?
        else {
            return Err(request.misunderstood().into());
        };
        self.parts.liveness.set_whole(link.peer, whole);
        if whole {
            self.learn_floors(link.peer, &floors).await?;
        }
        if was_whole && !(whole && self.is_whole()) {
            return Ok(None);
        }
        self.adopt(&names).await;
        // An id that means two names is no bucket of both.
        let both: Vec<BucketName> =
            self.bucket_names().into_iter().filter(|bucket| names.contains(bucket)).collect();
        // What one of the two could not take over is not compared.
        let all = both.len() == names.len() && told.iter().all(|bucket| both.contains(bucket));
        let through = if all { own_seal.min(sealed) } else { 0 };
        let session = Session {
            link,
            boot,
            with_whole: whole && all,
            is_whole: was_whole && all,
            drops_deleted: whole && !was_whole,
            through,
            refused: AtomicBool::new(false),
        };
        Ok(Some((session, both)))
    }

    /// The tables of the ring's keyspaces, their slots from a random one on: two sessions with one replica rarely meet in a slot.
    fn tables(&self, link: &Link, names: &[BucketName], random: &mut StdRng) -> Vec<Table> {
        let ring = &self.parts.local.ring;
        let grid = SlotGrid::new(ring.epoch().slot_bits).expect("a decided epoch has a valid grid");
        let both = |placement: &Placement, slot: u32| {
            let replicas = placement.replicas(grid.end_token(Slot(slot)));
            replicas.contains(&self.parts.local.me) && replicas.contains(&link.peer)
        };
        let tables = names.iter().filter_map(|bucket| {
            let placement = ring.keyspace(bucket.name.split_once('.')?.0)?;
            let mut slots: Vec<u32> =
                (0..grid.count()).filter(|slot| both(placement, *slot)).collect();
            if !slots.is_empty() {
                let from = random.random_range(0..slots.len());
                slots.rotate_left(from);
            }
            Some(Table { id: bucket.id, name: Arc::from(bucket.name.as_str()), slots })
        });
        tables.collect()
    }

    /// Those of `slots` whose digests differ.
    async fn differing(
        &self,
        link: &Link,
        table: u32,
        slots: &[u32],
    ) -> Result<Vec<u32>, SessionError> {
        let mut waiting = slots.to_vec();
        let mut found = Vec::new();
        for _ in 0..COMPARE_TRIES {
            let read = self.refresh(table, waiting.clone()).await?;
            let request = RepairRequest::Compare { table, slots: read.digests };
            let (RepairAnswer::Compared { differing, unread }, _) =
                self.ask(link, &request).await?
            else {
                return Err(request.misunderstood().into());
            };
            found.extend(differing);
            waiting = [read.unread, unread].concat();
            self.pace(read.bytes).await;
            if waiting.is_empty() {
                return Ok(found);
            }
        }
        Err(SessionError::Unread { table, slots: waiting })
    }

    /// Exchanges what differs in one slot. Returns how many keys did.
    async fn settle(
        &self,
        session: &Session<'_>,
        table: &Table,
        slot: u32,
    ) -> Result<u64, SessionError> {
        let link = session.link;
        let area = Area { table: table.id, slot };
        let request = RepairRequest::Leaves { table: table.id, slot };
        let (RepairAnswer::Leaves { bits }, frame) = self.ask(link, &request).await? else {
            return Err(request.misunderstood().into());
        };
        let theirs =
            wire::decode_leaves(bits, &frame.operand).ok_or_else(|| request.misunderstood())?;
        let ours = self.parts.replica.leaf_hashes(area);
        let ours = ours.ok_or(AnswerError::LeavesBeingRead { slot })?;
        let mut keys = 0;
        let differing = ours.differing(&theirs, self.parts.replica.leaves().range(slot));
        for ranges in differing.chunks(RANGES_MAX) {
            keys += self.exchange(session, table, slot, ranges).await?;
        }
        Ok(keys)
    }

    async fn exchange(
        &self,
        session: &Session<'_>,
        table: &Table,
        slot: u32,
        ranges: &[TokenRange],
    ) -> Result<u64, SessionError> {
        let link = session.link;
        let (id, pairs) = (table.id, wire::pairs(ranges));
        let request = RepairRequest::Entries { table: id, ranges: pairs };
        let (RepairAnswer::Entries, frame) = self.ask(link, &request).await? else {
            return Err(request.misunderstood().into());
        };
        let theirs = wire::decode_entries(&frame.operand).ok_or_else(|| request.misunderstood())?;
        let owned = ranges.to_vec();
        let ours = self.read(move |replica| replica.entry_hashes(id, &owned)).await?;
        let difference = Difference::between(&ours, &theirs);
        let keys = difference.keys() as u64;
        self.progress.found_behind(link.peer, keys, difference.bytes);
        let floor = match session.drops_deleted {
            true => self.parts.replica.floors().of(slot).writes,
            false => 0,
        };
        if floor > 0 {
            self.drop_absent(table, ranges, &difference.push, floor).await?;
        }
        let mint = self.fetch(link, table, ranges, &difference.fetch, floor).await?;
        self.push(session, table, ranges, &difference, &theirs, mint).await?;
        self.progress.exchanged(link.peer, keys, difference.bytes);
        Ok(keys)
    }

    /// Drops what this replica, which lost writes, holds of keys that the peer has forgotten.
    async fn drop_absent(
        &self,
        table: &Table,
        ranges: &[TokenRange],
        keys: &BTreeSet<u64>,
        floor: u64,
    ) -> Result<(), ReadError> {
        let (id, owned, wanted) = (table.id, ranges.to_vec(), keys.clone());
        let dropped = self.read(move |replica| {
            let states = replica.states(id, &owned, &wanted, usize::MAX)?;
            let absent: Vec<_> = states.entries.into_iter().map(|(key, _)| (key, None)).collect();
            replica.drop_unless_known(&absent, floor)
        });
        dropped.await.map(drop)
    }

    /// Joins the peer's states of `keys`; below `floor` what the peer does not hold is dropped first. Returns the smallest clock value at which one was read.
    async fn fetch(
        &self,
        link: &Link,
        table: &Table,
        ranges: &[TokenRange],
        keys: &BTreeSet<u64>,
        floor: u64,
    ) -> Result<u64, SessionError> {
        let mut missing = keys.clone();
        let mut oldest = self.parts.replica.clock().read();
        while !missing.is_empty() {
            let request = RepairRequest::States {
                table: table.id,
                ranges: wire::pairs(ranges),
                keys: missing.clone(),
            };
            let (RepairAnswer::States { complete }, frame) = self.ask(link, &request).await? else {
                return Err(request.misunderstood().into());
            };
            oldest = oldest.min(frame.mint);
            let states =
                wire::decode_states(frame.operand).ok_or_else(|| request.misunderstood())?;
            let bytes = bytes_of(&states);
            for (key, state) in &states {
                let known =
                    EntryHash::of(key, state).is_some_and(|entry| missing.remove(&entry.key));
                if !known {
                    return Err(SessionError::NotAskedFor);
                }
            }
            let fetched = states.len();
            self.read(move |replica| take(replica, states, frame.mint, floor)).await?;
            crate::metrics::observe_repaired("in", fetched);
            self.pace(bytes).await;
            if complete || fetched == 0 {
                break;
            }
        }
        Ok(oldest)
    }

    /// Sends the states that the peer does not have, those that were just joined among them.
    async fn push(
        &self,
        session: &Session<'_>,
        table: &Table,
        ranges: &[TokenRange],
        difference: &Difference,
        theirs: &[EntryHash],
        mint: u64,
    ) -> Result<(), SessionError> {
        if self.parts.planted.is(Bug::RepairTakesOnly) {
            return Ok(());
        }
        let has: BTreeSet<(u64, u64)> =
            theirs.iter().map(|entry| (entry.key, entry.state)).collect();
        let mut keys: BTreeSet<u64> = difference.fetch.union(&difference.push).copied().collect();
        while !keys.is_empty() {
            let (id, owned, wanted) = (table.id, ranges.to_vec(), keys.clone());
            let read = move |replica: &starling_storage::Replica| {
                replica.states(id, &owned, &wanted, STATES_BYTES_MAX)
            };
            let States { entries, complete } = self.read(read).await?;
            for entry in entries.iter().filter_map(|(key, state)| EntryHash::of(key, state)) {
                keys.remove(&entry.key);
            }
            let lacking: Vec<_> = entries
                .into_iter()
                .filter(|(key, state)| {
                    EntryHash::of(key, state)
                        .is_some_and(|entry| !has.contains(&(entry.key, entry.state)))
                })
                .collect();
            let bytes = bytes_of(&lacking);
            self.send(session, table, &lacking, mint).await?;
            crate::metrics::observe_repaired("out", lacking.len());
            crate::metrics::observe_repair_bytes(
                "out",
                usize::try_from(bytes).unwrap_or(usize::MAX),
            );
            self.pace(bytes).await;
            if complete {
                break;
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        session: &Session<'_>,
        table: &Table,
        states: &[(Bytes, Bytes)],
        mint: u64,
    ) -> Result<(), SessionError> {
        let link = session.link;
        let fresh = self.parts.planted.is(Bug::WriteBackUnderFreshMint);
        let mint = if fresh { self.parts.replica.clock().read() } else { mint };
        for chunk in states.chunks(Window::SIZE_MAX) {
            let requests = chunk.iter().map(|(key, state)| Request {
                kind: Kind::Mutate,
                flags: 0,
                budget: ANSWER_WITHIN,
                mint,
                begin_by: None,
                header: key,
                operand: state,
                bucket: Some((table.id, &table.name)),
            });
            for refused in Window::send(link, requests).await.into_iter().filter_map(Result::err) {
                if !refused.is_final() {
                    return Err(SessionError::NotTaken(refused));
                }
                session.refused.store(true, Ordering::Relaxed);
                warn!(peer = %link.member.host_id, %refused, "the peer refuses a state for good");
            }
        }
        Ok(())
    }

    pub(super) async fn ask(
        &self,
        link: &Link,
        request: &RepairRequest,
    ) -> Result<(RepairAnswer, Frame), AskError> {
        let mut header = BytesMut::new();
        encode_header(request, &mut header);
        let question = Request::control(Kind::Repair, ANSWER_WITHIN, &header);
        let frame = link.call(&question).await;
        let frame = frame.map_err(|source| AskError::Link { question: request.name(), source })?;
        crate::metrics::observe_repair_bytes("out", header.len());
        crate::metrics::observe_repair_bytes("in", frame.header.len() + frame.operand.len());
        match decode_header(&frame.header) {
            Ok(RepairAnswer::Failed { reason }) => {
                Err(AskError::Refused { question: request.name(), reason })
            }
            Ok(answer) => Ok((answer, frame)),
            Err(_) => Err(request.misunderstood()),
        }
    }
}

/// Joins a peer's states, read at `mint`, into this replica's. Blocks.
fn take(
    replica: &starling_storage::Replica,
    states: Vec<(Bytes, Bytes)>,
    mint: u64,
    floor: u64,
) -> Result<(), SessionError> {
    if floor > 0 {
        let theirs = states.iter().map(|(key, state)| (key.clone(), Some(state.clone())));
        let theirs: Vec<_> = theirs.collect();
        replica.drop_unless_known(&theirs, floor)?;
    }
    let envelope = |(key, operand)| Envelope { key, operand, mint, carries: Carries::State };
    let states: Vec<_> = states.into_iter().map(envelope).collect();
    Ok(replica.apply_repair(&states)?)
}

fn bytes_of(states: &[(Bytes, Bytes)]) -> u64 {
    states.iter().map(|(key, state)| (key.len() + state.len()) as u64).sum()
}
