//! What each consistency level waits for, after Cassandra's `ConsistencyLevel.blockFor`, and the law
//! that makes levels worth their names: a read meets the write before it where R + W > N.

mod cluster;

use std::collections::BTreeMap;

use cluster::{KEYSPACE, members, ring, topology};
use proptest::collection::vec;
use proptest::{prop_assert, prop_assert_eq, proptest};
use starling_ring::ConsistencyLevel::{
    All, Any, Count, EachQuorum, LocalOne, LocalQuorum, LocalSerial, One, Quorum, Serial, Three,
    Two,
};
use starling_ring::{
    ConsistencyError, ConsistencyLevel, ReplicationStrategy, Requirement, Ring, SlotGrid, claim,
};

const NAMED: [(ConsistencyLevel, &str); 11] = [
    (Any, "ANY"),
    (One, "ONE"),
    (Two, "TWO"),
    (Three, "THREE"),
    (Quorum, "QUORUM"),
    (All, "ALL"),
    (LocalOne, "LOCAL_ONE"),
    (LocalQuorum, "LOCAL_QUORUM"),
    (EachQuorum, "EACH_QUORUM"),
    (Serial, "SERIAL"),
    (LocalSerial, "LOCAL_SERIAL"),
];

/// A cluster of as many nodes in each datacenter as it keeps replicas, and one more.
fn keeping(datacenters: &[(&str, u8)], strategy: ReplicationStrategy) -> Ring {
    let places: Vec<_> = datacenters
        .iter()
        .flat_map(|(name, factor)| vec![(*name, "r1"); usize::from(*factor) + 1])
        .collect();
    let members = members(&places);
    let slots = claim(&members, SlotGrid::new(4).expect("4 bits are accepted"));
    ring(members, slots, strategy)
}

fn needs(
    ring: &Ring,
    level: ConsistencyLevel,
    here: &str,
) -> Result<Requirement, ConsistencyError> {
    let placement = ring.keyspace(KEYSPACE).expect("the ring has the keyspace");
    level.requirement(placement, here)
}

fn total(ring: &Ring, level: ConsistencyLevel, here: &str) -> Result<u8, ConsistencyError> {
    needs(ring, level, here).map(|requirement| requirement.total)
}

#[test]
fn levels_in_one_datacenter_block_for_what_cassandras_do() {
    // By replication factor from 1: QUORUM, and the levels that a factor is too small for.
    let quorums = [1, 2, 2, 3, 3, 4, 4];
    for (factor, quorum) in (1..=7_u8).zip(quorums) {
        let simple = ReplicationStrategy::Simple { replication_factor: factor };
        for strategy in [simple, topology(&[("dc1", factor)])] {
            let ring = keeping(&[("dc1", factor)], strategy);
            let needed = |level| total(&ring, level, "dc1");
            let or_too_many = |required| {
                let error =
                    ConsistencyError::NotEnoughReplicas { required, replication_factor: factor };
                if required <= factor { Ok(required) } else { Err(error) }
            };
            assert_eq!(needed(One), Ok(1));
            assert_eq!(needed(Two), or_too_many(2));
            assert_eq!(needed(Three), or_too_many(3));
            assert_eq!(needed(Quorum), Ok(quorum));
            assert_eq!(needed(All), Ok(factor));
            assert_eq!(needed(LocalOne), Ok(1));
            assert_eq!(needed(LocalQuorum), Ok(quorum));
            assert_eq!(needed(EachQuorum), Ok(quorum));
            for count in 1..=9 {
                assert_eq!(needed(Count(count)), or_too_many(count));
            }
        }
    }
}

#[test]
fn levels_over_datacenters_say_where() {
    let ring = keeping(&[("dc1", 3), ("dc2", 5)], topology(&[("dc1", 3), ("dc2", 5)]));
    let at = |places: &[(&str, u8)]| -> BTreeMap<String, u8> {
        places.iter().map(|(name, needed)| ((*name).to_owned(), *needed)).collect()
    };
    let all = |level, here, total, places: &[(&str, u8)]| {
        let expected = Requirement { total, per_datacenter: at(places) };
        assert_eq!(needs(&ring, level, here), Ok(expected), "{level} from {here}");
    };
    for here in ["dc1", "dc2", "elsewhere"] {
        all(One, here, 1, &[]);
        all(Quorum, here, 5, &[]);
        all(All, here, 8, &[]);
        all(Count(6), here, 6, &[]);
        all(EachQuorum, here, 5, &[("dc1", 2), ("dc2", 3)]);
    }
    all(LocalOne, "dc1", 1, &[("dc1", 1)]);
    all(LocalQuorum, "dc1", 2, &[("dc1", 2)]);
    all(LocalQuorum, "dc2", 3, &[("dc2", 3)]);
    for level in [LocalOne, LocalQuorum] {
        let refused = ConsistencyError::NoReplicasHere { datacenter: "elsewhere".to_owned() };
        assert_eq!(needs(&ring, level, "elsewhere"), Err(refused));
    }
}

