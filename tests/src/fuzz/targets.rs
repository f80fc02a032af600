//! The decoders and their properties. Whatever is decoded, encoded and decoded again is the same; what has one encoding only comes
//! back as the same bytes; a join of whatever is stored never fails and does not depend on the order.

use std::fmt::Debug;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_node::Config;
use starling_node::config::Overrides;
use starling_node::internode::message::{BucketName, GossipMessage, Hello, ReplicaError, Shadow};
use starling_node::membership::ClusterRecord;
use starling_protocol::{
    ContextToken, Frame, FrameDecoder, FrameError, Level, Request, Response, decode_header,
    encode_header, encode_parts,
};
use starling_ring::gossip::{Boot, Digest, Key, Message, NodeDelta, Shared};
use starling_ring::{Candidate, ClusterId, HostId};
use starling_storage::context_token::{self, TokenKey};
use starling_storage::identity::IdentityRecord;
use starling_storage::values::{self, Actor, Causal, Context, OperationId, put_delta};
use starling_storage::{Hint, keys};
use uuid::Uuid;

use super::Target;

const FRAME_BYTES_MAX: usize = 1 << 20;
const TOKEN_KEY: TokenKey = TokenKey([7; 16]);
const TABLE: u32 = 9;
const CONFIGS: [&str; 3] = [
    include_str!("../../../config/production.toml"),
    include_str!("../../../config/single.toml"),
    include_str!("../../../config/demo/node1.toml"),
];

/// Every target.
pub fn all() -> Vec<Target> {
    let plain = |name, samples, feed| Target { name, samples, seal: None, feed };
    let sealed = |name, samples, feed| Target { name, samples, seal: Some(seal_end), feed };
    vec![
        Target { name: "frame", samples: frames(), seal: Some(seal_frame), feed: frame },
        plain("request", requests(), header::<Request>),
        plain("response", responses(), header::<Response>),
        plain("hello", vec![encoded(&hello())], header::<Hello>),
        plain("shadow", vec![encoded(&shadow())], header::<Shadow>),
        plain("bucket-name", vec![encoded(&bucket_name())], header::<BucketName>),
        plain("replica-error", refusals(), header::<ReplicaError>),
        plain("gossip", gossip(), header::<GossipMessage>),
        plain("cluster-record", vec![encoded(&record())], header::<ClusterRecord>),
        plain("token", tokens(), token),
        sealed("state", states(), state),
        plain("storage-key", vec![keys::storage_key(TABLE, -5, b"cart:7")], storage_key),
        sealed("hint", vec![hint_sample().encode().to_vec()], hint),
        Target {
            name: "identity",
            samples: vec![identity_sample().encode()],
            seal: Some(seal_text),
            feed: identity,
        },
        plain("config", CONFIGS.map(|text| text.as_bytes().to_vec()).to_vec(), config),
    ]
}

/// Headers are what follows no length and has no checksum: bincode.
fn header<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(decoded) = decode_header::<T>(bytes) else { return false };
    let again = decode_header::<T>(&encoded(&decoded)).expect("what was decoded can be encoded");
    // What holds a floating number that is none is equal to nothing.
    assert!(again == decoded || format!("{again:?}") == format!("{decoded:?}"), "{decoded:?}");
    true
}

fn frame(bytes: &[u8]) -> bool {
    let whole = decode_all([bytes]);
    let (left, right) = bytes.split_at(bytes.len() / 2);
    assert_eq!(whole, decode_all([left, right]), "it matters how the bytes arrive");
    for frame in &whole.0 {
        let mut again = BytesMut::new();
        frame.encode_into(&mut again);
        assert_eq!(decode_all([&again[..]]), (vec![frame.clone()], None));
    }
    !whole.0.is_empty()
}

