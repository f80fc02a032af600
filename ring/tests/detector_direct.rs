//! One detector and one peer of interest, second by second.

use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_ring::HostId;
use starling_ring::detector::{
    AccrualDetector, DirectDetector, Effect, Event, HEALTH_WORST, Liveness, LocalHealth, Millis,
};
use uuid::Uuid;

const TICK_MS: u64 = 100;

fn host(place: u128) -> HostId {
    HostId(Uuid::from_u128(place))
}

const fn peer() -> HostId {
    HostId(Uuid::from_u128(1))
}

/// A node with three peers, of whom all but the one of interest always answer.
struct Bench {
    detector: DirectDetector,
    rng: StdRng,
    now_ms: u64,
    answers: bool,
    /// What others say of the peer.
    others_reach_it: bool,
    used: bool,
    beliefs: Vec<(u64, Liveness)>,
    pings: Vec<u64>,
    asked: Vec<u64>,
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            detector: DirectDetector::new((1..4).map(host)),
            rng: StdRng::seed_from_u64(5),
            now_ms: 0,
            answers: true,
            others_reach_it: false,
            used: true,
            beliefs: Vec::new(),
            pings: Vec::new(),
            asked: Vec::new(),
        };
        for other in 1..4 {
            bench.feed(Event::LinkUp(host(other), 1));
        }
        bench
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.detector.step(Millis(self.now_ms), event, &mut self.rng, &mut effects);
        for effect in effects {
            match effect {
                Effect::Ping(to) if to == peer() => {
                    self.pings.push(self.now_ms);
                    if self.answers {
                        self.feed(Event::FrameFrom(to));
                    }
                }
                Effect::Ping(to) => self.feed(Event::FrameFrom(to)),
                Effect::AskPeers { about, peers } => {
                    assert!(!peers.contains(&about) && peers.len() <= 3);
                    self.asked.push(self.now_ms);
                    self.feed(Event::Report { about, reachable: self.others_reach_it });
                }
                Effect::Liveness(of, liveness) if of == peer() => {
                    self.beliefs.push((self.now_ms, liveness));
                }
                Effect::Liveness(of, liveness) => {
                    assert_eq!((liveness, self.now_ms), (Liveness::Up, 0), "of {of}");
                }
            }
        }
    }

    fn run_for(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.now_ms += TICK_MS;
            if self.used {
                self.feed(Event::Used(peer()));
            }
            self.feed(Event::Tick);
        }
    }

    /// Runs until the peer is believed to be so; returns after how many milliseconds.
    fn until(&mut self, liveness: Liveness, ms_max: u64) -> u64 {
        let from = self.now_ms;
        while self.detector.liveness(&peer()) != liveness {
            assert!(self.now_ms < from + ms_max, "not {liveness:?}: {:?}", self.beliefs);
            self.run_for(TICK_MS);
        }
        self.now_ms - from
    }

    fn refuse(&mut self) {
        self.feed(Event::LinkDown { peer: peer(), refused: true });
    }
}

#[test]
fn a_first_frame_is_enough_at_first_sight() {
    let mut bench = Bench::new();
    assert_eq!(bench.beliefs, [(0, Liveness::Up)]);
    bench.run_for(60_000);
    assert_eq!(bench.beliefs.len(), 1);
    assert!(
        (60..=122).contains(&bench.pings.len()),
        "about one ping a second: {}",
        bench.pings.len()
    );
}

#[test]
fn silence_is_doubted_then_believed() {
    let mut bench = Bench::new();
    bench.run_for(10_000);
    bench.answers = false;
    assert!((1_500..=2_600).contains(&bench.until(Liveness::Suspect, 6_000)));
    assert!(!bench.asked.is_empty());
    assert!(bench.until(Liveness::Down, 6_000) <= 2_600);
    assert!(bench.now_ms <= 16_000);
}

#[test]
fn an_answer_clears_a_suspect_at_once() {
    let mut bench = Bench::new();
    bench.run_for(5_000);
    bench.answers = false;
    bench.until(Liveness::Suspect, 6_000);
    bench.answers = true;
    assert!(bench.until(Liveness::Up, 6_000) <= 500);
}

#[test]
fn what_others_reach_is_only_unreachable_until_they_lose_it_too() {
    let mut bench = Bench::new();
    bench.answers = false;
    bench.others_reach_it = true;
    bench.until(Liveness::UnreachableFromMe, 6_100);
    bench.run_for(60_000);
    assert_eq!(bench.detector.liveness(&peer()), Liveness::UnreachableFromMe);
    bench.others_reach_it = false;
    assert!(bench.until(Liveness::Down, 10_000) <= 9_000);
}

