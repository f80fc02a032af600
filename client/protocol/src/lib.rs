//! Starling's native wire protocol: frames, headers, messages, errors. No I/O.
//!
//! - [`mod@frame`]: the frame that every message travels in, also between nodes
//! - [`codec`]: headers to bytes and back
//! - [`message`]: what clients and nodes say
//! - [`error`]: what goes wrong, with stable codes
//! - [`level`], [`token`]: consistency levels and causal contexts as they travel
//! - [`node_clock`]: how long a node has been up, as its answers tell

pub mod codec;
pub mod error;
pub mod frame;
pub mod level;
pub mod message;
pub mod node_clock;
pub mod token;

pub use codec::{decode_header, encode_header};
pub use error::{DownReplica, Outcome, WireError};
pub use frame::{Frame, FrameDecoder, FrameError, encode_parts, encode_raw};
pub use level::Level;
pub use message::{
    KeyspaceView, MemberView, NodeStatus, PairView, RepairView, Request, Response, SlotHealth,
    SnapshotView, Status, StatusView, StrategyView, TopologyView, WIRE_VERSION, kind,
};
pub use node_clock::NodeClock;
pub use token::{ContextToken, TokenTextError};
