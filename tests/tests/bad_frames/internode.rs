//! The port between nodes: strangers are refused, bad frames end their connection or are answered with
//! a failure, and the true peers stay up all the while.

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use starling_client::{Client, ConsistencyLevel};
use starling_node::internode::links::FRAME_BYTES_MAX;
use starling_node::internode::message::{
    BucketName, Hello, Kind, Refusal, ReplicaError, WIRE_VERSION,
};
use starling_node::repair::{RepairAnswer, RepairRequest};
use starling_protocol::{Level, Request, Response, WireError, decode_header};
use starling_ring::{ClusterId, HostId};
use starling_storage::keys::{storage_key, table_id};
use starling_storage::values::Causal;
use starling_tests::setting::setting;
use starling_tests::{Cluster, Trio};

use crate::mutations::mutated;
use crate::neighbour::Neighbour;
use crate::wire::{HEADER_AT, Raw, VERSION_AT, assert_whole, bad_frames, frame, hello, sealed};

const BUCKET: &str = "demo.things";
/// Frames changed at random.
const ROUNDS: u64 = 300;

/// What a peer must know to be let in by node 1.
struct Known {
    client: Client,
    cluster_id: ClusterId,
    hosts: [HostId; 3],
}

impl Known {
    async fn of(trio: &mut Trio) -> Known {
        let client = trio.cluster().client().await;
        let status = client.status().await.expect("all nodes are up");
        let hosts = [1, 2, 3].map(|number| {
            let address = trio.cluster().node(number).native_address();
            let node = status.nodes.iter().find(|node| node.address == address);
            HostId(node.expect("it is a member").host_id)
        });
        Known { client, cluster_id: ClusterId(status.cluster_id), hosts }
    }

    /// Node 2 speaks to node 1. The incarnation is none that a node has.
    fn hello(&self) -> Hello {
        Hello {
            wire_version: WIRE_VERSION,
            cluster_id: self.cluster_id,
            host_id: self.hosts[1],
            meant_for: self.hosts[0],
            incarnation: 0,
            boot_nonce: 0,
            epoch: 1,
            whole: true,
        }
    }

    /// A connection that node 1 takes for node 2's.
    async fn greeted(&self, trio: &mut Trio) -> Raw {
        let mut raw = Raw::connect(trio.cluster().node(1).internode_address()).await;
        raw.send(&message(Kind::Hello, &self.hello(), b"")).await;
        let welcome = raw.next().await.expect("a member is let in");
        assert_eq!(welcome.kind, Kind::Welcome as u8);
        raw
    }

    /// Nobody doubts anybody, and every node takes writes.
    async fn assert_well(&self, trio: &mut Trio) {
        for number in 1..=3 {
            let node = trio.cluster().node(number);
            assert_whole(node);
            let log = node.log();
            assert!(!log.contains("peer is down") && !log.contains("not from here"), "{log}");
        }
        let bucket = self.client.bucket("demo.after").await.expect("all nodes are up");
        let put = bucket.put("key", "value").consistency(ConsistencyLevel::All).await;
        put.expect("all nodes are up");
    }
}

fn message(kind: Kind, header: &impl serde::Serialize, operand: &[u8]) -> Vec<u8> {
    frame(kind as u8, 5, header, operand)
}

/// A message whose header is bytes as they are.
fn plain(kind: Kind, header: &[u8], operand: &[u8]) -> Vec<u8> {
    let mut frame = frame(kind as u8, 5, &(), operand);
    frame.splice(HEADER_AT..HEADER_AT, header.iter().copied());
    let len = u32::try_from(header.len()).expect("a header is small");
    frame[HEADER_AT - 4..HEADER_AT].copy_from_slice(&len.to_le_bytes());
    sealed(frame)
}

/// A question of anti-entropy, and its answer.
async fn asked(raw: &mut Raw, request: &RepairRequest) -> RepairAnswer {
    raw.send(&message(Kind::Repair, request, b"")).await;
    let answer = raw.next().await.expect("a member is answered");
    assert_eq!(answer.kind, Kind::Repaired as u8);
    decode_header(&answer.header).expect("answers decode")
}

