//! Numbers that the environment of a test run may set, so that a run can be repeated or prolonged.

use starling_client::load::LoadConfig;

/// The number called `name`, which is printed.
///
/// # Panics
/// If it is set to what is no number.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    let number = match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    };
    eprintln!("{name}={number}");
    number
}

/// `SEED`: another one in each run, unless it is given.
#[must_use]
pub fn seed() -> u64 {
    setting("SEED", LoadConfig::new().seed)
}
