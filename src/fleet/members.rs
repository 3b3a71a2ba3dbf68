//! The pool's members as the fleet sees them: which disks there are, which take requests.
//!
//! * [R11] Late is not dead: only errors of writes, failed flushes [I10], absence and the
//!   administrator fail a disk. A late one is reported, and routed around by who waits.
//! * [R2] Every change of a state raises [`Members::sequence`]; whoever records membership on the
//!   survivors' labels says how far it came with [`Members::set_recorded`], and an acknowledgement
//!   that does without a member waits for that.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::{DiskHandle, Failure};
use super::error::FleetError;
use super::reports::{FailReason, Report, Reports};
use crate::base::sync::atomic::{AtomicU64, Ordering};
use crate::base::sync::{Arc, RwLock};
use crate::base::{DiskIndex, DiskUuid, Event, PoolUuid};
use crate::format::{DiskLayout, ObjectRecord, Place, Redundancy};

/// Whether a member takes requests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MemberState {
    /// Takes requests.
    Active,
    /// Was failed since the pool was opened, or in an earlier epoch.
    Failed,
    /// Was not found.
    Missing,
}

/// One member.
#[derive(Clone)]
pub struct Member {
    /// Its number in the pool.
    pub index: DiskIndex,
    /// Its identity.
    pub uuid: DiskUuid,
    /// Where everything is on it.
    pub layout: DiskLayout,
    /// Whether it takes requests.
    pub state: MemberState,
    /// The open disk; Some if active.
    pub handle: Option<DiskHandle>,
    /// Members with one label share a fate; at most m shards of an object go there [R24].
    pub enclosure: Option<u16>,
    /// Still works but is about to fail: nothing new is placed there while others have room.
    pub failing: bool,
}

struct Table {
    members: Vec<Option<Member>>,
    /// What was on these is made anew elsewhere: nobody waits for them any more.
    given_up: BTreeSet<DiskIndex>,
    /// These are to be removed when nothing is on them any more. They are read from, and get nothing new.
    leaving: BTreeSet<DiskIndex>,
    /// Why those that were failed were.
    reasons: BTreeMap<DiskIndex, FailReason>,
    redundancy: Redundancy,
}

/// The member table.
pub struct Members {
    pool: PoolUuid,
    table: RwLock<Table>,
    reports: Arc<Reports>,
    sequence: AtomicU64,
    recorded: AtomicU64,
    arrivals: AtomicU64,
    changed: Event,
}

impl Members {
    /// A table without members, of a pool whose default redundancy is `redundancy`.
    pub fn new(pool: PoolUuid, redundancy: Redundancy, reports: Arc<Reports>) -> Members {
        Members {
            pool,
            table: RwLock::new(Table {
                members: Vec::new(),
                given_up: BTreeSet::new(),
                leaving: BTreeSet::new(),
                reasons: BTreeMap::new(),
                redundancy,
            }),
            reports,
            sequence: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            changed: Event::new(),
        }
    }

    /// Adds a member, or replaces what was known of it (a missing disk returned). Panics if it is
    /// active without an open disk.
    pub fn set(&self, member: Member) {
        assert!(
            member.state != MemberState::Active || member.handle.is_some(),
            "an active member is open"
        );
        let index = member.index.as_usize();
        let mut table = self.table.write();
        if table.members.len() <= index {
            table.members.resize_with(index + 1, || None);
        }
        if member.state == MemberState::Active {
            self.arrivals.fetch_add(1, Ordering::SeqCst);
            table.given_up.remove(&member.index);
            table.reasons.remove(&member.index);
        }
        table.members[index] = Some(member);
        drop(table);
        self.change();
    }

    /// The pool's identity.
    pub fn pool(&self) -> PoolUuid {
        self.pool
    }

    /// The pool's default redundancy.
    pub fn redundancy(&self) -> Redundancy {
        self.table.read().redundancy
    }

    /// Changes the default redundancy; objects that exist keep theirs.
    pub fn set_redundancy(&self, redundancy: Redundancy) {
        self.table.write().redundancy = redundancy;
    }

    /// m: how many disks may be lost.
    pub fn parity(&self) -> usize {
        self.redundancy().tolerates()
    }

    /// Copies of what must outlive the data: journal entries, tables, manifest: min(N, m+2) [R1, R9].
    pub fn metadata_copies(&self) -> usize {
        self.len().min(self.parity() + 2)
    }

