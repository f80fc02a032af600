//! Large values: memory stays within its limit, every request is answered, and nothing else suffers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use starling_node::time::now;
use starling_protocol::{
    FrameDecoder, Level, Request, Response, WIRE_VERSION, WireError, decode_header, encode_parts,
    kind,
};
use starling_tests::Cluster;
use starling_tests::cluster::READY_WITHIN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BUDGET_MS: u32 = 30_000;
const ANSWERED_WITHIN: Duration = Duration::from_secs(40);
const LARGE: usize = 8 << 20;
/// What a node may take for 64 MiB in flight: those, what two workers copy at a time, socket buffers, and itself.
const RESIDENT_MAX: u64 = 640 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_large_reads_is_answered_to_the_last_within_the_memory_limit() {
    let builder = Cluster::builder().setting("limits.in_flight_max", "\"64MiB\"");
    let mut cluster = builder.start().await;
    cluster.wait_until_up(3, READY_WITHIN).await;
    let (mut client, bucket) = Raw::open(&mut cluster, 1).await;
    let key = Bytes::from_static(b"large");
    client.send(&put(bucket, key.clone(), Level::All), &vec![7; LARGE]).await;
    assert!(matches!(client.answer().await, Response::Written { .. }));

    let get = |level| Request::Get { bucket, key: key.clone(), level, floor: None };
    let mut peak = 0;
    let (mut values, mut refused) = (0, 0);
    client.send_many(300, &get(Level::Quorum)).await;
    for _ in 0..300 {
        match client.answer().await {
            Response::Value { sibling_lens, .. } => {
                assert_eq!(sibling_lens, [LARGE as u32]);
                values += 1;
            }
            Response::Error(WireError::Overloaded { .. }) => refused += 1,
            other => panic!("{other:?}"),
        }
        peak = peak.max(cluster.node(1).resident_bytes());
    }
    eprintln!("{values} answered, {refused} refused, {} MiB resident at most", peak >> 20);
    assert!(values >= 4, "{values} answered, {refused} refused");
    assert!(peak < RESIDENT_MAX, "{} MiB resident", peak >> 20);

    // And afterwards there is room again.
    client.send(&get(Level::All), &[]).await;
    let answer = client.answer().await;
    assert!(matches!(answer, Response::Value { .. }), "{answer:?}");
}

fn put(bucket: u32, key: Bytes, level: Level) -> Request {
    Request::Put { bucket, key, level, context: None, operation: [1; 16] }
}

/// A client that sends whatever it likes at once, and reads.
struct Raw {
    stream: TcpStream,
    received: BytesMut,
    sent: u64,
}

impl Raw {
    async fn open(cluster: &mut Cluster, number: u8) -> (Raw, u32) {
        let address = cluster.node(number).native_address();
        let stream = TcpStream::connect(address).await.expect("the node serves");
        let mut raw = Raw { stream, received: BytesMut::new(), sent: 0 };
        raw.send(&Request::Hello { wire_version: WIRE_VERSION, client: "raw".into() }, &[]).await;
        raw.answer().await;
        raw.send(&Request::OpenBucket { name: "demo.large".into() }, &[]).await;
        match raw.answer().await {
            Response::BucketOpened { bucket, .. } => (raw, bucket),
            other => panic!("{other:?}"),
        }
    }

    async fn send(&mut self, request: &Request, operand: &[u8]) {
        let mut frame = BytesMut::new();
        self.sent += 1;
        encode_parts(&mut frame, kind::REQUEST, 0, self.sent, BUDGET_MS, 0, request, operand);
        self.stream.write_all(&frame).await.expect("the node reads");
    }

    async fn send_many(&mut self, count: u32, request: &Request) {
        let mut frames = BytesMut::new();
        for _ in 0..count {
            self.sent += 1;
            encode_parts(&mut frames, kind::REQUEST, 0, self.sent, BUDGET_MS, 0, request, &[]);
        }
        self.stream.write_all(&frames).await.expect("the node reads");
    }

    async fn answer(&mut self) -> Response {
        let mut decoder = FrameDecoder::new(1 << 30);
        let until = now() + ANSWERED_WITHIN;
        loop {
            if let Some(frame) = decoder.next(&mut self.received).expect("nodes send frames") {
                return decode_header(&frame.header).expect("nodes send responses");
            }
            let read = tokio::time::timeout_at(until, self.stream.read_buf(&mut self.received));
            let read = read.await.expect("every request is answered");
            assert!(read.expect("the connection stays") > 0, "the node has closed the connection");
        }
    }
}
