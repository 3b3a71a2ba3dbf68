//! Disks that come and go while the pool is mounted.
//!
//! *Add*, and what a crash after each step leaves:
//!
//! 1. The disk is checked as at `create`: nobody uses it, nothing foreign is on it, or `force` [I9], and it
//!    is a drive of its own [R24]. Nothing on disk.
//! 2. The labels of the others say that the new number is out, as of a disk that is back without what was
//!    acknowledged [R2]. A crash: nobody has that number yet.
//! 3. The new disk gets its label. A crash: a disk that says it belongs to the pool, and that no root
//!    knows: it is no member.
//! 4. A root that names it is effective. A crash: it is a member, empty, and out until it has a root.
//! 5. It takes part: space, log, objects. Its number counts in every quorum from here on. The next
//!    checkpoint writes a root to it, and with that it is not out any more.
//!
//! *Leave*: it is marked, which the next root says too; it gets nothing new and is still read from, while
//! repair makes anew what is on it (`services::repair`). When nothing is on it any more:
//!
//! 1. It is failed, which the labels say before anything is acknowledged without it: the log goes on without
//!    it.
//! 2. A root that says that it was removed is effective: nothing before that needs its log, and the
//!    chains are written anew.
//! 3. It counts no more. A crash before 2: it still is a member, leaving; after: it is none.
//!
//! *Come back*: `comeback.rs`.

use std::collections::BTreeSet;
use std::path::Path;

use super::create::{NewDisk, blank_signatures};
use super::labels::{FoundLabel, PoolLabels};
use super::plan::use_in_words;
use super::root_keeper::RootKeeper;
use crate::base::limits::DISKS_MAX;
use crate::base::sync::atomic::{AtomicBool, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, DiskUuid, Random};
use crate::fleet::access::{Access, Miss, WriteAt};
use crate::fleet::disk::probe::DriveKey;
use crate::fleet::disk::{Class, Slice};
use crate::fleet::{
    FailReason, FleetError, Journal, Member, MemberState, Members, RecordMembers, Space,
};
use crate::format::{DiskLayout, FormatError, LABEL_COPIES, Label, MemberEntry};
use crate::namespace::{Namespace, NamespaceError};
use crate::services::repair::Removal;

/// Why membership did not change. Unless it says otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// Another change goes on.
    #[error("another disk is being added or removed: try again when it is done")]
    Busy,
    /// Somebody uses the disk.
    #[error("{path} is in use: {by}")]
    Used {
        /// Which disk.
        path: String,
        /// By whom, in words.
        by: String,
    },
    /// There is something on it [I9].
    #[error("{path} is not blank: {what}; --force overwrites it")]
    Foreign {
        /// Which disk.
        path: String,
        /// What.
        what: String,
    },
    /// It is the drive of a member [R24].
    #[error("{path} is the same physical drive as disk {other}: one failure would take both")]
    SameDrive {
        /// Which disk.
        path: String,
        /// The member.
        other: DiskIndex,
    },
    /// No number is left.
    #[error("a pool has at most {DISKS_MAX} disks over its life")]
    Full,
    /// Its size makes no layout.
    #[error("{path}: {source}")]
    Layout {
        /// Which disk.
        path: String,
        /// Why.
        source: FormatError,
    },
    /// The new disk could not be written.
    #[error("{path} could not be written: {miss:?}; it was not added")]
    Write {
        /// Which disk.
        path: String,
        /// Why.
        miss: Miss,
    },
    /// No such member.
    #[error("disk {0} is no member of the pool")]
    Unknown(DiskIndex),
    /// It would be one too many.
    #[error("{out} of the disks do not take part already: one more must not be taken out")]
    TooMany {
        /// How many.
        out: usize,
    },
    /// The others could not hold what is written with its full redundancy.
    #[error("{others} other disks are too few to keep everything redundant: {need} are needed")]
    TooFewLeft {
        /// Disks that take objects, without this one.
        others: usize,
        /// m + 1.
        need: usize,
    },
    /// It takes part.
    #[error("disk {0} takes part already")]
    TakesPart(DiskIndex),
    /// What was asked of it before has no answer yet [R7].
    #[error(
        "disk {0} has not answered everything that was asked of it before it was given up: try again when it \
         has, or unmount and mount again"
    )]
    Unanswered(DiskIndex),
    /// There is another disk.
    #[error("{path} is not disk {disk} as this pool knows it: {why}")]
    NotIt {
        /// Where.
        path: String,
        /// Who was expected.
        disk: DiskIndex,
        /// What is different.
        why: &'static str,
    },
    /// Nothing is committed any more.
    #[error(
        "the pool's log has failed: unmount and mount again, which takes all disks that are there"
    )]
    LogFailed,
    /// The labels or a root could not be written.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The checkpoint did not take effect.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

