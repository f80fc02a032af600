//! The one task that owns gossip and failure detection: feeds them what happens, does what they say.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rand::rngs::StdRng;
use starling_protocol::encode_header;
use starling_ring::detector::{self, AccrualDetector, DirectDetector, Liveness, Millis};
use starling_ring::gossip::{self, Gossip, GossipConfig, Key, Shared};
use starling_ring::{HostId, NodeIndex};
use starling_storage::WallClock;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use super::LivenessTable;
use crate::internode::Links;
use crate::internode::link::Request;
use crate::internode::message::{Kind, WIRE_VERSION};
use crate::local::Local;
use crate::seams::Fatal;
use crate::time::now;

const TICK_EVERY: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A clock further than this from the median of its peers' leads no writes.
const CLOCK_OFFSET_MAX_US: u64 = 250_000;
/// What a node says of itself under [`Key::Status`].
const SERVING: &[u8] = b"serving";
/// The same while it stops.
const STOPPING: &[u8] = b"stopping";
/// The same while it has lost writes and answers no reads.
const REBUILDING: &[u8] = b"rebuilding";

/// What the links report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEvent {
    /// A connection to a peer stands.
    Up {
        /// The peer.
        peer: HostId,
        /// How often it has started.
        incarnation: u64,
        /// Its nonce at that start.
        boot_nonce: u64,
        /// Whether it holds every write that it acknowledged.
        whole: bool,
    },
    /// A connection ended or could not be made.
    Down {
        /// The peer.
        peer: HostId,
        /// Whether nobody listens there.
        refused: bool,
    },
}

/// What peers and the node itself report.
#[derive(Debug)]
pub enum PeerEvent {
    /// A peer has opened a connection to this node.
    Greeted {
        /// The peer.
        peer: HostId,
        /// How often it has started.
        incarnation: u64,
        /// Its nonce at that start.
        boot_nonce: u64,
        /// Whether it holds every write that it acknowledged.
        whole: bool,
    },
    /// A gossip message arrived.
    Gossip {
        /// From whom.
        from: HostId,
        /// What it says.
        message: gossip::Message,
    },
    /// This node is about to stop: the others should know at once.
    Stopping {
        /// Answered once that is on its way to them.
        told: oneshot::Sender<()>,
    },
    /// This node has recovered the writes that it had lost.
    Whole,
    /// This node has found that it lost writes.
    Lost,
}

/// What questions to peers brought back.
enum Answered {
    Pong { peer: HostId, offset_us: i64 },
    Probed { about: HostId, reachable: bool },
}

/// See the module.
pub struct Driver {
    local: Arc<Local>,
    links: Arc<Links>,
    liveness: Arc<LivenessTable>,
    gossip: Gossip,
    direct: DirectDetector,
    accrual: AccrualDetector,
    rng: StdRng,
    heard_ms: Vec<u64>,
    /// Whether heartbeats of a member arrive, as last shown.
    beats: Vec<Option<bool>>,
    offsets_us: Vec<Option<i64>>,
    answers: mpsc::Sender<Answered>,
    inbox: mpsc::Receiver<Answered>,
    clock: Arc<dyn WallClock>,
    clock_was_off: bool,
    fatal: Fatal,
}

impl Driver {
    /// A driver that has heard of nobody yet.
    #[must_use]
    pub fn new(
        local: Arc<Local>,
        links: Arc<Links>,
        liveness: Arc<LivenessTable>,
        rng: StdRng,
        clock: Arc<dyn WallClock>,
        fatal: Fatal,
    ) -> Self {
        let members: Vec<HostId> =
            local.ring.members().iter().map(|member| member.host_id).collect();
        let gossip = Gossip::new(GossipConfig {
            me: local.me.0,
            incarnation: local.incarnation,
            boot_nonce: local.boot_nonce,
            shared: Shared {
                cluster_id: local.cluster_id,
                wire_version: WIRE_VERSION,
                slot_bits: local.ring.epoch().slot_bits,
                epoch: local.ring.epoch().n,
            },
            seeds: (0..).take(members.len()).collect(),
            members: members.clone(),
        });
        let others = members.iter().copied().filter(|host| *host != local.host_id);
        let (answers, inbox) = mpsc::channel(1_024);
        Self {
            direct: DirectDetector::new(others),
            accrual: AccrualDetector::default(),
            heard_ms: vec![0; members.len()],
            beats: vec![None; members.len()],
            offsets_us: vec![None; members.len()],
            local,
            links,
            liveness,
            gossip,
            rng,
            answers,
            inbox,
            clock,
            clock_was_off: false,
            fatal,
        }
    }

