//! Direct detectors of many nodes that ping one another: who convicts whom when nodes die, freeze,
//! or lose sight of one another.

mod mesh;

use mesh::{Mesh, TICK_MS};
use starling_ring::detector::Liveness;

const SIZE: usize = 20;

#[test]
fn a_silent_death_is_seen_by_all_within_6_s() {
    let mut mesh = Mesh::new(SIZE, 1);
    mesh.run_for(10_000);
    for dead in [0, 7] {
        mesh.freeze(dead);
    }
    mesh.run_for(6_000);
    for by in (0..SIZE).filter(|by| ![0, 7].contains(by)) {
        for of in (0..SIZE).filter(|of| *of != by) {
            let expected = if [0, 7].contains(&of) { Liveness::Down } else { Liveness::Up };
            assert_eq!(mesh.liveness(by, of), expected, "{of} as seen by {by}");
        }
    }
}

#[test]
fn a_cut_between_two_nodes_is_theirs_alone() {
    let mut mesh = Mesh::new(SIZE, 2);
    mesh.run_for(10_000);
    mesh.cut(3, 4);
    mesh.run_for(30_000);
    assert_eq!(mesh.liveness(3, 4), Liveness::UnreachableFromMe);
    assert_eq!(mesh.liveness(4, 3), Liveness::UnreachableFromMe);
    let others = (0..SIZE).filter(|by| ![3, 4].contains(by));
    for by in others {
        assert_eq!((mesh.liveness(by, 3), mesh.liveness(by, 4)), (Liveness::Up, Liveness::Up));
    }
    mesh.freeze(4);
    mesh.run_for(15_000);
    assert_eq!(mesh.liveness(3, 4), Liveness::Down);
}

#[test]
fn pauses_make_nobody_convict_the_healthy() {
    for (seed, pause_ms) in [(1, 1_500), (2, 5_000), (3, 12_000), (4, 30_000)] {
        let mut mesh = Mesh::new(SIZE, seed);
        mesh.run_for(10_000);
        let frozen = [seed as usize, seed as usize + 10];
        for node in frozen {
            mesh.freeze(node);
        }
        mesh.run_for(pause_ms);
        for node in frozen {
            mesh.thaw(node);
        }
        mesh.run_for(30_000);
        let wrong = mesh.convictions.iter().find(|conviction| !frozen.contains(&conviction.of));
        assert_eq!(wrong, None, "after {pause_ms} ms");
        for by in 0..SIZE {
            for of in (0..SIZE).filter(|of| *of != by) {
                assert_eq!(mesh.liveness(by, of), Liveness::Up, "{of} as seen by {by}");
            }
        }
    }
}

#[test]
fn a_quiet_hour_convicts_nobody() {
    let mut mesh = Mesh::new(SIZE, 9);
    mesh.jitter_ms = 400;
    mesh.run_for(3_600_000 / TICK_MS * TICK_MS);
    assert_eq!(mesh.convictions, []);
}
