//! Fuzzing: every decoder is fed bytes that are nearly right, and has to refuse them or to mean something by them.
//!
//! - [`targets`]: the decoders, each with samples of what it accepts and a property of whatever it accepts
//! - [`mutate`]: changes bytes at random
//!
//! A target panics where its property is broken. `make fuzz` runs each for a while, `make test` each for some thousand inputs.

mod mutate;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use starling_node::time::now;

pub use mutate::mutated;
pub use targets::all;

/// Inputs that were accepted are changed further; so many of them are kept.
const KEPT_MAX: usize = 1_000;

/// Something that reads bytes of others.
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Bytes that it accepts.
    pub samples: Vec<Vec<u8>>,
    /// Makes a checksum fit, so that changes reach what lies behind it.
    pub seal: Option<fn(Vec<u8>) -> Vec<u8>>,
    /// Feeds it. Returns whether it accepted.
    ///
    /// # Panics
    /// If what it accepted is not as it should be.
    pub feed: fn(&[u8]) -> bool,
}

/// What came of feeding a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fed {
    /// How many inputs.
    pub inputs: u64,
    /// How many of them were accepted.
    pub accepted: u64,
    /// The input that broke the property, and how.
    pub broken: Option<(Vec<u8>, String)>,
}

/// How long to feed.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// So many inputs.
    Inputs(u64),
    /// So long.
    Elapsed(Duration),
}

impl Target {
    /// Feeds samples, then changed ones, as `seed` says, until it is enough or the property is broken.
    pub fn fuzz(&self, seed: u64, until: Until) -> Fed {
        let mut random = StdRng::seed_from_u64(seed);
        let began = now();
        let mut kept = self.samples.clone();
        let mut fed = Fed::default();
        let is_enough = |fed: &Fed| match until {
            Until::Inputs(inputs) => fed.inputs >= inputs,
            // A look at the clock costs more than most inputs.
            Until::Elapsed(time) => fed.inputs.is_multiple_of(64) && began.elapsed() >= time,
        };
        while fed.inputs == 0 || !is_enough(&fed) {
            let sample = fed.inputs < self.samples.len() as u64;
            let input = match sample {
                true => self.samples[fed.inputs as usize].clone(),
                false => self.changed(&kept, &mut random),
            };
            fed.inputs += 1;
            match catch_unwind(AssertUnwindSafe(|| (self.feed)(&input))) {
                Ok(true) => {
                    fed.accepted += 1;
                    if kept.len() < KEPT_MAX {
                        kept.push(input);
                    }
                }
                Ok(false) if sample => {
                    fed.broken = Some((input, "a sample is not accepted".to_owned()));
                    return fed;
                }
                Ok(false) => {}
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text =
                        text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into()));
                    fed.broken = Some((input, text.unwrap_or_else(|| "it panicked".to_owned())));
                    return fed;
                }
            }
        }
        fed
    }

    fn changed(&self, kept: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
        let some = kept.choose(random).expect("every target has samples");
        let other = kept.choose(random).expect("every target has samples");
        let input = mutated(random, some, other);
        match self.seal {
            Some(seal) if random.random_ratio(9, 10) => seal(input),
            _ => input,
        }
    }
}
