//! The simulator in the small: it repeats itself, known seeds break nothing, and planted bugs are found.
//! `make sim` runs it in the large.

use starling_storage::planted::{Bug, Planted};
use starling_tests::sim::{self, Outcome};

/// Seeds that once broke a promise, and the first few.
const SEEDS: &[u64] = &[1, 2, 3, 11, 12, 17, 42, 44];
/// Bugs that few seeds suffice to find: the others are for `make sim ARGS="--bug all"`.
const QUICKLY_FOUND: &[Bug] =
    &[Bug::AcknowledgeBeforeSync, Bug::PutIgnoresContext, Bug::ReadOneShort];
const QUICKLY: u64 = 60;

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [7, 8] {
        let trace = |outcome: Outcome| outcome.trace;
        let (first, second) = (sim::run(seed, Planted::NONE), sim::run(seed, Planted::NONE));
        assert_eq!(first.operations, second.operations, "seed {seed}");
        assert_eq!(trace(first), trace(second), "seed {seed}");
    }
}

#[test]
fn known_seeds_break_nothing() {
    for seed in SEEDS {
        let outcome = sim::run(*seed, Planted::NONE);
        let broken: Vec<String> = outcome.violations.iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "seed {seed}: {}", broken.join("\n"));
        assert!(outcome.operations.len() > 100, "seed {seed} did nothing");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in QUICKLY_FOUND {
        let found = |seed: &u64| !sim::run(*seed, Planted::new(*bug)).violations.is_empty();
        assert!((1..=QUICKLY).any(|seed| found(&seed)), "{bug} was not found in {QUICKLY} seeds");
    }
}
