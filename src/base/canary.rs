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

/// A bug that can be planted. Each must be found by at least one test of `tests/engine/canary.rs`.
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
}

/// All of them, for tests that go through the list.
pub const BUGS: [Bug; 4] =
    [Bug::FlushSkipped, Bug::AcknowledgedBeforeJournal, Bug::IndexBeforeShards, Bug::MovedUnseen];

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