    /// Members in all, missing and failed ones included: N.
    pub fn len(&self) -> usize {
        self.table.read().members.iter().flatten().count()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members that take requests, ascending.
    pub fn active(&self) -> Vec<DiskIndex> {
        let table = self.table.read();
        let active = table.members.iter().flatten().filter(|m| m.state == MemberState::Active);
        active.map(|member| member.index).collect()
    }

    /// All members, ascending.
    pub fn all(&self) -> Vec<Member> {
        self.table.read().members.iter().flatten().cloned().collect()
    }

    /// What is known of one.
    pub fn get(&self, disk: DiskIndex) -> Option<Member> {
        self.table.read().members.get(disk.as_usize())?.clone()
    }

    /// The open disk of an active member.
    pub fn handle(&self, disk: DiskIndex) -> Option<DiskHandle> {
        let table = self.table.read();
        let member = table.members.get(disk.as_usize())?.as_ref()?;
        member.handle.clone().filter(|_| member.state == MemberState::Active)
    }

    /// Where everything is on a member's disk.
    pub fn layout(&self, disk: DiskIndex) -> Option<DiskLayout> {
        Some(self.table.read().members.get(disk.as_usize())?.as_ref()?.layout)
    }

    /// A member's identity.
    pub fn uuid(&self, disk: DiskIndex) -> Option<DiskUuid> {
        Some(self.table.read().members.get(disk.as_usize())?.as_ref()?.uuid)
    }

    /// Whether a member takes requests.
    pub fn state(&self, disk: DiskIndex) -> Option<MemberState> {
        Some(self.table.read().members.get(disk.as_usize())?.as_ref()?.state)
    }

    /// Stops using a disk: its queue is answered with `Failed`, a report says why. Nothing happens
    /// if it was not active, or if it is said to be gone and works: that was told by an answer from before it
    /// was taken back, since a disk that is gone has failed before it answers so. What made it fail it says
    /// itself: all that waited in its queue is told no more than that it failed. Never waits.
    pub fn fail(&self, disk: DiskIndex, mut why: FailReason) {
        let handle = {
            let mut table = self.table.write();
            let member = table.members.get_mut(disk.as_usize()).and_then(Option::as_mut);
            let Some(member) = member.filter(|m| m.state == MemberState::Active) else { return };
            if why == FailReason::Gone {
                why = match member.handle.as_ref().map(|disk| disk.failure()) {
                    Some(None) => return,
                    Some(Some(Failure::Flush)) => FailReason::Flush,
                    Some(Some(Failure::Write)) => FailReason::Write,
                    Some(Some(Failure::Gone | Failure::Told)) | None => FailReason::Gone,
                };
            }
            member.state = MemberState::Failed;
            // Kept: the disk may only be closed once its I/O is reaped [R7].
            let handle = member.handle.clone();
            table.reasons.insert(disk, why);
            handle
        };
        log::debug!("disk {disk} is not used any more: {why}");
        if let Some(handle) = handle {
            handle.fail();
        }
        self.reports.push(Report::DiskFailed { disk, why });
        self.change();
    }

    /// Why a disk was failed since the pool was opened; None if it was not.
    pub fn reason(&self, disk: DiskIndex) -> Option<FailReason> {
        self.table.read().reasons.get(&disk).copied()
    }

    /// Closes a disk that does not take part, so that it can be opened again. False, and nothing happened,
    /// if it takes part, or has not answered everything [R7].
    pub fn close(&self, disk: DiskIndex) -> bool {
        let mut table = self.table.write();
        let Some(member) = table.members.get_mut(disk.as_usize()).and_then(Option::as_mut) else {
            return false;
        };
        let unanswered = member.handle.as_ref().is_some_and(|handle| handle.in_flight() > 0);
        if member.state == MemberState::Active || unanswered {
            return false;
        }
        // Whoever still has it closes it when it drops it.
        member.handle = None;
        true
    }

    /// Members that must take part for anything to be acknowledged: N - m, at least one.
    pub fn least(&self) -> usize {
        self.len().saturating_sub(self.parity()).max(1)
    }

    /// How many take part; `TooFewDisks` if nothing can be acknowledged with so few.
    pub fn enough(&self) -> Result<usize, FleetError> {
        let (have, need) = (self.active().len(), self.least());
        if have < need { Err(FleetError::TooFewDisks { have, need }) } else { Ok(have) }
    }

    /// What is on this disk is to be made anew elsewhere, until it takes part again. Nothing happens if
    /// it takes part.
    pub fn give_up(&self, disk: DiskIndex) {
        let mut table = self.table.write();
        let member = table.members.get(disk.as_usize()).and_then(Option::as_ref);
        if member.is_some_and(|member| member.state != MemberState::Active) {
            table.given_up.insert(disk);
        }
    }

    /// Whether what is on it is to be made anew elsewhere: it was given up, it leaves, or it is no member
    /// at all.
    pub fn is_given_up(&self, disk: DiskIndex) -> bool {
        let table = self.table.read();
        let known = table.members.get(disk.as_usize()).is_some_and(Option::is_some);
        !known || table.given_up.contains(&disk) || table.leaving.contains(&disk)
    }

    /// From now on (true) what is on this member moves to the others, so that it can be removed; false
    /// takes that back.
    pub fn set_leaving(&self, disk: DiskIndex, leaving: bool) {
        let mut table = self.table.write();
        if leaving {
            table.leaving.insert(disk)
        } else {
            self.arrivals.fetch_add(1, Ordering::SeqCst);
            table.leaving.remove(&disk)
        };
    }

    /// Members that are to be removed when nothing is on them any more.
    pub fn leaving(&self) -> Vec<DiskIndex> {
        self.table.read().leaving.iter().copied().collect()
    }

    /// The active members that take new objects, ascending.
    pub fn placeable(&self) -> Vec<DiskIndex> {
        let mut active = self.active();
        let leaving = self.leaving();
        active.retain(|disk| !leaving.contains(disk));
        active
    }

    /// It is no member any more. Nothing of it is in use.
    pub fn remove(&self, disk: DiskIndex) {
        let mut table = self.table.write();
        table.leaving.remove(&disk);
        table.given_up.remove(&disk);
        table.reasons.remove(&disk);
        if let Some(member) = table.members.get_mut(disk.as_usize()) {
            *member = None;
        }
        drop(table);
        self.change();
    }

    /// How many shards of an object have no place, or one on a disk that was given up.
    pub fn lost_shards(&self, record: &ObjectRecord) -> usize {
        let lost = |place: &Option<Place>| place.is_none_or(|place| self.is_given_up(place.disk));
        record.places.iter().filter(|place| lost(place)).count()
    }

    /// Whether a shard of the object has no place, or one on a disk that was given up.
    pub fn lacks(&self, record: &ObjectRecord) -> bool {
        self.lost_shards(record) > 0
    }

    /// As `fail`, if with it no more than m members do not take part: else false, and nothing happened.
    pub fn fail_if_spare(&self, disk: DiskIndex, why: FailReason) -> bool {
        {
            let table = self.table.read();
            let others = table.members.iter().flatten().filter(|member| member.index != disk);
            let out = others.filter(|member| member.state != MemberState::Active).count();
            if out >= table.redundancy.tolerates() {
                return false;
            }
        }
        self.fail(disk, why);
        true
    }

    /// The labels are to say something new, though no member changed.
    pub fn touch(&self) {
        self.change();
    }

    /// A disk missed a deadline: reported, nothing else [R11].
    pub fn late(&self, disk: DiskIndex) {
        self.reports.push(Report::DiskLate { disk });
    }

    /// Where reports go.
    pub fn reports(&self) -> &Arc<Reports> {
        &self.reports
    }

    /// Raised whenever a disk takes new objects that did not before.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.load(Ordering::SeqCst)
    }

    /// Raised with every change of a member.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// The sequence up to which the survivors' labels say what changed [R2].
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::SeqCst)
    }

    /// The survivors' labels say everything up to `sequence` [R2].
    pub fn set_recorded(&self, sequence: u64) {
        self.recorded.fetch_max(sequence, Ordering::SeqCst);
        self.changed.notify();
    }

    /// Notified with every change, and when it was recorded.
    pub fn changed(&self) -> &Event {
        &self.changed
    }

    fn change(&self) {
        self.sequence.fetch_add(1, Ordering::SeqCst);
        self.changed.notify();
    }
}
