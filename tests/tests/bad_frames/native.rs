//! The client port: each kind of bad frame once, with the answer it gets and what becomes of the
//! connection.

use starling_protocol::{Request, Response, WIRE_VERSION, WireError, kind};
use starling_tests::{Cluster, Node};

use crate::neighbour::{self, Neighbour};
use crate::wire::{
    HEADER_AT, HEADER_LEN_AT, Raw, VERSION_AT, assert_whole, bad_frames, error, frame, get,
    greeted, hello, put, request, response, sealed,
};

const BUCKET: &str = "demo.things";
/// The id of a bad request, and of the good one after it.
const BAD: u64 = 77;
const GOOD: u64 = 78;

/// What a bad frame leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// An error to the request; the connection goes on.
    Refused,
    /// An error to no request in particular, and a closed connection.
    Closed,
    /// Nothing more than a closed connection, once the client has said that no more comes.
    Silent,
}

/// Sends `bytes` on `raw` and expects `end`, and that it is counted.
async fn check(node: &Node, mut raw: Raw, what: &str, bytes: &[u8], end: End) {
    let before = bad_frames(node, "client").await;
    raw.send(bytes).await;
    match end {
        End::Refused => {
            let answer = raw.next().await.unwrap_or_else(|| panic!("{what}: closed"));
            assert_eq!(answer.request_id, BAD, "{what}");
            assert_eq!(error(&answer).code(), "S201", "{what}: {answer:?}");
            raw.send(&request(GOOD, &Request::Topology, b"")).await;
            let answer = raw.next().await.unwrap_or_else(|| panic!("closed after {what}"));
            assert_eq!(answer.request_id, GOOD, "{what}");
            assert!(matches!(response(&answer), Response::Topology(_)), "{what}: {answer:?}");
        }
        End::Closed => {
            let answers = raw.rest().await;
            let [answer] = &answers[..] else { panic!("{what}: {answers:?}") };
            assert_eq!(error(answer).code(), "S201", "{what}: {answer:?}");
        }
        End::Silent => {
            raw.finish().await;
            assert_eq!(raw.rest().await, [], "{what}");
        }
    }
    // The count is there before the answer, but not before a connection is seen to end.
    let after = bad_frames(node, "client").await;
    assert_eq!(after, before + 1, "{what} is counted once");
}

/// `frame` with the bytes from `at` on replaced.
fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// Bad frames of a client that was greeted.
fn bad(bucket: u32) -> Vec<(&'static str, Vec<u8>, End)> {
    let good = || put(BAD, bucket, "bad", b"never stored");
    let opcode = |index: u8| sealed(with(good(), HEADER_AT, &[index]));
    let mut long_header = request(BAD, &Request::Topology, b"");
    let header_len = u32::try_from(long_header.len()).expect("small");
    long_header = sealed(with(long_header, HEADER_LEN_AT, &header_len.to_le_bytes()));
    let mut cut_header = good();
    let shorter = cut_header[HEADER_LEN_AT] - 3;
    cut_header = sealed(with(cut_header, HEADER_LEN_AT, &[shorter]));
    let large = u32::try_from((1_usize << 20) + (16 << 20) + 1).expect("it fits");
    let checksum_at = good().len() - 1;
    let broken = good()[checksum_at] ^ 1;
    vec![
        ("an answer's kind", frame(kind::RESPONSE, BAD, &Request::Topology, b""), End::Refused),
        ("an unknown kind", frame(0x3f, BAD, &Request::Topology, b""), End::Refused),
        ("a kind of the nodes", frame(0x45, BAD, &Request::Topology, b""), End::Refused),
        ("an unknown opcode", opcode(99), End::Refused),
        ("the largest opcode", opcode(250), End::Refused),
        ("a header that is cut off", cut_header, End::Refused),
        ("no header", frame(kind::REQUEST, BAD, &(), b""), End::Refused),
        ("another version", sealed(with(good(), VERSION_AT, &[2])), End::Closed),
        ("a length over the limit", large.to_le_bytes().to_vec(), End::Closed),
        ("the largest length", vec![0xff; 4], End::Closed),
        ("a length of nothing", vec![0; 4], End::Closed),
        ("a length under the least", vec![5, 0, 0, 0], End::Closed),
        ("a header over the end", long_header, End::Closed),
        ("a broken checksum", with(good(), checksum_at, &[broken]), End::Closed),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"[..4].to_vec(), End::Closed),
        ("a frame cut off", good()[..HEADER_AT + 2].to_vec(), End::Silent),
        ("a length cut off", good()[..2].to_vec(), End::Silent),
    ]
}

