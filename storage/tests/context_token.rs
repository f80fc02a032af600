//! Sealed contexts: what was sealed opens, for the same key and secret only, and nothing else does.

use starling_storage::context_token::{TokenError, TokenKey, open, seal};
use starling_storage::values::{Actor, Context};

const SECRET: TokenKey = TokenKey([0x5a; 16]);
const TABLE: u32 = 0x8000_0017;
const KEY: &[u8] = b"user0000000000000001";

fn context() -> Context {
    let mut context = Context::new();
    context.insert(Actor(0xfeed_beef_0123_4567), 0, 1_760_000_000_000_000);
    context.insert(Actor(3), 17, 1_760_000_000_000_042);
    context.insert(Actor(3), 5, 9);
    context
}

#[test]
fn a_sealed_context_opens_under_its_own_key() {
    for context in [Context::new(), context()] {
        for key in [KEY, b"", &[0; 65_535]] {
            let token = seal(&SECRET, TABLE, key, &context);
            assert_eq!(open(&SECRET, TABLE, key, &token), Ok(context.clone()));
        }
    }
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    let token = seal(&SECRET, TABLE, KEY, &context());
    for bit in 0..token.len() * 8 {
        let mut forged = token.to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            0 => TokenError::UnknownVersion(forged[0]),
            1..=4 => TokenError::OtherKey,
            _ => TokenError::Forged,
        };
        assert_eq!(open(&SECRET, TABLE, KEY, &forged), Err(expected), "bit {bit}");
    }
    for len in 0..token.len() {
        let expected = match len {
            0..21 => TokenError::Truncated,
            _ => TokenError::Forged,
        };
        assert_eq!(open(&SECRET, TABLE, KEY, &token[..len]), Err(expected), "{len}");
    }
    let longer = [&token[..], &[0]].concat();
    assert_eq!(open(&SECRET, TABLE, KEY, &longer), Err(TokenError::Forged));
}

#[test]
fn a_token_is_good_for_one_key_of_one_table_of_one_cluster() {
    let token = seal(&SECRET, TABLE, KEY, &context());
    let other_key = open(&SECRET, TABLE, b"user0000000000000002", &token);
    assert_eq!(other_key, Err(TokenError::OtherKey));
    assert_eq!(open(&SECRET, TABLE + 1, KEY, &token), Err(TokenError::OtherKey));
    let other_cluster = open(&TokenKey([0x5b; 16]), TABLE, KEY, &token);
    assert_eq!(other_cluster, Err(TokenError::Forged));
}

/// The key hash is no secret: a forger writes the right one. The MAC still binds the token to its key and table.
#[test]
fn a_token_moved_to_another_key_with_the_right_hash_is_forged() {
    let mine = seal(&SECRET, TABLE, KEY, &context());
    for (table, key) in [(TABLE, &b"another"[..]), (TABLE + 1, KEY), (TABLE, &KEY[1..])] {
        let theirs = seal(&SECRET, table, key, &Context::new());
        let moved = [&theirs[..5], &mine[5..]].concat();
        assert_eq!(open(&SECRET, table, key, &moved), Err(TokenError::Forged));
    }
}

/// Key and context lie side by side under the MAC: a byte must not be able to change sides.
#[test]
fn no_byte_moves_between_key_and_context() {
    let mut one = Context::new();
    one.insert(Actor(1), 0, 1);
    let token = seal(&SECRET, TABLE, KEY, &one);
    let (sealed, mac) = token.split_at(token.len() - 16);
    let longer_key = [KEY, &sealed[5..6]].concat();
    let hash = &seal(&SECRET, TABLE, &longer_key, &one)[1..5];
    let moved = [&[1][..], hash, &sealed[6..], mac].concat();
    assert_eq!(open(&SECRET, TABLE, &longer_key, &moved), Err(TokenError::Forged));
}

#[test]
fn an_invented_context_is_refused() {
    let mut all = Context::new();
    all.insert(Actor(3), 0, u64::MAX);
    for guess in 0..=u8::MAX {
        let mut token = seal(&TokenKey([guess; 16]), TABLE, KEY, &all).to_vec();
        let at = token.len() - 16;
        if guess != 0x5a {
            assert_eq!(open(&SECRET, TABLE, KEY, &token), Err(TokenError::Forged));
        }
        token[at..].fill(guess);
        assert_eq!(open(&SECRET, TABLE, KEY, &token), Err(TokenError::Forged));
    }
}

#[test]
fn the_secret_is_not_printed() {
    assert!(!format!("{SECRET:?}").contains("90"));
}

/// SipHash-2-4-128 and the layout are part of the wire format: tokens outlive an upgrade.
#[test]
fn the_format_does_not_change() {
    let mut context = Context::new();
    context.insert(Actor(7), 2, 300);
    let token = seal(&TokenKey([1; 16]), 7, b"key", &context);
    let hex: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "01cc81c5390107000000000000000102aa02ed038588ea99b57be22cabc131cdfa8d");
}
