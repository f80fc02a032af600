//! The join over encoded states: the function behind RocksDB's merge operator, and every other place that joins bytes.
//!
//! Invariants: it never fails and never panics, whatever bytes it is given, because a failed merge makes a RocksDB database read-only for
//! good; and over all byte strings it is commutative, associative and idempotent.

use std::collections::BTreeSet;

use super::alarm;
use super::causal::Causal;
use super::encoding::{self, DecodeError, KIND_CAUSAL, KIND_OPAQUE};
use super::opaque::{self, Opaque};

/// The canonical bytes of the join of an existing state, if there is one, and any number of operands.
///
/// What cannot be decoded is kept, in an opaque state that holds it beside the join of the rest, and an alarm is raised.
pub fn merge<'a>(
    existing: Option<&'a [u8]>,
    operands: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<u8> {
    let mut joined = Joined::default();
    let mut unreadable = 0;
    for bytes in existing.into_iter().chain(operands) {
        match decode(bytes) {
            Ok(Decoded::Causal(causal)) => joined.add(causal, bytes),
            Ok(Decoded::Opaque(opaque)) => joined.add_opaque(opaque),
            Err(_) => {
                unreadable += 1;
                joined.unreadable.insert(bytes);
            }
        }
    }
    if unreadable > 0 {
        alarm::opaque_merge(unreadable);
    }
    joined.encode()
}

enum Decoded<'a> {
    Causal(Causal<&'a [u8]>),
    Opaque(Opaque<'a>),
}

fn decode(bytes: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    match encoding::unseal(bytes)? {
        (KIND_CAUSAL, payload) => {
            encoding::decode_payload(payload, |value| value).map(Decoded::Causal)
        }
        (KIND_OPAQUE, payload) => opaque::decode(payload).map(Decoded::Opaque),
        (kind, _) => Err(DecodeError::UnknownKind(kind)),
    }
}

/// The join so far.
#[derive(Default)]
struct Joined<'a> {
    causal: Causal<&'a [u8]>,
    /// The canonical bytes of `causal` while it is what one of the inputs said, so that the usual overwrite encodes nothing.
    source: Option<&'a [u8]>,
    unreadable: BTreeSet<&'a [u8]>,
}

impl<'a> Joined<'a> {
    fn add(&mut self, causal: Causal<&'a [u8]>, bytes: &'a [u8]) {
        if self.causal.precedes(&causal) {
            self.causal = causal;
            self.source = Some(bytes);
        } else if !causal.precedes(&self.causal) {
            self.causal = self.causal.join_concurrent(&causal);
            self.source = None;
        }
    }

    fn add_opaque(&mut self, opaque: Opaque<'a>) {
        if let Some((causal, bytes)) = opaque.causal {
            self.add(causal, bytes);
        }
        self.unreadable.extend(opaque.operands);
    }

    fn encode(self) -> Vec<u8> {
        if self.unreadable.is_empty() {
            return self.causal_bytes();
        }
        let causal = if self.causal.is_absent() { Vec::new() } else { self.causal_bytes() };
        opaque::encode(&causal, &self.unreadable)
    }

    fn causal_bytes(&self) -> Vec<u8> {
        self.source.map_or_else(|| self.causal.encode_vec(), <[u8]>::to_vec)
    }
}
