//! The simulator in the small: it repeats itself, known seeds break nothing, and planted bugs are found.
//! `make sim` runs it in the large.

use std::path::Path;

use starling_storage::planted::Bug;
use starling_tests::sim::Summary;

/// Seeds that once broke a promise, and the first few.
const SEEDS: &[u64] = &[1, 2, 3, 9, 11, 12, 17, 42, 44, 71, 238];
/// Bugs that few seeds suffice to find: the others are for `make sim ARGS="--bug all"`.
const QUICKLY_FOUND: &[Bug] =
    &[Bug::AcknowledgeBeforeSync, Bug::PutIgnoresContext, Bug::ReadOneShort];
const QUICKLY: u64 = 60;

fn run(seed: u64, bug: Option<Bug>) -> Summary {
    let binary = Path::new(env!("CARGO_BIN_EXE_starling-sim"));
    Summary::of_process(binary, seed, bug).expect("the simulator answers")
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [7, 8, 10] {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

#[test]
fn known_seeds_break_nothing() {
    for seed in SEEDS {
        let summary = run(*seed, None);
        assert!(summary.broken.is_empty(), "{summary}");
        assert!(summary.operations > 100, "seed {seed} did nothing");
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in QUICKLY_FOUND {
        let found = |seed: u64| !run(seed, Some(*bug)).broken.is_empty();
        assert!((1..=QUICKLY).any(found), "{bug} was not found in {QUICKLY} seeds");
    }
}
