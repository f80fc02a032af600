//! Valid frames, changed at random: whatever comes of them, the node answers or closes, and goes on.
//!
//! `SEED` and `ROUNDS` choose the run; both are printed.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use starling_protocol::{ContextToken, Level, Request};
use starling_tests::Cluster;
use starling_tests::setting::setting;

use crate::neighbour::Neighbour;
use crate::wire::{
    HEADER_AT, Raw, assert_whole, bad_frames, get, greeted, hello, put, request, response, sealed,
};

const BUCKET: &str = "demo.things";
const ROUNDS: u64 = 400;
/// The least part of the rounds that must have been noticed as bad, or the frames were hardly changed.
const NOTICED_MIN: u64 = 4;

/// `frame` with a few random changes; half of the results have a checksum that fits, so that the change
/// reaches what lies behind it.
pub fn mutated(random: &mut StdRng, mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..frame.len());
        match random.random_range(0..6) {
            0 => frame[at] ^= 1 << random.random_range(0..8),
            1 => frame[at] = random.random(),
            2 => {
                frame[at] = *[0, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff]
                    .get(random.random_range(0..8))
                    .expect("there are eight")
            }
            3 => frame.insert(at, random.random()),
            4 if frame.len() > HEADER_AT + 8 => {
                frame.remove(at);
            }
            _ => {
                // A piece of it twice.
                let end = frame.len().min(at + random.random_range(1..16));
                let piece = frame[at..end].to_vec();
                frame.splice(at..at, piece);
            }
        }
    }
    if random.random_bool(0.5) { sealed(frame) } else { frame }
}

fn valid(random: &mut StdRng, bucket: u32) -> Vec<u8> {
    let key = Bytes::from_static(b"key");
    let context = ContextToken(Bytes::from(random.random::<[u8; 32]>().to_vec()));
    let (level, operation) = (Level::Count(1), random.random());
    match random.random_range(0..8) {
        0 => hello(5),
        1 => put(5, bucket, "key", b"value"),
        2 => get(5, bucket, "key"),
        3 => request(5, &Request::Get { bucket, key, level, floor: Some(context) }, b""),
        4 => request(5, &Request::Delete { bucket, key, level, context, operation }, b""),
        5 => request(5, &Request::Topology, b""),
        6 => request(5, &Request::Status, b""),
        _ => request(5, &Request::OpenBucket { name: BUCKET.to_owned() }, b""),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_changed_at_random_are_answered_or_end_their_connection() {
    let (seed, rounds) = (setting("SEED", 1), setting("ROUNDS", ROUNDS));
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let node = cluster.node(1);
    let neighbour = Neighbour::of(node).await;
    let before = bad_frames(node, "client").await;
    for round in 0..rounds {
        let (mut raw, bucket) = if random.random_bool(0.9) {
            greeted(node, BUCKET).await
        } else {
            (Raw::connect(node.native_address()).await, 7)
        };
        // Several at a time, so that good ones follow bad ones too.
        for _ in 0..random.random_range(1..4) {
            let frame = valid(&mut random, bucket);
            let bytes = if random.random_bool(0.8) { mutated(&mut random, frame) } else { frame };
            raw.send(&bytes).await;
        }
        raw.finish().await;
        raw.rest().await.iter().for_each(|answer| drop(response(answer)));
        if round % 50 == 0 {
            neighbour.goes_on().await;
        }
    }
    neighbour.goes_on().await;
    neighbour.finish().await;
    let noticed = bad_frames(node, "client").await - before;
    assert!(noticed >= rounds / NOTICED_MIN, "only {noticed} of {rounds} were noticed");
    assert_whole(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_end_their_connection() {
    let seed = setting("SEED", 1);
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let node = cluster.node(1);
    let neighbour = Neighbour::of(node).await;
    let before = bad_frames(node, "client").await;
    let rounds = 60;
    for round in 0..rounds {
        let greets = round % 2 == 0;
        let (mut raw, _) = if greets {
            greeted(node, BUCKET).await
        } else {
            (Raw::connect(node.native_address()).await, 0)
        };
        let mut garbage = vec![0; random.random_range(1..20_000)];
        garbage.iter_mut().for_each(|byte| *byte = random.random());
        raw.send(&garbage).await;
        raw.finish().await;
        raw.rest().await.iter().for_each(|answer| drop(response(answer)));
    }
    assert_eq!(bad_frames(node, "client").await - before, rounds, "each is counted once");
    neighbour.goes_on().await;
    neighbour.finish().await;
    assert_whole(node);
}