fn decode_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let (mut received, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        received.extend_from_slice(piece);
        loop {
            match decoder.next(&mut received) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn token(bytes: &[u8]) -> bool {
    let text = ContextToken(Bytes::copy_from_slice(bytes)).to_text();
    assert_eq!(ContextToken::from_text(&text).expect("it was made here").0, bytes);
    let _refused = ContextToken::from_text(&String::from_utf8_lossy(bytes));
    match context_token::open(&TOKEN_KEY, TABLE, b"key", bytes) {
        Ok(context) => {
            let again = context_token::seal(&TOKEN_KEY, TABLE, b"key", &context);
            assert_eq!(again, bytes, "two tokens for one context: one of them is forged");
            true
        }
        Err(error) => error.to_string().is_empty(),
    }
}

fn state(bytes: &[u8]) -> bool {
    // A replica joins whatever it holds, and must not fail.
    let sample = put(&Causal::absent(), 1, 5, Some("some"));
    let joined = values::merge(None, [bytes, &sample]);
    assert_eq!(joined, values::merge(Some(&sample), [bytes]), "the join depends on the order");
    assert_eq!(joined, values::merge(Some(&joined), [bytes]), "a join is not repeatable");
    let _newest = values::tombstone(bytes);
    let Ok(decoded) = Causal::decode(Bytes::copy_from_slice(bytes)) else {
        return false;
    };
    assert_eq!(decoded.encode(), bytes, "a state with two encodings");
    let joined = Causal::decode(joined.into()).expect("both can be read");
    assert!(decoded.precedes(&joined), "the join has forgotten something");
    true
}

fn storage_key(bytes: &[u8]) -> bool {
    let Ok(decoded) = keys::decode(bytes) else { return false };
    let again = keys::storage_key(decoded.table, decoded.token, decoded.partition_key);
    assert_eq!(again, bytes);
    true
}

fn hint(bytes: &[u8]) -> bool {
    let Some(decoded) = Hint::decode(bytes) else { return false };
    assert_eq!(decoded.encode(), bytes);
    true
}

fn identity(bytes: &[u8]) -> bool {
    let Ok(decoded) = IdentityRecord::decode(bytes) else { return false };
    let again = IdentityRecord::decode(&decoded.encode());
    assert_eq!(again.as_ref(), Ok(&decoded));
    true
}

fn config(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    match Config::parse(Path::new("fuzzed.toml"), &text, &Overrides::default()) {
        Ok(_) => true,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.trim().is_empty(), "an error that says nothing");
            false
        }
    }
}

