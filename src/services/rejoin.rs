//! Rejoining: stretches of files that were overwritten in many places and are read in order are written anew
//! in order, one window after the other.
//!
//! Nobody waits for it; where room is short it leaves what there is to users and to reclaim. What it writes
//! is bounded by what is read: a window is looked at once for each time it was read as a stream.

use std::time::Duration;

use crate::base::sync::Arc;
use crate::base::{Clock, Event, Lsn, MIB, Pace, Task};
use crate::namespace::{Compaction, Namespace, NamespaceError, Room};

/// Pause while a batch is on its way, or the open one is full.
const BATCH: Duration = Duration::from_millis(5);
/// Pause after an error.
const RETRY: Duration = Duration::from_secs(10);
/// No window is written while less than one in so many bytes is free.
const ROOM_SHARE: u64 = 8;

enum Phase {
    /// Until something is to be done.
    Resting,
    /// A window is copied, and its extents are being pointed at the copy.
    Moving(Compaction),
    /// What the pieces took is free with this batch: the next window after it.
    Committing(Lsn),
}

/// The background task.
pub struct Rejoin {
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    phase: Phase,
}

impl Rejoin {
    /// A task for this namespace.
    pub fn new(namespace: Namespace, clock: Arc<dyn Clock>) -> Rejoin {
        Rejoin { namespace, clock, phase: Phase::Resting }
    }

    fn pause(&self, pause: Duration) -> Pace {
        Pace::Idle(Some(self.clock.now() + pause))
    }

    fn run_step(&mut self, room: &Room) -> Result<Pace, NamespaceError> {
        match std::mem::replace(&mut self.phase, Phase::Resting) {
            Phase::Resting => {
                let Some((ino, from)) = self.namespace.next_ragged() else {
                    return Ok(Pace::Idle(None));
                };
                if room.available_bytes < room.total_bytes / ROOM_SHARE {
                    return Ok(Pace::Again);
                }
                if let Some(compaction) = self.namespace.begin_rejoin(ino, from)? {
                    self.phase = Phase::Moving(compaction);
                }
                Ok(Pace::Again)
            }
            Phase::Moving(mut compaction) => match self.namespace.go_on(&mut compaction) {
                Ok(false) => {
                    self.phase = Phase::Moving(compaction);
                    Ok(self.pause(BATCH))
                }
                Ok(true) => {
                    let done = self.namespace.end_compaction(compaction)?;
                    self.namespace.has_loosened(done.moved_bytes);
                    log::debug!("{} MiB of a file were joined", done.moved_bytes / MIB);
                    self.phase = Phase::Committing(done.lsn);
                    Ok(Pace::Again)
                }
                Err(error) => {
                    self.namespace.end_compaction(compaction)?;
                    Err(error)
                }
            },
            Phase::Committing(lsn) => {
                if self.namespace.progress().durable >= lsn {
                    return Ok(Pace::Again);
                }
                self.phase = Phase::Committing(lsn);
                Ok(self.pause(BATCH))
            }
        }
    }
}

impl Task for Rejoin {
    fn name(&self) -> &'static str {
        "rejoin"
    }

    fn event(&self) -> Arc<Event> {
        self.namespace.rejoin_event()
    }

    fn step(&mut self) -> Pace {
        let room = self.namespace.room();
        if room.ended {
            if let Phase::Moving(compaction) = std::mem::replace(&mut self.phase, Phase::Resting)
                && let Err(error) = self.namespace.end_compaction(compaction)
            {
                log::debug!("rejoining ends: {error}");
            }
            return Pace::Idle(None);
        }
        match self.run_step(&room) {
            Ok(pace) => pace,
            Err(error) => {
                log::debug!("a stretch of a file stays in pieces for now: {error}");
                self.pause(RETRY)
            }
        }
    }
}
