//! The simulator: whole clusters in one thread, in simulated time, under faults that a seed decides.
//!
//! The nodes and the client library are the real ones; only what is behind their seams is simulated: sockets, clocks,
//! disks and randomness. A run is judged by pure functions over what its clients saw.

pub mod check;
mod clock;
pub mod history;
mod machine;
mod network;
mod run;
pub mod scenario;
mod summary;
mod workload;

pub use run::{Outcome, run};
pub use summary::{Broken, Summary};
