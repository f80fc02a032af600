//! The state of a key some of whose operands could not be read: those operands as they came, beside the join of all that could.
//!
//! ```text
//! opaque payload   len | causal envelope, or len = 0 | count >= 1 | (len | operand)*   ascending by operand, each once
//! ```
//!
//! Invariant: the product of a causal value and a set of byte strings, joined side by side; so it is a join-semilattice as its parts are, and
//! bytes nobody could read are never dropped.
//!
//! It does not interpret the operands again: a newer program that can read them will.

use std::collections::BTreeSet;

use super::causal::Causal;
use super::encoding::{self, DecodeError, KIND_CAUSAL, KIND_OPAQUE, Payload};
use super::varint::{Reader, Sink};

/// A decoded opaque payload.
pub(super) struct Opaque<'a> {
    /// The readable part with its bytes, if anything was readable.
    pub(super) causal: Option<(Causal<&'a [u8]>, &'a [u8])>,
    /// The operands that could not be read; at least one.
    pub(super) operands: BTreeSet<&'a [u8]>,
}

/// The parts of an opaque state to be written.
struct Parts<'a> {
    causal: &'a [u8],
    operands: &'a BTreeSet<&'a [u8]>,
}

impl Payload for Parts<'_> {
    fn write(&self, out: &mut impl Sink) {
        out.varint(self.causal.len() as u64);
        out.bytes(self.causal);
        out.varint(self.operands.len() as u64);
        for operand in self.operands {
            out.varint(operand.len() as u64);
            out.bytes(operand);
        }
    }
}

/// Canonical bytes of an opaque state; `causal` is the canonical encoding of the readable part, empty if nothing was readable.
pub(super) fn encode(causal: &[u8], operands: &BTreeSet<&[u8]>) -> Vec<u8> {
    encoding::seal(KIND_OPAQUE, &Parts { causal, operands })
}

/// The opaque state in `payload`, or why it is none.
pub(super) fn decode(payload: &[u8]) -> Result<Opaque<'_>, DecodeError> {
    let mut input = Reader::new(payload);
    let len = input.varint()?;
    let envelope = input.slice(len)?;
    let causal = match envelope {
        [] => None,
        _ => Some((decode_readable(envelope)?, envelope)),
    };
    let count = input.varint()?;
    if count == 0 {
        return Err(DecodeError::NotCanonical("an opaque value without operands"));
    }
    let mut operands = BTreeSet::new();
    for _ in 0..count {
        let len = input.varint()?;
        let operand = input.slice(len)?;
        if operands.last().is_some_and(|last| *last >= operand) {
            return Err(DecodeError::NotCanonical("operands out of order"));
        }
        operands.insert(operand);
    }
    encoding::finish(&input)?;
    Ok(Opaque { causal, operands })
}

/// Not through `Causal::decode_borrowed`: an opaque value inside an opaque value must not make decoding recursive.
fn decode_readable(envelope: &[u8]) -> Result<Causal<&[u8]>, DecodeError> {
    let causal = match encoding::unseal(envelope)? {
        (KIND_CAUSAL, payload) => encoding::decode_payload(payload, |value| value)?,
        (kind, _) => return Err(DecodeError::UnknownKind(kind)),
    };
    if causal.is_absent() {
        return Err(DecodeError::NotCanonical("an absent state written out"));
    }
    Ok(causal)
}

/// What to say to a caller who wanted a causal value and got this payload.
pub(super) fn refusal(payload: &[u8]) -> DecodeError {
    match decode(payload) {
        Ok(opaque) => DecodeError::Opaque { operands: opaque.operands.len() as u64 },
        Err(error) => error,
    }
}
