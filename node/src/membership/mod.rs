//! How a node finds its cluster and knows who is up: the drivers around the pure state machines of
//! the ring crate. They own timers and sockets and decide nothing.

mod driver;
mod genesis;
mod liveness;
mod records;

pub use driver::{Driver, LinkEvent, PeerEvent};
pub use genesis::{Found, Genesis, GenesisFailure};
pub use liveness::LivenessTable;
pub use records::{ClusterRecord, RecordError};
