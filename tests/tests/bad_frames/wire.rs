//! Raw connections: bytes as a test chooses them, and whatever comes back until the other side closes.
//!
//! Nothing here knows which bytes are good; waiting for an answer or an end is bounded.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use starling_protocol::{
    Frame, FrameDecoder, Level, Request, Response, WIRE_VERSION, WireError, decode_header,
    encode_parts, kind,
};
use starling_tests::Node;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// When an answer, or the end of a connection, is given up.
pub const WITHIN: Duration = Duration::from_secs(20);
/// Where the parts of an encoded frame begin.
pub const VERSION_AT: usize = 4;
/// See [`VERSION_AT`].
pub const HEADER_LEN_AT: usize = 27;
/// See [`VERSION_AT`].
pub const HEADER_AT: usize = 31;
const CRC_BYTES: usize = 4;
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A connection that keeps to no protocol.
pub struct Raw {
    stream: TcpStream,
    received: BytesMut,
}

impl Raw {
    /// Connects and says nothing.
    pub async fn connect(at: SocketAddr) -> Raw {
        let stream = TcpStream::connect(at).await.expect("a running node takes connections");
        stream.set_nodelay(true).expect("the connection is open");
        Raw { stream, received: BytesMut::new() }
    }

    /// Sends bytes. That the other side has closed shows when its answer is read.
    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = timeout(WITHIN, self.stream.write_all(bytes)).await;
        let _closed_already = sent.expect("the node reads or closes");
    }

    /// Sends no more, and goes on reading.
    pub async fn finish(&mut self) {
        let _closed_already = self.stream.shutdown().await;
    }

    /// The next frame; `None` once the other side has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let next = timeout(WITHIN, self.read_frame()).await;
        next.unwrap_or_else(|_| panic!("neither an answer nor an end within {WITHIN:?}"))
    }

    /// Every frame until the other side closes.
    pub async fn rest(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.next(&mut self.received).expect("a node sends good frames")
            {
                return Some(frame);
            }
            // A reset is an end too: the node closed with bytes of ours unread.
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// A client's connection with `bucket` open, and the bucket's id.
pub async fn greeted(node: &Node, bucket: &str) -> (Raw, u32) {
    let mut raw = Raw::connect(node.native_address()).await;
    raw.send(&hello(1)).await;
    let greeting = raw.next().await.expect("a client is greeted");
    assert!(matches!(response(&greeting), Response::Hello { .. }), "{greeting:?}");
    raw.send(&request(2, &Request::OpenBucket { name: bucket.to_owned() }, b"")).await;
    let opened = raw.next().await.expect("a bucket is opened");
    match response(&opened) {
        Response::BucketOpened { bucket, .. } => (raw, bucket),
        other => panic!("{bucket} is not opened: {other:?}"),
    }
}

/// The first frame of a client.
pub fn hello(id: u64) -> Vec<u8> {
    request(id, &Request::Hello { wire_version: WIRE_VERSION, client: "test".to_owned() }, b"")
}

/// A blind put.
pub fn put(id: u64, bucket: u32, key: &str, value: &[u8]) -> Vec<u8> {
    let put = Request::Put {
        bucket,
        key: Bytes::copy_from_slice(key.as_bytes()),
        level: Level::Quorum,
        context: None,
        operation: u128::from(id).to_le_bytes(),
    };
    request(id, &put, value)
}

/// A read.
pub fn get(id: u64, bucket: u32, key: &str) -> Vec<u8> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    request(id, &Request::Get { bucket, key, level: Level::Quorum, floor: None }, b"")
}

/// A client's frame.
pub fn request(id: u64, header: &Request, operand: &[u8]) -> Vec<u8> {
    frame(kind::REQUEST, id, header, operand)
}

/// Any frame.
pub fn frame(kind: u8, id: u64, header: &impl serde::Serialize, operand: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_parts(&mut out, kind, 0, id, 10_000, 0, header, operand);
    out.to_vec()
}

/// The frame with the length and the checksum that fit the rest of it.
pub fn sealed(mut frame: Vec<u8>) -> Vec<u8> {
    let covered = frame.len() - CRC_BYTES;
    let len = u32::try_from(frame.len() - VERSION_AT).expect("a frame is small");
    frame[..VERSION_AT].copy_from_slice(&len.to_le_bytes());
    let crc = crc32c(&frame[VERSION_AT..covered]);
    frame[covered..].copy_from_slice(&crc.to_le_bytes());
    frame
}

/// Castagnoli's checksum, bit by bit: a second opinion on the node's.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// What a node says in an answer to a client.
pub fn response(frame: &Frame) -> Response {
    assert_eq!(frame.kind, kind::RESPONSE, "{frame:?}");
    decode_header(&frame.header).expect("a node's answers decode")
}

/// The error in an answer to a client.
pub fn error(frame: &Frame) -> WireError {
    match response(frame) {
        Response::Error(error) => error,
        other => panic!("no error: {other:?}"),
    }
}

/// How many bad frames the node has counted from `"client"` or `"peer"`.
pub async fn bad_frames(node: &Node, from: &str) -> u64 {
    let answer = node.ask("/metrics").await.expect("a running node answers");
    let name = format!("starling_bad_frames_total{{from=\"{from}\"}} ");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(name.as_str()));
    line.map_or(0, |count| count.trim().parse().expect("a count"))
}

/// The node runs, and no task of it has panicked.
pub fn assert_whole(node: &mut Node) {
    assert!(node.is_running(), "the process has ended:\n{}", node.log_end());
    assert!(!node.log().contains("panicked"), "a task has panicked:\n{}", node.log_end());
}
