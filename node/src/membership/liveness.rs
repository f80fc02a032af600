//! What this node believes of every member at this moment: read on each request, written by the
//! membership driver and by whoever hears from a peer.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use starling_ring::NodeIndex;
use starling_ring::detector::Liveness;
use tokio::time::Instant;

use crate::time::now;

/// See the module. Indexed by a member's place in the epoch.
#[derive(Debug)]
pub struct LivenessTable {
    started: Instant,
    may_lead: AtomicBool,
    peers: Vec<Peer>,
}

#[derive(Debug)]
struct Peer {
    liveness: AtomicU8,
    since_ms: AtomicU64,
    heard_ms: AtomicU64,
    incarnation: AtomicU64,
    lost_writes: AtomicBool,
}

impl LivenessTable {
    /// `members` peers, all of them down until they are heard of, but for `me`. One that is not whole leads no writes before it has compared
    /// its clock with a peer's: it does not know up to where it has minted.
    #[must_use]
    pub fn new(members: usize, me: NodeIndex, is_whole: bool) -> Self {
        let peers = (0..members)
            .map(|index| Peer {
                liveness: AtomicU8::new(code(if index == usize::from(me.0) {
                    Liveness::Up
                } else {
                    Liveness::Down
                })),
                since_ms: AtomicU64::new(0),
                heard_ms: AtomicU64::new(0),
                incarnation: AtomicU64::new(0),
                lost_writes: AtomicBool::new(index == usize::from(me.0) && !is_whole),
            })
            .collect();
        let may_lead = is_whole || members == 1;
        Self { started: now(), may_lead: AtomicBool::new(may_lead), peers }
    }

    /// Whether this node's clock is close enough to its peers' for it to lead writes.
    #[must_use]
    pub fn may_lead(&self) -> bool {
        self.may_lead.load(Ordering::Relaxed)
    }

    pub(super) fn set_may_lead(&self, may_lead: bool) -> bool {
        self.may_lead.swap(may_lead, Ordering::Relaxed)
    }

    /// Milliseconds since this table was made: the clock of the membership state machines.
    #[must_use]
    pub fn uptime_ms(&self) -> u64 {
        u64::try_from(now().saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment at which [`Self::uptime_ms`] is so much.
    #[must_use]
    pub fn at_uptime_ms(&self, uptime_ms: u64) -> Instant {
        self.started + Duration::from_millis(uptime_ms.min(u64::from(u32::MAX) * 1_000))
    }

    /// What is believed of `peer`.
    #[must_use]
    pub fn of(&self, peer: NodeIndex) -> Liveness {
        liveness(self.peer(peer).liveness.load(Ordering::Acquire))
    }

    /// Whether requests are sent to `peer`: it is up, or only suspected.
    #[must_use]
    pub fn is_reachable(&self, peer: NodeIndex) -> bool {
        matches!(self.of(peer), Liveness::Up | Liveness::Suspect)
    }

    /// Whether `peer` holds every write that it acknowledged, as far as is known here.
    #[must_use]
    pub fn is_whole(&self, peer: NodeIndex) -> bool {
        !self.peer(peer).lost_writes.load(Ordering::Acquire)
    }

    /// `peer` says so of itself.
    pub fn set_whole(&self, peer: NodeIndex, whole: bool) {
        self.peer(peer).lost_writes.store(!whole, Ordering::Release);
    }

    /// Whether `peer` is asked when a read counts answers.
    #[must_use]
    pub fn can_be_read(&self, peer: NodeIndex) -> bool {
        self.is_reachable(peer) && self.is_whole(peer)
    }

    /// The highest incarnation of `peer` that was met, 0 for none.
    #[must_use]
    pub fn incarnation(&self, peer: NodeIndex) -> u64 {
        self.peer(peer).incarnation.load(Ordering::Relaxed)
    }

    /// `peer` was met in this incarnation.
    pub fn met(&self, peer: NodeIndex, incarnation: u64) {
        self.peer(peer).incarnation.fetch_max(incarnation, Ordering::Relaxed);
    }

    /// How long the present belief has held.
    #[must_use]
    pub fn held_for(&self, peer: NodeIndex) -> Duration {
        let since = self.peer(peer).since_ms.load(Ordering::Relaxed);
        Duration::from_millis(self.uptime_ms().saturating_sub(since))
    }

    /// How long ago anything arrived from `peer`.
    #[must_use]
    pub fn silence(&self, peer: NodeIndex) -> Duration {
        let heard = self.heard_ms(peer);
        Duration::from_millis(self.uptime_ms().saturating_sub(heard))
    }

    /// When anything last arrived from `peer`, in milliseconds of [`Self::uptime_ms`].
    #[must_use]
    pub fn heard_ms(&self, peer: NodeIndex) -> u64 {
        self.peer(peer).heard_ms.load(Ordering::Relaxed)
    }

    /// Something arrived from `peer`.
    pub fn heard(&self, peer: NodeIndex) {
        self.peer(peer).heard_ms.store(self.uptime_ms(), Ordering::Relaxed);
    }

    pub(super) fn set(&self, peer: NodeIndex, to: Liveness) {
        let entry = self.peer(peer);
        if entry.liveness.swap(code(to), Ordering::AcqRel) != code(to) {
            entry.since_ms.store(self.uptime_ms(), Ordering::Relaxed);
        }
    }

    fn peer(&self, peer: NodeIndex) -> &Peer {
        &self.peers[usize::from(peer.0)]
    }
}

fn code(liveness: Liveness) -> u8 {
    match liveness {
        Liveness::Up => 0,
        Liveness::Suspect => 1,
        Liveness::UnreachableFromMe => 2,
        Liveness::Down => 3,
    }
}

fn liveness(code: u8) -> Liveness {
    match code {
        0 => Liveness::Up,
        1 => Liveness::Suspect,
        2 => Liveness::UnreachableFromMe,
        _ => Liveness::Down,
    }
}
