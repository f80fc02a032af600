//! The grid of equal slots that the token space is cut into.

use serde::{Deserialize, Serialize};

use crate::Token;

/// A slot's number, counted from [`Token::MIN`] upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u32);

/// The number of slots is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot_bits is {found}; {} to {} are accepted", SlotGrid::BITS_MIN, SlotGrid::BITS_MAX)]
pub struct SlotBitsError {
    /// The value found.
    pub found: u8,
}

/// `2^bits` equal slots. Doubling them changes no replica list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotGrid {
    bits: u8,
}

impl SlotGrid {
    /// The fewest bits of a grid.
    pub const BITS_MIN: u8 = 4;
    /// The most bits of a grid.
    pub const BITS_MAX: u8 = 16;

    /// A grid of `2^bits` slots.
    ///
    /// # Errors
    /// [`SlotBitsError`] out of 4 to 16.
    pub fn new(bits: u8) -> Result<Self, SlotBitsError> {
        if (Self::BITS_MIN..=Self::BITS_MAX).contains(&bits) {
            Ok(Self { bits })
        } else {
            Err(SlotBitsError { found: bits })
        }
    }

    /// log2 of the number of slots.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The number of slots.
    #[must_use]
    pub fn count(&self) -> u32 {
        1 << self.bits
    }

    /// The slot that holds `token`.
    #[must_use]
    pub fn slot_of(&self, token: Token) -> Slot {
        let from_zero = token.0.cast_unsigned() ^ (1 << 63);
        let slot = from_zero >> (64 - u32::from(self.bits));
        Slot(u32::try_from(slot).expect("at most 16 bits are left"))
    }

    /// The last token of `slot`.
    #[must_use]
    pub fn end_token(&self, slot: Slot) -> Token {
        let width = 1_u64 << (64 - u32::from(self.bits));
        let end = (u64::from(slot.0) + 1).wrapping_mul(width).wrapping_sub(1);
        Token((end ^ (1 << 63)).cast_signed())
    }
}
