//! Single exchanges: what is refused, what is fatal, what is urgent, and whom a node talks to.

use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_ring::detector::Millis;
use starling_ring::gossip::{
    Boot, Digest, Effect, Event, Fatal, Gossip, GossipConfig, Key, Message, Shared,
};
use starling_ring::{ClusterId, HostId};
use uuid::Uuid;

const SHARED: Shared =
    Shared { cluster_id: ClusterId([1; 16]), wire_version: 1, slot_bits: 12, epoch: 1 };

fn host(place: usize) -> HostId {
    HostId(Uuid::from_u128(place as u128))
}

/// Node `me` of ten; 8 and 9 are the seeds.
fn node(me: u16, incarnation: u64, boot_nonce: u64) -> Gossip {
    let members = (0..10).map(host).collect();
    let seeds = vec![8, 9];
    Gossip::new(GossipConfig { members, me, incarnation, boot_nonce, shared: SHARED, seeds })
}

fn step(node: &mut Gossip, now_ms: u64, event: Event) -> Vec<Effect> {
    let mut out = Vec::new();
    node.step(Millis(now_ms), event, &mut StdRng::seed_from_u64(now_ms), &mut out);
    out
}

/// Carries messages to and fro until nobody has more to say. Returns what else they wanted, apart
/// from heartbeats.
fn exchange(nodes: &mut [Gossip], first: usize, second: usize) -> Vec<Effect> {
    let (boot, digests) = syn(&nodes[first]);
    let syn = Message::Syn { shared: SHARED, boot, digests };
    let mut under_way = vec![(first, second, syn)];
    let mut rest = Vec::new();
    while let Some((from, to, message)) = under_way.pop() {
        for effect in step(&mut nodes[to], 0, Event::Received { from: host(from), message }) {
            match effect {
                Effect::Send { message, .. } => under_way.push((to, from, message)),
                Effect::Heartbeat(_) => {}
                other => rest.push(other),
            }
        }
    }
    rest
}

/// What a node's next Syn carries.
fn syn(node: &Gossip) -> (Boot, Vec<Digest>) {
    let mut node = node.clone();
    step(&mut node, 0, Event::Reachable(host(4), true));
    let effects = step(&mut node, 0, Event::Tick);
    let syn = effects.into_iter().find_map(|effect| match effect {
        Effect::Send { message: Message::Syn { boot, digests, .. }, .. } => Some((boot, digests)),
        _ => None,
    });
    syn.expect("a round talks to those that can be reached")
}

fn say(node: &mut Gossip, key: Key, value: &str) -> Vec<Effect> {
    step(node, 0, Event::SetLocal { key, value: value.into(), urgent: true })
}

#[test]
fn foreign_clusters_versions_and_grids_are_refused() {
    let foreign = [
        Shared { cluster_id: ClusterId([2; 16]), ..SHARED },
        Shared { wire_version: 2, ..SHARED },
        Shared { slot_bits: 10, ..SHARED },
        Shared { epoch: 2, ..SHARED },
    ];
    let mut other = node(1, 5, 50);
    say(&mut other, Key::Load, "1");
    let (boot, digests) = syn(&other);
    for theirs in foreign {
        for message in [
            Message::Syn { shared: theirs, boot, digests: digests.clone() },
            Message::SynAck { shared: theirs, digests: digests.clone(), delta: Vec::new() },
            Message::Ack { shared: theirs, delta: Vec::new() },
        ] {
            let mut here = node(0, 1, 1);
            let effects = step(&mut here, 0, Event::Received { from: host(1), message });
            assert_eq!(effects, [Effect::Foreign { from: host(1), theirs }]);
        }
    }
}

