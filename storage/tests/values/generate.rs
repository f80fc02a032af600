//! Seeded random states, small enough that two of them often meet in the same dots.

use bytes::Bytes;
use starling_storage::values::{Actor, Causal, Context, Dot, OperationId, Sibling};

/// The largest sequence number of a generated state.
pub const SEQ_MAX: u64 = 12;

/// SplitMix64: every test names its seed, so every failure can be replayed.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub fn bytes(&mut self, len_max: u64) -> Vec<u8> {
        (0..self.below(len_max + 1)).map(|_| self.below(256) as u8).collect()
    }
}

/// Who decides which bytes a dot carries.
#[derive(Clone, Copy, PartialEq)]
pub enum Values {
    /// The dot alone, as in a sound cluster.
    ByDot,
    /// Chance, as after an actor was used twice.
    Conflicting,
}

pub fn dots() -> impl Iterator<Item = Dot> {
    (1..=3).flat_map(|actor| (1..=SEQ_MAX).map(move |seq| Dot { actor: Actor(actor), seq }))
}

pub fn context(random: &mut Random) -> Context {
    let mut context = Context::new();
    for _ in 0..random.below(5) {
        let lo = random.below(8);
        let actor = Actor(1 + random.below(3));
        context.insert(actor, lo, lo + 1 + random.below(4));
    }
    context
}

pub fn sibling(random: &mut Random, dot: Dot, values: Values) -> Sibling {
    let salt = match values {
        Values::ByDot => 0,
        Values::Conflicting => random.below(3),
    };
    let mut operation = [0; 16];
    operation[0] = dot.actor.0 as u8;
    operation[1] = (dot.seq % 5) as u8;
    operation[2] = (salt / 2) as u8;
    Sibling {
        operation: OperationId(operation),
        value: Bytes::from(format!("{dot}/{salt}").into_bytes()),
    }
}

pub fn state(random: &mut Random, values: Values) -> Causal {
    let context = context(random);
    let mut siblings = Vec::new();
    for dot in dots() {
        if context.contains(dot) && random.one_in(3) {
            siblings.push((dot, sibling(random, dot, values)));
        }
    }
    Causal::from_parts(context, siblings).unwrap()
}
