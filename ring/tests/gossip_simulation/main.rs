//! Gossip among many nodes: how quickly news reaches everybody, what that costs, and whom the
//! gossiped detector convicts, rightly and wrongly.

mod network;

use network::{Network, ROUND_MS};

/// At the 99th percentile of `rounds`, which are sorted.
fn p99(rounds: &[u64]) -> u64 {
    rounds[(rounds.len() * 99).div_ceil(100) - 1]
}

/// News of a tenth of the nodes reaches all others within `p99_max` rounds.
fn check_convergence(size: usize, loss: f64, p99_max: u64) {
    let mut network = Network::new(size, loss, 42);
    assert!(network.run_until_met(2 * p99_max), "{size} nodes at {loss} have not met");
    network.update_many(size.min(1_000) / 10);
    let rounds = network.run_until_known(2 * p99_max);
    let p99 = p99(&rounds);
    assert!(p99 <= p99_max, "{size} nodes at {loss}: {p99} rounds");
    assert_eq!(network.fatal, []);
}

#[test]
fn news_spreads_among_100() {
    check_convergence(100, 0.0, 4);
    check_convergence(100, 0.1, 6);
    check_convergence(100, 0.25, 8);
    check_convergence(100, 0.5, 20);
}

#[test]
fn news_spreads_among_1000_without_loss() {
    check_convergence(1_000, 0.0, 5);
    check_convergence(1_000, 0.1, 7);
}

#[test]
fn news_spreads_among_1000_with_loss() {
    check_convergence(1_000, 0.25, 10);
    check_convergence(1_000, 0.5, 30);
}

#[test]
fn news_spreads_among_3000() {
    check_convergence(3_000, 0.0, 6);
}

#[test]
fn gossip_among_1000_is_cheap() {
    let mut network = Network::new(1_000, 0.0, 1);
    assert!(network.run_until_met(8));
    network.measure();
    for _ in 0..5 {
        // A node in a hundred says something new each second.
        network.update_many(10);
    }
    let seconds = 5;
    let mean = network.sent_bytes.iter().sum::<u64>() / network.sent_bytes.len() as u64 / seconds;
    let most = network.sent_bytes.iter().max().expect("there are nodes") / seconds;
    assert!(mean <= 30_000, "a node sends {mean} bytes/s");
    assert!(most <= 60_000, "one node sends {most} bytes/s");
}

#[test]
fn messages_are_capped() {
    // Everybody says 4 KB of itself: a thousand times that does not fit into one message.
    let mut network = Network::new(200, 0.0, 3);
    network.measure();
    for place in 0..200 {
        network.say(place, vec![b'x'; 4_096]);
    }
    assert!(network.run_until_met(12));
    let digests = 200 * 8;
    assert!(network.largest_message_bytes > 32 * 1024);
    assert!(network.largest_message_bytes <= 64 * 1024 + digests);
}

/// After the death of one node in a hundred everybody else has convicted those within 20 s, and
/// nobody is convicted who lives.
fn check_detection(size: usize, loss: f64, alive_for_s: u64) {
    let mut network = Network::new(size, loss, 7);
    network.detect();
    network.run_for(alive_for_s * ROUND_MS);
    assert_eq!(network.false_convictions.first(), None, "{size} nodes at {loss}");
    let (dead, alive) = (0..size / 100, size / 100..size);
    for place in dead.clone() {
        network.kill(place);
    }
    network.run_for(20 * ROUND_MS);
    for by in alive.clone() {
        for of in dead.clone() {
            assert!(network.is_convicted(by, of), "{by} has not convicted {of} at {loss}");
        }
        for of in alive.clone().filter(|of| *of != by) {
            assert!(!network.is_convicted(by, of), "{by} has convicted {of} at {loss}");
        }
    }
    assert_eq!(network.false_convictions.first(), None, "{size} nodes at {loss}");
}

#[test]
fn the_dead_are_convicted_within_20_s_and_nobody_else() {
    check_detection(200, 0.0, 60);
    check_detection(200, 0.25, 120);
}

#[test]
fn among_a_million_pairs_nobody_is_convicted_falsely() {
    // 36 s, 10,000 pair-hours: at most one false conviction would be allowed.
    check_detection(1_000, 0.25, 16);
}

#[test]
fn frozen_nodes_neither_convict_the_healthy_nor_make_others_do() {
    const SIZE: usize = 100;
    for freeze_s in [5, 12, 30] {
        let mut network = Network::new(SIZE, 0.0, freeze_s);
        network.detect();
        network.run_for(30 * ROUND_MS);
        let frozen = |place: usize| place.is_multiple_of(10);
        for place in (0..SIZE).filter(|place| frozen(*place)) {
            network.freeze(place);
        }
        network.run_for(freeze_s * ROUND_MS);
        let healthy = |network: &Network, by: usize| {
            (0..SIZE).filter(|of| *of != by && !frozen(*of)).all(|of| !network.is_convicted(by, of))
        };
        assert!((0..SIZE).filter(|by| !frozen(*by)).all(|by| healthy(&network, by)));
        for place in (0..SIZE).filter(|place| frozen(*place)) {
            network.thaw(place);
        }
        network.run_for(10 * ROUND_MS);
        assert!((0..SIZE).all(|by| healthy(&network, by)), "after {freeze_s} s");
        let of_healthy = network.false_convictions.iter().find(|false_one| !frozen(false_one.of));
        assert_eq!(of_healthy, None, "after {freeze_s} s");
    }
}