#[test]
fn one_exchange_teaches_both() {
    let mut nodes = vec![node(0, 1, 1), node(1, 200, 2)];
    say(&mut nodes[0], Key::Status, "serving");
    say(&mut nodes[1], Key::Status, "stopping");
    let told = exchange(&mut nodes, 0, 1);
    assert!(
        told.contains(&Effect::StateChanged(host(0)))
            && told.contains(&Effect::StateChanged(host(1)))
    );
    let status = |here: usize, of: usize| {
        nodes[here].state(host(of)).and_then(|state| state.value(Key::Status))
    };
    assert_eq!(status(0, 1), Some(b"stopping".as_slice()));
    assert_eq!(status(1, 0), Some(b"serving".as_slice()));
    assert_eq!(exchange(&mut nodes, 1, 0), []);
}

/// Regression: the low byte of an incarnation reads as ahead for a reader that knows nothing, or
/// is more than 127 starts behind.
#[test]
fn any_number_of_starts_is_caught_up_with() {
    for known in [None, Some(1), Some(100), Some(299)] {
        for incarnation in [1, 127, 128, 200, 255, 256, 300, 100_000] {
            let mut nodes = vec![node(0, 1, 1), node(1, incarnation, 7)];
            if let Some(known) = known.filter(|known| *known < incarnation) {
                let mut old = vec![nodes[0].clone(), node(1, known, 6)];
                say(&mut old[1], Key::Status, "old");
                exchange(&mut old, 0, 1);
                nodes[0] = old.remove(0);
            }
            exchange(&mut nodes, 1, 0);
            exchange(&mut nodes, 0, 1);
            let read = nodes[0].state(host(1)).expect("a member");
            assert_eq!(
                (read.incarnation, read.value(Key::Status)),
                (incarnation, None),
                "from {known:?}"
            );
        }
    }
}

/// A node that was cut off for a day: the low half of a heartbeat has gone round meanwhile.
#[test]
fn heartbeats_are_comparable_after_any_time() {
    for rounds in [1, 4_000, 40_000, 65_536, 100_000] {
        let mut nodes = vec![node(0, 1, 1), node(1, 1, 2)];
        exchange(&mut nodes, 0, 1);
        for round in 1..=rounds {
            step(&mut nodes[1], round * 1_000, Event::Tick);
        }
        exchange(&mut nodes, 0, 1);
        let heard = nodes[0].state(host(1)).expect("a member").heartbeat;
        assert_eq!(u64::from(heard), rounds);
    }
}

/// What somebody far behind remembers must not read as far ahead, which would revive the dead.
#[test]
fn old_heartbeats_are_not_news() {
    for (old, new) in [(5_000, 40_000), (1, 33_000), (100, 65_000), (4_095, 4_096)] {
        let mut nodes = vec![node(0, 1, 1), node(1, 1, 2), node(2, 1, 3)];
        for round in 1..=new {
            step(&mut nodes[1], round * 1_000, Event::Tick);
            if round == old {
                exchange(&mut nodes, 2, 1);
            }
        }
        exchange(&mut nodes, 0, 1);
        let heard = |nodes: &[Gossip]| nodes[0].state(host(1)).expect("a member").heartbeat;
        let before = heard(&nodes);
        exchange(&mut nodes, 2, 0);
        assert_eq!(heard(&nodes), before, "{old} read as later than {new}");
    }
}

#[test]
fn a_cloned_disk_is_fatal_to_a_clone() {
    let mut nodes = vec![node(0, 1, 1), node(1, 5, 50), node(2, 1, 1)];
    exchange(&mut nodes, 1, 0);
    // The clone has said as much as the original: digests alone would not tell them apart.
    let original = std::mem::replace(&mut nodes[1], node(1, 5, 51));
    let fatal = [Effect::Fatal(Fatal::ClonedDisk { incarnation: 5 })];
    assert!(exchange(&mut nodes, 1, 0).starts_with(&fatal));
    // The two meet.
    let (boot, digests) = syn(&original);
    let message = Message::Syn { shared: SHARED, boot, digests };
    let effects = step(&mut nodes[1], 0, Event::Received { from: host(1), message });
    assert!(effects.starts_with(&fatal), "{effects:?}");
}