#[test]
fn a_datacenter_of_no_replicas_has_no_quorum_to_wait_for() {
    let ring = keeping(&[("dc1", 3), ("dc2", 0)], topology(&[("dc1", 3), ("dc2", 0)]));
    let expected = BTreeMap::from([("dc1".to_owned(), 2)]);
    let each = needs(&ring, EachQuorum, "dc2").expect("dc1 has a quorum");
    assert_eq!((each.total, each.per_datacenter), (2, expected));
    let refused = ConsistencyError::NoReplicasHere { datacenter: "dc2".to_owned() };
    assert_eq!(needs(&ring, LocalQuorum, "dc2"), Err(refused));
}

#[test]
fn a_simple_strategy_over_datacenters_promises_no_place() {
    let simple = ReplicationStrategy::Simple { replication_factor: 3 };
    let ring = keeping(&[("dc1", 3), ("dc2", 3)], simple);
    assert_eq!(total(&ring, Quorum, "dc1"), Ok(2));
    let refused = ConsistencyError::NoReplicasHere { datacenter: "dc1".to_owned() };
    assert_eq!(total(&ring, LocalQuorum, "dc1"), Err(refused));
}

#[test]
fn what_is_not_built_is_refused_and_never_weakened() {
    let ring = keeping(&[("dc1", 3)], topology(&[("dc1", 3)]));
    for level in [Any, Serial, LocalSerial] {
        let refused = needs(&ring, level, "dc1").expect_err("the level is not built");
        assert_eq!(refused, ConsistencyError::NotSupportedYet { level });
        assert_eq!(refused.to_string(), format!("consistency level {level} is not supported yet"));
    }
    assert_eq!(needs(&ring, Count(0), "dc1"), Err(ConsistencyError::Zero));
}

#[test]
fn names_are_read_in_any_case_and_written_as_cassandras() {
    for (level, name) in NAMED {
        assert_eq!(level.to_string(), name);
        assert_eq!(name.parse(), Ok(level));
        assert_eq!(name.to_lowercase().parse(), Ok(level));
    }
    assert_eq!("4".parse(), Ok(Count(4)));
    assert_eq!(Count(255).to_string(), "255");
    for wrong in ["", "0", "256", "-1", "quorom", " one", "1.0"] {
        let said = wrong.parse::<ConsistencyLevel>().expect_err("no level").to_string();
        assert!(said.starts_with(&format!("{wrong:?} is no consistency level")), "{said}");
        assert!(said.contains("local_quorum") && said.contains("a number"), "{said}");
    }
}

/// The fewest replicas that a read and a write must share, however the answers fall.
fn shared_at_least(read: u8, write: u8, replicas: u8) -> u8 {
    (read + write).saturating_sub(replicas)
}

proptest! {
    #[test]
    fn quorums_of_every_kind_meet(factors in vec(1..=7_u8, 1..=3), here in 0..3_usize) {
        let names = ["dc1", "dc2", "dc3"];
        let datacenters: Vec<(&str, u8)> = names.into_iter().zip(factors.clone()).collect();
        let ring = keeping(&datacenters, topology(&datacenters));
        let all: u8 = factors.iter().sum();
        let (name, local) = datacenters[here % datacenters.len()];
        let needed = |level| total(&ring, level, name).expect("the level is possible");
        let quorum = needed(Quorum);
        prop_assert!(shared_at_least(quorum, quorum, all) >= 1);
        prop_assert!(2 * (quorum - 1) <= all, "more than a quorum needs");
        prop_assert!(shared_at_least(needed(One), needed(All), all) >= 1);
        let local_quorum = needed(LocalQuorum);
        prop_assert!(shared_at_least(local_quorum, local_quorum, local) >= 1);
        let each = needs(&ring, EachQuorum, name).expect("the level is possible");
        prop_assert_eq!(each.per_datacenter.values().sum::<u8>(), each.total);
        prop_assert!(shared_at_least(each.per_datacenter[name], local_quorum, local) >= 1);
        for (other, factor) in &datacenters {
            prop_assert!(shared_at_least(each.per_datacenter[*other], each.per_datacenter[*other], *factor) >= 1);
        }
        prop_assert!(quorum <= all && each.total <= all);
    }
}
