//! What goes into the gossip machine and what comes out of it.

use super::message::{Boot, Message, Shared};
use super::state::Key;
use crate::HostId;

/// Who gossips, among whom.
#[derive(Debug, Clone)]
pub struct GossipConfig {
    /// All members by their place in the epoch, hence by rising host id, this node among them.
    pub members: Vec<HostId>,
    /// This node's place.
    pub me: u16,
    /// How often this node has started, from 1; made durable before the first message is sent.
    pub incarnation: u64,
    /// Drawn at this start.
    pub boot_nonce: u64,
    /// What peers must share.
    pub shared: Shared,
    /// The places of the contact points: now and then one is talked to besides, so that the parts
    /// of a cluster that was split find one another again.
    pub seeds: Vec<u16>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Time passed. Expected a few times a second; a round starts every second.
    Tick,
    /// A message arrived.
    Received {
        /// From whom, as the connection proved it.
        from: HostId,
        /// What it says.
        message: Message,
    },
    /// This node says something of itself. A value that it says already changes nothing.
    SetLocal {
        /// Under which key.
        key: Key,
        /// What, at most [`super::VALUE_BYTES_MAX`] bytes.
        value: Vec<u8>,
        /// Whether to push it to peers at once instead of with the next round.
        urgent: bool,
    },
    /// Whether a peer can be talked to. Nobody can be until this says so.
    Reachable(HostId, bool),
    /// A peer was met in this start of it, as it greets, before it has gossiped anything.
    Met(HostId, Boot),
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a message. It may be lost: what it said will be said again.
    Send {
        /// To whom.
        to: HostId,
        /// What.
        message: Message,
    },
    /// A node's heartbeat has moved, over whichever way.
    Heartbeat(HostId),
    /// A node says something new, or has started anew.
    StateChanged(HostId),
    /// A peer does not share what it must; its message was dropped.
    Foreign {
        /// The peer.
        from: HostId,
        /// What it has.
        theirs: Shared,
    },
    /// This node must not go on.
    Fatal(Fatal),
}

/// Why a node must not go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Somebody else lives under this node's name and incarnation.
    #[error(
        "another node runs with this node's host id and incarnation {incarnation}: its data directory was copied; stop one of the two and wipe it"
    )]
    ClonedDisk {
        /// The incarnation of both.
        incarnation: u64,
    },
    /// The cluster knows a later incarnation of this node.
    #[error(
        "the cluster knows incarnation {theirs} of this node, which is at {mine}: its data directory was rolled back or copied; restore the newest copy, or wipe it and replace the node"
    )]
    RolledBack {
        /// This node's incarnation.
        mine: u64,
        /// What the cluster knows.
        theirs: u64,
    },
}
