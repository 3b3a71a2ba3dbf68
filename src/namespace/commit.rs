//! The committer: sealed batches go into the journal, one at a time.
//!
//! 1. Under the namespace lock: the open batch is sealed, and a new one opened with the next LSN. If the
//!    memtable is to be frozen, it is, at exactly this boundary.
//! 2. Without the lock: the batch is appended to the journal; this returns when it is durable on m+1
//!    disks [R1], and with it everything before [R3].
//! 3. Its puts and deletes are told to the space map: from now on what it freed may be reused [I3].
//! 4. Waiters are woken [I1].
//!
//! Group commit: whatever was added while a batch was in flight goes with the next one. An idle log is
//! written to at once.
//! When more than m members are gone, the batch is held, and appended when enough are back.
//! A crash before 2 is complete loses the batch, and all of its operations together; after it, none.

use std::time::Duration;

use super::core::{Core, FrozenSpace};
use super::open_batch::OpenBatch;
use crate::base::canary::{self, Bug};
use crate::base::limits::JOURNAL_FLUSH_PERCENT;
use crate::base::sync::Arc;
use crate::base::{Event, Lsn, Pace, Task, Ticks};
use crate::fleet::{FleetError, Report};

/// More than m members gone at once are waited for so long: a cable, a power supply or a bus that is reset takes
/// several with it, and disks that spin up together need half a minute.
const DISKS_WAIT: Duration = Duration::from_secs(120);
/// How often it is looked whether they are back.
const DISKS_LOOK: Duration = Duration::from_millis(500);

/// The background task; there is one.
pub(super) struct Committer {
    core: Arc<Core>,
    /// Sealed, and refused by the journal because more than m members were gone: the next to be appended, with
    /// the same bytes [R5].
    held: Option<Sealed>,
    /// Since when more than m members are gone.
    lost_since: Option<Ticks>,
    /// Acknowledged already, and not yet written: a planted bug.
    #[cfg(feature = "canary")]
    late: Option<Sealed>,
}

/// A batch that is sealed, and whether the memtable was frozen behind it.
struct Sealed {
    batch: OpenBatch,
    frozen: bool,
    inodes: u64,
}

impl Committer {
    pub(super) fn new(core: Arc<Core>) -> Committer {
        Committer {
            core,
            held: None,
            lost_since: None,
            #[cfg(feature = "canary")]
            late: None,
        }
    }
}

impl Core {
    /// Step 1. None if nothing is due.
    fn seal(&self) -> Result<Option<Sealed>, Pace> {
        let now = self.now();
        let mut state = self.state.lock();
        if state.failed.is_some() {
            return Err(Pace::Idle(None));
        }
        if state.open.is_empty() {
            if state.freeze_wanted {
                state.freeze_wanted = false;
                let through = Lsn(state.open.lsn.0 - 1);
                let frozen = self.index.freeze(through);
                if frozen {
                    let inodes = state.inode_count;
                    self.note_frozen(&mut state, through, inodes);
                }
                drop(state);
                self.checkpoint_event.notify();
            }
            return Ok(None);
        }
        let since = state.open_since.unwrap_or(now);
        let due = since + self.options.commit_interval / 2;
        let wanted = state.wanted >= state.open.lsn || state.freeze_wanted || state.stopping;
        if !wanted && now < due {
            return Err(Pace::Idle(Some(due)));
        }
        let next = OpenBatch::new(state.open.lsn.next());
        let batch = std::mem::replace(&mut state.open, next);
        state.open_since = None;
        let freeze = state.freeze_wanted || self.index.wants_freeze();
        let frozen = freeze && self.index.freeze(batch.lsn);
        if frozen {
            state.freeze_wanted = false;
        }
        Ok(Some(Sealed { batch, frozen, inodes: state.inode_count }))
    }

    /// Step 2.
    fn append(&self, batch: &OpenBatch) -> Result<(), FleetError> {
        if canary::planted(Bug::FreedTooEarly) {
            batch.freed.iter().try_for_each(|record| self.space.delete(record))?;
        }
        match self.journal() {
            Some(journal) => journal.append(batch.lsn, &batch.encode()),
            None => Ok(()),
        }
    }