/// What changes of membership need.
pub struct Membership {
    pub(super) access: Access,
    pub(super) members: Arc<Members>,
    pub(super) space: Arc<Space>,
    pub(super) labels: Arc<PoolLabels>,
    pub(super) keeper: Arc<RootKeeper>,
    pub(super) journal: Arc<Journal>,
    pub(super) namespace: Namespace,
    pub(super) random: Mutex<Random>,
    pub(super) busy: AtomicBool,
    /// Step 2 of *leave* is under way for this one.
    pub(super) removing: Mutex<Option<DiskIndex>>,
}

/// One change at a time.
pub(super) struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Membership {
    /// To change who is a member: not while one is being removed.
    fn turn(&self) -> Result<Turn<'_>, MembershipError> {
        let turn = self.turn_beside_removal()?;
        match *self.removing.lock() {
            Some(_) => Err(MembershipError::Busy),
            None => Ok(turn),
        }
    }

    /// To take a member back: a removal ends with a root, and it may be this disk that is missed for that.
    pub(super) fn turn_beside_removal(&self) -> Result<Turn<'_>, MembershipError> {
        match self.busy.swap(true, Ordering::SeqCst) {
            true => Err(MembershipError::Busy),
            false => Ok(Turn(&self.busy)),
        }
    }

    /// All members ever, as the next root will say it.
    pub fn entries(&self) -> Vec<MemberEntry> {
        self.keeper.entries()
    }

    /// Makes a disk a member. `drives`: those that the members lie on.
    pub fn add(
        &self,
        new: &NewDisk,
        drives: &[(DiskIndex, BTreeSet<DriveKey>)],
        force: bool,
    ) -> Result<DiskIndex, MembershipError> {
        let _turn = self.turn()?;
        check(new, drives, force)?;
        let path = || new.probe.identity.path.clone();
        let layout = DiskLayout::for_disk(new.disk.identity().bytes)
            .map_err(|source| MembershipError::Layout { path: path(), source })?;
        // Never one that was tried before: two disks would say that they are it.
        let index = self.labels.next_index();
        if index.as_usize() >= DISKS_MAX {
            return Err(MembershipError::Full);
        }
        let mut uuid = DiskUuid::default();
        self.random.lock().fill(&mut uuid.0);
        self.labels.expect(index);
        self.labels.record()?;
        let sample = self.labels.sample().ok_or(FleetError::TooFewDisks { have: 0, need: 1 })?;
        let member_count = sample.member_count.max(index.0 + 1);
        let label = Label { disk: uuid, index, member_count, sequence: 1, layout, ..sample };
        self.write_label(new, &label)
            .map_err(|miss| MembershipError::Write { path: path(), miss })?;
        self.keeper.add(MemberEntry {
            index,
            uuid,
            bytes: layout.disk_bytes,
            serial: super::create::clip(&new.probe.identity.serial),
            state: crate::format::MemberState::Active,
            enclosure: None,
            leaving: false,
        });
        // From here on a root may name it: there is no way back but `leave`.
        self.namespace.checkpoint()?;
        let member = Member {
            index,
            uuid,
            layout,
            state: MemberState::Active,
            handle: Some(new.disk.clone()),
            enclosure: None,
            failing: false,
        };
        self.space.add_disk(index, layout.data_units, layout.group_units);
        self.journal.add(&member);
        self.labels.adopt(FoundLabel { copies: [Some(label.sequence); LABEL_COPIES], label });
        self.members.set(member);
        self.labels.lacks(index, self.journal.bound());
        self.namespace.note_members();
        if let Err(error) = self.labels.record() {
            // It is a member all the same; the journal records it before it acknowledges anything.
            log::warn!("the labels do not say yet that disk {index} was added: {error}");
        }
        self.namespace.want_checkpoint();
        Ok(index)
    }

    /// Steps 1, its end, and 3.
    fn write_label(&self, new: &NewDisk, label: &Label) -> Result<(), Miss> {
        blank_signatures(&self.access, std::slice::from_ref(new)).map_err(|error| match error {
            super::create::CreateError::Write { miss, .. } => miss,
            _ => Miss::Late,
        })?;
        for copy in 0..LABEL_COPIES {
            let place = WriteAt {
                disk: new.disk.clone(),
                offset: label.layout.label_offsets[copy],
                data: Slice::copy_of(&label.encode()),
                hold: Arc::new(()),
            };
            let written = self.access.write_durably(Class::Foreground, &[place], 1);
            written.into_iter().collect::<Result<(), Miss>>()?;
        }
        Ok(())
    }

    /// What is on this disk moves to the others; then it is removed. Begins that, and returns.
    pub fn leave(&self, disk: DiskIndex) -> Result<(), MembershipError> {
        self.members.get(disk).ok_or(MembershipError::Unknown(disk))?;
        let others = self.members.placeable().iter().filter(|other| **other != disk).count();
        let need = self.members.parity() + 1;
        if others < need || need == 1 {
            return Err(MembershipError::TooFewLeft { others, need: need.max(2) });
        }
        self.members.set_leaving(disk, true);
        self.namespace.checkpoint()?;
        self.namespace.repair_event().notify();
        Ok(())
    }

    /// It stays.
    pub fn stay(&self, disk: DiskIndex) -> Result<(), MembershipError> {
        let _turn = self.turn()?;
        self.members.get(disk).ok_or(MembershipError::Unknown(disk))?;
        self.members.set_leaving(disk, false);
        self.namespace.checkpoint()?;
        Ok(())
    }

    /// Stops using a disk, so that it can be unplugged.
    pub fn take_out(&self, disk: DiskIndex) -> Result<(), MembershipError> {
        self.members.get(disk).ok_or(MembershipError::Unknown(disk))?;
        let _turn = self.turn()?;
        if !self.members.fail_if_spare(disk, FailReason::TakenOut) {
            return Err(MembershipError::TooMany { out: self.out_besides(disk) });
        }
        self.labels.record()?;
        Ok(())
    }

    fn out_besides(&self, disk: DiskIndex) -> usize {
        let all = self.members.all();
        let out = |member: &&Member| member.index != disk && member.state != MemberState::Active;
        all.iter().filter(out).count()
    }
}

