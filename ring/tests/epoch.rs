//! The first epoch: the same bytes for every founder, other bytes for every other cluster, and
//! nothing founded that could not hold its keyspaces.

mod founder;

use std::collections::BTreeMap;

use founder::founder;
use proptest::prelude::{Just, Strategy};
use proptest::{prop_assert_eq, proptest};
use starling_ring::{
    BucketMode, Candidate, Epoch, GenesisError, Keyspace, PartitionerKind, ReplicationStrategy,
    SlotBitsError,
};

const SLOT_BITS: u8 = 6;

type Change = fn(&mut Epoch);

fn founders(count: u8) -> Vec<Candidate> {
    (0..count).map(founder).collect()
}

fn keyspace(name: &str, strategy: ReplicationStrategy) -> Keyspace {
    let buckets = BTreeMap::from([("carts".to_owned(), BucketMode::Lww)]);
    Keyspace { name: name.to_owned(), strategy, partitioner: PartitionerKind::Sip, buckets }
}

fn simple(replication_factor: u8) -> ReplicationStrategy {
    ReplicationStrategy::Simple { replication_factor }
}

fn topology(datacenter: &str, factor: u8) -> ReplicationStrategy {
    let datacenters = BTreeMap::from([(datacenter.to_owned(), factor)]);
    ReplicationStrategy::NetworkTopology { datacenters }
}

fn keyspaces() -> Vec<Keyspace> {
    vec![keyspace("demo", simple(3)), keyspace("app", topology("dc1", 2))]
}

fn found(candidates: Vec<Candidate>) -> Epoch {
    let founded = Epoch::genesis(candidates, SLOT_BITS, keyspaces(), None);
    founded.expect("three founders hold these keyspaces").0
}

#[test]
fn the_first_epoch_names_all_founders_by_host_id() {
    let (epoch, secret) = Epoch::genesis(founders(4), SLOT_BITS, keyspaces(), None)
        .expect("four founders hold these keyspaces");
    let expected: Vec<_> = founders(4).iter().map(Candidate::to_member).collect();
    assert_eq!((epoch.n, epoch.parent_hash.0), (1, [0; 32]));
    assert_eq!(epoch.members, expected);
    assert_eq!(epoch.slots.len(), 1 << SLOT_BITS);
    let names: Vec<&str> = epoch.keyspaces.iter().map(|keyspace| keyspace.name.as_str()).collect();
    assert_eq!(names, ["app", "demo"]);
    let hash = epoch.hash().0;
    assert_eq!(epoch.cluster_id().0, hash[..16]);
    assert!(!epoch.encode().windows(32).any(|part| part == secret.0), "the secret is in the epoch");
}

#[test]
fn the_secret_comes_from_its_file_or_from_every_nonce() {
    let secret = |candidates, given| {
        let founded = Epoch::genesis(candidates, SLOT_BITS, keyspaces(), given);
        let (epoch, secret) = founded.expect("three founders hold these keyspaces");
        (secret.0, epoch.secret_hash)
    };
    let (drawn, drawn_hash) = secret(founders(3), None);
    assert_eq!(secret(founders(3), Some([5; 32])).0, [5; 32]);
    assert_ne!(secret(founders(3), Some([5; 32])).1, drawn_hash, "the epoch tells secrets apart");
    for number in 0..3 {
        let mut others = founders(3);
        others[number].nonce[31] ^= 1;
        assert_ne!(secret(others, None).0, drawn, "the nonce of founder {number} does not count");
    }
}

#[test]
fn every_field_changes_the_bytes() {
    let epoch = found(founders(3));
    let changes: [(&str, Change); 14] = [
        ("n", |epoch| epoch.n = 2),
        ("parent", |epoch| epoch.parent_hash.0[0] ^= 1),
        ("host", |epoch| epoch.members[0].host_id = founder(9).host_id),
        ("address", |epoch| epoch.members[0].address.set_port(1)),
        ("client address", |epoch| epoch.members[0].client_address.set_port(1)),
        ("datacenter", |epoch| epoch.members[0].datacenter.push('x')),
        ("rack", |epoch| epoch.members[0].rack.push('x')),
        ("owner", |epoch| epoch.slots.swap(0, 1)),
        ("slot bits", |epoch| epoch.slot_bits += 1),
        ("keyspace", |epoch| epoch.keyspaces[0].name.push('x')),
        ("strategy", |epoch| epoch.keyspaces[1].strategy = simple(2)),
        ("partitioner", |epoch| epoch.keyspaces[0].partitioner = PartitionerKind::Murmur3),
        ("mode", |epoch| epoch.keyspaces[0].buckets.clear()),
        ("secret", |epoch| epoch.secret_hash[0] ^= 1),
    ];
    for (field, change) in changes {
        let mut other = epoch.clone();
        change(&mut other);
        assert_ne!(other.encode(), epoch.encode(), "{field}");
        assert_ne!(other.hash(), epoch.hash(), "{field}");
    }
}

#[test]
fn the_bytes_do_not_run_into_one_another() {
    let mut one = found(founders(3));
    let mut other = one.clone();
    (one.members[0].datacenter, one.members[0].rack) = ("ab".to_owned(), "c".to_owned());
    (other.members[0].datacenter, other.members[0].rack) = ("a".to_owned(), "bc".to_owned());
    assert_ne!(one.encode(), other.encode());
}

#[test]
fn the_format_of_the_first_epoch_stays() {
    // The id of a cluster is this hash: founders of one release and the next must arrive at one.
    let hex: String = found(founders(3)).cluster_id().to_string();
    assert_eq!(hex, "b8dd9360b74a8f4e9934f811aea9bc41");
}

#[test]
fn a_keyspace_that_the_founders_cannot_hold_is_refused() {
    let refused = |strategy, datacenter: Option<&str>, wanted, members| {
        let keyspaces = vec![keyspace("big", strategy)];
        let error = Epoch::genesis(founders(3), SLOT_BITS, keyspaces, None)
            .expect_err("three founders cannot hold it");
        let datacenter = datacenter.map(str::to_owned);
        let keyspace = "big".to_owned();
        let expected = GenesisError::ReplicationFactor { keyspace, datacenter, wanted, members };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("keyspace \"big\" wants"), "{error}");
    };
    refused(simple(4), None, 4, 3);
    refused(simple(0), None, 0, 3);
    refused(topology("dc1", 4), Some("dc1"), 4, 3);
    refused(topology("dc2", 1), Some("dc2"), 1, 0);
    let error = Epoch::genesis(founders(3), 17, keyspaces(), None).expect_err("17 bits");
    assert_eq!(error, GenesisError::SlotBits(SlotBitsError { found: 17 }));
}

proptest! {
    #[test]
    fn every_founder_arrives_at_the_same_bytes(shuffled in Just(founders(7)).prop_shuffle()) {
        let (mine, theirs) = (found(founders(7)), found(shuffled));
        prop_assert_eq!(mine.encode(), theirs.encode());
        prop_assert_eq!(mine.cluster_id(), theirs.cluster_id());
    }
}
