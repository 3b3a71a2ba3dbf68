//! What the fleet noticed and others must act on, as data on a bounded queue: a failed disk, a late
//! one, a bad shard. The fleet does not know who listens (style 4.2.2).
//!
//! Repeats of a report that still waits are dropped, and everything is when the queue is full: a
//! report is a hint, what it says can be found again by looking.

use std::collections::VecDeque;

use super::disk::DiskError;
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Event, ObjectId, ShardIndex};

/// Reports that wait at most; a burst of bad shards on one disk must not push out a failed disk's.
const REPORTS_MAX: usize = 1024;

/// Why a disk was failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum FailReason {
    /// A flush failed, so nothing written since the last good one is believed [I10].
    #[error("a flush failed")]
    Flush,
    /// A write failed.
    #[error("a write failed")]
    Write,
    /// The device is gone.
    #[error("the device is gone")]
    Gone,
    /// It did not answer for so long that the others went on without it, which at most m can [R11].
    #[error("it does not answer")]
    Late,
    /// Whoever administers the pool said so.
    #[error("it was taken out")]
    TakenOut,
}

impl FailReason {
    /// For an error of a write.
    pub fn of_write(error: DiskError) -> FailReason {
        match error {
            DiskError::Gone | DiskError::Failed => FailReason::Gone,
            DiskError::Medium { .. } | DiskError::HostFull | DiskError::Cancelled => {
                FailReason::Write
            }
        }
    }
}

/// One thing noticed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Report {
    /// A disk was failed and is not used any more.
    DiskFailed {
        /// Which.
        disk: DiskIndex,
        /// Why.
        why: FailReason,
    },
    /// A disk missed a deadline; it is still used [R11].
    DiskLate {
        /// Which.
        disk: DiskIndex,
    },
    /// Too few disks take the journal: nothing is acknowledged until they do [R11].
    Suspended,
    /// Enough disks take the journal again.
    Resumed,
    /// A batch could not be committed: nothing is accepted any more.
    LogFailed,
    /// A shard, or a cell of it, was unreadable or did not match its checksum [I4].
    BadShard {
        /// Whose.
        object: ObjectId,
        /// Which.
        shard: ShardIndex,
        /// Where.
        disk: DiskIndex,
        /// Whether it was rewritten in place at once [R21].
        repaired: bool,
    },
    /// An object was written with fewer shards than full margin asks for, or has a shard on a disk
    /// that failed meanwhile [R12].
    ShortObject {
        /// Which.
        object: ObjectId,
    },
    /// More shards are bad than the redundancy covers [I6].
    Unreadable {
        /// Which.
        object: ObjectId,
    },
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Report>,
    dropped: u64,
}

/// The queue.
#[derive(Default)]
pub struct Reports {
    state: Mutex<State>,
    event: Arc<Event>,
}

impl Reports {
    /// An empty queue.
    pub fn new() -> Reports {
        Reports::default()
    }

    /// Adds a report, unless it waits already or the queue is full.
    pub fn push(&self, report: Report) {
        {
            let mut state = self.state.lock();
            if state.waiting.contains(&report) {
                return;
            }
            let urgent = match report {
                Report::DiskFailed { .. }
                | Report::Suspended
                | Report::Resumed
                | Report::LogFailed => true,
                Report::DiskLate { .. }
                | Report::BadShard { .. }
                | Report::ShortObject { .. }
                | Report::Unreadable { .. } => false,
            };
            if state.waiting.len() >= REPORTS_MAX && !urgent {
                state.dropped += 1;
                return;
            }
            state.waiting.push_back(report);
        }
        self.event.notify();
    }

    /// Takes the oldest report.
    pub fn pop(&self) -> Option<Report> {
        self.state.lock().waiting.pop_front()
    }

    /// Notified with every new report.
    pub fn event(&self) -> Arc<Event> {
        self.event.clone()
    }

    /// Reports dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.state.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_and_floods_are_dropped_but_failed_disks_are_not() {
        let reports = Reports::new();
        reports.push(Report::DiskLate { disk: DiskIndex(1) });
        reports.push(Report::DiskLate { disk: DiskIndex(1) });
        for number in 0..2 * REPORTS_MAX as u64 {
            reports.push(Report::Unreadable { object: ObjectId(number) });
        }
        assert_eq!(reports.dropped(), REPORTS_MAX as u64 + 1);
        reports.push(Report::DiskFailed { disk: DiskIndex(2), why: FailReason::Flush });
        reports.push(Report::Suspended);
        let all: Vec<Report> = std::iter::from_fn(|| reports.pop()).collect();
        assert_eq!(all.len(), REPORTS_MAX + 2);
        assert_eq!(all[0], Report::DiskLate { disk: DiskIndex(1) });
        assert!(matches!(all[REPORTS_MAX], Report::DiskFailed { .. }));
        assert_eq!(all[REPORTS_MAX + 1], Report::Suspended);
    }
}
