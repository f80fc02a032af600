//! Gossip: how every node learns what every other says of itself.
//!
//! A Scuttlebutt state machine (van Renesse, Dumitriu, Gough, Thomas 2008): each node owns a small
//! map of versioned values; two nodes compare how far each has read every other and send what is
//! missing. It is pure: time and randomness come with each event, messages leave as effects. It
//! does not decide who is a member (the epoch does) nor who is up (the detectors do).
//!
//! - [`Event`], [`Effect`]: what a driver puts in and what it must do
//! - [`Message`]: the three steps of an exchange
//! - [`NodeState`]: what is known of one node, a join
//! - [`Gossip`]: the machine

mod event;
mod machine;
mod message;
mod state;

pub use event::{Effect, Event, Fatal, GossipConfig};
pub use machine::Gossip;
pub use message::{Boot, DELTA_BYTES_MAX, Delta, Digest, Message, NodeDelta, Shared};
pub use state::{Key, NodeState, VALUE_BYTES_MAX};
