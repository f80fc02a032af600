//! Nodes that are restarted while their wall clocks step: they never refuse writes for more than a second,
//! and never mint a dot twice, whatever they forget meanwhile.
//!
//! Writers run through every end of a node, so that some writes are cut off in the middle.

mod restarts;

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_node::net::TcpNetwork;
use starling_tests::setting::seed;
use starling_tests::{Disk, MemoryNetwork};

use restarts::{End, HOUR_US, Loss, Restarts};

/// Nobody puts a copy back in less.
const PUT_BACK_US: i64 = 200_000;
/// Each a way to end, and how far the clock steps before the next start.
const SEVERAL_IN_A_ROW: [(End, i64); 12] = [
    (End::Crash, -HOUR_US),
    (End::Stop, -HOUR_US),
    (End::Crash, -HOUR_US),
    (End::Stop, HOUR_US),
    (End::Crash, HOUR_US),
    (End::Crash, HOUR_US),
    (End::Stop, 0),
    (End::Crash, 0),
    // Less than what makes a node take a new name: it has to wait.
    (End::Crash, -600_000),
    (End::Stop, -900_000),
    (End::Crash, 5_000_000),
    (End::Stop, -5_000_000),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_on_disk_restarts_under_a_clock_that_steps() {
    let mut restarts = Restarts::begin(1, Arc::new(TcpNetwork), Disk::Folder).await;
    restart_and_step(&mut restarts, SEVERAL_IN_A_ROW).await;
    restarts.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_among_three_restarts_under_a_clock_that_steps() {
    let network = Arc::new(MemoryNetwork::new());
    let mut restarts = Restarts::begin(3, network, Disk::Memory).await;
    let steps = [-HOUR_US, HOUR_US, HOUR_US, -HOUR_US, 0, -600_000, 600_000];
    let ends = [End::Crash, End::Stop, End::PowerCut].into_iter().cycle();
    restart_and_step(&mut restarts, ends.zip(steps)).await;
    restarts.finish().await;
}

/// Restarts a node in each way, its clock stepping meanwhile; the last steps hit it while it runs.
async fn restart_and_step(restarts: &mut Restarts, ends: impl IntoIterator<Item = (End, i64)>) {
    for (end, step_us) in ends {
        restarts.write().await;
        restarts.end(end).await;
        restarts.step(step_us);
        restarts.start().await;
    }
    for step_us in [-HOUR_US, HOUR_US, HOUR_US, -HOUR_US, -HOUR_US] {
        restarts.step(step_us);
        restarts.write().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_restarts_at_random_moments() {
    let mut random = StdRng::seed_from_u64(seed());
    let network = Arc::new(MemoryNetwork::new());
    let mut restarts = Restarts::begin(1, network, Disk::Memory).await;
    for _ in 0..30 {
        if random.random_bool(0.3) {
            restarts.step(step(&mut random));
        }
        restarts.write().await;
        let ends = [End::Stop, End::Crash, End::Crash, End::PowerCut];
        restarts.end(ends[random.random_range(0..ends.len())]).await;
        if random.random_bool(0.7) {
            restarts.step(step(&mut random));
        }
        restarts.start().await;
    }
    restarts.finish().await;
}

fn step(random: &mut StdRng) -> i64 {
    match random.random_range(0..4) {
        0 => -HOUR_US,
        1 => HOUR_US,
        2 => random.random_range(-HOUR_US..HOUR_US),
        _ => random.random_range(-1_500_000..1_500_000),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgets_mints_under_another_name() {
    let mut restarts = Restarts::begin(1, Arc::new(TcpNetwork), Disk::Folder).await;
    let losses = [Loss::Everything, Loss::Store, Loss::StoreSinceCopy].into_iter();
    let steps = [-HOUR_US, HOUR_US, 0].into_iter().cycle();
    forget(&mut restarts, losses.cycle().zip(steps).take(6)).await;
    restarts.finish_with_loss().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_among_three_that_forgets_mints_under_another_name() {
    let mut restarts = Restarts::begin(3, Arc::new(TcpNetwork), Disk::Folder).await;
    let losses = [(Loss::Store, 0), (Loss::StoreSinceCopy, 0), (Loss::Store, 0)];
    forget(&mut restarts, losses).await;
    // The other two have kept everything.
    restarts.finish().await;
}

/// Takes from a node what it wrote, in each way, its clock stepping meanwhile.
async fn forget(restarts: &mut Restarts, losses: impl IntoIterator<Item = (Loss, i64)>) {
    for ((loss, step_us), end) in losses.into_iter().zip([End::Crash, End::Stop].iter().cycle()) {
        restarts.write().await;
        restarts.end(End::Stop).await;
        restarts.copy();
        restarts.start().await;
        restarts.write().await;
        restarts.end(*end).await;
        let before = restarts.actors();
        restarts.lose(loss);
        restarts.step(step_us);
        restarts.start().await;
        let actor = restarts.write().await;
        assert!(!before.contains(&actor), "{loss:?}: {actor:?} has forgotten what it wrote");
    }
}

/// Nothing on the machine remembers more than the copy, so the node may keep its name; only time keeps its
/// numbers apart: that which it takes to put a copy back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_taken_back_to_a_copy_mints_no_dot_again() {
    let mut restarts = Restarts::begin(1, Arc::new(TcpNetwork), Disk::Folder).await;
    for (end, step_us) in
        [(End::Crash, 0), (End::Stop, HOUR_US), (End::Crash, -HOUR_US), (End::Stop, -HOUR_US)]
    {
        restarts.write().await;
        restarts.end(end).await;
        restarts.copy();
        restarts.start().await;
        restarts.write().await;
        restarts.end(End::Crash).await;
        restarts.lose(Loss::SinceCopy);
        restarts.step(step_us + PUT_BACK_US);
        restarts.start().await;
        restarts.write().await;
    }
    restarts.finish_with_loss().await;
}
