//! Log lines about single keys that are near a limit. Such a key is written again and again, so of each kind there
//! is one line in ten seconds, with the count of those left out since the last.
//!
//! Invariant: whether a line is written changes nothing else. The counts are per process, as those of alarms.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Replica;
use super::put::PutRequest;
use crate::keys;

const EVERY_US: u64 = 10_000_000;
/// Bytes of a key that are shown: enough to know it by, short enough for a line.
const KEY_BYTES_SHOWN: usize = 48;

static SIBLINGS: Pace = Pace::new();
static SIZE: Pace = Pace::new();

impl Replica {
    pub(super) fn complain_of_siblings(&self, request: &PutRequest, count: usize) {
        if let Some(left_out) = SIBLINGS.may_speak(self.clock.now_us()) {
            let (bucket, key) = self.shown(request);
            tracing::warn!(%bucket, %key, count, left_out, "a key has many siblings");
        }
    }

    pub(super) fn complain_of_size(&self, request: &PutRequest, bytes: usize) {
        if let Some(left_out) = SIZE.may_speak(self.clock.now_us()) {
            let (bucket, key) = self.shown(request);
            tracing::warn!(%bucket, %key, bytes, left_out, "an object is large");
        }
    }

    /// The bucket's name and the key as the client wrote it.
    fn shown(&self, request: &PutRequest) -> (String, String) {
        let bucket = self.buckets.name(request.table);
        let bucket = bucket.map_or_else(|| format!("{:#010x}", request.table), |n| n.to_string());
        let key = keys::decode(&request.key).map_or(&request.key[..], |key| key.partition_key);
        (bucket, escaped(key))
    }
}

/// The beginning of a key, with everything escaped that could end a line or the quotes.
fn escaped(key: &[u8]) -> String {
    let (shown, rest) = key.split_at(key.len().min(KEY_BYTES_SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} bytes", rest.len()) };
    format!("\"{}\"{more}", shown.escape_ascii())
}

/// When a kind of line was last written, and how many were not since then.
struct Pace {
    next_us: AtomicU64,
    left_out: AtomicU64,
}

impl Pace {
    const fn new() -> Self {
        Self { next_us: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// How many were left out, if another may be written at `now_us` of the wall clock.
    fn may_speak(&self, now_us: u64) -> Option<u64> {
        let next_us = self.next_us.load(Ordering::Relaxed);
        // A clock that stepped back must not keep the line away for as long as it stepped.
        let is_due = now_us >= next_us || next_us - now_us > EVERY_US;
        let speaks = is_due
            && self
                .next_us
                .compare_exchange(next_us, now_us + EVERY_US, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if speaks {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{EVERY_US, Pace, escaped};

    #[test]
    fn one_line_in_ten_seconds_counts_the_others() {
        let pace = Pace::new();
        let began = 1_000 * EVERY_US;
        assert_eq!(pace.may_speak(began), Some(0));
        for _ in 0..7 {
            assert_eq!(pace.may_speak(began + EVERY_US - 1), None);
        }
        assert_eq!(pace.may_speak(began + EVERY_US), Some(7));
        assert_eq!(pace.may_speak(began + EVERY_US), None);
        assert_eq!(pace.may_speak(began - EVERY_US), Some(1), "after a step back of the clock");
    }

    #[test]
    fn a_key_is_shown_short_and_on_one_line() {
        assert_eq!(escaped(b"cart:42"), "\"cart:42\"");
        assert_eq!(escaped(b"a\n\"\xff"), "\"a\\n\\\"\\xff\"");
        assert_eq!(escaped(&[b'x'; 50]), format!("\"{}\" and 2 bytes", "x".repeat(48)));
    }
}
