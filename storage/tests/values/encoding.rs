//! The bytes: round trips, one encoding per state, and input that is damaged or hostile.

use bytes::Bytes;
use starling_storage::values::{
    Actor, Causal, Context, DecodeError, OperationId, digest, put_delta, verify,
};

use crate::generate::{Random, Values, state};

/// States of the usual shapes, and some of the unusual ones.
fn samples() -> Vec<Causal> {
    let me = Actor(0xfeed_beef_0123_4567);
    let now = 1_760_000_000_000_000;
    let operation = OperationId([7; 16]);
    let put = |state: &Causal, client: &Context, seq, len| {
        let value = Bytes::from(vec![9; len]);
        put_delta(state, client, me, seq, operation, Some(value), false)
    };
    let first = put(&Causal::absent(), &Context::new(), now, 128);
    let blind = put(&first, &Context::new(), now + 5, 0);
    let delete = put_delta(&first, first.context(), me, now + 9, operation, None, false);
    let both = first.join(&blind);
    let mut extreme = Context::new();
    extreme.insert(Actor(0), 0, 1);
    extreme.insert(Actor(u64::MAX), u64::MAX - 1, u64::MAX);
    extreme.insert(Actor(u64::MAX), 0, u64::MAX / 2);
    let extreme = Causal::from_parts(extreme, []).unwrap();
    let mut samples = vec![Causal::absent(), first, blind, delete, both, extreme];
    let mut random = Random(10);
    samples.extend((0..6).map(|_| state(&mut random, Values::Conflicting)));
    samples
}

#[test]
fn a_usual_value_costs_under_fifty_bytes_more_than_what_it_holds() {
    let put = samples()[1].encode();
    assert!(put.len() < 128 + 50, "{} bytes", put.len());
}

#[test]
fn encoding_round_trips_and_shares_the_input() {
    let mut random = Random(11);
    let many = (0..20_000).map(|_| state(&mut random, Values::Conflicting));
    for state in samples().into_iter().chain(many) {
        let bytes = state.encode();
        let decoded = Causal::decode(bytes.clone()).unwrap();
        assert_eq!(decoded, state);
        assert_eq!(decoded.encode(), bytes);
        verify(&bytes).unwrap();
        let range = bytes.as_ptr_range();
        for (_, sibling) in decoded.siblings() {
            assert!(sibling.value.is_empty() || range.contains(&sibling.value.as_ptr()));
        }
    }
}

#[test]
fn equal_digests_mean_equal_states() {
    let mut random = Random(12);
    let mut seen = std::collections::HashMap::new();
    for _ in 0..20_000 {
        let state = state(&mut random, Values::Conflicting);
        let earlier = seen.insert(digest(&state.encode()), state.clone());
        assert!(earlier.is_none_or(|earlier| earlier == state));
    }
    assert!(seen.len() > 1_000);
    assert_eq!(digest(b""), 0);
    assert_eq!(digest(&Causal::absent().encode()), 0);
    assert_ne!(digest(&samples()[1].encode()), 0);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut flips = 0;
    for sample in samples() {
        let bytes = sample.encode();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Causal::decode(damaged.into()).is_err(), "bit {bit} of {bytes:?}");
            flips += 1;
        }
    }
    assert!(flips > 5_000);
}

