//! What integration tests stand on: clusters of real processes, and what the bench measures with.
//!
//! - [`cluster`]: a cluster of child processes on loopback addresses of its own
//! - [`process`]: one of its nodes: started, killed, stopped, paused, asked
//! - [`session`], [`trio`]: requests to a node that the test chooses
//! - [`pipeline`]: more requests than a node can take
//! - [`in_process`], [`machine`]: a cluster of whole nodes inside the test's process
//! - [`memory_network`], [`faults`], [`detained`], [`stepped_clock`]: what those nodes take for the world
//! - [`sim`]: whole clusters under faults, in simulated time, each run from one seed
//! - [`chaos`]: real processes in every kind of trouble
//! - [`linearizable`]: whether operations could have happened one after the other
//! - [`fuzz`]: decoders fed with bytes that are nearly right
//! - [`load`]: what keeps a cluster busy while something happens to it
//! - [`setting`]: what the environment of a run may set, its seed above all
//! - [`dots`]: what was minted, told from contexts and stores
//! - [`address`], [`binary`], [`admin`]: where it listens, what is run, how it is asked
//! - [`bench`](mod@bench): the figures of `make bench`
//!
//! The tests themselves are in `tests/`. Nothing here judges a cluster; it only handles one.

pub mod address;
pub mod admin;
pub mod bench;
pub mod binary;
pub mod chaos;
pub mod cluster;
pub mod detained;
pub mod dots;
pub mod faults;
pub mod fuzz;
pub mod in_process;
pub mod linearizable;
pub mod load;
pub mod machine;
pub mod memory_network;
pub mod pipeline;
pub mod process;
pub mod session;
pub mod setting;
pub mod sim;
pub mod stepped_clock;
pub mod trio;

pub use cluster::{Cluster, ClusterBuilder};
pub use detained::Detained;
pub use in_process::InProcess;
pub use load::Load;
pub use machine::{Disk, Machine};
pub use memory_network::MemoryNetwork;
pub use pipeline::Pipeline;
pub use process::Node;
pub use session::Session;
pub use trio::Trio;
