//! Causal contexts: every write a state, or a client, has seen, as a set of sequence numbers per actor.
//!
//! Invariant: actors are ascending and each has a non-empty set, so equal contexts have equal representations. A sorted vector, because a key
//! usually knows one to three actors.

use super::dot::{Actor, Dot};
use super::intervals::IntervalSet;

/// A set of dots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    actors: Vec<(Actor, IntervalSet)>,
}

impl Context {
    /// The context that has seen nothing.
    pub fn new() -> Self {
        Context::default()
    }

    /// Entries that already keep the invariant of this type.
    pub(super) fn from_ascending(actors: Vec<(Actor, IntervalSet)>) -> Self {
        Context { actors }
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.actors.is_empty()
    }

    /// The number of actors with at least one dot.
    pub fn actor_count(&self) -> usize {
        self.actors.len()
    }

    /// Every actor with what is known of it, ascending by actor.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Actor, &IntervalSet)> {
        self.actors.iter().map(|(actor, set)| (*actor, set))
    }

    /// What is known of `actor`, if anything.
    pub fn intervals(&self, actor: Actor) -> Option<&IntervalSet> {
        let at = self.position(actor).ok()?;
        self.actors.get(at).map(|(_, set)| set)
    }

    /// The place of `actor` among the actors of this context.
    pub(super) fn index_of(&self, actor: Actor) -> Option<usize> {
        self.position(actor).ok()
    }

    /// The entry at a place given by [`Context::index_of`].
    pub(super) fn entry(&self, index: usize) -> Option<&(Actor, IntervalSet)> {
        self.actors.get(index)
    }

    /// Whether the write `dot` has been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.intervals(dot.actor).is_some_and(|set| set.contains(dot.seq))
    }

    /// The largest sequence number known of `actor`; 0 if none is.
    pub fn max_seq(&self, actor: Actor) -> u64 {
        self.intervals(actor).map_or(0, IntervalSet::max)
    }

    /// The largest sequence number known of anybody; 0 for the empty context.
    pub fn newest_seq(&self) -> u64 {
        self.actors.iter().map(|(_, set)| set.max()).max().unwrap_or(0)
    }

    /// Adds the dots `(lo, hi]` of `actor`.
    pub fn insert(&mut self, actor: Actor, lo: u64, hi: u64) {
        self.insert_set(actor, IntervalSet::interval(lo, hi));
    }

    /// Adds the dots of `actor` whose sequence numbers are in `set`.
    pub fn insert_set(&mut self, actor: Actor, set: IntervalSet) {
        if set.is_empty() {
            return;
        }
        match self.position(actor) {
            Ok(at) => self.actors[at].1 = self.actors[at].1.union(&set),
            Err(at) => self.actors.insert(at, (actor, set)),
        }
    }

    /// All dots of both contexts.
    pub fn union(&self, other: &Context) -> Context {
        let mut actors = Vec::with_capacity(self.actors.len() + other.actors.len());
        let mut theirs = other.actors.iter().peekable();
        for (actor, set) in &self.actors {
            while let Some(entry) = theirs.next_if(|(their, _)| their < actor) {
                actors.push(entry.clone());
            }
            let joined = match theirs.next_if(|(their, _)| their == actor) {
                Some((_, their_set)) => set.union(their_set),
                None => set.clone(),
            };
            actors.push((*actor, joined));
        }
        actors.extend(theirs.cloned());
        Context { actors }
    }

    /// Whether every dot is in `other`.
    pub fn is_subset(&self, other: &Context) -> bool {
        self.is_covered_by(other, 0)
    }

    /// Whether every dot is in `other` or has a sequence number of at most `floor`: below the purge floor everything counts as seen.
    pub fn is_covered_by(&self, other: &Context, floor: u64) -> bool {
        self.actors.iter().all(|(actor, set)| covered(set, other.intervals(*actor), floor))
    }

    /// Whether every dot of `actor` is in `other` or has a sequence number of at most `floor`.
    ///
    /// A replica asks this of a client's context about its own actor and its own state: `false` means that the replica has forgotten
    /// something it minted, and must become a new actor before it writes.
    pub fn actor_is_covered_by(&self, actor: Actor, other: &Context, floor: u64) -> bool {
        self.intervals(actor).is_none_or(|set| covered(set, other.intervals(actor), floor))
    }

    fn position(&self, actor: Actor) -> Result<usize, usize> {
        self.actors.binary_search_by_key(&actor, |(known, _)| *known)
    }
}

fn covered(set: &IntervalSet, by: Option<&IntervalSet>, floor: u64) -> bool {
    by.map_or(set.max() <= floor, |by| set.is_covered_by(by, floor))
}
