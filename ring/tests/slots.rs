//! The grid cuts all tokens into equal slots: none is left out, none is in two.

use proptest::prelude::any;
use proptest::{prop_assert, prop_assert_eq, proptest};
use starling_ring::{Slot, SlotBitsError, SlotGrid, Token};

fn grid(bits: u8) -> SlotGrid {
    SlotGrid::new(bits).expect("these bits are accepted")
}

#[test]
fn only_4_to_16_bits_are_accepted() {
    for bits in 0..=u8::MAX {
        let made = SlotGrid::new(bits);
        if (4..=16).contains(&bits) {
            let made = made.expect("these bits are accepted");
            assert_eq!((made.bits(), made.count()), (bits, 1 << bits));
        } else {
            assert_eq!(made, Err(SlotBitsError { found: bits }));
        }
    }
    let said = SlotGrid::new(17).expect_err("17 bits are too many").to_string();
    assert_eq!(said, "slot_bits is 17; 4 to 16 are accepted");
}

#[test]
fn the_ends_of_the_token_space_are_in_the_ends_of_the_grid() {
    for bits in 4..=16 {
        let grid = grid(bits);
        let last = Slot(grid.count() - 1);
        assert_eq!(grid.slot_of(Token::MIN), Slot(0));
        assert_eq!(grid.slot_of(Token::MAX), last);
        assert_eq!(grid.end_token(last), Token::MAX);
        // Zero is the middle: i64 order, not the order of the bits.
        assert_eq!(grid.slot_of(Token(0)), Slot(grid.count() / 2));
        assert_eq!(grid.slot_of(Token(-1)), Slot(grid.count() / 2 - 1));
        let first_end = i64::MIN + (1_i64 << (64 - bits)) - 1;
        assert_eq!(grid.end_token(Slot(0)), Token(first_end));
    }
}

#[test]
fn every_slot_ends_where_the_next_begins() {
    for bits in [4, 12, 16] {
        let grid = grid(bits);
        for slot in 0..grid.count() {
            let end = grid.end_token(Slot(slot));
            assert_eq!(grid.slot_of(end), Slot(slot), "{bits} bits");
            if let Some(after) = end.0.checked_add(1) {
                assert_eq!(grid.slot_of(Token(after)), Slot(slot + 1), "{bits} bits");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_token_lies_in_its_slot(token in any::<i64>(), bits in 4..=16_u8) {
        let (grid, token) = (grid(bits), Token(token));
        let slot = grid.slot_of(token);
        prop_assert!(token <= grid.end_token(slot));
        if slot.0 > 0 {
            prop_assert!(token > grid.end_token(Slot(slot.0 - 1)));
        }
    }

    #[test]
    fn slots_are_in_the_order_of_tokens(one in any::<i64>(), other in any::<i64>(), bits in 4..=16_u8) {
        let (low, high) = (Token(one.min(other)), Token(one.max(other)));
        prop_assert!(grid(bits).slot_of(low) <= grid(bits).slot_of(high));
    }

    #[test]
    fn doubling_the_slots_cuts_each_into_two_halves(token in any::<i64>(), bits in 4..=15_u8) {
        let (coarse, fine) = (grid(bits), grid(bits + 1));
        let slot = coarse.slot_of(Token(token));
        prop_assert_eq!(fine.slot_of(Token(token)).0 / 2, slot.0);
        prop_assert_eq!(fine.end_token(Slot(2 * slot.0 + 1)), coarse.end_token(slot));
    }
}
