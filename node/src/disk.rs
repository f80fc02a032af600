//! Watches how much space the data directory's disk has left, so that writes are refused before the store fails at them.
//!
//! A store that meets a full disk stops taking writes until it is opened again; one that is told in time goes on as soon as there is space.
//! Elasticsearch calls this its flood stage.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use starling_storage::Replica;
use starling_storage::replica::Room;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::blocking::Blocking;

/// Within this the node's own writes cannot use up half of a sensible reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The reserve is at most this part of a small disk.
const SHARE_MAX: u64 = 8;

/// How much space a disk has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Left.
    pub free: u64,
    /// Of all.
    pub total: u64,
}

/// Where the space is looked up; none where data is in memory.
pub type LookUp = Arc<dyn Fn() -> io::Result<Space> + Send + Sync>;

/// Looks at the filesystem that a directory is in.
#[must_use]
pub fn of_directory(directory: PathBuf) -> LookUp {
    Arc::new(move || {
        let found = rustix::fs::statvfs(&directory)?;
        let (free, total) = (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize);
        Ok(Space { free, total })
    })
}

/// What there is room for, having had room for `before`: below the reserve not for writes, below half of it not for repairs. Back again only
/// a quarter above, so that it does not change with every file.
#[must_use]
pub fn room(before: Room, space: Space, reserve: u64) -> Room {
    let reserve = reserve.min(space.total / SHARE_MAX);
    let below = |limit: u64, was_below: bool| {
        space.free < limit || was_below && space.free < limit + limit / 4
    };
    if below(reserve / 2, before >= Room::None) {
        Room::None
    } else if below(reserve, before >= Room::Low) {
        Room::Low
    } else {
        Room::Ample
    }
}

/// Tells `replica` what there is room for, until `stop`.
pub async fn watch(
    look_up: LookUp,
    reserve: u64,
    replica: Arc<Replica>,
    blocking: Blocking,
    stop: CancellationToken,
) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let look = look_up.clone();
        let space = match blocking.run(move || look()).await {
            Ok(space) => space,
            Err(reason) => {
                if !std::mem::replace(&mut fails, true) {
                    warn!(%reason, "cannot tell how much space the disk has left");
                }
                continue;
            }
        };
        fails = false;
        crate::metrics::observe_disk(space.free, space.total);
        let before = replica.room();
        let now = room(before, space, reserve);
        replica.set_room(now);
        let (free_mib, reserve_mib) = (space.free >> 20, reserve >> 20);
        match now {
            _ if now == before => {}
            Room::Ample => info!(free_mib, "the disk has room again: writes are taken"),
            Room::Low => warn!(
                free_mib,
                reserve_mib,
                "the disk is nearly full: writes are refused, reads and repairs go on; free some space"
            ),
            Room::None => error!(
                free_mib,
                reserve_mib,
                "the disk is all but full: writes and repairs are refused, reads go on; free some space"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, Space, room};

    const GIB: u64 = 1 << 30;

    fn of(before: Room, free: u64) -> Room {
        room(before, Space { free, total: 100 * GIB }, GIB)
    }

    #[test]
    fn writes_end_at_the_reserve_and_repairs_at_half_of_it() {
        assert_eq!(of(Room::Ample, GIB), Room::Ample);
        assert_eq!(of(Room::Ample, GIB - 1), Room::Low);
        assert_eq!(of(Room::Ample, GIB / 2), Room::Low);
        assert_eq!(of(Room::Ample, GIB / 2 - 1), Room::None);
        assert_eq!(of(Room::Ample, 0), Room::None);
    }

    #[test]
    fn they_go_on_a_quarter_above() {
        assert_eq!(of(Room::Low, GIB), Room::Low);
        assert_eq!(of(Room::Low, GIB + GIB / 4), Room::Ample);
        assert_eq!(of(Room::None, GIB / 2), Room::None);
        assert_eq!(of(Room::None, GIB / 2 + GIB / 8), Room::Low);
        assert_eq!(of(Room::None, 2 * GIB), Room::Ample);
    }

    #[test]
    fn a_small_disk_keeps_a_part_of_itself() {
        let small = |free| room(Room::Ample, Space { free, total: GIB }, GIB);
        assert_eq!(small(GIB / 8), Room::Ample);
        assert_eq!(small(GIB / 8 - 1), Room::Low);
        assert_eq!(room(Room::Ample, Space { free: 0, total: GIB }, 0), Room::Ample, "no reserve");
    }
}