#[test]
fn a_rolled_back_disk_is_fatal() {
    let mut nodes = vec![node(0, 1, 1), node(1, 5, 50)];
    exchange(&mut nodes, 1, 0);
    nodes[1] = node(1, 4, 40);
    let fatal = Effect::Fatal(Fatal::RolledBack { mine: 4, theirs: 5 });
    assert!(exchange(&mut nodes, 1, 0).contains(&fatal));
}

/// It may have taken writes in a start in which it got to no round of gossip.
#[test]
fn a_disk_from_before_a_start_that_was_only_greeted_is_fatal() {
    for (incarnation, boot_nonce, fatal) in [
        (4, 40, Fatal::RolledBack { mine: 4, theirs: 5 }),
        (5, 51, Fatal::ClonedDisk { incarnation: 5 }),
    ] {
        let mut nodes = vec![node(0, 1, 1), node(1, 4, 39), node(2, 1, 1)];
        exchange(&mut nodes, 1, 0);
        let boot = Boot { incarnation: 5, nonce: 50 };
        let effects = step(&mut nodes[0], 0, Event::Met(host(1), boot));
        assert_eq!(effects, [Effect::StateChanged(host(1))]);
        assert_eq!(step(&mut nodes[0], 0, Event::Met(host(1), boot)), []);
        nodes[1] = node(1, incarnation, boot_nonce);
        assert!(exchange(&mut nodes, 1, 0).contains(&Effect::Fatal(fatal)));
        // What the peer does say in the start in which it was met is still learnt.
        nodes[1] = node(1, 5, 50);
        say(&mut nodes[1], Key::Load, "1");
        exchange(&mut nodes, 1, 0);
        let read = nodes[0].state(host(1)).expect("a member");
        assert_eq!(read.value(Key::Load), Some(b"1".as_slice()));
    }
}

#[test]
fn urgent_news_is_pushed_and_old_news_is_not() {
    let mut here = node(0, 3, 30);
    for peer in 1..5 {
        step(&mut here, 0, Event::Reachable(host(peer), true));
    }
    let pushed = say(&mut here, Key::Status, "stopping");
    assert_eq!(pushed.len(), 2, "to two peers: {pushed:?}");
    for effect in pushed {
        let Effect::Send { message, .. } = effect else { panic!("{effect:?}") };
        let mut there = node(1, 1, 1);
        step(&mut there, 0, Event::Received { from: host(0), message });
        let read = there.state(host(0)).expect("a member");
        assert_eq!(read.value(Key::Status), Some(b"stopping".as_slice()));
    }
    assert_eq!(say(&mut here, Key::Status, "stopping"), []);
}

#[test]
fn a_round_talks_to_the_living_and_now_and_then_to_the_dead_and_to_seeds() {
    let mut here = node(0, 1, 1);
    let alive = [1, 2, 3, 4, 5].map(host);
    for peer in alive {
        step(&mut here, 0, Event::Reachable(peer, true));
    }
    let (mut dead, mut most) = (0, 0);
    for round in 0..1_000 {
        let effects = step(&mut here, round * 1_000, Event::Tick);
        let to = effects.iter().map(|effect| match effect {
            Effect::Send { to, .. } => *to,
            other => panic!("{other:?}"),
        });
        let (living, others): (Vec<_>, Vec<_>) = to.partition(|to| alive.contains(to));
        assert_eq!(living.len(), 2);
        assert_ne!(living[0], living[1]);
        dead += others.len();
        most = most.max(others.len());
    }
    // 4 dead of 5 + 1, and 2 seeds, both dead, of 10.
    assert!((600..1_000).contains(&dead), "{dead}");
    assert_eq!(most, 2);
    assert_eq!(step(&mut here, 999_500, Event::Tick), []);
}
