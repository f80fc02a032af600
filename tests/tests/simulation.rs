//! The simulator in the small: it repeats itself, known seeds break nothing, and planted bugs are found.
//! `make sim` runs it in the large.

use std::path::Path;

use starling_storage::planted::Bug;
use starling_tests::sim::Summary;

/// Seeds that once broke a promise, and the first few. The multiples of five are about what is forgotten (`sim/scenario/forgetting.rs`), and none
/// of them has broken one; those that did are of the other kind, whose derivation is as it was.
const SEEDS: &[u64] = &[1, 2, 3, 5, 9, 10, 11, 12, 15, 17, 42, 44, 71, 238, 608_909_282_937];
/// Bugs that take many seeds; `make sim ARGS="--bug all"` has the time for them.
const SLOWLY_FOUND: &[Bug] = &[Bug::AnswerBeforeRepair, Bug::NotCachedIsAbsent];
/// Several times what any other took when `planted.md` was made.
const QUICKLY: u64 = 300;

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
    let bugs: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| !SLOWLY_FOUND.contains(bug)).collect();
    let is_found = |bug: &Bug| (1..=QUICKLY).any(|seed| !run(seed, Some(*bug)).broken.is_empty());
    let missed =
        |bugs: &[Bug]| bugs.iter().copied().filter(|bug| !is_found(bug)).collect::<Vec<_>>();
    let (one, other) = bugs.split_at(bugs.len() / 2);
    let missed = std::thread::scope(|scope| {
        let half = scope.spawn(|| missed(one));
        [missed(other), half.join().expect("running a simulation does not panic")].concat()
    });
    assert!(missed.is_empty(), "not found in {QUICKLY} seeds each: {missed:?}");
}