    /// Runs until it is dropped.
    pub async fn run(
        mut self,
        mut links: mpsc::Receiver<LinkEvent>,
        mut peers: mpsc::Receiver<PeerEvent>,
    ) {
        let mut ticks = tokio::time::interval(TICK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // All else of it the epoch says.
        let whole = self.liveness.is_whole(self.local.me);
        self.say_status(if whole { SERVING } else { REBUILDING });
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => self.tick(),
                Some(event) = links.recv() => self.link(event),
                Some(event) = peers.recv() => self.peer(event),
                Some(answer) = self.inbox.recv() => self.answered(answer),
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(self.liveness.uptime_ms())
    }

    fn tick(&mut self) {
        let now = self.now();
        self.accrual.tick(now);
        for link in self.links.clone().iter() {
            let place = usize::from(link.peer.0);
            let heard_ms = self.liveness.heard_ms(link.peer);
            if heard_ms > self.heard_ms[place] {
                self.heard_ms[place] = heard_ms;
                self.detect(detector::Event::FrameFrom(link.member.host_id));
            }
            if link.was_used() {
                self.detect(detector::Event::Used(link.member.host_id));
            }
            let own_health = self.direct.local_health();
            let beats = !self.accrual.is_down(now, link.member.host_id, own_health);
            if self.beats[place].replace(beats) != Some(beats) {
                crate::metrics::observe_heartbeats(link.member.host_id, beats);
            }
        }
        self.detect(detector::Event::Tick);
        self.gossip(gossip::Event::Tick);
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { peer, incarnation, boot_nonce, whole } => {
                self.check_clone(peer, incarnation, boot_nonce);
                self.greeted_by(peer, incarnation, whole);
                self.detect(detector::Event::LinkUp(peer, incarnation));
                self.gossip(gossip::Event::Reachable(peer, true));
            }
            LinkEvent::Down { peer, refused } => {
                self.detect(detector::Event::LinkDown { peer, refused });
                self.gossip(gossip::Event::Reachable(peer, false));
            }
        }
    }

    fn peer(&mut self, event: PeerEvent) {
        match event {
            PeerEvent::Greeted { peer, incarnation, boot_nonce, whole } => {
                self.check_clone(peer, incarnation, boot_nonce);
                self.greeted_by(peer, incarnation, whole);
            }
            PeerEvent::Gossip { from, message } => {
                self.gossip(gossip::Event::Received { from, message });
            }
            PeerEvent::Stopping { told } => {
                self.say_status(STOPPING);
                let links = self.links.clone();
                tokio::spawn(async move {
                    links.flushed().await;
                    // The node may not have waited for so long.
                    let _gone = told.send(());
                });
            }
            PeerEvent::Whole => self.say_status(SERVING),
            PeerEvent::Lost => self.say_status(REBUILDING),
        }
    }

    fn say_status(&mut self, status: &[u8]) {
        let value = status.to_vec();
        self.gossip(gossip::Event::SetLocal { key: Key::Status, value, urgent: true });
    }

    /// One name, one incarnation, two nonces: a copied data directory.
    fn check_clone(&mut self, peer: HostId, incarnation: u64, boot_nonce: u64) {
        if let Some(node) = self.local.ring.index_of(peer) {
            self.liveness.met(node, incarnation);
        }
        let known = self.gossip.state(peer);
        if known
            .is_some_and(|known| known.incarnation == incarnation && known.boot_nonce != boot_nonce)
        {
            error!(%peer, incarnation, "two nodes run with one host id: a data directory was copied; stop one of them and wipe it");
        }
        let boot = gossip::Boot { incarnation, nonce: boot_nonce };
        self.gossip(gossip::Event::Met(peer, boot));
    }