/// A node that was started anew in the middle of a session may hold less than it began with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_comparison_with_another_start_of_the_node_is_refused() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    let mut raw = known.greeted(&mut trio).await;
    let begin = RepairRequest::Begin { whole: true, names: Vec::new(), floors: Vec::new() };
    let RepairAnswer::Begun { boot, .. } = asked(&mut raw, &begin).await else {
        panic!("no session begins");
    };
    let agreed = |boot| RepairRequest::Agreed { boot, whole: true, through: 0 };
    assert_eq!(asked(&mut raw, &agreed(boot)).await, RepairAnswer::Done);
    let refused = asked(&mut raw, &agreed(boot ^ 1)).await;
    assert!(matches!(refused, RepairAnswer::Failed { .. }), "{refused:?}");
}

/// From when it begins to compare, before its gossip says so: no read counts it, and nothing is restored that it could drop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_begins_as_one_that_lost_writes_is_believed_at_once() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    let state = <Causal>::default().encode();
    trio.at(1).get("key", Level::All, None).await.expect("all nodes are up");
    trio.at(1).restore("key", &state, Level::Quorum).await.expect("all nodes are up");
    let mut raw = known.greeted(&mut trio).await;
    let begin = |whole| RepairRequest::Begin { whole, names: Vec::new(), floors: Vec::new() };
    asked(&mut raw, &begin(false)).await;
    let read = trio.at(1).get("key", Level::All, None).await;
    assert!(matches!(read, Err(WireError::Unavailable { .. })), "{read:?}");
    trio.at(1).get("key", Level::Quorum, None).await.expect("two of three are whole");
    let restored = trio.at(1).restore("key", &state, Level::Quorum).await;
    assert!(matches!(restored, Err(WireError::Unavailable { .. })), "{restored:?}");
    asked(&mut raw, &begin(true)).await;
    trio.at(1).get("key", Level::All, None).await.expect("all nodes are whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    let neighbour = Neighbour::of(trio.cluster().node(1)).await;
    let me = known.hello();
    let nobody: HostId = "7b1e1c4e-0000-4000-8000-000000000000".parse().expect("an id");
    let foreign = ClusterId([7; 16]);
    let (theirs, actual) = (known.cluster_id, known.hosts[0]);
    for (hello, expected) in [
        (Hello { cluster_id: foreign, ..me.clone() }, Refusal::WrongCluster { theirs }),
        (Hello { meant_for: known.hosts[2], ..me.clone() }, Refusal::WrongHost { actual }),
        (Hello { meant_for: nobody, ..me.clone() }, Refusal::WrongHost { actual }),
        (Hello { host_id: nobody, ..me.clone() }, Refusal::NotAMember { host_id: nobody }),
        (Hello { wire_version: 9, ..me.clone() }, Refusal::WireVersion { theirs: WIRE_VERSION }),
    ] {
        let mut raw = Raw::connect(trio.cluster().node(1).internode_address()).await;
        raw.send(&message(Kind::Hello, &hello, b"")).await;
        // What follows a refused hello is not heard.
        raw.send(&message(Kind::Ping, &(), b"")).await;
        let refused = raw.next().await.expect("a refusal says why");
        assert_eq!(refused.kind, Kind::Refused as u8, "{hello:?}");
        assert_eq!(decode_header::<Refusal>(&refused.header), Ok(expected));
        assert_eq!(raw.rest().await, [], "after {hello:?}");
        neighbour.goes_on().await;
    }
    neighbour.finish().await;
    known.assert_well(&mut trio).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_first_frame_ends_the_connection_and_is_counted() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    let neighbour = Neighbour::of(trio.cluster().node(1)).await;
    let good = || message(Kind::Hello, &known.hello(), b"");
    let with = |mut frame: Vec<u8>, at: usize, byte: u8| {
        frame[at] = byte;
        frame
    };
    let broken = good()[good().len() - 1] ^ 0x10;
    for (what, bytes) in [
        ("an unknown kind", frame(0xee, 5, &known.hello(), b"")),
        ("a client's hello", hello(5)),
        ("a mutation", plain(Kind::Mutate, b"key", b"state")),
        ("a ping", message(Kind::Ping, &(), b"")),
        ("an answer", message(Kind::Welcome, &known.hello(), b"")),
        ("a hello without a header", message(Kind::Hello, &(), b"")),
        ("a hello with more behind it", message(Kind::Hello, &(known.hello(), 7), b"")),
        ("a shadow that is none", plain(Kind::Shadow, &[0xff; 9], b"")),
        ("another frame version", sealed(with(good(), VERSION_AT, 3))),
        ("a broken checksum", with(good(), good().len() - 1, broken)),
        ("a length over the limit", (64_u32 * 1024 + 1).to_le_bytes().to_vec()),
        ("a length of nothing", vec![0; 4]),
        ("a hello cut off", good()[..HEADER_AT + 3].to_vec()),
    ] {
        let node = trio.cluster().node(1);
        let before = bad_frames(node, "peer").await;
        let mut raw = Raw::connect(node.internode_address()).await;
        raw.send(&bytes).await;
        if what == "a hello cut off" {
            raw.finish().await;
        }
        assert_eq!(raw.rest().await, [], "{what}");
        assert_eq!(bad_frames(node, "peer").await, before + 1, "{what} is counted once");
        neighbour.goes_on().await;
    }
    neighbour.finish().await;
    known.assert_well(&mut trio).await;
}

