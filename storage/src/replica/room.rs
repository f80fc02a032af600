//! How much the disk has room for: what a replica refuses in time is what the store need not fail at.

use std::sync::atomic::{AtomicU8, Ordering};

use super::{Carries, Replica};
use crate::store::StoreError;

/// What there is room for. Reading, forgetting deletes, and keeping and dropping hints go on in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// For everything.
    #[default]
    Ample,
    /// Not for new writes; still for what repairs older ones.
    Low,
    /// For no data at all.
    None,
}

/// The room of a replica, as it was last told.
#[derive(Debug, Default)]
pub(super) struct ToldRoom(AtomicU8);

impl ToldRoom {
    fn get(&self) -> Room {
        match self.0.load(Ordering::Relaxed) {
            0 => Room::Ample,
            1 => Room::Low,
            _ => Room::None,
        }
    }
}

impl Replica {
    /// What there is room for from now on. Returns what there was room for before.
    pub fn set_room(&self, room: Room) -> Room {
        let before = self.room.get();
        self.room.0.store(room as u8, Ordering::Relaxed);
        before
    }

    /// What there is room for.
    pub fn room(&self) -> Room {
        self.room.get()
    }

    /// [`StoreError::NoRoom`] where there is none for what is to be written.
    pub(super) fn check_room(&self, carries: Carries) -> Result<(), StoreError> {
        match (self.room.get(), carries) {
            (Room::Ample, _) | (Room::Low, Carries::State) => Ok(()),
            _ => Err(StoreError::NoRoom),
        }
    }
}
