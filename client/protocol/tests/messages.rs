//! Headers, errors and tokens: what is said comes back, and bytes that say nothing are refused.

use std::collections::BTreeSet;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use starling_protocol::{
    ContextToken, DownReplica, FrameError, Level, Outcome, Request, Response, WireError,
    decode_header, encode_header,
};

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

fn token() -> impl Strategy<Value = ContextToken> {
    bytes(80).prop_map(ContextToken)
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Any),
        Just(Level::One),
        Just(Level::Quorum),
        Just(Level::LocalSerial),
        any::<u8>().prop_map(Level::Count),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let target = (any::<u32>(), bytes(90), level(), option::of(token()), any::<[u8; 16]>());
    prop_oneof![
        (any::<u16>(), ".{0,20}")
            .prop_map(|(wire_version, client)| Request::Hello { wire_version, client }),
        ".{0,40}".prop_map(|name| Request::OpenBucket { name }),
        (target, 0..3).prop_map(|((bucket, key, level, context, operation), which)| match which {
            0 => Request::Get { bucket, key, level, floor: context },
            1 => {
                let context = context.unwrap_or(ContextToken(Bytes::new()));
                Request::Delete { bucket, key, level, context, operation }
            }
            _ => Request::Put { bucket, key, level, context, operation },
        }),
        Just(Request::Topology),
        Just(Request::Status),
    ]
}

fn encoded(request: &Request) -> BytesMut {
    let mut out = BytesMut::new();
    encode_header(request, &mut out);
    out
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        prop_assert_eq!(decode_header::<Request>(&encoded(&request)), Ok(request));
    }

    #[test]
    fn values_come_back(sibling_lens in vec(any::<u32>(), 0..9), context in token()) {
        let response = Response::Value { sibling_lens, context };
        let mut out = BytesMut::new();
        encode_header(&response, &mut out);
        prop_assert_eq!(decode_header::<Response>(&out), Ok(response));
    }

    #[test]
    fn no_truncated_header_decodes(request in request()) {
        let whole = encoded(&request);
        for len in 0..whole.len() {
            let decoded = decode_header::<Request>(&whole[..len]);
            prop_assert!(matches!(decoded, Err(FrameError::BadHeader { .. })), "{:?}", decoded);
        }
    }

    #[test]
    fn bytes_left_over_are_refused(request in request(), more in vec(any::<u8>(), 1..9)) {
        let mut header = encoded(&request);
        header.extend_from_slice(&more);
        prop_assert!(decode_header::<Request>(&header).is_err());
    }

    #[test]
    fn garbage_never_panics(garbage in vec(any::<u8>(), 0..600)) {
        // Some garbage is a request; then it is the request that encodes to it, or a longer form.
        if let Ok(request) = decode_header::<Request>(&garbage) {
            prop_assert!(encoded(&request).len() <= garbage.len());
        }
        let _any_outcome_will_do = decode_header::<Response>(&garbage);
    }

    #[test]
    fn tokens_have_a_text_form(token in token()) {
        let text = token.to_text();
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        prop_assert_eq!(ContextToken::from_text(&text), Ok(token));
    }
}

#[test]
fn claimed_lengths_are_not_believed() {
    for claim in [1_u64 << 20, 1 << 30, 1 << 62, u64::MAX] {
        let mut header = vec![1, 253];
        header.extend_from_slice(&claim.to_le_bytes());
        let decoded = decode_header::<Request>(&header);
        let Err(FrameError::BadHeader { reason }) = decoded else {
            panic!("a name of {claim} bytes was found in {} bytes", header.len());
        };
        let limited = reason.contains("LimitExceeded") || reason.contains("OutsideUsizeRange");
        assert!(limited, "{claim} bytes were set aside before the end was noticed: {reason}");
    }
}

