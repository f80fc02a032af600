//! The causal value refines explicit causal histories: on random traces the design never loses and never revives a write, and every shortcut
//! known to do so is caught. The second half keeps the first honest.

mod history;
mod world;

use world::{Shortcut, run};

const STEPS: usize = 60;

#[derive(Debug, Default)]
struct Tally {
    violations: u64,
    with_a_lost_write: u64,
    with_a_revived_write: u64,
}

fn tally(shortcut: Shortcut, traces: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in 1..=traces {
        if let Err(violation) = run(seed.wrapping_mul(0x9E37_79B9), shortcut, STEPS) {
            tally.violations += 1;
            tally.with_a_lost_write += u64::from(!violation.lost.is_empty());
            tally.with_a_revived_write += u64::from(!violation.revived.is_empty());
        }
    }
    eprintln!("{shortcut:?}: {tally:?} in {traces} traces of {STEPS} steps");
    tally
}

#[test]
fn the_design_loses_and_revives_nothing() {
    for seed in 1..=40_000 {
        if let Err(violation) = run(seed, Shortcut::None, STEPS) {
            panic!("seed {seed}: {violation:?}");
        }
    }
    for seed in 1..=2_000 {
        if let Err(violation) = run(seed, Shortcut::None, 4 * STEPS) {
            panic!("seed {seed}, long: {violation:?}");
        }
    }
}

/// At least one trace in `one_in` must show the mutant: far fewer than do show it, far more than none.
fn check_is_caught(shortcut: Shortcut, traces: u64, one_in: u64) {
    let tally = tally(shortcut, traces);
    assert!(tally.violations >= traces / one_in, "{shortcut:?}: {tally:?}");
}

#[test]
fn forgetting_without_a_new_actor_is_caught() {
    check_is_caught(Shortcut::NoNewActor, 5_000, 20);
    check_is_caught(Shortcut::TailLossNoNewActor, 5_000, 20);
    check_is_caught(Shortcut::NewActorOnlyWhenRevealed, 5_000, 20);
    check_is_caught(Shortcut::CleanupKeepsActor, 5_000, 20);
    check_is_caught(Shortcut::PerKeyCounter, 5_000, 20);
}

#[test]
fn vouching_without_the_right_to_is_caught() {
    check_is_caught(Shortcut::OutsiderVouches, 5_000, 20);
    check_is_caught(Shortcut::VouchesForKnownSiblings, 5_000, 20);
    check_is_caught(Shortcut::FullContextReturned, 5_000, 20);
    check_is_caught(Shortcut::NoKeyLock, 5_000, 20);
}

#[test]
fn reaping_without_its_fences_is_caught() {
    check_is_caught(Shortcut::UngatedReap, 5_000, 200);
    check_is_caught(Shortcut::UnfencedReap, 5_000, 200);
    check_is_caught(Shortcut::RepairMintedAtWriteBack, 20_000, 5_000);
    check_is_caught(Shortcut::RepairMintedAtLastRead, 20_000, 10_000);
}