    /// Until its gossip says it, a peer is as whole as it says when it is met: it counts as up from then on.
    fn greeted_by(&self, peer: HostId, incarnation: u64, whole: bool) {
        let Some(node) = self.local.ring.index_of(peer) else { return };
        let has_said = self.gossip.state(peer).is_some_and(|state| {
            state.incarnation >= incarnation && state.value(Key::Status).is_some()
        });
        if !has_said && incarnation >= self.liveness.incarnation(node) {
            self.liveness.set_whole(node, whole);
        }
    }

    fn detect(&mut self, event: detector::Event) {
        let (now, mut effects) = (self.now(), Vec::new());
        self.direct.step(now, event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                detector::Effect::Ping(peer) => self.ping(peer),
                detector::Effect::AskPeers { about, peers } => self.ask(about, &peers),
                detector::Effect::Liveness(peer, liveness) => self.believe(peer, liveness),
            }
        }
    }

    fn believe(&mut self, peer: HostId, liveness: Liveness) {
        let Some(node) = self.local.ring.index_of(peer) else { return };
        let address = self.local.ring.member(node).address;
        self.liveness.set(node, liveness);
        match liveness {
            Liveness::Up => info!(%peer, %address, "peer is up"),
            Liveness::Suspect => warn!(%peer, %address, "peer is silent"),
            Liveness::UnreachableFromMe => {
                warn!(%peer, %address, "peer is reached by others but not from here")
            }
            Liveness::Down => warn!(%peer, %address, "peer is down"),
        }
        self.judge_own_clock();
    }

    fn gossip(&mut self, event: gossip::Event) {
        let (now, mut effects) = (self.now(), Vec::new());
        self.gossip.step(now, event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                gossip::Effect::Send { to, message } => self.send(to, &message),
                gossip::Effect::Heartbeat(host) => self.accrual.heartbeat(now, host),
                gossip::Effect::StateChanged(host) => self.changed(host),
                gossip::Effect::Foreign { from, theirs } => {
                    warn!(%from, ?theirs, "a gossip message of another cluster, version or epoch was dropped");
                }
                gossip::Effect::Fatal(reason) => {
                    error!(%reason, "this node must not go on");
                    (self.fatal)(&reason.to_string());
                }
            }
        }
    }

    fn changed(&mut self, host: HostId) {
        let Some(state) = self.gossip.state(host) else { return };
        let (status, incarnation) = (state.value(Key::Status), state.incarnation);
        if let Some(node) = self.local.ring.index_of(host).filter(|node| *node != self.local.me) {
            // Met in a later start by now: what it said in this one, which another peer passes on, is over.
            if incarnation < self.liveness.incarnation(node) {
                return;
            }
            self.liveness.met(node, incarnation);
            // Who stops says nothing new of what it holds.
            match status {
                Some(REBUILDING) => self.liveness.set_whole(node, false),
                Some(SERVING) => self.liveness.set_whole(node, true),
                _ => {}
            }
        }
        if status == Some(STOPPING) {
            info!(peer = %host, "peer stops");
            self.detect(detector::Event::Leaving(host, incarnation));
        }
    }

    fn send(&self, to: HostId, message: &gossip::Message) {
        let Some(link) = self.local.ring.index_of(to).and_then(|node| self.links.to(node)) else {
            return;
        };
        let mut header = BytesMut::new();
        encode_header(message, &mut header);
        link.tell(&Request::control(Kind::Gossip, ANSWER_WITHIN, &header));
    }

    fn ping(&self, peer: HostId) {
        let Some(link) = self.local.ring.index_of(peer).and_then(|node| self.links.to(node)) else {
            return;
        };
        let (link, answers, clock) = (link.clone(), self.answers.clone(), self.clock.clone());
        tokio::spawn(async move {
            let sent_at = now();
            let sent_us = clock.now_us();
            let request = Request::control(Kind::Ping, ANSWER_WITHIN, &[]);
            let Ok(pong) = link.call(&request).await else { return };
            let half_way = now().saturating_duration_since(sent_at) / 2;
            let Ok(theirs) = <[u8; 8]>::try_from(pong.header.as_ref()) else { return };
            let offset_us = sure_offset_us(sent_us, half_way, u64::from_le_bytes(theirs));
            // The driver may have ended with the node.
            let _ended = answers.send(Answered::Pong { peer, offset_us }).await;
        });
    }

    fn ask(&self, about: HostId, peers: &[HostId]) {
        for peer in peers {
            let link = self.local.ring.index_of(*peer).and_then(|node| self.links.to(node));
            let Some(link) = link else { continue };
            let (link, answers) = (link.clone(), self.answers.clone());
            tokio::spawn(async move {
                let mut header = BytesMut::new();
                encode_header(&about, &mut header);
                let answer =
                    link.call(&Request::control(Kind::Probe, ANSWER_WITHIN, &header)).await;
                let reachable = answer.is_ok_and(|frame| frame.header.first() == Some(&1));
                // The driver may have ended with the node.
                let _ended = answers.send(Answered::Probed { about, reachable }).await;
            });
        }
    }

    fn answered(&mut self, answer: Answered) {
        match answer {
            Answered::Probed { about, reachable } => {
                self.detect(detector::Event::Report { about, reachable });
            }
            Answered::Pong { peer, offset_us } => {
                if let Some(NodeIndex(place)) = self.local.ring.index_of(peer) {
                    self.offsets_us[usize::from(place)] = Some(offset_us);
                    crate::metrics::observe_clock_offset(peer, offset_us);
                    self.judge_own_clock();
                }
            }
        }
    }

    /// Compares this node's clock with the median of its living peers'. One that lost its memory leads only once it has compared: its
    /// clock does not know what it has minted.
    fn judge_own_clock(&mut self) {
        let living = (0..).map(NodeIndex).zip(&self.offsets_us);
        let living = living.filter(|(node, _)| self.liveness.is_reachable(*node));
        let mut offsets: Vec<i64> = living.filter_map(|(_, offset)| *offset).collect();
        let is_alone = self.offsets_us.len() == 1;
        if offsets.is_empty() && !is_alone && !self.liveness.is_whole(self.local.me) {
            return;
        }
        // This node agrees with itself; where no peer lives, nobody says otherwise.
        offsets.push(0);
        offsets.sort_unstable();
        let median = offsets[offsets.len() / 2];
        let may_lead = median.unsigned_abs() <= CLOCK_OFFSET_MAX_US;
        if self.liveness.set_may_lead(may_lead) != may_lead {
            if !may_lead {
                self.clock_was_off = true;
                error!(
                    offset_ms = median / 1_000,
                    "this node's clock is too far from its peers'; it leads no writes until it is set"
                );
            } else if std::mem::take(&mut self.clock_was_off) {
                info!("this node's clock agrees with its peers' again; it leads writes");
            }
        }
    }
}

