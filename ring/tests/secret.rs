//! Keys derived from the cluster's secret: fixed for the life of a cluster, apart from one another,
//! and never printed.

use proptest::prelude::any;
use proptest::{prop_assert_eq, prop_assert_ne, proptest};
use starling_ring::ClusterSecret;

/// What 32 bytes of 7 derive.
const PARTITIONER: u128 = 0xc2aa_7cfc_a757_f2d1_2825_5101_77af_26c0;
const TOKEN_MAC: u128 = 0x98fe_f59e_a472_36bf_4350_e0e0_4c19_89d9;

#[test]
fn derivation_never_changes() {
    // SHA-256 over label and secret, each behind its length as a little-endian u64. Other keys would
    // misplace every stored key, and refuse every context that a client holds.
    let secret = ClusterSecret([7; 32]);
    assert_eq!(secret.partitioner_key(), PARTITIONER.to_be_bytes());
    assert_eq!(secret.token_mac_key(), TOKEN_MAC.to_be_bytes());
}

#[test]
fn the_secret_is_not_printed() {
    let printed = format!("{:?}", ClusterSecret([0xab; 32]));
    assert_eq!(printed, "ClusterSecret(redacted)");
}

proptest! {
    #[test]
    fn keys_follow_from_the_secret_alone(one in any::<[u8; 32]>(), bit in 0..256_usize) {
        let mut other = one;
        other[bit / 8] ^= 1 << (bit % 8);
        let [one, same, other] = [one, one, other].map(ClusterSecret);
        prop_assert_eq!(one.partitioner_key(), same.partitioner_key());
        prop_assert_eq!(one.token_mac_key(), same.token_mac_key());
        prop_assert_ne!(one.partitioner_key(), one.token_mac_key(), "one key for two ends");
        prop_assert_ne!(one.partitioner_key(), other.partitioner_key());
        prop_assert_ne!(one.token_mac_key(), other.token_mac_key());
    }
}
