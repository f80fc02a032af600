//! The canonical bytes of a causal value: on disk, on the wire, and under the digest.
//!
//! ```text
//! envelope  version u8 | kind u8 | flags u8 = 0 | payload | crc32c u32 LE of everything before it
//! causal    context | count | (place of the actor in the context | max seq of that actor - seq | operation 16 | len | value)*   by dot
//! context   count | (actor u64 LE | count | (lo - previous hi | hi - lo)*)*                                                by actor
//! ```
//!
//! Plain numbers are minimal varints. Invariant: a state has exactly one encoding and decoding accepts no other byte string, so equal bytes
//! mean equal states. Decoding never panics, never allocates more than a small multiple of its input, and copies no value.

use bytes::Bytes;
use thiserror::Error;

use super::causal::{Causal, Sibling};
use super::context::Context;
use super::dot::{Actor, Dot, OperationId};
use super::intervals::{Interval, IntervalSet};
use super::varint::{Length, Reader, Sink};

const VERSION: u8 = 1;
pub(super) const KIND_CAUSAL: u8 = 0x08;
pub(super) const KIND_OPAQUE: u8 = 0x7f;
const HEADER: usize = 3;
const CHECKSUM: usize = 4;

/// Why bytes are not the encoding of a causal value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends inside a field, or claims a length beyond its end.
    #[error("the value is truncated")]
    Truncated,
    /// A newer writer, or not a value at all.
    #[error("unknown value version {0}")]
    UnknownVersion(u8),
    /// No value of this kind is known here.
    #[error("unknown value kind {0:#04x}")]
    UnknownKind(u8),
    /// The flags are reserved and must be zero.
    #[error("reserved value flags {0:#04x}")]
    ReservedFlags(u8),
    /// The bytes changed since they were written.
    #[error("the value's checksum is {stored:#010x} and should be {computed:#010x}")]
    Checksum {
        /// The checksum in the bytes.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A state has one encoding and this is another one, or none.
    #[error("the value is not canonical: {0}")]
    NotCanonical(&'static str),
    /// A well-formed keeper of operands that could not be read: see `merge`. It has no causal meaning.
    #[error("the value holds {operands} operands that could not be read")]
    Opaque {
        /// How many unreadable operands it keeps.
        operands: u64,
    },
}

/// A longer state is not looked at for being a tombstone: contexts are short.
const TOMBSTONE_BYTES_MAX: usize = 64 << 10;

/// Checks that `operand` is the canonical encoding of a causal value, before it may touch a store: a join cannot be undone.
pub fn verify(operand: &[u8]) -> Result<(), DecodeError> {
    Causal::decode_borrowed(operand).map(drop)
}

/// The newest dot that a state has seen, if it is a tombstone: a state without values.
pub fn tombstone(state: &[u8]) -> Option<u64> {
    if state.len() > TOMBSTONE_BYTES_MAX {
        return None;
    }
    let state = Causal::decode_borrowed(state).ok()?;
    (state.sibling_count() == 0 && !state.is_absent()).then(|| state.context().newest_seq())
}

/// Whether canonical bytes encode the state that has seen nothing: it is the only one with an empty context.
pub(super) fn is_absent(canonical: &[u8]) -> bool {
    canonical.len() == HEADER + 2 + CHECKSUM && canonical.starts_with(&[VERSION, KIND_CAUSAL, 0, 0])
}

impl Causal<Bytes> {
    /// The state encoded in `bytes`; its values are slices of them.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        decode_with(&bytes, |value| bytes.slice_ref(value))
    }
}

impl<'a> Causal<&'a [u8]> {
    /// The state encoded in `bytes`, its values borrowed from them.
    pub fn decode_borrowed(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        decode_with(bytes, |value| value)
    }
}

impl<V: Clone + AsRef<[u8]>> Causal<V> {
    /// The canonical bytes of this state.
    pub fn encode(&self) -> Bytes {
        self.encode_vec().into()
    }

