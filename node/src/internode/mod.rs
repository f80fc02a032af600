//! The connections between nodes: persistent, one in each direction per pair, many requests in
//! flight on each.
//!
//! [`Link`] is the asking end; [`server`] accepts and `answerer` answers. None of them decides anything about
//! quorums or membership.

mod answerer;
mod end;
pub mod handshake;
pub mod link;
pub mod links;
pub mod message;
pub mod server;
mod window;

pub use link::{Link, LinkError, ReplySink, Waiter};
pub use links::Links;
pub use window::Window;
