//! Whether a history of one object could have happened one operation after the other, each at some moment between its begin and its
//! end: linearizability, by the search of Wing & Gong with Lowe's memory of what was tried ("Testing for linearizability", 2017).
//!
//! For what promises an order of all operations, as conditional updates do. What is promised of plain reads and writes is less, and
//! [`crate::sim::check`] judges it. A history of many objects is linearizable if that of each object is: give each on its own.

use std::collections::HashSet;
use std::hash::Hash;

/// What an object does, alone.
pub trait Object {
    /// What it holds.
    type State: Clone + Eq + Hash;
    /// What is done to it, with the answer, as far as that is known.
    type Operation;

    /// What it holds before anything is done to it.
    fn initial(&self) -> Self::State;

    /// What it holds after `operation`; none if it would have answered otherwise.
    fn apply(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;
}

/// An operation as its caller saw it. Times are of any unit, of one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<O> {
    /// What was done, and what came of it.
    pub operation: O,
    /// When it was asked for.
    pub begin: u64,
    /// When the answer came. Without one it may have happened at any time after its begin, or never.
    pub end: Option<u64>,
}

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In this order (indexes of calls) each would have been answered as it was.
    Linearizable(Vec<usize>),
    /// In no order. What could be put in order at best, and the answered calls that could not follow.
    Impossible {
        /// The longest order that was found.
        order: Vec<usize>,
        /// What had to come next by its time, and could not.
        stuck: Vec<usize>,
    },
    /// Not known after so many steps.
    GaveUp,
}

/// Looks for an order, in at most `steps_max` attempts to place a call.
pub fn search<T: Object>(object: &T, calls: &[Call<T::Operation>], steps_max: usize) -> Verdict {
    let mut search = Search {
        timeline: Timeline::of(calls),
        placed: vec![0; calls.len().div_ceil(64)],
        undo: Vec::new(),
        tried: HashSet::new(),
        best: Vec::new(),
        stuck: Vec::new(),
    };
    search.run(object, calls, steps_max)
}

/// The moments of a history, in order; calls that have their place in the order are taken out, with their ends.
struct Timeline {
    moments: Vec<Moment>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each call: where it begins and ends.
    begins: Vec<usize>,
    ends: Vec<Option<usize>>,
}

#[derive(Clone, Copy)]
enum Moment {
    /// Before everything.
    Start,
    Begin(usize),
    End,
}

struct Search<S> {
    timeline: Timeline,
    /// A bit for each call that has its place.
    placed: Vec<u64>,
    /// The calls in their order, each with the state before it.
    undo: Vec<(usize, S)>,
    tried: HashSet<(Vec<u64>, S)>,
    best: Vec<usize>,
    stuck: Vec<usize>,
}

impl Timeline {
    fn of<O>(calls: &[Call<O>]) -> Timeline {
        let begins = calls.iter().enumerate().map(|(at, call)| (call.begin, 0, at));
        let ends = calls.iter().enumerate().filter_map(|(at, call)| Some((call.end?, 1, at)));
        let mut sorted: Vec<(u64, u8, usize)> = begins.chain(ends).collect();
        // What begins the moment another ends may have come before it.
        sorted.sort_unstable();
        let mut timeline = Timeline {
            moments: vec![Moment::Start],
            next: (1..=sorted.len() + 1).collect(),
            previous: (0..=sorted.len()).map(|at| at.saturating_sub(1)).collect(),
            begins: vec![0; calls.len()],
            ends: vec![None; calls.len()],
        };
        for (_, is_end, call) in sorted {
            let at = timeline.moments.len();
            if is_end == 0 {
                timeline.begins[call] = at;
                timeline.moments.push(Moment::Begin(call));
            } else {
                timeline.ends[call] = Some(at);
                timeline.moments.push(Moment::End);
            }
        }
        timeline
    }

    fn first(&self) -> usize {
        self.next[0]
    }

    fn get(&self, at: usize) -> Option<Moment> {
        self.moments.get(at).copied()
    }

    fn take_out(&mut self, call: usize) {
        for at in [Some(self.begins[call]), self.ends[call]].into_iter().flatten() {
            self.join(self.previous[at], self.next[at]);
        }
    }

    /// In the reverse order of taking out.
    fn put_back(&mut self, call: usize) {
        for at in [self.ends[call], Some(self.begins[call])].into_iter().flatten() {
            self.join(self.previous[at], at);
            self.join(at, self.next[at]);
        }
    }

    fn join(&mut self, left: usize, right: usize) {
        self.next[left] = right;
        if let Some(previous) = self.previous.get_mut(right) {
            *previous = left;
        }
    }
}

impl<S: Clone + Eq + Hash> Search<S> {
    fn run<T: Object<State = S>>(
        &mut self,
        object: &T,
        calls: &[Call<T::Operation>],
        steps_max: usize,
    ) -> Verdict {
        let mut state = object.initial();
        let mut at = self.timeline.first();
        let mut answered = calls.iter().filter(|call| call.end.is_some()).count();
        for _ in 0..steps_max {
            if answered == 0 {
                return Verdict::Linearizable(self.order());
            }
            if let Some(Moment::Begin(call)) = self.timeline.get(at) {
                match object.apply(&state, &calls[call].operation) {
                    Some(after) if self.is_new(call, &after) => {
                        self.undo.push((call, std::mem::replace(&mut state, after)));
                        self.timeline.take_out(call);
                        answered -= usize::from(calls[call].end.is_some());
                        at = self.timeline.first();
                    }
                    _ => at = self.timeline.next[at],
                }
                continue;
            }
            // A call has ended, or the history has, and something before it has no place: the last placement was wrong.
            self.note_stuck(at);
            let Some((call, before)) = self.undo.pop() else {
                let (order, stuck) = (self.best.clone(), self.stuck.clone());
                return Verdict::Impossible { order, stuck };
            };
            state = before;
            self.placed[call / 64] &= !(1 << (call % 64));
            self.timeline.put_back(call);
            answered += usize::from(calls[call].end.is_some());
            at = self.timeline.next[self.timeline.begins[call]];
        }
        Verdict::GaveUp
    }

    /// Gives the call its place, unless the same calls with the same outcome were tried before.
    fn is_new(&mut self, call: usize, after: &S) -> bool {
        self.placed[call / 64] |= 1 << (call % 64);
        let new = self.tried.insert((self.placed.clone(), after.clone()));
        if !new {
            self.placed[call / 64] &= !(1 << (call % 64));
        }
        new
    }

    fn note_stuck(&mut self, at: usize) {
        if self.undo.len() < self.best.len()
            || !self.stuck.is_empty() && self.undo.len() == self.best.len()
        {
            return;
        }
        self.best = self.order();
        self.stuck.clear();
        let mut before = self.timeline.first();
        while before != at {
            if let Some(Moment::Begin(call)) = self.timeline.get(before) {
                self.stuck.push(call);
            }
            before = self.timeline.next[before];
        }
    }

    fn order(&self) -> Vec<usize> {
        self.undo.iter().map(|(call, _)| *call).collect()
    }
}
