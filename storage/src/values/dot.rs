//! The names of a write: which actor made it, as which of its writes, on behalf of which client operation.
//!
//! Invariant: a dot names at most one write, for ever. Minting them is the business of the clock and the identity, not of this file.

use std::fmt;

/// An incarnation of a replica that mints dots: random, and replaced whenever the replica may have forgotten what it minted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Actor(pub u64);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// One write: the `seq`-th instant, in microseconds of the hybrid logical clock and never 0, of `actor`.
///
/// Ordered by actor, then seq: the order of the encoding, not of time. See [`Dot::age_key`] for the latter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who minted it.
    pub actor: Actor,
    /// When, on the minter's hybrid logical clock.
    pub seq: u64,
}

impl Dot {
    /// The order of time, ties broken by actor: the larger key is the newer write.
    pub fn age_key(self) -> (u64, Actor) {
        (self.seq, self.actor)
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.actor, self.seq)
    }
}

/// The client's name for one put or delete. A retry carries the same id, so that readers can show its effect once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub [u8; 16]);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