    /// The canonical bytes of the join with `delta`, given also the canonical bytes of the delta.
    ///
    /// Where the delta has seen all there is, the result shares those bytes: a leader then encodes once for its store and for the others.
    pub fn join_encoded(&self, delta: &Self, delta_bytes: &Bytes) -> Bytes {
        if self.precedes(delta) {
            return delta_bytes.clone();
        }
        self.join_concurrent(delta).encode()
    }

    pub(super) fn encode_vec(&self) -> Vec<u8> {
        seal(KIND_CAUSAL, self)
    }
}

impl<V: AsRef<[u8]>> Payload for Causal<V> {
    fn write(&self, out: &mut impl Sink) {
        write_context(self.context(), out);
        out.varint(self.sibling_count() as u64);
        for (dot, sibling) in self.siblings() {
            let place = self.context().index_of(dot.actor);
            let place = place.expect("a sibling's dot is in the context");
            out.varint(place as u64);
            out.varint(self.context().max_seq(dot.actor) - dot.seq);
            out.bytes(&sibling.operation.0);
            let value = sibling.value.as_ref();
            out.varint(value.len() as u64);
            out.bytes(value);
        }
    }
}

/// What an envelope is around.
pub(super) trait Payload {
    fn write(&self, out: &mut impl Sink);
}