    /// Steps 3 and 4.
    fn acknowledge(&self, sealed: &Sealed) -> Result<(), FleetError> {
        let batch = &sealed.batch;
        for record in &batch.placed {
            self.space.put(record)?;
        }
        for (old, new) in &batch.rehomed {
            self.space.replace(old, new)?;
        }
        for record in &batch.freed {
            if !canary::planted(Bug::FreedTooEarly) {
                self.space.delete(record)?;
            }
            self.cache.forget(record.id);
        }
        {
            let mut state = self.state.lock();
            assert!(state.durable < batch.lsn, "R3: batches become durable in their order");
            state.durable = batch.lsn;
            if sealed.frozen {
                self.note_frozen(&mut state, batch.lsn, sealed.inodes);
            }
        }
        self.committed.notify();
        let full =
            (self.journal()).is_some_and(|journal| journal.fill_percent() >= JOURNAL_FLUSH_PERCENT);
        if sealed.frozen || full {
            self.checkpoint_event.notify();
        }
        Ok(())
    }

    /// [R18] The space map is now exactly what the batches up to `lsn` imply.
    fn note_frozen(&self, state: &mut super::core::State, lsn: Lsn, inodes: u64) {
        let whole = state.space_whole;
        let usage = self.space.snapshot(whole);
        state.frozen = Some(FrozenSpace { lsn, usage, whole, inodes });
    }

    /// Seals and applies what is open without a journal, as recovery does: the checkpoint that
    /// follows makes it durable [R4].
    pub(super) fn commit_without_journal(&self) -> Result<(), FleetError> {
        assert!(self.is_recovering(), "only recovery does without the journal");
        {
            let mut state = self.state.lock();
            state.wanted = state.open.lsn;
        }
        if let Ok(Some(sealed)) = self.seal() {
            self.append(&sealed.batch)?;
            self.acknowledge(&sealed)?;
        }
        Ok(())
    }

    /// From now on nothing is accepted any more.
    fn fail_log(&self, error: FleetError) {
        log::error!("the log cannot be written: {error}");
        self.members.reports().push(Report::LogFailed);
        self.state.lock().failed = Some(error);
        self.committed.notify();
        self.flushed.notify();
    }
}

impl Committer {
    /// While more than m members are gone nothing becomes durable: they are waited for, and whoever wants
    /// something durable with us. Not for ever, and not when the pool is being closed: then the log has
    /// failed.
    fn wait_for_disks(&mut self) -> Option<Pace> {
        let lost = self.core.journal().and_then(|journal| journal.lost());
        let Some(error) = lost else {
            if self.held.is_none() {
                self.lost_since = None;
            }
            return None;
        };
        Some(self.go_on_waiting(error))
    }

    /// They are not there: until when nothing is to be done.
    fn go_on_waiting(&mut self, error: FleetError) -> Pace {
        let now = self.core.now();
        let since = *self.lost_since.get_or_insert(now);
        let stopping = {
            let state = self.core.state.lock();
            if state.failed.is_some() {
                return Pace::Idle(None);
            }
            state.stopping
        };
        if stopping || now >= since + DISKS_WAIT {
            self.core.fail_log(error);
            return Pace::Idle(None);
        }
        Pace::Idle(Some(now + DISKS_LOOK))
    }
}

impl Task for Committer {
    fn name(&self) -> &'static str {
        "committer"
    }

    fn event(&self) -> Arc<Event> {
        self.core.commit_event.clone()
    }

    fn step(&mut self) -> Pace {
        #[cfg(feature = "canary")]
        if let Some(late) = self.late.take() {
            self.core.append(&late.batch).expect("planted bugs meet no others");
        }
        if let Some(pace) = self.wait_for_disks() {
            return pace;
        }
        let sealed = match self.held.take().map_or_else(|| self.core.seal(), |held| Ok(Some(held)))
        {
            Ok(Some(sealed)) => sealed,
            Ok(None) => return Pace::Idle(None),
            Err(pace) => return pace,
        };
        #[cfg(feature = "canary")]
        if canary::planted(Bug::AcknowledgedBeforeJournal) {
            self.core.acknowledge(&sealed).expect("planted bugs meet no others");
            self.late = Some(sealed);
            return Pace::Again;
        }
        let result = match self.core.append(&sealed.batch) {
            Err(error @ FleetError::TooFewDisks { .. }) => {
                self.held = Some(sealed);
                return self.go_on_waiting(error);
            }
            result => result.and_then(|()| self.core.acknowledge(&sealed)),
        };
        match result {
            Ok(()) => Pace::Again,
            Err(error) => {
                self.core.fail_log(error);
                Pace::Idle(None)
            }
        }
    }
}
