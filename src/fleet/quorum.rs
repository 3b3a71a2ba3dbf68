//! How many members must hold something before anything relies on it [R1], and that the survivors'
//! labels know who they are [R2]. Journal and checkpoint both ask here, so that there is one law.
//!
//! With N members of which `a` are active, and m the pool's parity:
//!
//! * what a mount must not miss is durable on `min(a, m + 1)` active members;
//! * with fewer than N - m active members nothing is acknowledged any more: a mount could not tell
//!   such a pool from one that lost more than it can bear;
//! * a member that was failed is recorded as dropped on the survivors' labels *before* the first
//!   acknowledgement that does without it. A mount needs all but m members, so it meets a survivor,
//!   and learns there that what the dropped member says is old;
//! * a dropped member that is back stays recorded as out until a root is durable on it: with no more
//!   than m members not out, each of those has everything, and nobody else need have it. One that is back
//!   while the pool is open has everything with a root that covers all batches up to then: later ones
//!   counted it in.

use crate::base::sync::Arc;
use crate::base::{DiskIndex, Lsn};

use super::error::FleetError;
use super::members::Members;
use super::reports::FailReason;

/// Writes the member table into the survivors' labels. Implemented by `pool`, which owns labels.
pub trait RecordMembers: Send + Sync {
    /// Makes it durable on every active member (m + 1 at least, all if fewer) who is active and who
    /// is not, one copy of each label at a time [R6]; then calls `Members::set_recorded`. A disk that
    /// fails at it is failed, and the rest is told of that too. Waits; is called without locks.
    fn record(&self) -> Result<(), FleetError>;

    /// A root that covers all batches up to `covers` is durable on these members: whoever of them had come
    /// back without everything that was acknowledged has it now, if that was not more. Changes what `record`
    /// will say next; does not wait.
    fn whole(&self, disks: &[DiskIndex], covers: Lsn) {
        let _ = (disks, covers);
    }
}

/// The law of quorum over one member table.
pub struct Quorum {
    members: Arc<Members>,
    record: Arc<dyn RecordMembers>,
}

impl Quorum {
    /// The law for `members`, whose changes `record` makes durable.
    pub fn new(members: Arc<Members>, record: Arc<dyn RecordMembers>) -> Quorum {
        Quorum { members, record }
    }

    /// The member table.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// Durable copies that make something acknowledged: `min(active, m + 1)` [R1].
    /// `TooFewDisks` with fewer than N - m active members.
    pub fn need(&self) -> Result<usize, FleetError> {
        Ok(self.members.enough()?.min(self.members.parity() + 1))
    }

    /// Copies that are written: `min(active, m + 2)` [R1].
    pub fn wish(&self) -> usize {
        self.members.active().len().min(self.members.parity() + 2)
    }

    /// [R11] Goes on without the `late`, which had all the time a write may take, if that is enough:
    /// then they are failed. It is not if more than m members would be out, or if the others do not
    /// have it `durable` either: when all disks stall together none is to blame. True if it did.
    pub fn give_up(&self, durable: &[DiskIndex], late: &[DiskIndex]) -> bool {
        let active = self.members.active();
        let (late, rest): (Vec<DiskIndex>, Vec<DiskIndex>) =
            active.iter().partition(|disk| late.contains(disk));
        let parity = self.members.parity();
        let have = rest.iter().filter(|disk| durable.contains(disk)).count();
        let out = self.members.len() - rest.len();
        if late.is_empty() || rest.is_empty() || out > parity || have < rest.len().min(parity + 1) {
            return false;
        }
        for disk in late {
            self.members.fail(disk, FailReason::Late);
        }
        true
    }

    /// Whether the labels know every change of the member table [R2].
    pub fn is_recorded(&self) -> bool {
        self.members.recorded() >= self.members.sequence()
    }

    /// See [`RecordMembers::whole`].
    pub fn whole(&self, disks: &[DiskIndex], covers: Lsn) {
        self.record.whole(disks, covers);
    }

    /// Makes the labels know every change [R2]. Waits; hold no lock. `TooFewDisks` if too few take it.
    pub fn record(&self) -> Result<(), FleetError> {
        if self.is_recorded() { Ok(()) } else { self.record.record() }
    }
}