impl Removal for Membership {
    fn begin(&self, disk: DiskIndex) -> Option<u64> {
        let _turn = self.turn().ok()?;
        let spare = self.members.state(disk) != Some(MemberState::Active)
            || self.out_besides(disk) < self.members.parity();
        if !self.members.leaving().contains(&disk) || !spare || !self.space.take_if_unused(disk) {
            return None;
        }
        self.members.fail(disk, FailReason::TakenOut);
        // No batch after this one goes to its log.
        self.keeper.remove(disk, self.namespace.settled());
        self.namespace.renew_chains();
        *self.removing.lock() = Some(disk);
        Some(self.namespace.want_checkpoint())
    }

    fn end(&self, disk: DiskIndex) -> bool {
        let Ok(_turn) = self.turn_beside_removal() else { return false };
        if !self.keeper.is_removed(disk) {
            return false;
        }
        self.members.remove(disk);
        self.labels.drop_out(disk);
        self.namespace.note_members();
        if let Err(error) = self.labels.record() {
            // The journal records it before it acknowledges anything.
            log::warn!("the labels do not say yet that disk {disk} was removed: {error}");
        }
        log::warn!("disk {disk} was removed from the pool: nothing is on it any more");
        *self.removing.lock() = None;
        true
    }
}

/// Step 1.
fn check(
    new: &NewDisk,
    drives: &[(DiskIndex, BTreeSet<DriveKey>)],
    force: bool,
) -> Result<(), MembershipError> {
    let path = new.probe.identity.path.clone();
    if let Some(used) = new.probe.uses.first() {
        let by = use_in_words(used, Path::new(&path));
        return Err(MembershipError::Used { path, by });
    }
    if let Some((other, _)) = drives.iter().find(|(_, of)| !of.is_disjoint(&new.probe.drives)) {
        return Err(MembershipError::SameDrive { path, other: *other });
    }
    let what: Vec<&str> = new.probe.signatures.iter().map(|found| found.name).collect();
    if !what.is_empty() && !force {
        return Err(MembershipError::Foreign { path, what: what.join(", ") });
    }
    Ok(())
}
