//! The canary switch: bugs planted on purpose, which the test harness must find. A harness that does
//! not find them proves nothing.
//!
//! Without the feature `canary`, [`planted`] is a constant `false` and the compiler removes every
//! planted bug together with its branch. The feature is refused in builds without debug assertions,
//! so a release build cannot contain one; `tests/engine/canary.rs` also looks for [`MARK`] in the binary.
//!
//! A bug is planted for the current thread: the simulated engine runs in one thread, so that tests in
//! parallel do not disturb each other. How to plant one in the code:
//!
//! ```ignore
//! if !canary::planted(Bug::FlushSkipped) {
//!     disk.submit(flush, done);
//! }
//! ```

#[cfg(all(feature = "canary", not(debug_assertions)))]
compile_error!("feature `canary` plants bugs: it has no place in a release build");

/// A bug that can be planted. Each of [`BUGS`] must be found by `tests/engine/canary.rs`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Bug {
    /// A disk answers a flush, or a durable write, without making anything durable [I1, I10].
    FlushSkipped,
    /// A batch is acknowledged before its journal write was even submitted [I1, R1].
    AcknowledgedBeforeJournal,
    /// The batch that names an object is committed before the object's shards are flushed [I3].
    IndexBeforeShards,
    /// Reclaim moves what it read, whatever was written there meanwhile [R20].
    MovedUnseen,
    /// A flush that is running answers one that came later [R8].
    FlushJoined,
    /// What a batch frees may be written over before the batch is durable [I3].
    FreedTooEarly,
    /// What recovery freed is written over before its root is effective [R4].
    FreedSinceReplay,
    /// A repaired record replaces whatever is there: what was deleted meanwhile is back [R20].
    RepairUnseen,
    /// Repair makes all lost shards but the last one.
    RepairForgetsShard,
    /// Repaired shards are named before they are flushed [I3].
    RepairNotFlushed,
    /// A flush cut commits bytes, and not the holes [R15].
    HolesForgotten,
    /// The log does not say that older logged bytes are void.
    SettledForgotten,
    /// A flush cut commits the newest size and times, not those of its point [R15].
    SizeBeforeData,
    /// A flush takes what was written while it ran for written.
    NewerBytesDropped,
    /// Replay leaves the last acknowledged batch out.
    LastBatchLost,
    /// A root takes effect with one copy: the log before it is given up too early [R9].
    RootOnOneDisk,
    /// A batch is acknowledged with one copy [R1].
    LogOnOneDisk,
    /// A disk that is back from outside counts as one that was never away [R2].
    ReturnedBelieved,
    /// The space snapshot holds what no batch has named [R18].
    SnapshotInFlight,
    /// Compaction drops a delete although deeper levels have the key.
    DeleteForgotten,
    /// Cells are believed without their checksums [I4].
    CellsUnchecked,
    /// The last cell of a read that ends one byte into it is not read.
    CellEdge,
    /// Parity of the last cell of a shard is not computed.
    ParityOfEdge,
    /// fsync waits for the batch, and not for what the file has in memory.
    FsyncWithoutData,
    /// fsync does not wait for its batch [I1].
    FsyncUnwaited,
    /// A deleted file that is still open leaves no intent: it stays for ever after a crash.
    OrphanForgotten,
    /// Inode numbers are handed out beyond the durable lease [R5].
    InodesAgain,
    /// A rename is durable before what was written to the file [I2].
    RenameBeforeData,
    /// A deleted inode leaves its attributes.
    XattrsLeftBehind,
    /// The first shard of an object is not written [I1].
    ShardLeftOut,
    /// A truncate leaves the bytes behind the end: they are back when the file grows.
    TailKept,
}

/// Those that the simulated engine finds, each within a minute.
pub const BUGS: [Bug; 21] = [
    Bug::FlushSkipped,
    Bug::AcknowledgedBeforeJournal,
    Bug::IndexBeforeShards,
    Bug::MovedUnseen,
    Bug::FlushJoined,
    Bug::HolesForgotten,
    Bug::SettledForgotten,
    Bug::LastBatchLost,
    Bug::SnapshotInFlight,
    Bug::CellsUnchecked,
    Bug::CellEdge,
    Bug::FsyncWithoutData,
    Bug::FsyncUnwaited,
    Bug::OrphanForgotten,
    Bug::InodesAgain,
    Bug::RenameBeforeData,
    Bug::XattrsLeftBehind,
    Bug::TailKept,
    Bug::ShardLeftOut,
    Bug::RepairForgetsShard,
    Bug::LogOnOneDisk,
];

/// Those that it has not been seen to find yet, or not within a minute: each is a hole in what the tests show, until a
/// property finds it.
pub const NOT_FOUND_YET: [Bug; 10] = [
    Bug::ParityOfEdge,
    Bug::ReturnedBelieved,
    Bug::RootOnOneDisk,
    Bug::NewerBytesDropped,
    Bug::SizeBeforeData,
    Bug::RepairNotFlushed,
    Bug::RepairUnseen,
    Bug::FreedSinceReplay,
    Bug::FreedTooEarly,
    Bug::DeleteForgotten,
];

/// Whether this bug is planted in the current thread. Constant `false` without the feature.
#[cfg(not(feature = "canary"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}

#[cfg(feature = "canary")]
pub use planting::{MARK, plant, planted};

#[cfg(feature = "canary")]
mod planting {
    use super::Bug;
    use std::cell::Cell;

    /// Stands in every binary that can plant bugs, and in no other.
    pub static MARK: &str = "isotherm-canary: a bug is planted in this build";

    thread_local! {
        static PLANTED: Cell<u64> = const { Cell::new(0) };
    }

    /// Whether this bug is planted in the current thread.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.with(Cell::get) & (1 << bug as u8) != 0
    }

    /// Plants exactly these bugs in the current thread; none takes all out again.
    pub fn plant(bugs: &[Bug]) {
        if !bugs.is_empty() {
            log::warn!("{MARK}: {bugs:?}");
        }
        PLANTED.with(|set| set.set(bugs.iter().fold(0, |set, bug| set | 1 << *bug as u8)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "canary"))]
    #[test]
    fn without_the_feature_nothing_is_ever_planted() {
        const NEVER: bool = planted(Bug::FlushSkipped);
        assert!(!NEVER && BUGS.iter().all(|&bug| !planted(bug)));
    }

    #[cfg(feature = "canary")]
    #[test]
    fn a_bug_is_planted_for_one_thread_and_taken_out_again() {
        plant(&[Bug::IndexBeforeShards]);
        assert!(planted(Bug::IndexBeforeShards) && !planted(Bug::FlushSkipped));
        plant(&[]);
        assert!(BUGS.iter().all(|&bug| !planted(bug)));
    }
}
