//! What the fleet cannot do, as its callers must decide on it.

use crate::base::{DiskIndex, Lsn, ObjectId};

/// Why the fleet could not carry something out. A missing, late or rotten shard alone is not an
/// error but a state of a read; these are beyond what redundancy covers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FleetError {
    /// Fewer good shards than needed [I6].
    #[error("object {object}: {have} good shards of {need} needed")]
    Unreadable {
        /// Which object.
        object: ObjectId,
        /// Good shards at hand.
        have: usize,
        /// Shards needed.
        need: usize,
    },
    /// It was deleted while it was read: where its bytes are now, the index knows.
    #[error("object {object} was deleted meanwhile")]
    Deleted {
        /// Which object.
        object: ObjectId,
    },
    /// Not enough room on enough distinct disks [R22].
    #[error("no room for {shards} shards of {bytes} bytes on distinct disks")]
    NoRoom {
        /// Shards to place.
        shards: usize,
        /// Bytes of each.
        bytes: u64,
    },
    /// The log ring has no room for a user batch [R10].
    #[error("the journal is full")]
    JournalFull,
    /// Too few disks take writes: the pool is suspended, dirty data is kept [R11].
    #[error("{have} disks take writes, {need} are needed")]
    TooFewDisks {
        /// Disks that take writes.
        have: usize,
        /// Disks needed.
        need: usize,
    },
    /// What a disk holds does not make sense, on every copy.
    #[error("{what} at batch {lsn} is damaged on every copy")]
    Damaged {
        /// Which structure.
        what: &'static str,
        /// Near which batch.
        lsn: Lsn,
    },
    /// A disk did not answer or failed, where no other can stand in.
    #[error("disk {disk} failed")]
    Disk {
        /// Which disk.
        disk: DiskIndex,
    },
    /// The engine is stopping.
    #[error("the pool is stopping")]
    Stopped,
}

impl FleetError {
    /// Whether something that was there is gone, more of it than redundancy covers [I6]: trying again
    /// with the same disks does not help.
    pub fn is_loss(&self) -> bool {
        match self {
            FleetError::Unreadable { .. } | FleetError::Damaged { .. } => true,
            FleetError::Deleted { .. }
            | FleetError::NoRoom { .. }
            | FleetError::JournalFull
            | FleetError::TooFewDisks { .. }
            | FleetError::Disk { .. }
            | FleetError::Stopped => false,
        }
    }
}