/// What each bad message from a member is answered with; `None` is nothing.
fn from_a_member() -> Vec<(&'static str, Vec<u8>, Option<ReplicaError>)> {
    let (table, unnamed) = (table_id(BUCKET), table_id("demo.unnamed"));
    let bucket = |table: u32| ReplicaError::Bucket {
        reason: format!("table {table:#010x} has no agreed name on this connection"),
    };
    let key = |table| storage_key(table, 1, b"never stored");
    vec![
        ("an unknown kind", frame(0x4f, 5, &(), b""), Some(ReplicaError::BadRequest)),
        ("a client's kind", frame(1, 5, &Request::Topology, b""), Some(ReplicaError::BadRequest)),
        ("a second hello", frame(0x40, 5, &(), b""), Some(ReplicaError::BadRequest)),
        ("an answer to nothing", plain(Kind::Ack, b"", b""), Some(ReplicaError::BadRequest)),
        ("no storage key", plain(Kind::Mutate, b"k", b"v"), Some(ReplicaError::BadRequest)),
        ("an unnamed bucket", plain(Kind::Mutate, &key(unnamed), b"v"), Some(bucket(unnamed))),
        ("a damaged state", plain(Kind::Mutate, &key(table), b"v"), Some(ReplicaError::Damaged)),
        ("an empty state", plain(Kind::Mutate, &key(table), b""), Some(ReplicaError::Damaged)),
        ("gossip that is none", plain(Kind::Gossip, &[0xff; 30], b""), None),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_message_of_a_member_is_answered_or_ends_its_connection() {
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    trio.at(1).put("kept", "kept", starling_protocol::Level::All, None).await.expect("all are up");
    let before = trio.cluster().digest(1, BUCKET).await;
    let neighbour = Neighbour::of(trio.cluster().node(1)).await;
    let mut raw = known.greeted(&mut trio).await;
    let name = BucketName { id: table_id(BUCKET), name: BUCKET.to_owned() };
    raw.send(&message(Kind::Bucket, &name, b"")).await;
    for (what, bytes, expected) in from_a_member() {
        // In one packet with requests before and after it, which are answered.
        let ping = frame(Kind::Ping as u8, 6, &(), b"");
        raw.send(&[ping.clone(), bytes, ping].concat()).await;
        let mut answers = Vec::new();
        for _ in 0..2 + usize::from(expected.is_some()) {
            answers.push(raw.next().await.unwrap_or_else(|| panic!("{what} ends the connection")));
        }
        let pongs = answers.iter().filter(|answer| answer.kind == Kind::Pong as u8).count();
        assert_eq!(pongs, 2, "{what}: {answers:?}");
        let failed = answers.iter().find(|answer| answer.kind == Kind::Failed as u8);
        let failed = failed.map(|answer| decode_header(&answer.header).expect("it decodes"));
        assert_eq!(failed, expected, "{what}");
    }
    // What a client could not have sent is not led for a member either.
    for header in [Bytes::from_static(&[0xff; 5]), encoded(&Request::Topology)] {
        raw.send(&plain(Kind::Forward, &header, b"")).await;
        let answer = raw.next().await.expect("it is answered");
        let answer = decode_header::<Response>(&answer.header).expect("it decodes");
        assert!(matches!(answer, Response::Error(WireError::BadRequest { .. })), "{answer:?}");
    }
    let large = u32::try_from(FRAME_BYTES_MAX + 1).expect("it fits").to_le_bytes();
    let mut broken = message(Kind::Ping, &(), b"");
    broken[HEADER_AT] ^= 1;
    for (what, bytes) in [("too long", large.to_vec()), ("broken", broken)] {
        let counted = bad_frames(trio.cluster().node(1), "peer").await;
        let mut raw = known.greeted(&mut trio).await;
        raw.send(&bytes).await;
        assert_eq!(raw.rest().await, [], "{what}");
        assert_eq!(bad_frames(trio.cluster().node(1), "peer").await, counted + 1, "{what}");
    }
    neighbour.goes_on().await;
    neighbour.finish().await;
    known.assert_well(&mut trio).await;
    assert_eq!(trio.cluster().digest(1, BUCKET).await, before, "nothing of it was stored");
}

fn encoded(header: &impl serde::Serialize) -> Bytes {
    let mut out = bytes::BytesMut::new();
    starling_protocol::encode_header(header, &mut out);
    out.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_changed_at_random_do_no_harm() {
    let (seed, rounds) = (setting("SEED", 1), setting("ROUNDS", ROUNDS));
    let mut random = StdRng::seed_from_u64(seed);
    let mut trio = Trio::start(Cluster::builder(), BUCKET).await;
    let known = Known::of(&mut trio).await;
    let neighbour = Neighbour::of(trio.cluster().node(1)).await;
    let key = storage_key(table_id(BUCKET), 1, b"key");
    let name = BucketName { id: table_id(BUCKET), name: BUCKET.to_owned() };
    // Gossip is believed: what it says when its checksum fits is a member's word.
    let valid = [
        message(Kind::Bucket, &name, b""),
        plain(Kind::Mutate, &key, &[7; 60]),
        plain(Kind::Read, &key, b""),
        plain(Kind::Digest, &key, b""),
        message(Kind::Ping, &(), b""),
        message(Kind::Probe, &known.hosts[2], b""),
        message(Kind::Forward, &Request::Topology, b""),
        message(Kind::Hello, &known.hello(), b""),
    ];
    let before = bad_frames(trio.cluster().node(1), "peer").await;
    for round in 0..rounds {
        let mut raw = known.greeted(&mut trio).await;
        raw.send(&message(Kind::Bucket, &name, b"")).await;
        for good in &valid[..1 + (round as usize) % valid.len()] {
            raw.send(&mutated(&mut random, good.clone())).await;
        }
        raw.finish().await;
        raw.rest().await;
    }
    neighbour.goes_on().await;
    neighbour.finish().await;
    let noticed = bad_frames(trio.cluster().node(1), "peer").await - before;
    assert!(noticed >= rounds / 4, "only {noticed} of {rounds} were noticed");
    known.assert_well(&mut trio).await;
}