/// An asked peer that has not noticed yet must not vouch for the dead.
#[test]
fn only_a_late_report_vouches() {
    let mut bench = Bench::new();
    bench.answers = false;
    bench.others_reach_it = true;
    bench.until(Liveness::Suspect, 6_000);
    bench.others_reach_it = false;
    bench.until(Liveness::Down, 6_000);
    assert!(bench.beliefs.iter().all(|(_, liveness)| *liveness != Liveness::UnreachableFromMe));
}

/// Regression: silence is no evidence while nothing was asked.
#[test]
fn a_long_idle_link_that_is_used_or_broken_is_not_convicted() {
    let mut detector = DirectDetector::new((1..200).map(host));
    let mut rng = StdRng::seed_from_u64(1);
    let mut heard = std::collections::BTreeMap::new();
    let mut step = |now_ms, event| {
        let mut effects = Vec::new();
        detector.step(Millis(now_ms), event, &mut rng, &mut effects);
        effects
    };
    for place in 1..200 {
        step(0, Event::LinkUp(host(place), 1));
        step(1, Event::FrameFrom(host(place)));
        heard.insert(host(place), 1);
    }
    for now_ms in (TICK_MS..=100_000).step_by(100) {
        for effect in step(now_ms, Event::Tick) {
            let Effect::Ping(to) = effect else { panic!("{effect:?}") };
            step(now_ms, Event::FrameFrom(to));
            heard.insert(to, now_ms);
        }
    }
    let mut idle = heard.iter().filter(|(_, at)| **at == 1).map(|(host, _)| *host);
    let (used, broken) = (idle.next().expect("idle"), idle.next().expect("idle"));
    step(100_050, Event::Used(used));
    step(100_060, Event::LinkDown { peer: broken, refused: false });
    let mut effects = step(100_100, Event::Tick);
    assert!(effects.contains(&Effect::Ping(used)));
    effects.extend(step(100_200, Event::Tick));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Liveness(..))), "{effects:?}");
}

#[test]
fn each_idle_link_gets_its_probe() {
    let peers = 20;
    let mut detector = DirectDetector::new((1..=peers).map(host));
    let mut rng = StdRng::seed_from_u64(1);
    let mut pinged = std::collections::BTreeSet::new();
    for place in 1..=peers {
        detector.step(Millis(0), Event::LinkUp(host(place), 1), &mut rng, &mut Vec::new());
        detector.step(Millis(1), Event::FrameFrom(host(place)), &mut rng, &mut Vec::new());
    }
    let seconds = u64::try_from(peers).expect("few") + 1;
    for tick in 1..=seconds * 10 {
        let mut effects = Vec::new();
        detector.step(Millis(tick * TICK_MS), Event::Tick, &mut rng, &mut effects);
        for effect in effects {
            let Effect::Ping(to) = effect else { panic!("{effect:?}") };
            pinged.insert(to);
            detector.step(Millis(tick * TICK_MS), Event::FrameFrom(to), &mut rng, &mut Vec::new());
        }
    }
    assert_eq!(pinged.len(), usize::try_from(peers).expect("few"));
}

#[test]
fn a_refused_reconnect_convicts_at_once_and_a_restart_brings_back_soon() {
    let mut bench = Bench::new();
    for incarnation in 2..8 {
        bench.run_for(5_000);
        bench.feed(Event::LinkDown { peer: peer(), refused: false });
        assert_eq!(bench.detector.liveness(&peer()), Liveness::Up);
        bench.run_for(TICK_MS);
        bench.refuse();
        assert_eq!(bench.detector.liveness(&peer()), Liveness::Down);
        bench.run_for(3_000);
        bench.feed(Event::LinkUp(peer(), incarnation));
        assert_eq!(bench.detector.liveness(&peer()), Liveness::Down, "one success is not enough");
        let took = bench.until(Liveness::Up, 10_000);
        assert!(took <= 1_000, "back after {took} ms");
    }
}

