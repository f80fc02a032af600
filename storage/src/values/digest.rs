//! The 128-bit hash by which replicas compare what they hold.
//!
//! Invariant: equal states have equal digests, and an absent key has the same digest as a state that has seen nothing.
//!
//! It is no defence against a replica that lies.

use xxhash_rust::xxh3::xxh3_128;

use super::encoding::is_absent;

/// The digest of a state's canonical bytes; 0 for an absent key, which is given as no bytes at all.
pub fn digest(canonical: &[u8]) -> u128 {
    if canonical.is_empty() || is_absent(canonical) {
        return 0;
    }
    xxh3_128(canonical)
}
