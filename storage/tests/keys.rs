//! Storage keys: they round-trip, sort as the ring does, and anything else is refused.

#![allow(clippy::unwrap_used, reason = "test code")]

use starling_storage::keys::{KIND_CAUSAL, KeyError, MAX_KEY, decode, storage_key, table_id};

const TABLES: [u32; 4] = [0, 1, 0x8000_0000, u32::MAX];
const TOKENS: [i64; 7] = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
const KEYS: [&[u8]; 7] = [b"", b"\0", b"\xff", b"\0\0", b"ab", b"ac", b"abc"];

fn all() -> Vec<(u32, i64, &'static [u8])> {
    let mut all = Vec::new();
    for table in TABLES {
        for token in TOKENS {
            all.extend(KEYS.map(|key| (table, token, key)));
        }
    }
    all
}

#[test]
fn keys_round_trip() {
    for (table, token, partition_key) in all() {
        let key = storage_key(table, token, partition_key);
        let parts = decode(&key).unwrap();
        assert_eq!((parts.table, parts.token, parts.partition_key), (table, token, partition_key));
        assert_eq!(key.last(), Some(&KIND_CAUSAL));
    }
    let longest = vec![7; MAX_KEY];
    let key = storage_key(1, 2, &longest);
    assert_eq!(decode(&key).unwrap().partition_key, longest);
}

#[test]
fn keys_sort_by_table_then_token_then_partition() {
    let mut by_bytes = all();
    by_bytes.sort_by_key(|(table, token, key)| storage_key(*table, *token, key));
    let mut by_parts = all();
    by_parts.sort_by_key(|(table, token, key)| (*table, *token, key.len(), *key));
    assert_eq!(by_bytes, by_parts);
}

#[test]
fn no_key_is_a_prefix_of_another() {
    let mut keys: Vec<_> =
        all().iter().map(|(table, token, key)| storage_key(*table, *token, key)).collect();
    keys.sort();
    assert!(keys.windows(2).all(|pair| !pair[1].starts_with(&pair[0])));
}

#[test]
fn the_layout_does_not_change() {
    let key = storage_key(0x8000_0001, -2, b"k");
    let expected = [0x80, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0, 1, b'k', 8];
    assert_eq!(key, expected);
}

#[test]
fn anything_else_is_refused() {
    let key = storage_key(1, 2, b"key");
    for len in 0..key.len() {
        assert_eq!(decode(&key[..len]), Err(KeyError::Length(len)));
    }
    let longer = [&key[..], &[8]].concat();
    assert_eq!(decode(&longer), Err(KeyError::Length(longer.len())));
    let mut row = key.clone();
    *row.last_mut().unwrap() = 0x10;
    assert_eq!(decode(&row), Err(KeyError::UnknownKind(0x10)));
}

#[test]
#[should_panic(expected = "limited to MAX_KEY")]
fn a_key_over_the_limit_is_a_broken_invariant() {
    storage_key(1, 2, &vec![0; MAX_KEY + 1]);
}

#[test]
fn table_ids_leave_the_lower_half_to_the_schema_and_do_not_change() {
    for name in ["demo.carts", "demo.load", "", "a.b"] {
        assert!(table_id(name) >= 0x8000_0000);
    }
    assert_ne!(table_id("demo.carts"), table_id("demo.load"));
    // The reference vector of XXH3 for no input is 2d06800538d394c2.
    assert_eq!(table_id(""), 0x8000_0000 | (0x38d3_94c2 & 0x7fff_ffff));
}
