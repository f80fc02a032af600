//! The causal value: what a bucket keeps under one key, and the one `join` every path of replication goes through.
//!
//! - `dot`, `intervals`, `context`: who wrote what, and what a state or a client has seen.
//! - `causal`: the state and its join. `put`: the delta of one write, with the vouching rule.
//! - `varint`, `encoding`: the canonical, checksummed bytes. `merge`: the join over bytes that never fails, with
//!   `opaque` for what it cannot read. `digest`: the hash by which replicas compare. `alarm`: what must never happen, counted.
//!
//! Invariant: the states form a join-semilattice, and one state has exactly one encoding; so equal bytes, equal digests and equal states
//! are the same thing.
//!
//! It reads no clock and no store, and does not decide who may write.

mod alarm;
mod causal;
mod context;
mod digest;
mod dot;
mod encoding;
mod intervals;
mod merge;
mod opaque;
mod put;
mod varint;

pub use alarm::{Alarms, alarms};
pub use causal::{Causal, DotOutsideContext, Sibling};
pub use context::Context;
pub use digest::digest;
pub use dot::{Actor, Dot, OperationId};
pub use encoding::{DecodeError, tombstone, verify};
pub use intervals::{Interval, IntervalSet};
pub use merge::merge;
pub use put::put_delta;