fn seal_end(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(body) = bytes.len().checked_sub(4) {
        let checksum = crc32c::crc32c(&bytes[..body]);
        bytes[body..].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

/// The length and the checksum of the first frame.
fn seal_frame(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(after) = bytes.len().checked_sub(4).filter(|after| *after >= 4) {
        bytes[..4].copy_from_slice(&(after as u32).to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[4..after]);
        bytes[after..].copy_from_slice(&checksum.to_le_bytes());
    }
    bytes
}

fn seal_text(bytes: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes);
    match text.rsplit_once("crc32c ") {
        Some((body, _)) => {
            format!("{body}crc32c {:08x}\n", crc32c::crc32c(body.as_bytes())).into_bytes()
        }
        None => bytes,
    }
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    encode_header(value, &mut bytes);
    bytes.to_vec()
}

fn frames() -> Vec<Vec<u8>> {
    let of = |operand: &[u8]| {
        let mut bytes = BytesMut::new();
        encode_parts(&mut bytes, 0x45, 1, 7, 500, 1 << 50, &bucket_name(), operand);
        bytes.to_vec()
    };
    vec![of(b""), of(&[5; 300]), [of(b"two"), of(b"in a row")].concat()]
}

fn requests() -> Vec<Vec<u8>> {
    let (key, token) = (Bytes::from_static(b"key"), ContextToken(Bytes::from_static(&[1; 40])));
    let (bucket, level, operation) = (TABLE, Level::Quorum, [3; 16]);
    let all = [
        Request::Hello { wire_version: 1, client: "a client".to_owned() },
        Request::OpenBucket { name: "demo.things".to_owned() },
        Request::Get { bucket, key: key.clone(), level, floor: Some(token.clone()) },
        Request::Put { bucket, key: key.clone(), level: Level::Count(2), context: None, operation },
        Request::Delete { bucket, key, level, context: token, operation },
        Request::Topology,
        Request::Status,
    ];
    all.iter().map(encoded).collect()
}

fn responses() -> Vec<Vec<u8>> {
    let topology = starling_protocol::TopologyView {
        epoch: 1,
        slot_bits: 12,
        sip_key: [4; 16],
        slots: Vec::new(),
        members: Vec::new(),
        keyspaces: Vec::new(),
    };
    let context = ContextToken(Bytes::from_static(&[1; 40]));
    let all = [
        Response::Topology(topology),
        Response::Value { sibling_lens: vec![3, 70_000], context: context.clone() },
        Response::Written { context },
        Response::BucketOpened { bucket: TABLE, keyspace: "demo".to_owned(), lww: true },
    ];
    all.iter().map(encoded).collect()
}

fn candidate() -> Candidate {
    Candidate {
        host_id: HostId(Uuid::nil()),
        address: ([127, 0, 0, 1], 7000).into(),
        client_address: ([127, 0, 0, 1], 9050).into(),
        datacenter: "dc1".to_owned(),
        rack: "rack1".to_owned(),
        nonce: [1; 32],
        config_hash: [2; 32],
        seeds_hash: [3; 32],
    }
}

fn hello() -> Hello {
    Hello {
        wire_version: 1,
        cluster_id: ClusterId([3; 16]),
        host_id: HostId(Uuid::nil()),
        meant_for: HostId(Uuid::nil()),
        incarnation: 4,
        boot_nonce: 5,
        epoch: 1,
        whole: true,
    }
}

fn shadow() -> Shadow {
    Shadow {
        wire_version: 1,
        me: Some(candidate()),
        candidates: vec![candidate()],
        cluster_id: None,
        met_incarnation: 3,
    }
}

fn record() -> ClusterRecord {
    ClusterRecord { candidates: vec![candidate()], slot_bits: 12, keyspaces: Vec::new() }
}

fn bucket_name() -> BucketName {
    BucketName { id: TABLE, name: "demo.things".to_owned() }
}

fn refusals() -> Vec<Vec<u8>> {
    let all = [
        ReplicaError::Overloaded,
        ReplicaError::ClockSkew { ahead_us: 9 },
        ReplicaError::Bucket { reason: "why".to_owned() },
        ReplicaError::Late { mint: 1, floor: 2 },
    ];
    all.iter().map(encoded).collect()
}

fn gossip() -> Vec<Vec<u8>> {
    let shared =
        Shared { wire_version: 1, cluster_id: ClusterId([3; 16]), slot_bits: 12, epoch: 1 };
    let digests = vec![Digest { incarnation_lo: 1, heartbeat_lo: 700, version: 3 }; 3];
    let delta = vec![NodeDelta {
        index: 1,
        incarnation: 2,
        boot_nonce: 3,
        heartbeat: 4,
        after: 0,
        version: 2,
        values: vec![(Key::Rack, 1, b"rack1".to_vec()), (Key::Status, 2, vec![1])],
    }];
    let boot = Boot { incarnation: 1, nonce: 2 };
    let all = [
        Message::Syn { shared, boot, digests: digests.clone() },
        Message::SynAck { shared, digests, delta: delta.clone() },
        Message::Ack { shared, delta },
    ];
    all.iter().map(encoded).collect()
}

fn put(over: &Causal, actor: u64, seq: u64, value: Option<&'static str>) -> Vec<u8> {
    let value = value.map(|text| Bytes::from_static(text.as_bytes()));
    let operation = OperationId([1; 16]);
    let delta = put_delta(over, &Context::new(), Actor(actor), seq, operation, value, false);
    over.join(&delta).encode().to_vec()
}

fn states() -> Vec<Vec<u8>> {
    let mut all = vec![Causal::absent().encode().to_vec()];
    for (actor, seq) in [(1, 1_700_000_000_000_000), (2, 1_700_000_000_000_500), (1, u64::MAX)] {
        let last = all.last().expect("there is one").clone();
        let last = Causal::decode(last.into()).expect("it was made here");
        all.push(put(&last, actor, seq, Some("value")));
    }
    all.push(put(&Causal::absent(), 3, 7, None));
    // What cannot be read is kept as it is, beside what can.
    all.push(values::merge(None, [b"not a state".as_slice(), &all[1]]));
    all.retain(|state| Causal::decode(Bytes::copy_from_slice(state)).is_ok());
    all
}

fn tokens() -> Vec<Vec<u8>> {
    let contexts = states().into_iter().map(|state| {
        let state = Causal::decode(state.into()).expect("it was made here");
        context_token::seal(&TOKEN_KEY, TABLE, b"key", state.context()).to_vec()
    });
    contexts.collect()
}

fn hint_sample() -> Hint {
    let operand = Bytes::from(states().pop().expect("there are some"));
    Hint { table: TABLE, mint: 1 << 50, key: Bytes::from_static(b"key"), operand }
}

fn identity_sample() -> IdentityRecord {
    IdentityRecord {
        host_id: HostId(Uuid::nil()),
        nonce: [1; 32],
        actor: Actor(0xabc),
        incarnation: 3,
        boot_id: "a-boot".to_owned(),
        cluster_id: Some([3; 16]),
        clean: true,
    }
}
