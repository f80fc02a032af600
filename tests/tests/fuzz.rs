//! Every decoder stands some thousand inputs that are nearly right; `make fuzz` feeds them for longer.

use starling_tests::fuzz::{Target, Until, all};
use starling_tests::setting::seed;

const INPUTS: u64 = 20_000;
/// Reading a configuration takes long.
const INPUTS_OF_TEXT: u64 = 1_000;
/// Of a thousand inputs at least so many reach what lies behind the checks of form.
const ACCEPTED_MIN: u64 = 10;

#[test]
fn every_decoder_refuses_or_means_something() {
    let seed = seed();
    for target in all() {
        let inputs = if target.name == "config" { INPUTS_OF_TEXT } else { INPUTS };
        let fed = target.fuzz(seed, Until::Inputs(inputs));
        assert_eq!(fed.broken, None, "SEED={seed} TARGET={}", target.name);
        // A token that was changed is forged: samples are all that is accepted.
        let some = if target.name == "token" { 1 } else { ACCEPTED_MIN * inputs / 1_000 };
        assert!(fed.accepted >= some, "{}: {} of {inputs} accepted", target.name, fed.accepted);
    }
}

#[test]
fn what_a_target_does_not_stand_is_found() {
    let feed = |bytes: &[u8]| {
        assert!(bytes.len() < 8 || bytes[3] != 0xff, "it met what it cannot stand");
        true
    };
    let target = Target { name: "fragile", samples: vec![vec![1; 8]], seal: None, feed };
    let (input, why) = target.fuzz(1, Until::Inputs(100_000)).broken.expect("0xff is soon tried");
    assert_eq!((input[3], why.as_str()), (0xff, "it met what it cannot stand"));
}
