//! Founders of a cluster, for tests.

use std::net::SocketAddr;

use starling_ring::{Candidate, HostId};
use uuid::Uuid;

/// The `number`th founder: its own name, addresses and nonce, the others' configuration.
pub fn founder(number: u8) -> Candidate {
    Candidate {
        host_id: HostId(Uuid::from_u128(u128::from(number) + 1)),
        address: SocketAddr::from(([127, 0, 0, number + 1], 7_000)),
        client_address: SocketAddr::from(([127, 0, 0, number + 1], 9_050)),
        datacenter: "dc1".to_owned(),
        rack: format!("rack{}", number % 3),
        nonce: [number + 100; 32],
        config_hash: [7; 32],
        seeds_hash: [6; 32],
    }
}
