//! Inodes without a name: they go when their last user does, in bounded steps, across crashes [R19].
//!
//! The transaction that removes the last name leaves an intent (`Orphan`). When neither the kernel nor a
//! handle refers to the inode any more, the reaper takes out its extents and attributes, some at a
//! time, and in the last step the record and the intent together. A crash in between: the intent is
//! found at the next mount, and the work goes on.

use super::core::Core;
use super::cut::EXTENTS_PER_TRANSACTION;
use super::error::NamespaceError;
use super::tx::{Attempt, Stop, Tx};
use crate::base::canary::{self, Bug};
use crate::base::sync::Arc;
use crate::base::{Event, Ino, Pace, Task};
use crate::format::{Key, KeyView};

/// Inodes of one step; most have few extents.
const INODES_PER_STEP: usize = 32;
/// Attributes that one transaction takes out: a value may be a block of its own, and each that must be loaded
/// is a round for all of them.
const XATTRS_PER_TRANSACTION: usize = 64;
/// Pause while the open batch is full, or after an error.
const RETRY: std::time::Duration = std::time::Duration::from_millis(10);

impl Core {
    /// If the inode has no name and no user left, it is handed to the reaper.
    pub(super) fn check_unused(&self, ino: Ino) {
        let mut state = self.state.lock();
        if state.is_unused(ino) && state.orphans.remove(&ino) {
            state.reap.insert(ino);
            self.reap_event.notify();
        }
        state.drop_if_idle(ino);
    }

    /// Notes all intents in the index, at mount.
    pub(super) fn find_orphans(&self) -> Result<(), NamespaceError> {
        let mut from = Some(Key::kind_from(ORPHAN_KIND));
        while let Some(start) = from {
            let scan = self.look(|tx| tx.scan(&start, &Key::kind_from(ORPHAN_KIND + 1), 1024))?;
            let mut state = self.state.lock();
            for (key, _) in &scan.entries {
                if let Ok(KeyView::Orphan(ino)) = KeyView::decode(key) {
                    state.reap.insert(ino);
                }
            }
            from = scan.next.map(|next| Key::from_bytes(&next));
        }
        self.reap_event.notify();
        Ok(())
    }

    /// One transaction's worth of the work.
    fn reap(&self, ino: Ino, from: Option<u64>) -> Result<Reaped, NamespaceError> {
        self.change_inside(|tx| tx.reap(ino, from))
    }
}

/// How far the work on one inode is.
enum Reaped {
    /// The inode is gone.
    Gone,
    /// To be gone on with; its extents from here on are left.
    From(Option<u64>),
}

/// First byte of orphan keys (`format::keys`).
const ORPHAN_KIND: u8 = 0x08;

impl Tx<'_> {
    /// `from`: what this returned before for the inode.
    fn reap(&mut self, ino: Ino, from: Option<u64>) -> Attempt<Reaped> {
        if self.state.inodes.get(&ino).is_some_and(|inode| inode.flushing) {
            return Ok(Reaped::From(from));
        }
        let record = match self.inode(ino) {
            Ok(record) => record,
            Err(Stop::Error(NamespaceError::NotFound)) => {
                self.delete(Key::orphan(ino));
                return Ok(Reaped::Gone);
            }
            Err(stop) => return Err(stop),
        };
        if record.links > 0 {
            // A truncate that was cut short: the overlay of the replayed record hides nothing.
            self.delete(Key::orphan(ino));
            return Ok(Reaped::Gone);
        }
        self.drop_long_cut(ino)?;
        let replaced = self.remove_extents(ino, 0..u64::MAX, from, EXTENTS_PER_TRANSACTION)?;
        if replaced.rest.is_some() {
            // Nobody will ask for it any more, and no flush puts anything where we have been already.
            self.state.forget_content(ino);
            return Ok(Reaped::From(replaced.rest));
        }
        let (xattrs, more) =
            self.scan_on(&Key::xattrs_from(ino), &Key::xattrs_end(ino), XATTRS_PER_TRANSACTION)?;
        for (key, _) in xattrs.iter().filter(|_| !canary::planted(Bug::XattrsLeftBehind)) {
            self.delete(Key::from_bytes(key));
        }
        if more {
            self.state.forget_content(ino);
            return Ok(Reaped::From(Some(u64::MAX)));
        }
        self.delete(Key::orphan(ino));
        self.delete(Key::inode(ino));
        self.count_inodes(-1);
        Ok(Reaped::Gone)
    }
}

#[cfg(test)]
impl super::Namespace {
    /// Deletes an inode without a name as the reaper does, though somebody may still know it: `between`
    /// runs after each transaction. Returns how many these were.
    pub(crate) fn with_steps_of_a_reap(&self, ino: Ino, mut between: impl FnMut()) -> u32 {
        self.core.state.lock().orphans.remove(&ino);
        let (mut from, mut transactions) = (None, 0);
        loop {
            let reaped = self.core.reap(ino, from).expect("it is reaped");
            transactions += 1;
            assert!(transactions < 10_000, "R19: it ends");
            between();
            match reaped {
                Reaped::Gone => return transactions,
                Reaped::From(next) => from = next,
            }
        }
    }
}

/// The background task.
pub(super) struct Reaper {
    core: Arc<Core>,
    /// The inode it is at, and where its extents go on.
    at: Option<(Ino, u64)>,
}

impl Reaper {
    pub(super) fn new(core: Arc<Core>) -> Reaper {
        Reaper { core, at: None }
    }

    /// What was in memory of an inode that is gone may have been the last to count on an object.
    fn free_spent(&self) {
        if let Err(error) = self.core.free_spent() {
            log::warn!("objects without a live byte could not be freed: {error}");
        }
    }
}

impl Task for Reaper {
    fn name(&self) -> &'static str {
        "reaper"
    }

    fn event(&self) -> Arc<Event> {
        self.core.reap_event.clone()
    }

    fn step(&mut self) -> Pace {
        self.free_spent();
        for _ in 0..INODES_PER_STEP {
            if !self.core.has_background_room() {
                return Pace::Idle(Some(self.core.now() + RETRY));
            }
            let next = {
                let state = self.core.state.lock();
                if state.check_writable().is_err() {
                    return Pace::Idle(None);
                }
                state
                    .reap
                    .iter()
                    .find(|ino| state.inodes.get(ino).is_none_or(|inode| !inode.flushing))
                    .copied()
            };
            let Some(ino) = next else {
                self.free_spent();
                return Pace::Idle(None);
            };
            let from = self.at.take_if(|at| at.0 == ino).map(|(_, from)| from);
            match self.core.reap(ino, from) {
                Ok(Reaped::Gone) => {
                    self.core.state.lock().reap.remove(&ino);
                    // With its content in memory: there may be room for those who wait.
                    self.core.flushed.notify();
                }
                Ok(Reaped::From(from)) => self.at = from.map(|from| (ino, from)),
                Err(error) => {
                    log::warn!("inode {ino} could not be removed yet, it is tried again: {error}");
                    return Pace::Idle(Some(self.core.now() + 50 * RETRY));
                }
            }
        }
        Pace::Again
    }
}