#[test]
fn headers_of_every_length_decode() {
    // 65,536 slots are the longest topology; a u128 of one byte counts most against the limit.
    for len in [0, 1, 4_000, 4_096, 5_000, 65_536, 262_144, 262_145, 2_000_000] {
        let numbers = vec![1_u128; len];
        let mut out = BytesMut::new();
        encode_header(&numbers, &mut out);
        assert_eq!(decode_header::<Vec<u128>>(&out).as_ref(), Ok(&numbers), "{len} numbers");
    }
}

#[test]
fn text_that_is_no_token_is_refused() {
    for text in ["a", "====", "über", "ab+/", "abcd=", "ab cd"] {
        let error = ContextToken::from_text(text).expect_err(text).to_string();
        assert!(error.starts_with("a context is written in base64url"), "{error}");
    }
}

fn down() -> Vec<DownReplica> {
    let replica = |port, for_ms| DownReplica { address: ([10, 0, 0, 2], port).into(), for_ms };
    vec![replica(9050, 14_200), replica(9051, 0)]
}

/// One of each error; a new variant is added here, or the count below fails.
fn errors() -> Vec<WireError> {
    let (required, received, failed) = (2, 1, 1);
    let text = || "x".to_owned();
    vec![
        WireError::Unavailable { level: "QUORUM".to_owned(), required, alive: 1, down: down() },
        WireError::Timeout { received, required, write: true },
        WireError::Timeout { received, required, write: false },
        WireError::WriteFailed { received, required, failed },
        WireError::Overloaded { reason: text() },
        WireError::NotReady { waiting_for: vec!["10.0.0.2:7000".to_owned()] },
        WireError::BadRequest { message: text() },
        WireError::KeyTooLarge { len: 70_000, max: 65_535 },
        WireError::ValueTooLarge { len: 9, max: 8 },
        WireError::TooManySiblings { count: 101, max: 100 },
        WireError::UnknownKeyspace { name: text() },
        WireError::BadBucketName { name: text(), reason: text() },
        WireError::UnknownBucket { id: 1 },
        WireError::TooManyBuckets { max: 1_024 },
        WireError::BucketIdCollision { name: text(), other: text() },
        WireError::BadContext { reason: text() },
        WireError::FloorNotMet,
        WireError::ClockSkew { ahead_ms: 1 },
        WireError::NotSupportedYet { what: text() },
        WireError::NotEnoughReplicas { required: 4, replication_factor: 3 },
        WireError::ShuttingDown,
        WireError::NoLeader { reason: text() },
        WireError::LeaderLost,
        WireError::ReadFailed { received, required, failed },
        WireError::ObjectTooLarge { len: 9, max: 8 },
        WireError::Internal { message: text() },
    ]
}

#[test]
fn errors_have_codes_of_their_own_and_come_back() {
    let errors = errors();
    let codes: BTreeSet<_> = errors.iter().map(WireError::code).collect();
    assert_eq!(codes.len(), errors.len() - 1, "only the two timeouts share a code");
    for error in errors {
        let mut out = BytesMut::new();
        encode_header(&Response::Error(error.clone()), &mut out);
        assert_eq!(decode_header(&out), Ok(Response::Error(error.clone())));
        assert!(!error.to_string().is_empty() && !error.advice().is_empty());
    }
}

#[test]
fn only_writes_that_had_begun_are_of_unknown_outcome() {
    let unknown: Vec<_> =
        errors().into_iter().filter(|error| error.outcome() == Outcome::Unknown).collect();
    let codes: Vec<_> = unknown.iter().map(WireError::code).collect();
    assert_eq!(codes, ["S103", "S104", "S109", "S901"]);
    assert!(matches!(unknown[0], WireError::Timeout { write: true, .. }));
}

#[test]
fn codes_stay_as_they_are() {
    // Scripts match on these.
    let unavailable = &errors()[0];
    assert_eq!(unavailable.code(), "S102");
    let text = "unavailable: QUORUM needs 2 replicas, 1 is up; down: 10.0.0.2:9050 (14 s), 10.0.0.2:9051 (0 s)";
    assert_eq!(unavailable.to_string(), text);
}