/// An envelope around `payload`, in one allocation of the exact size.
pub(super) fn seal(kind: u8, payload: &impl Payload) -> Vec<u8> {
    let mut length = Length::default();
    payload.write(&mut length);
    let mut out = Vec::with_capacity(HEADER + length.0 + CHECKSUM);
    out.extend_from_slice(&[VERSION, kind, 0]);
    payload.write(&mut out);
    let checksum = crc32c::crc32c(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// The kind and payload of an envelope whose header and checksum are right.
pub(super) fn unseal(bytes: &[u8]) -> Result<(u8, &[u8]), DecodeError> {
    let (&[version, kind, flags], _) =
        bytes.split_first_chunk::<HEADER>().ok_or(DecodeError::Truncated)?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let (covered, stored) = bytes.split_last_chunk::<CHECKSUM>().ok_or(DecodeError::Truncated)?;
    let payload = covered.get(HEADER..).ok_or(DecodeError::Truncated)?;
    let (stored, computed) = (u32::from_le_bytes(*stored), crc32c::crc32c(covered));
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    if flags != 0 {
        return Err(DecodeError::ReservedFlags(flags));
    }
    Ok((kind, payload))
}

fn decode_with<'a, V>(
    bytes: &'a [u8],
    value: impl Fn(&'a [u8]) -> V,
) -> Result<Causal<V>, DecodeError> {
    match unseal(bytes)? {
        (KIND_CAUSAL, payload) => decode_payload(payload, value),
        (KIND_OPAQUE, payload) => Err(super::opaque::refusal(payload)),
        (kind, _) => Err(DecodeError::UnknownKind(kind)),
    }
}

/// The state in the payload of a causal envelope.
pub(super) fn decode_payload<'a, V>(
    payload: &'a [u8],
    value: impl Fn(&'a [u8]) -> V,
) -> Result<Causal<V>, DecodeError> {
    let mut input = Reader::new(payload);
    let context = read_context(&mut input)?;
    let (count, reserve) = input.count(MIN_SIBLING)?;
    let mut siblings: Vec<(Dot, Sibling<V>)> = Vec::with_capacity(reserve);
    for _ in 0..count {
        let dot = read_dot(&mut input, &context)?;
        if siblings.last().is_some_and(|(last, _)| *last >= dot) {
            return Err(DecodeError::NotCanonical("siblings out of order"));
        }
        let operation = OperationId(input.array()?);
        let len = input.varint()?;
        let value = value(input.slice(len)?);
        siblings.push((dot, Sibling { operation, value }));
    }
    finish(&input)?;
    Ok(Causal::from_ascending(context, siblings))
}

fn read_dot(input: &mut Reader<'_>, context: &Context) -> Result<Dot, DecodeError> {
    let place = usize::try_from(input.varint()?).ok();
    let entry = place.and_then(|place| context.entry(place));
    let (actor, known) = entry.ok_or(DecodeError::NotCanonical("a sibling of an unknown actor"))?;
    let seq = known
        .max()
        .checked_sub(input.varint()?)
        .filter(|seq| known.contains(*seq))
        .ok_or(DecodeError::NotCanonical("a sibling outside the context"))?;
    Ok(Dot { actor: *actor, seq })
}

pub(super) fn write_context(context: &Context, out: &mut impl Sink) {
    out.varint(context.actor_count() as u64);
    for (actor, set) in context.iter() {
        out.bytes(&actor.0.to_le_bytes());
        out.varint(set.as_slice().len() as u64);
        let mut known = 0;
        for span in set.as_slice() {
            out.varint(span.lo - known);
            out.varint(span.hi - span.lo);
            known = span.hi;
        }
    }
}

pub(super) fn read_context(input: &mut Reader<'_>) -> Result<Context, DecodeError> {
    let (count, reserve) = input.count(MIN_ACTOR)?;
    let mut actors: Vec<(Actor, IntervalSet)> = Vec::with_capacity(reserve);
    for _ in 0..count {
        let actor = Actor(u64::from_le_bytes(input.array()?));
        if actors.last().is_some_and(|(last, _)| *last >= actor) {
            return Err(DecodeError::NotCanonical("actors out of order"));
        }
        actors.push((actor, read_intervals(input)?));
    }
    Ok(Context::from_ascending(actors))
}

fn read_intervals(input: &mut Reader<'_>) -> Result<IntervalSet, DecodeError> {
    let (count, reserve) = input.count(MIN_INTERVAL)?;
    if count == 1 {
        let only = read_interval(input, 0)?;
        return Ok(IntervalSet::interval(only.lo, only.hi));
    }
    if count == 0 {
        return Err(DecodeError::NotCanonical("an actor without intervals"));
    }
    let mut spans: Vec<Interval> = Vec::with_capacity(reserve);
    for _ in 0..count {
        let known = spans.last().map_or(0, |span| span.hi);
        let span = read_interval(input, known)?;
        if span.lo == known && !spans.is_empty() {
            return Err(DecodeError::NotCanonical("intervals that touch"));
        }
        spans.push(span);
    }
    Ok(IntervalSet::from_coalesced(spans))
}

fn read_interval(input: &mut Reader<'_>, known: u64) -> Result<Interval, DecodeError> {
    let (gap, len) = (input.varint()?, input.varint()?);
    let lo = known.checked_add(gap);
    let hi = lo.and_then(|lo| lo.checked_add(len));
    match (lo, hi) {
        (Some(lo), Some(hi)) if lo < hi => Ok(Interval { lo, hi }),
        (Some(_), Some(_)) => Err(DecodeError::NotCanonical("an empty interval")),
        _ => Err(DecodeError::NotCanonical("an interval beyond 64 bits")),
    }
}

pub(super) fn finish(input: &Reader<'_>) -> Result<(), DecodeError> {
    match input.remaining() {
        0 => Ok(()),
        _ => Err(DecodeError::NotCanonical("bytes after the end")),
    }
}

impl Context {
    /// Appends the canonical bytes of this context, without an envelope.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        write_context(self, out);
    }

    /// The context whose canonical bytes are exactly `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(bytes);
        let context = read_context(&mut input)?;
        finish(&input)?;
        Ok(context)
    }
}

// The least bytes an item takes: what a claimed count is held against.
const MIN_INTERVAL: usize = 2;
const MIN_ACTOR: usize = 8 + 1 + MIN_INTERVAL;
const MIN_SIBLING: usize = 1 + 1 + 16 + 1;
