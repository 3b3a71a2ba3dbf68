//! Free space as users see it, and when they are refused [I7, R22].

use super::core::Core;
use super::error::NamespaceError;
use super::types::Statfs;
use crate::base::sync::atomic::Ordering;
use crate::base::{MIB, UNIT_BYTES};
use crate::fleet::capacity::usable_bytes;
use crate::fleet::space::{RECLAIM_RESERVE_PERCENT, ReserveLevel};
use crate::format::Redundancy;

/// Some requests of the kernel always fit.
const DIRTY_BYTES_LEAST: u64 = 4 * MIB;
/// Rounds of waiting for frees before a write is refused.
const SETTLE_ROUNDS: u32 = 4;

impl Core {
    /// Bytes of files that can still be written at the pool's redundancy, reserves taken off.
    pub(super) fn room_bytes(&self) -> u64 {
        self.usable(|room| room.placeable_for(ReserveLevel::User).bytes())
    }

    /// Dirty bytes at which writers wait. However badly they can be placed, they fit the reserve: a
    /// quarter of what reclaim has [R22].
    pub(super) fn dirty_bytes_max(&self) -> u64 {
        self.options.dirty_bytes_max.min(self.dirty_bytes_share.load(Ordering::SeqCst))
    }

    /// At mount: how large the pool is.
    pub(super) fn note_capacity(&self) {
        let total = self.usable(|room| room.total.bytes());
        let share = total * RECLAIM_RESERVE_PERCENT / 100 / 4;
        self.dirty_bytes_share.store(share.max(DIRTY_BYTES_LEAST), Ordering::SeqCst);
    }

    /// Usable bytes over what `measure` says of each active disk. Shard headers and the owners' list
    /// take a little: counted off, so that what is promised can be written.
    fn usable(&self, measure: impl Fn(&crate::fleet::space::DiskRoom) -> u64) -> u64 {
        let rooms: Vec<u64> = (self.members.placeable().into_iter())
            .filter_map(|disk| self.space.room(disk))
            .map(|room| measure(&room))
            .collect();
        let redundancy = self.redundancy_at_hand(rooms.len());
        let bytes = usable_bytes(&rooms, redundancy);
        bytes - bytes / 256
    }

    /// With fewer disks than k+m new objects are narrower at full margin [R12].
    fn redundancy_at_hand(&self, disks: usize) -> Redundancy {
        match self.redundancy {
            Redundancy::Erasure { data, parity } => {
                let room = disks.saturating_sub(usize::from(parity)).max(1);
                Redundancy::Erasure { data: usize::from(data).min(room) as u8, parity }
            }
            Redundancy::Replica { copies } => {
                Redundancy::Replica { copies: usize::from(copies).min(disks.max(1)) as u8 }
            }
        }
    }

    /// Waits for frees that are on their way: batches not yet durable, inodes not yet reaped.
    pub(super) fn settle_frees(&self) -> Result<(), NamespaceError> {
        for _ in 0..SETTLE_ROUNDS {
            let pending = {
                let state = self.state.lock();
                !state.reap.is_empty() || !state.open.freed.is_empty()
            };
            if !pending && self.space.pending_units().0 == 0 {
                return Ok(());
            }
            self.reap_event.notify();
            self.commit_all()?;
        }
        Ok(())
    }

    /// Numbers of the whole file system.
    pub(super) fn statfs(&self) -> Statfs {
        let total = self.usable(|room| room.total.bytes());
        let free = self.usable(|room| room.free.bytes());
        let available = self.usable(|room| room.placeable_for(ReserveLevel::User).bytes());
        let (dirty, inodes) = {
            let state = self.state.lock();
            (state.dirty_bytes, state.inode_count)
        };
        Statfs {
            total_bytes: total,
            free_bytes: free.saturating_sub(dirty).max(UNIT_BYTES.min(free)),
            available_bytes: available.saturating_sub(dirty),
            inodes,
        }
    }
}
