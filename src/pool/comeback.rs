//! A member that did not take part is back while the pool is open.
//!
//! What is on it from before is good as far as records name it: objects never change in place, every cell is
//! verified, and what was made anew elsewhere meanwhile is free in the space map, which is kept of absent
//! members too. What it missed went to the other disks; only what these could not take is brought to it, by
//! repair. The order, and what a crash after each step leaves:
//!
//! 1. What was asked of it before is answered, and it is closed [R7]: no write of then can land on what is
//!    written now. It is opened again, and its label read. Nothing on disk.
//! 2. It is the disk that the pool knows, its layout is the same, nobody has claimed the pool with it since,
//!    and it has not become older [R2]: the newest label, root and batch that were durable on it are there. (A
//!    copy that was made of it later than these, and before it went, is not told from it; what is missing
//!    there is found bad when it is read, or by a deep check.)
//! 3. The labels of the others go on saying that it is out: they do since the first batch that was
//!    acknowledged without it. A crash: nothing has changed.
//! 4. It takes part: space, log, objects. Its log goes on where it stopped, and the head that every root
//!    says of it is still right: what follows there is of this epoch, or dead [R5]. A crash: it returns from
//!    outside, as with any mount [R2]; batches in its log are found like the others'.
//! 5. Its label gets this mount's claim, before anything is acknowledged with it.
//! 6. A root that covers every batch that could be acknowledged without it is durable on it: it is not out
//!    any more, from the next record on. Where no complete record has said that it is out, nothing could be
//!    acknowledged without it, and there is nothing to wait for: so it is when all disks went together.
//!
//! A write that was sent to it before, and that only a later flush was to make durable, is not believed
//! [I10]: the flush would be of another opening (`fleet::object::writer`).

use std::time::Duration;

use super::assemble::{Candidate, may_come_back};
use super::labels::FoundLabel;
use super::membership::{Membership, MembershipError};
use crate::base::sync::Arc;
use crate::base::{DiskIndex, Event};
use crate::fleet::{FleetError, Member, MemberState, Members, RecordMembers, read_roots};

/// How long answers from before are waited for: those that are there are taken within a moment.
const ANSWERS: Duration = Duration::from_secs(5);
/// How often it is looked for them.
const LOOK: Duration = Duration::from_millis(50);

impl Membership {
    /// Step 1, but for opening: closes what there was of a disk that is to be taken back.
    pub fn close(&self, disk: DiskIndex) -> Result<(), MembershipError> {
        match self.members.state(disk) {
            None => Err(MembershipError::Unknown(disk)),
            Some(MemberState::Active) => Err(MembershipError::TakesPart(disk)),
            Some(_) if self.until(|| self.members.close(disk)) => Ok(()),
            Some(_) => Err(MembershipError::Unanswered(disk)),
        }
    }

    /// Takes a member back that was closed and opened again. Errors: it stays out, and nothing of the pool
    /// has changed.
    pub fn take_back(&self, back: Candidate) -> Result<(), MembershipError> {
        let _turn = self.turn_beside_removal()?;
        let index = back.label.index;
        if *self.removing.lock() == Some(index) {
            return Err(MembershipError::Busy);
        }
        if self.namespace.progress().failed {
            return Err(MembershipError::LogFailed);
        }
        let was = self.members.get(index).ok_or(MembershipError::Unknown(index))?;
        if was.state == MemberState::Active {
            return Err(MembershipError::TakesPart(index));
        }
        let answered = was.handle.is_none() && self.until(|| self.journal.take_back(index));
        if !answered {
            return Err(MembershipError::Unanswered(index));
        }
        self.labels.expect(index);
        if let Err(error) = self.labels.record() {
            // With too few disks nothing is acknowledged: it may be just this one that is missed.
            log::debug!("the labels do not say now who is out: {error}");
        }
        self.recognise(&back, &was)?;
        let Candidate { disk, label, copies, .. } = back;
        self.labels.adopt(FoundLabel { label, copies });
        let (state, handle) = (MemberState::Active, Some(disk));
        self.members.set(Member { state, handle, failing: false, ..was });
        // Whoever counts disks from here on counts this one.
        if !self.labels.lacks_nothing(index) {
            self.labels.lacks(index, self.journal.bound());
        }
        self.namespace.note_members();
        if let Err(error) = self.labels.record() {
            // The journal records it before it acknowledges anything.
            log::warn!("the labels do not say yet that disk {index} is back: {error}");
        }
        self.namespace.want_checkpoint();
        self.namespace.repair_event().notify();
        Ok(())
    }

    /// Members that are back, and recorded as out until step 6.
    pub fn returning(&self) -> Vec<DiskIndex> {
        self.labels.returned()
    }

    /// Step 2.
    fn recognise(&self, back: &Candidate, was: &Member) -> Result<(), MembershipError> {
        let label = &back.label;
        let ours = self.labels.sample().ok_or(FleetError::TooFewDisks { have: 0, need: 1 })?;
        let why = if (label.pool, label.disk) != (self.members.pool(), was.uuid) {
            "it has the label of another one"
        } else if label.layout != was.layout {
            "its layout is another one"
        } else if !may_come_back(label, &ours, &self.members.active()) {
            "the pool was mounted with it elsewhere meanwhile; unmount this one to find out which to keep"
        } else if self.is_older(back, was) {
            "it is older than it was when it was given up, like a restored copy; add it as a new disk"
        } else {
            return Ok(());
        };
        let path = back.disk.identity().path.clone();
        Err(MembershipError::NotIt { path, disk: was.index, why })
    }

    /// Whether it lacks something that is known to have been durable on it: a label, a root, or the newest
    /// batch in its log.
    fn is_older(&self, back: &Candidate, was: &Member) -> bool {
        let index = was.index;
        let label = self.labels.known_sequence(index);
        if label.is_some_and(|known| back.label.sequence < known) {
            return true;
        }
        let alone = Members::new(self.members.pool(), self.members.redundancy(), Arc::default());
        let (state, handle) = (MemberState::Active, Some(back.disk.clone()));
        alone.set(Member { state, handle, ..was.clone() });
        let roots = read_roots(&self.access, &alone).found.into_iter();
        let newest = roots.map(|found| (found.root.epoch, found.root.sequence)).max();
        newest < self.keeper.known_on(index) || !self.journal.is_still_on(index, &back.disk)
    }

    /// Looks now and then, for a while.
    fn until(&self, mut done: impl FnMut() -> bool) -> bool {
        let (clock, never) = (&self.access.clock, Event::new());
        let end = clock.now() + ANSWERS;
        loop {
            if done() {
                return true;
            }
            let now = clock.now();
            if now >= end {
                return false;
            }
            self.access.wait.until(&never, Some(now + LOOK), &mut || false);
        }
    }
}
