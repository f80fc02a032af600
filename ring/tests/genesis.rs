//! Seeds introduce themselves, in any order and as often as they like, and every one of them finds
//! the same founders, or says what is wrong. What was wrong changes nothing.

mod founder;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use founder::founder;
use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};
use starling_ring::{Candidate, Genesis, GenesisError};

fn seeds(count: u8) -> BTreeSet<SocketAddr> {
    (0..count).map(|number| founder(number).address).collect()
}

fn genesis(me: u8, count: u8) -> Genesis {
    Genesis::new(founder(me), seeds(count)).expect("this node is a seed")
}

/// `wrong` is refused as `expected`, in words that contain `words`, and leaves no trace.
fn check_refused(genesis: &mut Genesis, wrong: Candidate, expected: &GenesisError, words: &str) {
    let (known, missing) = (genesis.known(), genesis.missing());
    let found = genesis.learn(wrong).expect_err("this contradicts what is known");
    assert_eq!(found, *expected);
    assert!(found.to_string().contains(words), "{found}");
    assert_eq!((genesis.known(), genesis.missing()), (known, missing), "a refusal left a trace");
}

#[test]
fn a_seed_alone_founds_at_once() {
    assert_eq!(genesis(0, 1).complete(), Some(vec![founder(0)]));
}

#[test]
fn nobody_founds_before_every_seed_is_known() {
    let mut genesis = genesis(1, 3);
    assert_eq!(genesis.complete(), None);
    assert_eq!(genesis.missing(), [founder(0).address, founder(2).address]);
    assert_eq!(genesis.learn(founder(2)), Ok(true));
    assert_eq!(genesis.learn(founder(2)), Ok(false), "no news");
    assert_eq!(genesis.learn(founder(1)), Ok(false), "a node knows itself");
    assert_eq!((genesis.complete(), genesis.missing()), (None, vec![founder(0).address]));
    assert_eq!(genesis.learn(founder(0)), Ok(true));
    assert_eq!(genesis.complete(), Some(vec![founder(0), founder(1), founder(2)]));
    assert!(genesis.missing().is_empty());
}

#[test]
fn a_node_outside_the_seed_list_does_not_found() {
    let me = founder(3);
    let error = Genesis::new(me.clone(), seeds(3)).expect_err("the list does not name the node");
    let listed = seeds(3).into_iter().collect();
    assert_eq!(error, GenesisError::NotASeed { me: me.address, seeds: listed });
    assert!(error.to_string().contains("127.0.0.4:7000; add it"), "{error}");
}

#[test]
fn contradictions_are_refused_by_name() {
    let mut genesis = genesis(0, 3);
    assert_eq!(genesis.learn(founder(1)), Ok(true));
    let (address, other) = (founder(1).address, founder(2).address);

    let stranger = GenesisError::Stranger { address: founder(4).address };
    check_refused(&mut genesis, founder(4), &stranger, "not in the seed list");

    let foreign = Candidate { config_hash: [8; 32], ..founder(2) };
    let error = GenesisError::Configuration { address: other };
    check_refused(&mut genesis, foreign, &error, "another cluster_name");

    let astray = Candidate { seeds_hash: [8; 32], ..founder(2) };
    let error = GenesisError::SeedList { address: other };
    check_refused(&mut genesis, astray, &error, "another list of seeds");

    let wiped = Candidate { host_id: founder(9).host_id, ..founder(1) };
    let (known, found) = (founder(1).host_id, founder(9).host_id);
    let error = GenesisError::Wiped { address, known, found };
    check_refused(&mut genesis, wiped, &error, "it was wiped");

    let copied = Candidate { address: other, ..founder(1) };
    let error = GenesisError::Twice { host_id: known, first: address, second: other };
    check_refused(&mut genesis, copied, &error, "a data directory was copied");

    let changes: [fn(&mut Candidate); 4] = [
        |candidate| candidate.nonce = [0; 32],
        |candidate| candidate.rack.push('x'),
        |candidate| candidate.datacenter.push('x'),
        |candidate| candidate.client_address.set_port(1),
    ];
    for change in changes {
        let mut changed = founder(1);
        change(&mut changed);
        check_refused(&mut genesis, changed, &GenesisError::Changed { address }, "has changed");
    }
    assert_eq!(genesis.learn(founder(2)), Ok(true), "and the right one is still taken");
}

#[test]
fn a_copy_of_this_node_s_own_directory_is_noticed() {
    let copied = Candidate { address: founder(1).address, ..founder(0) };
    let (first, second) = (founder(0).address, founder(1).address);
    let error = GenesisError::Twice { host_id: founder(0).host_id, first, second };
    check_refused(&mut genesis(0, 2), copied, &error, "answers at 127.0.0.1:7000 and at 127.0.0.2");
}

proptest! {
    #[test]
    fn the_order_of_introductions_does_not_matter(me in 0..5_u8, heard in vec(0..5_u8, 0..20)) {
        let mut genesis = genesis(me, 5);
        for number in &heard {
            prop_assert!(genesis.learn(founder(*number)).is_ok());
        }
        let known: BTreeSet<u8> = heard.into_iter().chain([me]).collect();
        let expected: Vec<Candidate> = known.iter().map(|number| founder(*number)).collect();
        prop_assert_eq!(genesis.missing().len(), 5 - expected.len());
        prop_assert_eq!(genesis.complete(), (expected.len() == 5).then_some(expected));
    }
}