#[test]
fn a_flapping_link_comes_back_ever_later_up_to_a_minute() {
    let mut bench = Bench::new();
    let mut took = Vec::new();
    for _ in 0..9 {
        bench.answers = false;
        bench.until(Liveness::Down, 6_100);
        bench.answers = true;
        took.push(bench.until(Liveness::Up, 70_000));
    }
    assert!(took[0] <= 2_000, "{took:?}");
    assert!(took.windows(2).all(|pair| pair[1] >= pair[0]), "{took:?}");
    assert!(took[3] >= 4_000, "{took:?}");
    assert!((50_000..=61_500).contains(&took[8]), "{took:?}");
    bench.run_for(600_000);
    bench.answers = false;
    bench.until(Liveness::Down, 6_100);
    bench.answers = true;
    assert!(bench.until(Liveness::Up, 70_000) <= 2_000, "forgiven after ten minutes");
}

#[test]
fn a_leaving_node_stays_down_until_it_starts_anew() {
    let mut bench = Bench::new();
    bench.run_for(1_000);
    bench.feed(Event::Leaving(peer(), 1));
    bench.run_for(5_000);
    assert_eq!(bench.detector.liveness(&peer()), Liveness::Down, "it still drains");
    bench.feed(Event::LinkUp(peer(), 2));
    assert!(bench.until(Liveness::Up, 10_000) <= 1_000);
}

/// Another peer passes on what the node said before it was started again.
#[test]
fn a_node_that_is_back_is_not_convicted_by_what_it_said_when_it_stopped() {
    let mut bench = Bench::new();
    bench.run_for(1_000);
    bench.feed(Event::LinkDown { peer: peer(), refused: true });
    bench.feed(Event::LinkUp(peer(), 2));
    bench.until(Liveness::Up, 10_000);
    bench.feed(Event::Leaving(peer(), 1));
    bench.run_for(1_000);
    assert_eq!(bench.detector.liveness(&peer()), Liveness::Up);
}

#[test]
fn an_own_pause_convicts_nobody() {
    for pause_ms in [1_100, 3_000, 5_500, 30_000] {
        let mut bench = Bench::new();
        bench.run_for(3_000);
        // The answer to a ping lies in the socket buffer, behind two ticks.
        bench.answers = false;
        bench.run_for(1_500);
        bench.now_ms += pause_ms;
        bench.run_for(2 * TICK_MS);
        bench.answers = true;
        bench.run_for(20_000);
        assert_eq!(bench.beliefs.len(), 1, "{:?}", bench.beliefs);
    }
}

#[test]
fn a_peer_that_died_during_an_own_pause_is_convicted_afterwards() {
    for connected in [true, false] {
        let mut bench = Bench::new();
        bench.run_for(3_000);
        bench.answers = false;
        if !connected {
            bench.feed(Event::LinkDown { peer: peer(), refused: false });
        }
        bench.now_ms += 30_000;
        bench.until(Liveness::Down, 6_500);
    }
}

#[test]
fn local_health_rises_with_own_pauses_and_failing_probes_and_heals() {
    let mut health = LocalHealth::default();
    assert!(!health.tick(Millis(0)));
    assert!(health.tick(Millis(3_500)));
    assert_eq!(health.score(), 3);
    for second in 5..60 {
        health.probes(Millis(second * 1_000), 2, 3);
    }
    assert_eq!(health.score(), HEALTH_WORST);
    for second in 60..70 {
        health.probes(Millis(second * 1_000), 1, 2);
    }
    assert_eq!(health.score(), 0);
}

#[test]
fn the_gossiped_detector_knows_the_usual_interval() {
    for (interval_ms, patience_ms) in [(200, 5_000), (1_000, 10_000), (2_000, 20_000)] {
        let mut accrual = AccrualDetector::default();
        let mut now_ms = 0;
        assert!(accrual.is_down(Millis(0), peer(), 0), "never heard of");
        for _ in 0..600 {
            now_ms += interval_ms;
            accrual.heartbeat(Millis(now_ms), peer());
        }
        for health in [0, 1, HEALTH_WORST] {
            let patience_ms = patience_ms * (1 + u64::from(health));
            let down_after = |ms| accrual.is_down(Millis(now_ms + ms), peer(), health);
            assert!(!down_after(patience_ms * 9 / 10), "{interval_ms} ms");
            assert!(down_after(patience_ms * 11 / 10), "{interval_ms} ms");
        }
        accrual.tick(Millis(now_ms));
        accrual.tick(Millis(now_ms + 60_000));
        assert!(!accrual.is_down(Millis(now_ms + 60_000), peer(), 0), "after an own pause");
    }
}
