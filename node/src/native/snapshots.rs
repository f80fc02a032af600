//! Snapshots on a client's word.

use std::collections::BTreeMap;

use starling_protocol::{SnapshotView, WireError};
use starling_ring::{Slot, SlotGrid};

use super::serving::Serving;
use crate::local::Local;
use crate::repair::ranges;
use crate::snapshot::{self, About, Sharer, SnapshotError};

impl Serving {
    /// Makes a snapshot of what this node holds: all that was acknowledged before the call is in it.
    ///
    /// # Errors
    /// `Snapshot`, saying why there is none.
    pub async fn create_snapshot(&self, name: String) -> Result<Vec<SnapshotView>, WireError> {
        let data_dir = self.data_dir.clone().ok_or_else(|| refused(&SnapshotError::InMemory))?;
        let buckets = self.replica.buckets().all();
        let about = About {
            cluster: self.local.cluster_name.clone(),
            cluster_id: self.local.cluster_id,
            host_id: self.local.member().host_id,
            epoch: self.local.ring.epoch().n,
            created_unix_ms: self.wall_clock_us() / 1_000,
            buckets: buckets.into_iter().map(|(id, name)| (id, name.to_string())).collect(),
            slot_bits: self.local.ring.epoch().slot_bits,
            replicated: replicated(&self.local),
            members: members(&self.local),
        };
        let replica = self.replica.clone();
        let work = move || snapshot::create(&data_dir, &name, &replica, about);
        match self.blocking.run(work).await {
            Ok(made) => {
                tracing::info!(name = made.name, bytes = made.bytes, "made a snapshot");
                Ok(vec![made])
            }
            Err(error) => {
                tracing::warn!(%error, "no snapshot was made");
                Err(refused(&error))
            }
        }
    }

    /// The whole snapshots of this node.
    ///
    /// # Errors
    /// `Snapshot`, if their directory cannot be read.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotView>, WireError> {
        let Some(data_dir) = self.data_dir.clone() else { return Ok(Vec::new()) };
        let listed = self.blocking.run(move || snapshot::list(&data_dir)).await;
        listed.map_err(|error| refused(&error))
    }
}

fn members(local: &Local) -> Vec<Sharer> {
    let members = local.ring.members().iter();
    let sharer = |host_id, address| Sharer { host_id, address: Some(address) };
    members.map(|member| sharer(member.host_id, member.client_address)).collect()
}

/// The slots of which this node is a replica, by keyspace.
fn replicated(local: &Local) -> BTreeMap<String, Vec<(u32, u32)>> {
    let epoch = local.ring.epoch();
    let grid = SlotGrid::new(epoch.slot_bits).expect("a decided epoch has a valid grid");
    let of = |name: &String| {
        let placement = local.ring.keyspace(name)?;
        let is_mine =
            |slot: &u32| placement.replicas(grid.end_token(Slot(*slot))).contains(&local.me);
        let slots: Vec<u32> = (0..grid.count()).filter(is_mine).collect();
        Some((name.clone(), ranges(&slots)))
    };
    epoch.keyspaces.iter().filter_map(|keyspace| of(&keyspace.name)).collect()
}

fn refused(error: &SnapshotError) -> WireError {
    WireError::Snapshot { reason: format!("{error}; {}", error.advice()) }
}
