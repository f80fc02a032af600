//! Changes bytes at random: flips, tellings lengths, pieces left out, doubled, or taken from elsewhere.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// Numbers where formats change their mind: signs, ends of ranges, tags of bincode's integers.
const TELLING: [u8; 12] = [0, 1, 2, 4, 0x7f, 0x80, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];
const PIECE_MAX: usize = 16;

/// `some` with a few changes, perhaps with a piece of `other`.
pub fn mutated(random: &mut StdRng, some: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = some.to_vec();
    for _ in 0..random.random_range(1..=4) {
        change(random, &mut bytes, other);
    }
    bytes
}

fn change(random: &mut StdRng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        return bytes.push(random.random());
    }
    let at = random.random_range(0..bytes.len());
    let end = bytes.len().min(at + random.random_range(1..=PIECE_MAX));
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes[at] = *TELLING.choose(random).expect("there are some"),
        3 => bytes[at..end].fill(*TELLING.choose(random).expect("there are some")),
        4 => bytes[at] = bytes[at].wrapping_add(random.random_range(1..=3)),
        5 => drop(bytes.drain(at..end)),
        6 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        7 if !other.is_empty() => {
            let from = random.random_range(0..other.len());
            let to = other.len().min(from + random.random_range(1..=PIECE_MAX));
            bytes.splice(at..at, other[from..to].iter().copied());
        }
        _ => bytes.truncate(at),
    }
}
