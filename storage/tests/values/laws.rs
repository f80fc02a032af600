//! The join laws, byte for byte, and the join against its definition on explicit sets of dots.

use std::collections::BTreeMap;

use proptest::prelude::{ProptestConfig, Strategy, any, proptest};
use starling_storage::values::{Causal, Context, Sibling, alarms, merge};

use crate::generate::{Random, Values, context, dots, sibling, state};

fn check_laws(a: &Causal, b: &Causal, c: &Causal) {
    let ab = a.join(b);
    let (ab_bytes, a_bytes, b_bytes) = (ab.encode(), a.encode(), b.encode());
    assert_eq!(ab_bytes, b.join(a).encode(), "commutative: {a:?} {b:?}");
    assert_eq!(a.join(a).encode(), a_bytes, "idempotent: {a:?}");
    assert_eq!(ab.join(b).encode(), ab_bytes, "absorbing: {a:?} {b:?}");
    assert_eq!(ab.join(c).encode(), a.join(&b.join(c)).encode(), "associative: {a:?} {b:?} {c:?}");
    assert_eq!(a.join(&Causal::absent()).encode(), a_bytes, "neutral");
    assert_eq!(a.join_encoded(b, &b_bytes), ab_bytes);
    assert_eq!(merge(Some(&a_bytes), [&b_bytes[..]]), ab_bytes);
    if a.precedes(b) {
        assert_eq!(ab_bytes, b_bytes, "{a:?} precedes {b:?}");
    }
}

/// The definition, on explicit dots: a sibling stays if both have it or the other has not seen it.
fn check_definition(a: &Causal, b: &Causal) {
    let joined = a.join(b);
    for dot in dots() {
        let seen = a.context().contains(dot) || b.context().contains(dot);
        assert_eq!(joined.context().contains(dot), seen, "{dot}");
        let expected: Option<&Sibling> = match (a.sibling(dot), b.sibling(dot)) {
            (Some(x), Some(y)) => Some(x.max(y)),
            (Some(x), None) if !b.context().contains(dot) => Some(x),
            (None, Some(y)) if !a.context().contains(dot) => Some(y),
            _ => None,
        };
        assert_eq!(joined.sibling(dot), expected, "{dot} of {a:?} and {b:?}");
    }
}

fn check_many(seed: u64, values: Values, triples: usize) {
    let mut random = Random(seed);
    for _ in 0..triples {
        let a = state(&mut random, values);
        let b = state(&mut random, values);
        let c = state(&mut random, values);
        check_laws(&a, &b, &c);
        check_definition(&a, &b);
    }
}

#[test]
fn states_form_a_semilattice() {
    check_many(3, Values::ByDot, 60_000);
}

#[test]
fn states_form_a_semilattice_even_where_one_dot_carries_two_values() {
    check_many(4, Values::Conflicting, 60_000);
}

#[test]
fn two_values_of_one_dot_keep_the_larger_and_raise_an_alarm() {
    let mut random = Random(5);
    let mut met = 0;
    while met < 100 {
        let dot = dots().nth(random.index(36)).unwrap();
        let mut seen = context(&mut random);
        seen.insert(dot.actor, dot.seq - 1, dot.seq);
        let (x, y) = (
            sibling(&mut random, dot, Values::Conflicting),
            sibling(&mut random, dot, Values::Conflicting),
        );
        if x == y {
            continue;
        }
        met += 1;
        let larger = x.clone().max(y.clone());
        let a = Causal::from_parts(seen.clone(), [(dot, x)]).unwrap();
        let b = Causal::from_parts(seen, [(dot, y)]).unwrap();
        let before = alarms().dot_conflicts;
        assert_eq!(a.join(&b).sibling(dot), Some(&larger));
        assert!(alarms().dot_conflicts > before);
    }
}

#[test]
fn a_sibling_outside_the_context_is_refused() {
    let dot = dots().next().unwrap();
    let orphan = sibling(&mut Random(6), dot, Values::ByDot);
    let refused = Causal::from_parts(Context::new(), [(dot, orphan)]);
    assert_eq!(refused.unwrap_err().0, dot);
}

/// States whose shrinking drops intervals and siblings.
fn states() -> impl Strategy<Value = Causal> {
    let spans = proptest::collection::vec((1u64..4, 0u64..9, 1u64..4), 0..6);
    let picks = proptest::collection::btree_map(0usize..36, any::<u64>(), 0..8);
    (spans, picks).prop_map(|(spans, picks): (Vec<_>, BTreeMap<usize, u64>)| {
        let mut context = Context::new();
        for (actor, lo, len) in spans {
            context.insert(starling_storage::values::Actor(actor), lo, lo + len);
        }
        let siblings: Vec<_> = dots()
            .enumerate()
            .filter(|(_, dot)| context.contains(*dot))
            .filter_map(|(at, dot)| {
                let seed = *picks.get(&at)?;
                Some((dot, sibling(&mut Random(seed), dot, Values::Conflicting)))
            })
            .collect();
        Causal::from_parts(context, siblings).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_states_obey_the_laws(a in states(), b in states(), c in states()) {
        check_laws(&a, &b, &c);
        check_definition(&a, &b);
    }
}
