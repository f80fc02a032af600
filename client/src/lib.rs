//! The Rust client of Starling: an async library that knows the ring, keeps connections, retries
//! what is safe to retry, and hands causal contexts through.
//!
//! ```no_run
//! # async fn example() -> Result<(), starling_client::Error> {
//! use starling_client::{Client, ConsistencyLevel};
//!
//! let client = Client::builder()
//!     .contact_point("127.0.0.1:9050")
//!     .contact_point("127.0.0.2:9050")
//!     .consistency(ConsistencyLevel::Quorum)
//!     .build()
//!     .await?;
//! let carts = client.bucket("demo.carts").await?;
//!
//! let written = carts.put("cart:42", "milk").await?;
//! let cart = carts.get("cart:42").floor(&written).await?;
//! for sibling in &cart.siblings {
//!     println!("{}", String::from_utf8_lossy(sibling));
//! }
//! // Replaces every sibling that was read, and nothing that was not.
//! carts.put("cart:42", "milk, bread").context(&cart.context).await?;
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`], [`ClientBuilder`]: a cluster to talk to
//! - [`Bucket`] with [`Get`], [`Put`] and [`Delete`]: requests
//! - [`Value`], [`CausalContext`]: answers
//! - [`parse_contact_point`]: how a node's address is written
//! - [`Error`]: what went wrong, and whether a write may have happened all the same
//! - [`seams`]: sockets, names and randomness, for tests that bring their own
//! - `load`: the load generator, for programs that measure or verify a cluster; the feature of that name, which is
//!   on by default, brings the dependencies that only it has
//!
//! # Retries
//!
//! Each put and delete carries an operation id that stays the same over its retries, and readers see
//! one sibling per operation id, so the client may repeat an attempt whose outcome is unknown, and
//! does until its timeout. If it then does not know the outcome, [`Error::is_unknown`] says so: read
//! the key, then decide. A put of your own draws a new id, and may stand beside the first. A retry whose first attempt reached a node that died at once may come back with that
//! node as a sibling of later writes: concurrent, never lost.

mod bucket;
mod builder;
mod client;
mod cluster;
mod connection;
mod contact_point;
mod error;
#[cfg(feature = "load")]
pub mod load;
mod request;
pub mod seams;

pub use bucket::{Bucket, CausalContext, Delete, Get, Put, Value};
pub use builder::ClientBuilder;
pub use client::{Client, Stats};
pub use contact_point::{ContactPointError, parse_contact_point};
pub use error::Error;
pub use starling_protocol::{
    DownReplica, KeyspaceView, MemberView, NodeStatus, Outcome, PairView, RepairView, SlotHealth,
    SnapshotView, Status, StatusView, StrategyView, TokenTextError, TopologyView, WireError,
};
pub use starling_ring::{ConsistencyLevel, LevelNameError, Ring};