#[test]
fn every_truncation_and_extension_is_noticed() {
    for sample in samples() {
        let bytes = sample.encode();
        for len in 0..bytes.len() {
            assert!(Causal::decode(bytes.slice(..len)).is_err(), "{len}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert!(Causal::decode(longer.into()).is_err());
    }
}

/// An envelope with a right checksum around any payload.
pub fn envelope(header: [u8; 3], payload: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(payload);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

pub const CAUSAL: [u8; 3] = [1, 0x08, 0];
pub const OPAQUE: [u8; 3] = [1, 0x7f, 0];

/// Decoding accepts canonical bytes only: what it accepts, encoding gives back.
fn check_canonical(bytes: Vec<u8>) -> bool {
    match Causal::decode(bytes.clone().into()) {
        Ok(state) => {
            assert_eq!(state.encode(), bytes, "accepted another encoding");
            true
        }
        Err(_) => false,
    }
}

#[test]
fn damage_under_a_right_checksum_is_refused_or_another_state() {
    let mut random = Random(13);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..200_000 {
        let state = state(&mut random, Values::Conflicting).encode();
        let mut payload = state[3..state.len() - 4].to_vec();
        for _ in 0..=random.below(3) {
            let at = random.index(payload.len());
            match random.below(4) {
                0 => payload[at] = random.below(256) as u8,
                1 => payload[at] ^= 1 << random.below(8),
                2 => payload.insert(at, random.below(256) as u8),
                _ if payload.len() > 1 => {
                    payload.remove(at);
                }
                _ => {}
            }
        }
        match check_canonical(envelope(CAUSAL, &payload)) {
            true => accepted += 1,
            false => refused += 1,
        }
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} {refused}");
}

#[test]
fn random_payloads_never_panic() {
    let mut random = Random(14);
    for _ in 0..300_000 {
        let mut payload = random.bytes(40);
        // Small numbers make most fields plausible, so that decoding gets far.
        payload.iter_mut().for_each(|byte| *byte %= 4);
        check_canonical(envelope(CAUSAL, &payload));
        check_canonical(random.bytes(40));
    }
}

#[test]
fn each_way_of_not_being_canonical_is_named() {
    let actor = |id: u8| [id, 0, 0, 0, 0, 0, 0, 0];
    let one = |tail: &[u8]| [&[1][..], &actor(5), tail].concat();
    let sibling = |place: u8, back: u8| {
        let context = one(&[1, 0, 3]);
        [&context[..], &[1, place, back], &[0; 16], &[0]].concat()
    };
    let two_siblings = |first: u8, second: u8| {
        let context = one(&[1, 0, 3]);
        let entry = |back| [&[0, back][..], &[0; 16], &[0]].concat();
        [&context[..], &[2], &entry(first), &entry(second)].concat()
    };
    let check = |payload: Vec<u8>, expected: DecodeError| {
        let decoded = Causal::decode(envelope(CAUSAL, &payload).into());
        assert_eq!(decoded.unwrap_err(), expected, "{payload:?}");
    };
    let not_canonical = DecodeError::NotCanonical;
    assert!(check_canonical(envelope(CAUSAL, &sibling(0, 0))));
    assert!(check_canonical(envelope(CAUSAL, &two_siblings(2, 0))));
    check(sibling(1, 0), not_canonical("a sibling of an unknown actor"));
    check(sibling(0, 3), not_canonical("a sibling outside the context"));
    check(sibling(0, 4), not_canonical("a sibling outside the context"));
    check(two_siblings(1, 1), not_canonical("siblings out of order"));
    check(two_siblings(0, 2), not_canonical("siblings out of order"));
    check(one(&[0, 0]), not_canonical("an actor without intervals"));
    check(one(&[1, 0, 0, 0]), not_canonical("an empty interval"));
    check(one(&[2, 0, 1, 0, 1, 0]), not_canonical("intervals that touch"));
    check(vec![0, 0, 0], not_canonical("bytes after the end"));
    check(vec![0x80, 0, 0], not_canonical("a number with leading zeros"));
    check([&[0xff; 9][..], &[2, 0]].concat(), not_canonical("a number over 64 bits"));
    let beyond = [&[1, 1][..], &[0xff; 9], &[1, 0]].concat();
    check(one(&beyond), not_canonical("an interval beyond 64 bits"));
    let swapped = [&[2][..], &actor(6), &[1, 0, 1], &actor(5), &[1, 0, 1, 0]].concat();
    check(swapped, not_canonical("actors out of order"));
    check(vec![], DecodeError::Truncated);
}

#[test]
fn claimed_lengths_are_held_against_the_input() {
    let huge = [&[0xff; 9][..], &[1]].concat();
    let actor = [&[1][..], &[0; 8]].concat();
    for payload in [
        huge.clone(),
        [&[0][..], &huge].concat(),
        [&actor[..], &huge].concat(),
        [&actor[..], &[1, 0, 1, 1, 0, 0], &[0; 16], &huge].concat(),
    ] {
        let decoded = Causal::decode(envelope(CAUSAL, &payload).into());
        assert_eq!(decoded.unwrap_err(), DecodeError::Truncated, "{payload:?}");
    }
}

#[test]
fn headers_are_checked() {
    let decode = |header, payload: &[u8]| Causal::decode(envelope(header, payload).into());
    assert_eq!(decode([2, 8, 0], &[0, 0]), Err(DecodeError::UnknownVersion(2)));
    assert_eq!(decode([1, 9, 0], &[0, 0]), Err(DecodeError::UnknownKind(9)));
    assert_eq!(decode([1, 8, 1], &[0, 0]), Err(DecodeError::ReservedFlags(1)));
    assert_eq!(decode(CAUSAL, &[0, 0]), Ok(Causal::absent()));
    let opaque = decode(OPAQUE, &[0, 2, 0, 1, 5]);
    assert_eq!(opaque, Err(DecodeError::Opaque { operands: 2 }));
    let mut wrong = envelope(CAUSAL, &[0, 0]);
    wrong[6] ^= 1;
    let error = Causal::decode(wrong.into()).unwrap_err();
    assert!(matches!(error, DecodeError::Checksum { .. }));
}
