//! Anti-entropy: replicas compare what they hold, pair by pair, and exchange what differs. Always on; nobody schedules it.
//!
//! [`session`] leads the comparison of one pair, [`answer`] is the other end, [`wire`] what they say, [`mod@error`] why they cannot,
//! [`progress`] how far they are.
//! Once all replicas of some slots ([`groups`]) hold the same, [`floor`] says so, and [`sweep`] forgets what was deleted before.
//!
//! Invariant: only joins travel, so a session may be broken off, repeated or led from both ends at once without harm. A replica that lost
//! writes answers no reads before it has joined what its peers hold ([`progress::may_be_whole`]).

mod answer;
mod error;
mod floor;
mod groups;
mod progress;
mod session;
mod sweep;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use starling_ring::{NodeIndex, Slot, SlotGrid};
use starling_storage::StoreError;
use starling_storage::planted::Planted;
use starling_storage::replica::Replica;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use crate::blocking::Blocking;
use crate::internode::{Link, Links};
use crate::local::Local;
use crate::membership::{LivenessTable, PeerEvent};
use crate::overload::InFlight;
use crate::time::now;
use groups::{Group, groups_of};
use progress::{Progress, SlotReplicas, may_be_whole};
use sweep::By;

pub(crate) use groups::ranges;
pub use progress::PairProgress;
pub use wire::{RepairAnswer, RepairRequest};

/// The usual pause between two rounds of sessions with all peers, on average.
pub const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// The same for a replica that lost writes.
const REBUILD_EVERY: Duration = Duration::from_secs(1);
/// How long the answer to one question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that are read for one question, at most.
const READ_BYTES_MAX: u64 = 16 << 20;
/// The rate for rebuilding a replica that lost writes where nothing else is to be compared.
const REBUILD_BYTES_PER_SECOND: u64 = 32 << 20;
/// While clients are served, this part of the configured rate is used.
const SHARE_UNDER_LOAD: u64 = 4;

/// What the repair works with.
pub struct Parts {
    /// This node.
    pub local: Arc<Local>,
    /// The way to the others.
    pub links: Arc<Links>,
    /// Who is up, and who is whole.
    pub liveness: Arc<LivenessTable>,
    /// This node's own data.
    pub replica: Arc<Replica>,
    /// Where reading may block.
    pub blocking: Blocking,
    /// Clients' requests, which go first.
    pub in_flight: InFlight,
    /// Where it is said that this node is whole.
    pub membership: mpsc::Sender<PeerEvent>,
    /// The pause between two rounds, on average.
    pub compare_every: Duration,
    /// At most so many bytes a second are read and sent; with 0 only a replica that lost writes repairs.
    pub bytes_per_second: u64,
    /// Buckets whose deletes are forgotten after a time.
    pub gc_grace: BTreeMap<String, Duration>,
    /// What a test wants to be wrong.
    pub planted: Planted,
    /// Ends it.
    pub stop: CancellationToken,
}

/// See the module.
pub struct Repair {
    parts: Parts,
    progress: Progress,
    /// Those of this node's slots.
    groups: Vec<Group>,
    /// How many slots the ring has.
    slots: u32,
    /// A purge floor has risen here: what it covers is to be forgotten at once, as the other replicas do.
    risen: Notify,
    /// One reader of the disk at a time: comparing must not take all threads from the clients' reads.
    turn: Semaphore,
}

