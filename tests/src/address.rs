//! Loopback networks that no other test uses: `127.PROCESS.TEST.NODE`.
//!
//! Invariant: two networks given out in one process differ, and at the moment a network is given out
//! nothing listens on its nodes' ports. Only Linux answers on all of 127.0.0.0/8.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU8, Ordering};

/// The ports of a node, as in the configuration's defaults.
pub const NATIVE_PORT: u16 = 9050;
/// See [`NATIVE_PORT`].
pub const INTERNODE_PORT: u16 = 7000;
/// See [`NATIVE_PORT`].
pub const ADMIN_PORT: u16 = 9180;

static NEXT: AtomicU8 = AtomicU8::new(1);

/// A network of up to 250 nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    process: u8,
    test: u8,
}

impl Network {
    /// A network on which the ports of nodes `1..=nodes` are free.
    ///
    /// # Panics
    /// If there is none left, or the machine does not answer on all of 127.0.0.0/8.
    pub fn claim(nodes: u8) -> Network {
        // Processes that run at the same time have ids close together, so these differ.
        let process = 40 + (std::process::id() % 200) as u8;
        for _ in 0..u8::MAX {
            let network = Network { process, test: NEXT.fetch_add(1, Ordering::Relaxed) };
            if (1..=nodes).all(|node| network.is_free(node)) {
                return network;
            }
        }
        panic!("no loopback network 127.{process}.0.0/24 to 127.{process}.255.0/24 has free ports");
    }

    /// The address of a node, from 1.
    pub fn node(self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.process, self.test, node)
    }

    fn is_free(self, node: u8) -> bool {
        [NATIVE_PORT, INTERNODE_PORT, ADMIN_PORT]
            .into_iter()
            .all(|port| TcpListener::bind(SocketAddr::from((self.node(node), port))).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{INTERNODE_PORT, NEXT, Network};

    #[test]
    fn networks_differ_and_their_ports_are_free() {
        let first = Network::claim(3);
        let _busy = TcpListener::bind((first.node(2), INTERNODE_PORT)).expect("it was free");
        assert!(!first.is_free(2));
        assert!(first.is_free(1));
        assert_ne!(first, Network::claim(3));
        assert!(NEXT.load(std::sync::atomic::Ordering::Relaxed) > 1);
    }
}
