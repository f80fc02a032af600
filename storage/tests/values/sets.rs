//! Interval sets and contexts against explicit sets of numbers.

use std::collections::BTreeSet;

use starling_storage::values::{Actor, Context, IntervalSet};

use crate::generate::{Random, SEQ_MAX, context, dots};

fn elements(set: &IntervalSet) -> BTreeSet<u64> {
    (0..=SEQ_MAX + 8).filter(|seq| set.contains(*seq)).collect()
}

fn random_set(random: &mut Random) -> IntervalSet {
    (0..random.below(4)).fold(IntervalSet::default(), |set, _| {
        let lo = random.below(SEQ_MAX);
        set.union(&IntervalSet::interval(lo, lo + random.below(4)))
    })
}

fn check_representation(set: &IntervalSet) {
    let spans = set.as_slice();
    assert!(spans.iter().all(|span| span.lo < span.hi), "{set:?}");
    assert!(spans.windows(2).all(|pair| pair[0].hi < pair[1].lo), "not coalesced: {set:?}");
    assert!(!set.contains(0));
}

#[test]
fn interval_sets_are_sets() {
    let mut random = Random(1);
    for _ in 0..50_000 {
        let (a, b) = (random_set(&mut random), random_set(&mut random));
        let (ea, eb) = (elements(&a), elements(&b));
        let union = a.union(&b);
        check_representation(&union);
        assert_eq!(elements(&union), &ea | &eb, "{a:?} {b:?}");
        assert_eq!(a.is_subset(&b), ea.is_subset(&eb), "{a:?} {b:?}");
        assert_eq!(a == b, ea == eb);
        assert_eq!(a.max(), ea.last().copied().unwrap_or(0));

        let bound = random.below(SEQ_MAX + 2);
        let above: BTreeSet<u64> = ea.iter().copied().filter(|seq| *seq > bound).collect();
        assert_eq!(a.is_covered_by(&b, bound), above.is_subset(&eb), "{a:?} {b:?} {bound}");
        let missing = a.missing_through(bound);
        check_representation(&missing);
        let expected: BTreeSet<u64> = (1..=bound).filter(|seq| !ea.contains(seq)).collect();
        assert_eq!(elements(&missing), expected, "{a:?} through {bound}");
    }
}

#[test]
fn interval_sets_reach_both_ends() {
    let all = IntervalSet::interval(0, u64::MAX);
    assert!(all.contains(1) && all.contains(u64::MAX) && !all.contains(0));
    assert!(all.missing_through(u64::MAX).is_empty());
    let last = IntervalSet::interval(u64::MAX - 1, u64::MAX);
    let before = IntervalSet::interval(0, u64::MAX - 1);
    assert_eq!(last.missing_through(u64::MAX), before);
    assert_eq!(last.union(&before), all);
    assert!(IntervalSet::interval(7, 7).is_empty());
    assert!(IntervalSet::interval(8, 7).is_empty());
}

#[test]
fn contexts_are_sets_of_dots() {
    let mut random = Random(2);
    for _ in 0..30_000 {
        let (a, b) = (context(&mut random), context(&mut random));
        let seen = |context: &Context| -> BTreeSet<_> {
            dots().filter(|dot| context.contains(*dot)).collect()
        };
        let (ea, eb) = (seen(&a), seen(&b));
        assert_eq!(seen(&a.union(&b)), &ea | &eb);
        assert_eq!(a.is_subset(&b), ea.is_subset(&eb));
        assert_eq!(a == b, ea == eb);
        assert_eq!(a.newest_seq(), ea.iter().map(|dot| dot.seq).max().unwrap_or(0));
        let floor = random.below(SEQ_MAX);
        let above = |dot: &&_| -> bool {
            let dot: &starling_storage::values::Dot = dot;
            dot.seq > floor && !eb.contains(dot)
        };
        assert_eq!(a.is_covered_by(&b, floor), ea.iter().find(above).is_none());
        for actor in [Actor(1), Actor(2), Actor(9)] {
            let unknown = ea.iter().filter(above).any(|dot| dot.actor == actor);
            assert_eq!(a.actor_is_covered_by(actor, &b, floor), !unknown);
        }
    }
}
