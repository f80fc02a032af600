//! What integration tests stand on: clusters of real processes, and what the bench measures with.
//!
//! - [`cluster`]: a cluster of child processes on loopback addresses of its own
//! - [`process`]: one of its nodes: started, killed, stopped, paused, asked
//! - [`address`], [`binary`], [`admin`]: where it listens, what is run, how it is asked
//! - [`bench`](mod@bench): the figures of `make bench`
//!
//! The tests themselves are in `tests/`. Nothing here judges a cluster; it only handles one.

pub mod address;
pub mod admin;
pub mod bench;
pub mod binary;
pub mod cluster;
pub mod process;

pub use cluster::{Cluster, ClusterBuilder};
pub use process::Node;
