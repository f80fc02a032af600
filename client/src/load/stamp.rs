//! Values that say what they are: who wrote them, for which key, as which write.
//!
//! Invariant: a value read back either names exactly one write and is byte for byte what that write sent,
//! or [`read_stamp`] says that it is not. Nothing here knows whether the value should be there.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of the header, and so of the smallest value that can be verified.
pub(crate) const STAMP_BYTES: usize = 24;
const MAGIC: u32 = 0x4c52_4153;
/// Values are carved from blocks of this size, so that most of them cost no allocation.
const BLOCK_BYTES: usize = 64 << 10;

/// What a value says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) run: u32,
    pub(crate) worker: u32,
    pub(crate) key: u64,
    /// The number of the write among all writes of its key in the run, from 1.
    pub(crate) sequence: u32,
}

impl Stamp {
    fn header(self) -> [u8; STAMP_BYTES] {
        let mut header = [0; STAMP_BYTES];
        header[..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..8].copy_from_slice(&self.run.to_le_bytes());
        header[8..12].copy_from_slice(&self.worker.to_le_bytes());
        header[12..20].copy_from_slice(&self.key.to_le_bytes());
        header[20..].copy_from_slice(&self.sequence.to_le_bytes());
        header
    }

    /// The words after the header: incompressible, and another for every write.
    fn filler(self) -> impl Iterator<Item = [u8; 8]> {
        let writer = u64::from(self.run) << 32 | u64::from(self.worker);
        let mut state =
            writer ^ self.key.rotate_left(17) ^ u64::from(self.sequence).rotate_left(48);
        std::iter::repeat_with(move || {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (word ^ (word >> 31)).to_le_bytes()
        })
    }
}

/// Makes a worker's values.
#[derive(Debug)]
pub(crate) struct ValueMaker {
    run: u32,
    worker: u32,
    value_bytes: usize,
    block: BytesMut,
}

impl ValueMaker {
    pub(crate) fn new(run: u32, worker: u32, value_bytes: usize) -> ValueMaker {
        ValueMaker { run, worker, value_bytes, block: BytesMut::new() }
    }

    /// The value of one write. A size below [`STAMP_BYTES`] cuts the header off.
    pub(crate) fn make(&mut self, key: u64, sequence: u32) -> Bytes {
        let stamp = Stamp { run: self.run, worker: self.worker, key, sequence };
        let size = self.value_bytes;
        if self.block.capacity() < size {
            self.block = BytesMut::with_capacity(size.max(BLOCK_BYTES));
        }
        let header = stamp.header();
        self.block.put_slice(&header[..size.min(STAMP_BYTES)]);
        for word in stamp.filler() {
            let missing = size - self.block.len();
            if missing == 0 {
                break;
            }
            self.block.put_slice(&word[..missing.min(word.len())]);
        }
        self.block.split().freeze()
    }
}

/// The bytes are no value of this generator, or were damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAStamp;

/// Reads a value back and compares every byte of it with what its header says was written.
pub(crate) fn read_stamp(value: &[u8]) -> Result<Stamp, NotAStamp> {
    let (header, filler) = value.split_at_checked(STAMP_BYTES).ok_or(NotAStamp)?;
    let word = |from: usize| -> [u8; 4] {
        let mut word = [0; 4];
        word.copy_from_slice(&header[from..from + 4]);
        word
    };
    if u32::from_le_bytes(word(0)) != MAGIC {
        return Err(NotAStamp);
    }
    let low = u64::from(u32::from_le_bytes(word(12)));
    let high = u64::from(u32::from_le_bytes(word(16)));
    let stamp = Stamp {
        run: u32::from_le_bytes(word(4)),
        worker: u32::from_le_bytes(word(8)),
        key: high << 32 | low,
        sequence: u32::from_le_bytes(word(20)),
    };
    let intact =
        filler.chunks(8).zip(stamp.filler()).all(|(found, word)| found == &word[..found.len()]);
    if intact { Ok(stamp) } else { Err(NotAStamp) }
}

#[cfg(test)]
mod tests {
    use super::{NotAStamp, STAMP_BYTES, Stamp, ValueMaker, read_stamp};

    #[test]
    fn a_value_says_what_it_is_at_every_size() {
        for size in [STAMP_BYTES, 25, 31, 32, 128, 4096, 200_000] {
            let mut maker = ValueMaker::new(7, 3, size);
            for sequence in 1..4 {
                let value = maker.make(1 << 35 | 9, sequence);
                assert_eq!(value.len(), size);
                let stamp = Stamp { run: 7, worker: 3, key: 1 << 35 | 9, sequence };
                assert_eq!(read_stamp(&value), Ok(stamp));
            }
        }
    }

    #[test]
    fn small_values_keep_their_size() {
        for size in [0, 1, 8, 23] {
            assert_eq!(ValueMaker::new(1, 2, size).make(3, 4).len(), size);
        }
    }

    #[test]
    fn no_changed_byte_passes() {
        let value = ValueMaker::new(7, 3, 64).make(42, 1);
        for at in 0..value.len() {
            let mut damaged = value.to_vec();
            damaged[at] ^= 1;
            assert_eq!(read_stamp(&damaged), Err(NotAStamp), "byte {at}");
        }
        assert_eq!(read_stamp(&value[..10]), Err(NotAStamp));
    }

    #[test]
    fn values_made_before_stay_as_they_were() {
        let mut maker = ValueMaker::new(7, 3, 100);
        let first = maker.make(1, 1);
        let copy = first.to_vec();
        for sequence in 2..2000 {
            maker.make(1, sequence);
        }
        assert_eq!(first, copy);
    }
}