/// How far a peer's clock is surely ahead of this node's, when it said `theirs` on a round trip that began
/// at `sent_us` and took twice `half_way`. One way may have taken all of that time, as when a cut of one
/// direction heals; so an offset of up to half of it is none.
fn sure_offset_us(sent_us: u64, half_way: Duration, theirs: u64) -> i64 {
    let half_way = i128::try_from(half_way.as_micros()).expect("an answer comes within seconds");
    let offset = i128::from(theirs) - i128::from(sent_us) - half_way;
    let sure = offset.signum() * (offset.abs() - half_way).max(0);
    i64::try_from(sure).unwrap_or(if sure < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::sure_offset_us;

    /// A peer that is ahead by `ahead_ms` answers on its own clock after one way of the trip.
    fn check(ahead_ms: i64, there_ms: u64, back_ms: u64, expected_ms: i64) {
        let sent_us = 1_000_000_000_000;
        let theirs = (sent_us + there_ms * 1_000).saturating_add_signed(ahead_ms * 1_000);
        let half_way = Duration::from_millis(there_ms + back_ms) / 2;
        let sure = sure_offset_us(sent_us, half_way, theirs);
        assert_eq!(sure, expected_ms * 1_000, "{ahead_ms} {there_ms} {back_ms}");
    }

    #[test]
    fn a_slow_way_is_no_offset() {
        for (there_ms, back_ms) in [(0, 0), (1_500, 0), (0, 1_500), (700, 800)] {
            check(0, there_ms, back_ms, 0);
        }
        check(1_000, 0, 0, 1_000);
        check(-1_000, 1, 1, -999);
        check(3_600_000, 1_500, 0, 3_600_000);
        check(3_600_000, 0, 1_500, 3_598_500);
        check(-3_600_000, 0, 1_500, -3_600_000);
    }
}
