//! What is owed to one target, counted in memory so that limits and gauges cost no scan.
//!
//! Invariant: the segments cover exactly the settled and unsettled sequences in `(cursor, next)`, in order; nothing at or above an
//! unsettled sequence is handed out, or a hint that is written late would be skipped.

use std::collections::{BTreeSet, VecDeque};

/// Hints of neighbouring sequences that are dropped together.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    last: u64,
    count: u64,
    bytes: u64,
}

/// The account of one target.
#[derive(Debug)]
pub struct Ledger {
    next: u64,
    cursor: u64,
    segments: VecDeque<Segment>,
    unsettled: BTreeSet<u64>,
    count: u64,
    bytes: u64,
    /// Hints are being dropped: some were since nothing was owed.
    pub drops: bool,
}

impl Ledger {
    /// An account with nothing owed, whose hints up to `cursor` are done.
    pub fn new(cursor: u64) -> Ledger {
        Ledger {
            next: cursor + 1,
            cursor,
            segments: VecDeque::new(),
            unsettled: BTreeSet::new(),
            count: 0,
            bytes: 0,
            drops: false,
        }
    }

    /// Counts a hint found in the store; in ascending order.
    pub fn recover(&mut self, sequence: u64, bytes: u64) {
        self.next = sequence + 1;
        self.count_in(sequence, bytes);
    }

    /// Reserves the next sequence for a hint of `bytes`; it stays unsettled until [`Ledger::settle`].
    pub fn reserve(&mut self, bytes: u64) -> u64 {
        let sequence = self.next;
        self.next += 1;
        self.unsettled.insert(sequence);
        self.count_in(sequence, bytes);
        sequence
    }

    /// The write that carried a reserved hint of `bytes` is over; one that failed is owed no more.
    pub fn settle(&mut self, sequence: u64, bytes: u64, written: bool) {
        self.unsettled.remove(&sequence);
        if written {
            return;
        }
        let at = self.segments.partition_point(|segment| segment.last < sequence);
        if let Some(segment) = self.segments.get_mut(at) {
            segment.count = segment.count.saturating_sub(1);
            segment.bytes = segment.bytes.saturating_sub(bytes);
            self.count_out(1, bytes);
        }
    }

    /// The first sequence that may not be handed out yet.
    pub fn settled_end(&self) -> u64 {
        self.unsettled.first().copied().unwrap_or(self.next)
    }

    /// The last sequence that is done.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How many hints and bytes are owed.
    pub fn pending(&self) -> (u64, u64) {
        (self.count, self.bytes)
    }

    /// Gives up the oldest segment, if all of it is settled: its last sequence and how many hints go with it.
    pub fn drop_oldest(&mut self) -> Option<(u64, u64)> {
        let oldest = *self.segments.front()?;
        if oldest.last >= self.settled_end() {
            return None;
        }
        self.segments.pop_front();
        self.count_out(oldest.count, oldest.bytes);
        self.cursor = self.cursor.max(oldest.last);
        self.drops = true;
        Some((oldest.last, oldest.count))
    }

    /// Moves the cursor to `sequence`. `sizes` are the stored sizes of the hints between the two cursors.
    pub fn done_through(&mut self, sequence: u64, sizes: &[(u64, u64)]) {
        for (done, bytes) in sizes {
            // The last of a segment may have failed, and then nothing that is done ends it.
            while self.segments.front().is_some_and(|segment| segment.last < *done) {
                self.drop_settled_front();
            }
            let Some(first) = self.segments.front_mut() else {
                break;
            };
            first.count = first.count.saturating_sub(1);
            first.bytes = first.bytes.saturating_sub(*bytes);
            self.count = self.count.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(*bytes);
            if *done >= first.last {
                self.drop_settled_front();
            }
        }
        while self.segments.front().is_some_and(|s| s.last <= sequence) {
            self.drop_settled_front();
        }
        self.cursor = self.cursor.max(sequence);
        self.drops &= self.count > 0;
    }

    /// Takes out the first segment with whatever is left on its account.
    fn drop_settled_front(&mut self) {
        if let Some(done) = self.segments.pop_front() {
            self.count_out(done.count, done.bytes);
        }
    }

    fn count_in(&mut self, sequence: u64, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        if let Some(segment) = self.segments.back_mut()
            && segment.bytes + bytes <= SEGMENT_BYTES_MAX
        {
            segment.last = sequence;
            segment.count += 1;
            segment.bytes += bytes;
            return;
        }
        self.segments.push_back(Segment { last: sequence, count: 1, bytes });
    }

    fn count_out(&mut self, count: u64, bytes: u64) {
        self.count = self.count.saturating_sub(count);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Ledger, SEGMENT_BYTES_MAX};

    /// It is logged when it begins, once.
    #[test]
    fn dropping_is_over_when_nothing_is_owed() {
        let mut ledger = Ledger::new(0);
        for sequence in 1..=3 {
            ledger.recover(sequence, SEGMENT_BYTES_MAX);
        }
        assert!(!ledger.drops);
        assert_eq!(ledger.drop_oldest(), Some((1, 1)));
        assert!(ledger.drops);
        ledger.done_through(2, &[(2, SEGMENT_BYTES_MAX)]);
        assert!(ledger.drops, "the target has not caught up");
        ledger.done_through(3, &[(3, SEGMENT_BYTES_MAX)]);
        assert!(!ledger.drops);
    }
}
