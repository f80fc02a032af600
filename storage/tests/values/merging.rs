//! The join over bytes: laws over any byte strings, nothing dropped, no panic.

use starling_storage::values::{Causal, DecodeError, alarms, merge, verify};

use crate::encoding::{CAUSAL, OPAQUE, envelope};
use crate::generate::{Random, Values, state};

/// Good states, damaged ones, junk, the empty string, and merges of all these.
fn operand(random: &mut Random, depth: u64) -> Vec<u8> {
    match random.below(8) {
        0..=2 => state(random, Values::Conflicting).encode().to_vec(),
        3 => {
            let mut damaged = state(random, Values::ByDot).encode().to_vec();
            let at = random.index(damaged.len());
            damaged[at] ^= 1;
            damaged
        }
        4 => random.bytes(3),
        5 => envelope(CAUSAL, &random.bytes(6)),
        6 => envelope(OPAQUE, &random.bytes(4)),
        _ if depth == 0 => Vec::new(),
        _ => {
            let (a, b) = (operand(random, depth - 1), operand(random, depth - 1));
            merge(Some(&a), [&b[..]])
        }
    }
}

#[test]
fn any_byte_strings_form_a_semilattice() {
    let mut random = Random(20);
    let mut opaque = 0;
    for _ in 0..60_000 {
        let a = operand(&mut random, 2);
        let b = operand(&mut random, 2);
        let c = operand(&mut random, 2);
        let join = |a: &[u8], b: &[u8]| merge(Some(a), [b]);
        let ab = join(&a, &b);
        assert_eq!(ab, join(&b, &a), "commutative: {a:?} {b:?}");
        assert_eq!(ab, join(&ab, &b), "absorbing: {a:?} {b:?}");
        assert_eq!(join(&ab, &ab), ab, "idempotent: {ab:?}");
        let abc = join(&ab, &c);
        assert_eq!(abc, join(&a, &join(&b, &c)), "associative: {a:?} {b:?} {c:?}");
        assert_eq!(abc, merge(None, [&c[..], &a, &b, &a]), "all at once");
        let one = merge(None, [&a[..]]);
        assert_eq!(join(&one, &b), ab, "reading once or twice: {a:?}");
        match verify(&abc) {
            Ok(()) => {}
            Err(DecodeError::Opaque { .. }) => opaque += 1,
            Err(error) => panic!("{error}: {abc:?}"),
        }
    }
    assert!(opaque > 10_000);
}

#[test]
fn damage_is_kept_beside_the_good_part() {
    let mut random = Random(21);
    for _ in 0..500 {
        let good = state(&mut random, Values::ByDot);
        let other = state(&mut random, Values::ByDot).encode();
        let bytes = good.encode();
        let bit = random.index(other.len() * 8);
        let mut damaged = other.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);

        let before = alarms().opaque_merges;
        let merged = merge(Some(&bytes), [&damaged[..]]);
        assert!(alarms().opaque_merges > before);
        let error = Causal::decode(merged.clone().into()).unwrap_err();
        assert_eq!(error, DecodeError::Opaque { operands: 1 });
        let holds = |part: &[u8]| merged.windows(part.len()).any(|window| window == part);
        assert!(holds(&damaged));
        assert!(good.is_absent() || holds(&bytes));

        // A second good operand joins the good part; the damaged one stays as it is.
        let joined = good.join(&Causal::decode(other.clone()).unwrap());
        let again = merge(Some(&merged), [&other[..]]);
        assert_eq!(again, merge(Some(&joined.encode()), [&damaged[..]]));
    }
}

#[test]
fn merging_one_canonical_state_changes_nothing() {
    let mut random = Random(22);
    for _ in 0..5_000 {
        let bytes = state(&mut random, Values::Conflicting).encode();
        assert_eq!(merge(None, [&bytes[..]]), bytes);
        assert_eq!(merge(Some(&bytes), []), bytes);
        assert_eq!(merge(Some(&bytes), [&bytes[..]]), bytes);
    }
    assert_eq!(merge(None, []), Causal::absent().encode());
}

#[test]
fn a_long_chain_of_operands_equals_its_join() {
    let mut random = Random(23);
    let states: Vec<_> = (0..200).map(|_| state(&mut random, Values::ByDot)).collect();
    let encoded: Vec<_> = states.iter().map(Causal::encode).collect();
    let joined = states.iter().fold(Causal::absent(), |joined, state| joined.join(state));
    let merged = merge(None, encoded.iter().map(|bytes| &bytes[..]));
    assert_eq!(merged, joined.encode());
}

#[test]
fn opaque_values_nested_deeply_do_not_exhaust_the_stack() {
    let mut bytes = b"junk".to_vec();
    for _ in 0..20_000 {
        let len = leb128(bytes.len() as u64);
        bytes = envelope(OPAQUE, &[&len[..], &bytes, &[1, 0]].concat());
        if bytes.len() > 300_000 {
            break;
        }
    }
    let error = verify(&merge(None, [&bytes[..]])).unwrap_err();
    assert_eq!(error, DecodeError::Opaque { operands: 1 });
}

#[test]
fn opaque_values_have_one_encoding() {
    let good = state(&mut Random(24), Values::ByDot).encode();
    let absent = Causal::absent().encode();
    let with = |causal: &[u8], tail: &[u8]| {
        let payload = [&leb128(causal.len() as u64)[..], causal, tail].concat();
        verify(&envelope(OPAQUE, &payload)).unwrap_err()
    };
    assert_eq!(with(&good, &[1, 1, 7]), DecodeError::Opaque { operands: 1 });
    for (causal, tail) in [
        (&good, &[0][..]),
        (&good, &[2, 1, 7, 1, 7]),
        (&good, &[2, 1, 8, 1, 7]),
        (&good, &[1, 1, 7, 0]),
        (&absent, &[1, 1, 7]),
    ] {
        let error = with(causal, tail);
        assert!(matches!(error, DecodeError::NotCanonical(_)), "{tail:?}: {error}");
    }
    assert_eq!(with(&good, &[1, 9, 7]), DecodeError::Truncated);
}

fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
