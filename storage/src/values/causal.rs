//! The causal value and its join.
//!
//! Invariants: every sibling's dot is in the context; `join` is commutative, associative and idempotent, also where one dot carries two
//! values (the larger wins, and an alarm is raised).
//!
//! It limits neither the number of siblings nor their size: a join must never refuse, only a leader may.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use thiserror::Error;

use super::alarm;
use super::context::Context;
use super::dot::{Dot, OperationId};

/// A live value and the client operation that wrote it. `V` is `Bytes` at rest, `&[u8]` while merging borrowed input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sibling<V = Bytes> {
    /// The operation that wrote the value; a retry under another dot has the same one.
    pub operation: OperationId,
    /// The value as the client sent it.
    pub value: V,
}

/// What a replica knows of one key: which writes it has seen, and which of them nobody has replaced yet.
///
/// The default state has seen nothing; it stands for a key that is absent. A context without siblings is a causal tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Causal<V = Bytes> {
    context: Context,
    /// Ascending by dot, each at most once.
    siblings: Vec<(Dot, Sibling<V>)>,
}

/// A sibling was given whose dot the context has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the dot {0} of a sibling is not in the context")]
pub struct DotOutsideContext(pub Dot);

impl<V> Default for Causal<V> {
    fn default() -> Self {
        Causal { context: Context::new(), siblings: Vec::new() }
    }
}

impl Causal {
    /// The state of a key nobody has written: the default, without a choice of `V` to make.
    pub fn absent() -> Self {
        Causal::default()
    }
}

impl<V> Causal<V> {
    /// A state from its parts, the siblings in any order; of equal dots the last is kept.
    pub fn from_parts(
        context: Context,
        siblings: impl IntoIterator<Item = (Dot, Sibling<V>)>,
    ) -> Result<Self, DotOutsideContext> {
        let by_dot: BTreeMap<_, _> = siblings.into_iter().collect();
        match by_dot.keys().find(|dot| !context.contains(**dot)) {
            Some(dot) => Err(DotOutsideContext(*dot)),
            None => Ok(Causal::from_ascending(context, by_dot.into_iter().collect())),
        }
    }

    /// Parts that already keep the invariants of this type.
    pub(super) fn from_ascending(context: Context, siblings: Vec<(Dot, Sibling<V>)>) -> Self {
        Causal { context, siblings }
    }

    /// Every write this state has seen.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The live values, ascending by dot.
    pub fn siblings(&self) -> impl ExactSizeIterator<Item = (Dot, &Sibling<V>)> {
        self.siblings.iter().map(|(dot, sibling)| (*dot, sibling))
    }

    /// The number of live values, retries counted separately.
    pub fn sibling_count(&self) -> usize {
        self.siblings.len()
    }

    /// The live value of `dot`.
    pub fn sibling(&self, dot: Dot) -> Option<&Sibling<V>> {
        let at = self.siblings.binary_search_by_key(&dot, |(known, _)| *known);
        at.ok().and_then(|at| self.siblings.get(at)).map(|(_, sibling)| sibling)
    }

    /// How many siblings would stay beside the value of a put that has seen `client`.
    pub fn survivors(&self, client: &Context) -> usize {
        self.siblings.iter().filter(|(dot, _)| !client.contains(*dot)).count()
    }

    /// Whether this is the state of a key nobody has written.
    pub fn is_absent(&self) -> bool {
        self.context.is_empty()
    }

    /// What a reader sees: one sibling per operation (the one with the newest dot), newest first; with `lww` only the newest of all.
    pub fn visible(&self, lww: bool) -> Vec<&Sibling<V>> {
        if let [(_, only)] = self.siblings.as_slice() {
            return vec![only];
        }
        let mut newest_first: Vec<_> = self.siblings.iter().collect();
        newest_first.sort_unstable_by_key(|(dot, _)| Reverse(dot.age_key()));
        let mut shown = BTreeSet::new();
        newest_first
            .into_iter()
            .map(|(_, sibling)| sibling)
            .filter(|sibling| shown.insert(sibling.operation))
            .take(if lww { 1 } else { usize::MAX })
            .collect()
    }
}

impl<V: Clone + AsRef<[u8]>> Causal<V> {
    /// The least state that has seen everything either of the two has seen.
    ///
    /// A sibling stays if both have it, or if one has it and the other has not seen its dot.
    pub fn join(&self, other: &Self) -> Self {
        if self.precedes(other) {
            return other.clone();
        }
        if other.precedes(self) {
            return self.clone();
        }
        self.join_concurrent(other)
    }

    /// Whether joining this state into `other` leaves `other` as it is. The usual case of a write that has seen what it replaces.
    ///
    /// Answers `false` where a dot carries two values, so that [`Causal::join`] gets to raise the alarm.
    pub fn precedes(&self, other: &Self) -> bool {
        self.context.is_subset(&other.context)
            && other.siblings.iter().all(|(dot, theirs)| {
                !self.context.contains(*dot)
                    || self.sibling(*dot).is_some_and(|mine| compare(mine, theirs).is_eq())
            })
    }

    /// [`Causal::join`] by its definition, for states of which neither precedes the other.
    pub(super) fn join_concurrent(&self, other: &Self) -> Self {
        let mut siblings = Vec::with_capacity(self.siblings.len() + other.siblings.len());
        let mut theirs = other.siblings.iter().peekable();
        for (dot, mine) in &self.siblings {
            while let Some(entry) = theirs.next_if(|(their_dot, _)| their_dot < dot) {
                self.keep_unseen(entry, &mut siblings);
            }
            match theirs.next_if(|(their_dot, _)| their_dot == dot) {
                Some((_, their)) => siblings.push((*dot, larger(*dot, mine, their).clone())),
                None if !other.context.contains(*dot) => siblings.push((*dot, mine.clone())),
                None => {}
            }
        }
        for entry in theirs {
            self.keep_unseen(entry, &mut siblings);
        }
        Causal { context: self.context.union(&other.context), siblings }
    }

    fn keep_unseen(&self, entry: &(Dot, Sibling<V>), kept: &mut Vec<(Dot, Sibling<V>)>) {
        if !self.context.contains(entry.0) {
            kept.push(entry.clone());
        }
    }
}

fn larger<'a, V: AsRef<[u8]>>(dot: Dot, a: &'a Sibling<V>, b: &'a Sibling<V>) -> &'a Sibling<V> {
    let order = compare(a, b);
    if order.is_ne() {
        alarm::dot_conflict(dot);
    }
    if order == Ordering::Less { b } else { a }
}

fn compare<V: AsRef<[u8]>>(a: &Sibling<V>, b: &Sibling<V>) -> Ordering {
    a.operation.cmp(&b.operation).then_with(|| a.value.as_ref().cmp(b.value.as_ref()))
}
