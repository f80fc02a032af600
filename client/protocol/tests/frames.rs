//! Frames against any bytes: what is encoded comes back, damage is noticed, nothing panics.

use bytes::{BufMut, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use starling_protocol::{Frame, FrameDecoder, FrameError, decode_header, encode_parts};

/// The length field, the fixed fields and the checksum.
const LEN_BYTES: usize = 4;
const OVERHEAD: usize = 1 + 1 + 1 + 8 + 4 + 8 + 4 + 4;
const FRAME_MAX: usize = 64 << 10;

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

fn frame() -> impl Strategy<Value = Frame> {
    let numbers = (any::<u8>(), any::<u8>(), any::<u64>(), any::<u32>(), any::<u64>());
    (numbers, bytes(200), bytes(2_000)).prop_map(
        |((kind, flags, request_id, budget_ms, mint), header, operand)| Frame {
            kind,
            flags,
            request_id,
            budget_ms,
            mint,
            header,
            operand,
        },
    )
}

fn encoded(frame: &Frame) -> BytesMut {
    let mut out = BytesMut::new();
    frame.encode_into(&mut out);
    out
}

/// Everything that decodes from `stream` when it arrives in pieces of these lengths, over and over.
fn decode_in_pieces(mut stream: &[u8], pieces: &[usize]) -> Result<Vec<Frame>, FrameError> {
    let (mut decoder, mut received) = (FrameDecoder::new(FRAME_MAX), BytesMut::new());
    let mut frames = Vec::new();
    for len in pieces.iter().cycle() {
        let (piece, rest) = stream.split_at((*len).clamp(1, stream.len().max(1)).min(stream.len()));
        stream = rest;
        received.put_slice(piece);
        while let Some(frame) = decoder.next(&mut received)? {
            frames.push(frame);
        }
        if stream.is_empty() {
            break;
        }
    }
    assert!(frames.is_empty() || received.len() < FRAME_MAX, "what is decoded is cut off");
    Ok(frames)
}

proptest! {
    #[test]
    fn frames_come_back_however_the_stream_is_cut(
        frames in vec(frame(), 0..8),
        pieces in vec(1_usize..700, 1..6),
    ) {
        let mut stream = BytesMut::new();
        for frame in &frames {
            frame.encode_into(&mut stream);
        }
        prop_assert_eq!(decode_in_pieces(&stream, &pieces), Ok(frames));
    }

    #[test]
    fn every_truncation_waits_for_more(frame in frame()) {
        let whole = encoded(&frame);
        for len in 0..whole.len() {
            let mut received = BytesMut::from(&whole[..len]);
            prop_assert_eq!(FrameDecoder::new(FRAME_MAX).next(&mut received), Ok(None));
            prop_assert_eq!(received.len(), len, "nothing is taken before the frame is whole");
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed(frame in frame(), at in any::<proptest::sample::Index>(), bit in 0..8_u8) {
        let mut damaged = encoded(&frame);
        let at = at.index(damaged.len());
        damaged[at] ^= 1_u8 << bit;
        let decoded = FrameDecoder::new(FRAME_MAX).next(&mut damaged);
        prop_assert!(!matches!(decoded, Ok(Some(_))), "byte {}, bit {}: {:?}", at, bit, decoded);
        if at >= LEN_BYTES {
            prop_assert!(decoded.is_err(), "the frame is whole, so it is judged: {:?}", decoded);
        }
    }

    #[test]
    fn damage_names_its_request_and_spares_the_next_frame(
        frame in frame(),
        next in frame(),
        at in any::<proptest::sample::Index>(),
    ) {
        let mut received = encoded(&frame);
        let id_ends = LEN_BYTES + 3 + 8;
        let at = id_ends + at.index(received.len() - id_ends);
        received[at] ^= 0x10;
        next.encode_into(&mut received);
        let mut decoder = FrameDecoder::new(FRAME_MAX);
        let request_id = frame.request_id;
        prop_assert_eq!(decoder.next(&mut received), Err(FrameError::BadChecksum { request_id }));
        prop_assert_eq!(decoder.next(&mut received), Ok(Some(next)));
    }

    #[test]
    fn garbage_is_an_error_or_waits(garbage in vec(any::<u8>(), 0..4_000), pieces in vec(1_usize..99, 1..4)) {
        // 32 bits of checksum stand between these bytes and a frame.
        if let Ok(frames) = decode_in_pieces(&garbage, &pieces) {
            prop_assert!(frames.is_empty());
        }
    }

    #[test]
    fn lengths_out_of_bounds_are_refused_before_their_bytes_arrive(len in any::<u32>()) {
        let mut received = BytesMut::new();
        received.put_u32_le(len);
        let len = len as usize;
        let expected = match len {
            _ if len > FRAME_MAX => Err(FrameError::TooLarge { len, max: FRAME_MAX }),
            _ if len < OVERHEAD => Err(FrameError::Malformed),
            _ => Ok(None),
        };
        prop_assert_eq!(FrameDecoder::new(FRAME_MAX).next(&mut received), expected);
        prop_assert!(received.capacity() < 1_024, "nothing is set aside for bytes that are not there");
    }
}

/// A frame that lies, under a checksum that fits.
fn forged(change: impl FnOnce(&mut [u8])) -> BytesMut {
    let frame = Frame {
        kind: 1,
        flags: 0,
        request_id: 7,
        budget_ms: 0,
        mint: 0,
        header: Bytes::from_static(b"header"),
        operand: Bytes::from_static(b"operand"),
    };
    let mut out = encoded(&frame);
    let covered = out.len() - 4;
    change(&mut out[LEN_BYTES..covered]);
    let crc = crc32c::crc32c(&out[LEN_BYTES..covered]);
    out[covered..].copy_from_slice(&crc.to_le_bytes());
    out
}

#[test]
fn a_header_that_reaches_over_its_frame_is_refused() {
    for header_len in [14_u32, 1 << 16, u32::MAX] {
        let mut received = forged(|body| body[23..27].copy_from_slice(&header_len.to_le_bytes()));
        let decoded = FrameDecoder::new(FRAME_MAX).next(&mut received);
        assert_eq!(decoded, Err(FrameError::Malformed), "header of {header_len} bytes");
    }
}

#[test]
fn another_version_is_refused() {
    let mut received = forged(|body| body[0] = 2);
    let decoded = FrameDecoder::new(FRAME_MAX).next(&mut received);
    assert_eq!(decoded, Err(FrameError::BadVersion { found: 2 }));
}

#[test]
fn the_bytes_on_the_wire_stay_as_they_are() {
    let mut out = BytesMut::new();
    encode_parts(&mut out, 1, 2, 3, 4, 5, &(6_u8, "seven"), b"eight");
    let expected = [
        &[43, 0, 0, 0, 1, 1, 2][..],
        &[3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0],
        &[6, 5, b's', b'e', b'v', b'e', b'n', b'e', b'i', b'g', b'h', b't'],
    ]
    .concat();
    assert_eq!(out[..out.len() - 4], expected);
    let frame =
        FrameDecoder::new(FRAME_MAX).next(&mut out).expect("it is sound").expect("it is whole");
    assert_eq!(decode_header(&frame.header), Ok((6_u8, "seven".to_owned())));
    assert_eq!(frame.operand, Bytes::from_static(b"eight"));
}

#[test]
fn header_and_operand_share_the_receive_buffer() {
    let mut received = forged(|_| ());
    let at = received.as_ptr() as usize;
    let frame = FrameDecoder::new(FRAME_MAX)
        .next(&mut received)
        .expect("it is sound")
        .expect("it is whole");
    assert_eq!(frame.header.as_ptr() as usize, at + LEN_BYTES + OVERHEAD - 4);
    assert_eq!(
        frame.operand.as_ptr() as usize,
        frame.header.as_ptr() as usize + frame.header.len()
    );
}
