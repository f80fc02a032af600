//! A Starling node as a library: the binary `starling` starts one, tests start several.
//!
//! - [`config`]: what it is told
//! - [`seams`], [`net`], [`time`], [`blocking`]: the outside world, so that tests can bring their own
//! - [`node`], [`opening`], [`data`], `joining`, [`local`]: start and stop, what it opens, how it becomes a member, what it knows of itself
//! - [`native`]: clients' connections
//! - [`coordinator`]: reads and writes across replicas
//! - [`internode`], [`outbound`]: connections between nodes
//! - [`membership`]: finding the cluster, gossip, failure detection
//! - [`handoff`]: hints sent to peers that are back
//! - [`repair`]: replicas compare what they hold, and exchange what differs
//! - [`overload`], [`disk`]: what may be in flight, and what the disk has room for
//! - [`snapshot`]: what the node held at a moment, as files
//! - [`admin`], [`metrics`], [`overview`]: what it shows of itself

pub mod admin;
pub mod blocking;
pub mod config;
pub mod coordinator;
pub mod data;
pub mod disk;
pub mod handoff;
pub mod internode;
mod joining;
pub mod local;
pub mod membership;
pub mod metrics;
pub mod native;
pub mod net;
pub mod node;
pub mod opening;
pub mod outbound;
pub mod overload;
pub mod overview;
pub mod repair;
pub mod seams;
pub mod snapshot;
pub mod time;

pub use config::Config;
pub use node::{Node, ReadyError};
pub use opening::StartError;
pub use seams::{Data, Seams};
