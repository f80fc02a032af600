//! Keys become the tokens that Cassandra and its drivers compute, and under SipHash the tokens of the
//! published algorithm: golden vectors, because a partitioner that differs misplaces every key.

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::{prop_assert_eq, prop_assert_ne, proptest};
use starling_ring::{Partitioner, SlotGrid, Token};

/// `00 01 .. 0f`, the key of SipHash's published vectors.
const REFERENCE_KEY: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// SipHash-1-3 of the first 0, 1, 2 ... bytes of `00 01 02 ..` under [`REFERENCE_KEY`], from the
/// authors' program with one compression and three final rounds.
const SIP_1_3: [u64; 18] = [
    0xabac_0158_050f_c4dc,
    0xc9f4_9bf3_7d57_ca93,
    0x82cb_9b02_4dc7_d44d,
    0x8bf8_0ab8_e7dd_f7fb,
    0xcf75_5760_88d3_8328,
    0xdef9_d52f_4953_3b67,
    0xc50d_2b50_c59f_22a7,
    0xd392_7d98_9bb1_1140,
    0x3690_9511_8d29_9a8e,
    0x25a4_8eb3_6c06_3de4,
    0x79de_85ee_92ff_097f,
    0x70c1_18c1_f94d_c352,
    0x78a3_84b1_57b4_d9a2,
    0x306f_760c_1229_ffa7,
    0x605a_a111_c0f9_5d34,
    0xd320_d86d_2a51_9956,
    0xcc4f_dd1a_7d90_8b66,
    0x9cf2_6890_63db_d80c,
];

/// Their Murmur3 hashes are `i64::MIN` and `i64::MAX`: found by running the hash backwards, as
/// Cassandra's `LongToken.keyForToken` does.
const MIN_HASHED: [u8; 16] = 0xbc42_4d5a_a489_3b9d_fe57_5066_1b18_4076_u128.to_be_bytes();
const MAX_HASHED: [u8; 16] = 0x8285_c41d_dba3_52e8_187e_457e_77e3_3104_u128.to_be_bytes();

fn murmur3(key: &[u8]) -> i64 {
    Partitioner::Murmur3.token(key).0
}

#[test]
fn murmur3_tokens_are_those_of_cassandras_drivers() {
    // The vectors of the DataStax drivers' own tests, which took them from a running Cassandra.
    let golden: [(&[u8], i64); 22] = [
        (b"123", -7_468_325_962_851_647_638),
        (b"9223372036854775807", 7_162_290_910_810_015_547),
        (b"a", -8_839_064_797_231_613_815),
        (b"hello", -3_758_069_500_696_749_310),
        (&[0x10; 8], 1_446_172_840_243_228_796),
        (&[0; 16], 5_457_549_051_747_178_710),
        (&[0; 4], -3_485_513_579_396_041_028),
        (&[0], 5_048_724_184_180_415_669),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], 597_835_946_752_277_653),
        (&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], -5_563_837_382_979_743_776),
        // Bytes over 127, where Cassandra's variant leaves the published MurmurHash3.
        (&[0xff; 16], -2_824_192_546_314_762_522),
        (&[0xfe; 16], -833_317_529_301_936_754),
        (&[0xfe; 17], -1_672_437_813_826_982_685),
        (&[0xfe; 8], -8_927_430_733_708_461_935),
        (&[0xfe; 4], 4_566_408_979_886_474_012),
        (&[0xff], -4_442_228_696_663_692_417),
        (&[0x80], -5_284_281_814_142_962_636),
        (&[0xe2, 0xe7], -8_582_699_461_035_929_883),
        (&[0xe2, 0xe7, 0xe2, 0xe7, 0xe2, 0xe7, 1], 2_222_373_981_930_033_306),
        (&[0, 0xff, 0xff, 0xff], 123_573_637_386_978_882),
        (&[0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89], -7_623_170_703_309_721_106),
        (&[0, 0xff, 0x10, 0xfa, 0x99].repeat(10), 5_837_342_703_291_459_765),
    ];
    for (key, token) in golden {
        assert_eq!(murmur3(key), token, "key {key:02x?}");
    }
}

#[test]
fn the_smallest_token_is_kept_for_the_empty_key() {
    // `Murmur3Partitioner.getToken` answers MINIMUM before it hashes; the hash would be 0.
    assert_eq!(murmur3(&[]), i64::MIN);
    assert_eq!(murmur3(&MIN_HASHED), i64::MAX, "as `Murmur3Partitioner.normalize`");
    assert_eq!(murmur3(&MAX_HASHED), i64::MAX);
}

#[test]
fn sip_tokens_are_siphash_1_3() {
    let text: Vec<u8> = (0..18).collect();
    let partitioner = Partitioner::Sip { key: REFERENCE_KEY };
    for (len, hash) in SIP_1_3.into_iter().enumerate() {
        assert_eq!(partitioner.token(&text[..len]), Token(hash.cast_signed()), "{len} bytes");
    }
}

#[test]
fn an_ordered_run_of_keys_is_spread_evenly_over_the_slots() {
    const KEYS: u32 = 64_000;
    let grid = SlotGrid::new(6).expect("6 bits are accepted");
    for partitioner in [Partitioner::Murmur3, Partitioner::Sip { key: REFERENCE_KEY }] {
        let mut held = vec![0_u32; grid.count() as usize];
        for number in 0..KEYS {
            let token = partitioner.token(format!("user{number}").as_bytes());
            held[grid.slot_of(token).0 as usize] += 1;
        }
        // 1,000 expected in each, with a standard deviation of 31: five of them.
        assert!(held.iter().all(|held| (840..=1_160).contains(held)), "{partitioner:?}: {held:?}");
    }
}

proptest! {
    #[test]
    fn no_key_but_the_empty_one_has_the_smallest_murmur3_token(key in vec(any::<u8>(), 1..64)) {
        prop_assert_ne!(murmur3(&key), i64::MIN);
    }

    #[test]
    fn a_token_depends_on_the_cluster_key_and_on_nothing_else(
        key in vec(any::<u8>(), 0..64), one in any::<[u8; 16]>(), bit in 0..128_usize,
    ) {
        let mut other = one;
        other[bit / 8] ^= 1 << (bit % 8);
        let token = Partitioner::Sip { key: one }.token(&key);
        prop_assert_eq!(Partitioner::Sip { key: one }.token(&key), token);
        prop_assert_ne!(Partitioner::Sip { key: other }.token(&key), token);
    }
}