/// Bad first frames.
fn bad_greetings() -> Vec<(&'static str, Vec<u8>, End)> {
    let other = Request::Hello { wire_version: WIRE_VERSION + 1, client: "test".to_owned() };
    let long = Request::Hello { wire_version: WIRE_VERSION, client: "x".repeat(17 << 10) };
    let checksum_at = hello(BAD).len() - 1;
    let broken = hello(BAD)[checksum_at] ^ 1;
    vec![
        ("a put before hello", put(BAD, 1, "bad", b"never stored"), End::Closed),
        ("a get before hello", get(BAD, 1, "bad"), End::Closed),
        ("a question before hello", request(BAD, &Request::Topology, b""), End::Closed),
        ("a damaged hello", with(hello(BAD), checksum_at, &[broken]), End::Closed),
        (
            "a hello of another frame version",
            sealed(with(hello(BAD), VERSION_AT, &[9])),
            End::Closed,
        ),
        ("a hello of another client", request(BAD, &other, b""), End::Closed),
        ("a hello that is too long", request(BAD, &long, b"")[..4].to_vec(), End::Closed),
        ("a hello cut off", hello(BAD)[..20].to_vec(), End::Silent),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_frame_is_refused_and_counted_and_no_neighbour_notices() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let (mut keeper, bucket) = greeted(cluster.node(1), BUCKET).await;
    keeper.send(&put(3, bucket, "kept", b"kept")).await;
    let kept = keeper.next().await.expect("it is written");
    assert!(matches!(response(&kept), Response::Written { .. }), "{kept:?}");
    let before = cluster.digest(1, BUCKET).await;
    let neighbour = Neighbour::of(cluster.node(1)).await;
    for (what, bytes, end) in bad(bucket) {
        let (raw, _) = greeted(cluster.node(1), BUCKET).await;
        check(cluster.node(1), raw, what, &bytes, end).await;
        neighbour.goes_on().await;
    }
    for (what, bytes, end) in bad_greetings() {
        let raw = Raw::connect(cluster.node(1).native_address()).await;
        check(cluster.node(1), raw, what, &bytes, end).await;
        neighbour.goes_on().await;
    }
    neighbour.finish().await;
    assert_eq!(cluster.digest(1, BUCKET).await, before, "nothing of it was stored");
    assert_ne!(cluster.digest(1, neighbour::BUCKET).await.keys, 0);
    assert_whole(cluster.node(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_changed_byte_of_a_put_is_noticed() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let node = cluster.node(1);
    let (_, bucket) = greeted(node, BUCKET).await;
    let neighbour = Neighbour::of(node).await;
    let good = put(BAD, bucket, "key", b"a value that nobody wrote");
    let before = bad_frames(node, "client").await;
    let changed = VERSION_AT..good.len();
    for at in changed.clone() {
        let (mut raw, _) = greeted(node, BUCKET).await;
        raw.send(&with(good.clone(), at, &[good[at] ^ (1 << (at % 8))])).await;
        let answers = raw.rest().await;
        let [answer] = &answers[..] else { panic!("byte {at}: {answers:?}") };
        assert!(matches!(error(answer), WireError::BadRequest { .. }), "byte {at}: {answer:?}");
    }
    neighbour.goes_on().await;
    neighbour.finish().await;
    assert_eq!(bad_frames(node, "client").await - before, changed.len() as u64);
    assert_whole(node);
    assert_eq!(cluster.digest(1, BUCKET).await.keys, 0, "nothing of it was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_a_bucket_that_was_not_opened_is_refused() {
    let mut cluster = Cluster::builder().nodes(1).start().await;
    let (mut raw, bucket) = greeted(cluster.node(1), BUCKET).await;
    for other in [0, bucket ^ 1, u32::MAX] {
        for bytes in [put(BAD, other, "key", b"value"), get(BAD, other, "key")] {
            raw.send(&bytes).await;
            let answer = raw.next().await.expect("the connection goes on");
            assert_eq!((answer.request_id, error(&answer).code()), (BAD, "S206"), "{other:#x}");
        }
    }
    // What was opened on one connection is not open on another.
    let mut raw = Raw::connect(cluster.node(1).native_address()).await;
    raw.send(&hello(1)).await;
    raw.next().await.expect("a greeting");
    raw.send(&put(BAD, bucket, "key", b"value")).await;
    assert_eq!(error(&raw.next().await.expect("an answer")).code(), "S206");
    assert_eq!(cluster.digest(1, BUCKET).await.keys, 0);
}
