//! Five real processes in every kind of trouble, under a verified load: `make chaos`.
//!
//! - `plan`: what is done and when, drawn from a seed
//! - `arena`: the nodes, and how it is done to them
//! - `preload`, `links`, `disk`: the means that need more than signals
//! - `availability`: how long a writer waited; `figures`: what a run found
//! - `run`: all of it together
//!
//! Unlike in the simulator a seed decides only what is tried: what meets what is up to the machine.

mod arena;
mod availability;
mod disk;
mod figures;
mod links;
mod plan;
mod preload;
mod run;

pub use disk::enter_namespace;
pub use figures::Figures;
pub use plan::{Means, NoSuchMeans};
pub use run::{Options, run};
