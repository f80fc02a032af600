//! Bad bytes on the ports of real nodes, and requests beyond the limits: each is refused with a typed
//! error or a closed connection, and is counted; no node panics, no neighbour loses a request, nothing
//! that is stored is harmed.

mod internode;
mod limits;
mod mutations;
mod native;
mod neighbour;
mod patience;
mod wire;