impl Repair {
    /// A repair that has compared nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let grid = SlotGrid::new(parts.local.ring.epoch().slot_bits);
        let slots = grid.expect("a decided epoch has a valid grid").count();
        let groups = groups_of(&parts.local.ring, parts.local.me);
        let (risen, turn) = (Notify::new(), Semaphore::new(1));
        Self { parts, progress: Progress::default(), groups, slots, risen, turn }
    }

    /// Starts comparing on `tasks`.
    pub fn start(self: &Arc<Self>, random: StdRng, tasks: &TaskTracker) {
        let repair = self.clone();
        tasks.spawn(async move {
            let stop = repair.parts.stop.clone();
            stop.run_until_cancelled(repair.run(random)).await;
        });
    }

    /// How far this node and `peer` are from holding the same.
    pub fn pair(&self, peer: NodeIndex) -> PairProgress {
        self.progress.of(peer)
    }

    /// Whether this node holds every write that it acknowledged.
    pub fn is_whole(&self) -> bool {
        self.parts.replica.is_whole()
    }

    /// An operator's word: what this node and its peers hold is all there is.
    ///
    /// # Errors
    /// The store's: the node does not count as whole then.
    pub async fn accept_loss(&self) -> Result<(), StoreError> {
        if !self.is_whole() {
            warn!("an operator accepts that this node may have lost writes");
            self.become_whole().await?;
        }
        Ok(())
    }

    async fn run(&self, mut random: StdRng) {
        if !self.is_whole() {
            warn!(
                "this node has lost writes; it answers no reads before it has compared with its peers"
            );
        }
        let mut links: Vec<_> = self.parts.links.iter().cloned().collect();
        let mut forgotten = BTreeMap::new();
        loop {
            let usual = self.parts.compare_every;
            let pause = if self.is_whole() { usual } else { usual.min(REBUILD_EVERY) };
            let until = now() + pause.mul_f64(random.random_range(0.5..=1.5));
            while tokio::time::timeout_at(until, self.risen.notified()).await.is_ok() {
                self.sweep(By::Floor, &mut forgotten).await;
            }
            links.shuffle(&mut random);
            for link in links.iter().filter(|link| self.leads(link)) {
                match self.compare_with(link, &mut random).await {
                    Ok(0) => {}
                    Ok(keys) => {
                        info!(peer = %link.member.host_id, address = %link.member.address, keys, "exchanged what differed");
                    }
                    Err(reason) => {
                        self.progress.interrupted(link.peer);
                        debug!(peer = %link.member.host_id, %reason, "comparing is interrupted");
                    }
                }
            }
            if !self.is_whole() && self.may_be_whole() {
                match self.become_whole().await {
                    Ok(()) => info!("this node is whole again"),
                    Err(error) => error!(%error, "cannot note that this node is whole again"),
                }
            }
            if self.is_whole() && self.parts.bytes_per_second > 0 {
                self.read_what_is_mine_alone().await;
                self.raise_floors().await;
                if self.parts.liveness.may_lead() {
                    // What is old by a clock that is off may be minutes old.
                    self.sweep(By::Grace, &mut forgotten).await;
                }
            }
        }
    }

    /// Of each pair the first member leads, and whoever lost writes leads its own.
    fn leads(&self, link: &Link) -> bool {
        let mine = self.parts.bytes_per_second > 0 && self.parts.local.me.0 < link.peer.0;
        (mine || !self.is_whole())
            && link.is_connected()
            && self.parts.liveness.is_reachable(link.peer)
    }

    fn may_be_whole(&self) -> bool {
        let ring = &self.parts.local.ring;
        let grid = SlotGrid::new(ring.epoch().slot_bits).expect("a decided epoch has a valid grid");
        let placements = ring.epoch().keyspaces.iter();
        let placements = placements.filter_map(|keyspace| ring.keyspace(&keyspace.name));
        let slots = placements.flat_map(|placement| {
            let local_levels = !placement.per_datacenter().is_empty();
            (0..grid.count()).map(move |slot| {
                let replicas = placement.replicas(grid.end_token(Slot(slot)));
                SlotReplicas { replicas, local_levels }
            })
        });
        may_be_whole(
            slots,
            self.parts.local.me,
            |node| &ring.member(node).datacenter,
            |peer| self.progress.has_agreed_with_whole(peer),
            |peer| !self.parts.liveness.is_whole(peer),
        )
    }

    async fn become_whole(&self) -> Result<(), StoreError> {
        let replica = self.parts.replica.clone();
        self.parts.blocking.run(move || replica.amnesia_repaired()).await?;
        self.parts.liveness.set_whole(self.parts.local.me, true);
        // Never dropped for want of room: the others would leave this node out for as long as it runs.
        let _stopping = self.parts.membership.send(PeerEvent::Whole).await;
        Ok(())
    }

    /// Runs `work`, which reads the disk, when it is its turn.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> T {
        let _turn = self.turn.acquire().await.expect("the turn is never closed");
        let replica = self.parts.replica.clone();
        self.parts.blocking.run(move || work(&replica)).await
    }

    /// Takes as long as reading or sending `bytes` should take: less when a node is to become whole, more while clients are served.
    async fn pace(&self, bytes: u64) {
        if !self.is_whole() || bytes == 0 {
            return;
        }
        let busy = self.parts.in_flight.requests() > 0;
        let share = if busy { SHARE_UNDER_LOAD } else { 1 };
        let rate = (self.bytes_per_second() / share).max(1);
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        tokio::time::sleep(pause.min(ANSWER_WITHIN / 2)).await;
    }

    /// Bytes that may be read for one question, so that its answer is in time at the configured rate.
    fn read_bytes_max(&self) -> u64 {
        READ_BYTES_MAX.min(self.bytes_per_second().max(1 << 10))
    }

    fn bytes_per_second(&self) -> u64 {
        match self.parts.bytes_per_second {
            0 => REBUILD_BYTES_PER_SECOND,
            configured => configured,
        }
    }
}
