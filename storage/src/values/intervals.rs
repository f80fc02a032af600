//! Sets of sequence numbers as intervals `(lo, hi]`: what is known of one actor.
//!
//! Invariant: the intervals are non-empty, ascending, disjoint and coalesced, so equal sets have equal representations. The usual set is one
//! interval, which is held inline without an allocation.

/// The sequence numbers `lo < seq <= hi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    /// Exclusive lower end.
    pub lo: u64,
    /// Inclusive upper end; above `lo` wherever an [`IntervalSet`] hands one out.
    pub hi: u64,
}

#[derive(Clone, Debug)]
enum Spans {
    One([Interval; 1]),
    Many(Vec<Interval>),
}

/// A set of sequence numbers (never 0) as coalesced intervals.
#[derive(Clone, Debug)]
pub struct IntervalSet {
    spans: Spans,
}

impl Default for IntervalSet {
    fn default() -> Self {
        IntervalSet { spans: Spans::Many(Vec::new()) }
    }
}

impl PartialEq for IntervalSet {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for IntervalSet {}

impl IntervalSet {
    /// The set `(lo, hi]`; empty when `lo >= hi`.
    pub fn interval(lo: u64, hi: u64) -> Self {
        if lo < hi {
            IntervalSet { spans: Spans::One([Interval { lo, hi }]) }
        } else {
            IntervalSet::default()
        }
    }

    /// Intervals that already keep the invariant of this type.
    pub(super) fn from_coalesced(spans: Vec<Interval>) -> Self {
        match spans.as_slice() {
            &[only] => IntervalSet::interval(only.lo, only.hi),
            _ => IntervalSet { spans: Spans::Many(spans) },
        }
    }

    /// The intervals, ascending, disjoint and coalesced.
    pub fn as_slice(&self) -> &[Interval] {
        match &self.spans {
            Spans::One(one) => one,
            Spans::Many(many) => many,
        }
    }

    /// Whether the set has no element.
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// The largest element; 0, which is never an element, for the empty set.
    pub fn max(&self) -> u64 {
        self.as_slice().last().map_or(0, |span| span.hi)
    }

    /// Whether `seq` is an element.
    pub fn contains(&self, seq: u64) -> bool {
        let spans = self.as_slice();
        let at = spans.partition_point(|span| span.hi < seq);
        spans.get(at).is_some_and(|span| span.lo < seq)
    }

    /// Whether every element is in `other`.
    pub fn is_subset(&self, other: &IntervalSet) -> bool {
        self.is_covered_by(other, 0)
    }

    /// Whether every element is in `other` or at most `floor`.
    pub fn is_covered_by(&self, other: &IntervalSet, floor: u64) -> bool {
        let theirs = other.as_slice();
        let mut at = 0;
        self.as_slice().iter().all(|mine| {
            if mine.hi <= floor {
                return true;
            }
            let lo = mine.lo.max(floor);
            while theirs.get(at).is_some_and(|span| span.hi <= lo) {
                at += 1;
            }
            // Coalesced intervals never touch, so what is left of `mine` lies in one interval or not at all.
            theirs.get(at).is_some_and(|span| span.lo <= lo && mine.hi <= span.hi)
        })
    }

    /// All elements of both sets.
    pub fn union(&self, other: &IntervalSet) -> IntervalSet {
        if self.is_subset(other) {
            return other.clone();
        }
        if other.is_subset(self) {
            return self.clone();
        }
        let (mut a, mut b) = (self.as_slice(), other.as_slice());
        let mut merged: Vec<Interval> = Vec::with_capacity(a.len() + b.len());
        loop {
            let next = match (a.split_first(), b.split_first()) {
                (Some((x, rest)), None) => take(&mut a, x, rest),
                (None, Some((y, rest))) => take(&mut b, y, rest),
                (Some((x, rest)), Some((y, _))) if x.lo <= y.lo => take(&mut a, x, rest),
                (Some(_), Some((y, rest))) => take(&mut b, y, rest),
                (None, None) => return IntervalSet::from_coalesced(merged),
            };
            match merged.last_mut() {
                Some(last) if next.lo <= last.hi => last.hi = last.hi.max(next.hi),
                _ => merged.push(next),
            }
        }
    }

    /// `(0, through]` without the elements of this set.
    pub fn missing_through(&self, through: u64) -> IntervalSet {
        // Nothing known, or everything up to somewhere: the usual state of a key's leader, answered without an allocation.
        match self.as_slice() {
            [] => return IntervalSet::interval(0, through),
            [Interval { lo: 0, hi }] => return IntervalSet::interval(*hi, through),
            _ => {}
        }
        let mut missing = Vec::new();
        let mut known = 0;
        for span in self.as_slice() {
            if span.lo >= through {
                break;
            }
            if known < span.lo {
                missing.push(Interval { lo: known, hi: span.lo });
            }
            known = span.hi;
        }
        if known < through {
            missing.push(Interval { lo: known, hi: through });
        }
        IntervalSet::from_coalesced(missing)
    }
}

fn take<'a>(from: &mut &'a [Interval], first: &Interval, rest: &'a [Interval]) -> Interval {
    *from = rest;
    *first
}
