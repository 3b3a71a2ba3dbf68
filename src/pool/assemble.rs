//! From disks with labels to a member table: which of them belong together, whether they may be
//! written to, and where to go on from. Reads only.
//!
//! With N members and parity m, of which `missing` are not here:
//!
//! | here | mode |
//! |---|---|
//! | all but m or more | read-write |
//! | fewer, or none of those that nobody went on without | read-only [I6] |
//! | the members missing could be a pool by themselves: N - m or more, not all recorded as out | read-only, but for `degraded` [I5] |
//!
//! * [R2] The label with the highest epoch, then the highest member states, says who is in. A disk with
//!   an older claim returns from outside: it is a member, and its shards are good as far as records
//!   name them. Its ring and roots need no rule: they carry their epoch, and lose by it.
//! * [R2] Two ids of one epoch, or a history that went on without all those that now claim a newer one,
//!   are two incarnations of one pool. They are never merged. Where N > 2m and one of them has N - m
//!   members here, the other's claim cannot have been complete, so its disks just return.
//! * A disk older than the epoch it was active in was rolled back (a restored image): it is a member,
//!   but does not count as present.
//! * [R24] One drive by two paths counts once; a copy of a disk on another drive is refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::sync::Arc;
use crate::base::{DiskIndex, PoolUuid};
use crate::fleet::access::Access;
use crate::fleet::disk::DiskHandle;
use crate::fleet::disk::probe::DriveKey;
use crate::fleet::{
    FleetError, FoundRoot, Member, MemberState, Members, Reports, SlotsRead, choose_root,
    read_roots,
};
use crate::format::{DiskLayout, EpochClaim, Label, MemberEntry, Root, SLOTS};

use super::labels::{FoundLabel, LabelCopies, PoolLabels};

/// A disk with a label, opened.
#[derive(Clone)]
pub struct Candidate {
    /// The open disk.
    pub disk: DiskHandle,
    /// Which physical drives it lies on.
    pub drives: BTreeSet<DriveKey>,
    /// What its label says.
    pub label: Label,
    /// What the copies of its label are like.
    pub copies: LabelCopies,
}

/// How to take a pool.
#[derive(Clone, Copy, Default, Debug)]
pub struct AssembleOptions {
    /// Only read.
    pub read_only: bool,
    /// Write even where the missing members could have gone on without us [I5].
    pub degraded: bool,
    /// Take a pool that is open on another machine [R24], or one of two incarnations: the newest.
    pub force: bool,
    /// This machine.
    pub machine_id: [u8; 16],
}

/// No number that grows in use gets here: that would take 36 years of a billion each second.
const NUMBER_END: u64 = 1 << 60;

/// Whether the pool may be written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// It may.
    ReadWrite,
    /// The caller asked for reading only.
    Asked,
    /// More than m members are missing, do not answer or were rolled back; or all that have everything
    /// that was acknowledged [I6].
    TooManyMissing,
    /// The missing ones could have gone on without us; `degraded` was not given [I5].
    CouldBeElsewhere,
}

/// A pool whose members are known.
pub struct Assembled {
    /// All members, the missing ones too.
    pub members: Arc<Members>,
    /// Their labels, for claiming an epoch and recording.
    pub labels: Arc<PoolLabels>,
    /// Name, claim and so on, as the newest label says.
    pub label: Label,
    /// All roots found.
    pub roots: Vec<FoundRoot>,
    /// Slots with something in them that is no root of this place: rot, or a write that was cut off.
    pub spoilt: Vec<(DiskIndex, usize)>,
    /// The one to go on from.
    pub root: Root,
    /// Whether it may be written to.
    pub mode: Mode,
    /// Members that are not here.
    pub missing: Vec<DiskIndex>,
    /// Members the pool went on without, and that are back.
    pub returned: Vec<DiskIndex>,
    /// Members that nobody went on without, here or not: with m of them or fewer, each has all that was
    /// acknowledged.
    pub participants: Vec<DiskIndex>,
    /// Members older than they should be: scrub them first.
    pub rolled_back: Vec<DiskIndex>,
    /// The pool was not closed: it crashed, or runs elsewhere.
    pub unclean: bool,
}

impl Assembled {
    /// Whether some disk has no root at all, only what is left of two.
    pub fn both_slots_spoilt(&self) -> bool {
        let slots = |disk| self.spoilt.iter().filter(|(other, _)| *other == disk).count();
        self.spoilt.iter().any(|(disk, _)| slots(*disk) == SLOTS)
    }
}

/// Why a pool cannot be taken at all.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// No disk was given.
    #[error("no disk of this pool was found")]
    NoDisks,
    /// Two disks say they are the same member, on different drives [R24].
    #[error("{first} and {second} are copies of one disk; remove the one that is not in use")]
    Clone {
        /// One path.
        first: String,
        /// The other.
        second: String,
    },
    /// The pool went on twice from one state [R2].
    #[error(
        "{first} and {second} went on without each other since they were one pool, and cannot be \
         merged; mount with only one side's disks, or --force to take the newest and rebuild the rest"
    )]
    SplitBrain {
        /// A disk of the newest history.
        first: String,
        /// One of the other.
        second: String,
    },
    /// Open on another machine [R24].
    #[error("the pool is in use by another machine ({machine}); if it is not, --force takes it")]
    OpenElsewhere {
        /// Its machine id, in hex.
        machine: String,
    },
    /// No disk has a usable root.
    #[error("no checkpoint root on any of the {disks} disks at hand")]
    NoRoot {
        /// Disks looked at.
        disks: usize,
    },
    /// Roots contradict each other.
    #[error(transparent)]
    Fleet(#[from] FleetError),
}

/// The candidates by pool, each group in the order given.
pub fn group_by_pool(candidates: Vec<Candidate>) -> BTreeMap<PoolUuid, Vec<Candidate>> {
    let mut pools: BTreeMap<PoolUuid, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        pools.entry(candidate.label.pool).or_default().push(candidate);
    }
    pools
}

/// Takes the disks of one pool. Reads roots, writes nothing.
pub fn assemble(
    access: &Access,
    candidates: Vec<Candidate>,
    options: &AssembleOptions,
    reports: Arc<Reports>,
) -> Result<Assembled, AssembleError> {
    let candidates = distinct(candidates)?;
    let label = newest(&candidates).ok_or(AssembleError::NoDisks)?.label.clone();
    let candidates = one_history(candidates, &label, options.force)?;
    let foreign = label.open && label.machine_id != options.machine_id;
    if foreign && !options.read_only && !options.force {
        let machine = format!("{:032x}", u128::from_be_bytes(label.machine_id));
        return Err(AssembleError::OpenElsewhere { machine });
    }
    let found = Members::new(label.pool, label.redundancy, reports.clone());
    candidates.iter().for_each(|candidate| found.set(present(candidate)));
    let SlotsRead { found: mut roots, unread, mut spoilt } = read_roots(access, &found);
    let is_of_it = |root: &Root| root.epoch != label.claim.epoch || root.epoch_id == label.claim.id;
    roots.retain(|found| is_possible(&found.root, &candidates) && is_of_it(&found.root));
    let root = choose_root(&roots)?.cloned();
    let root = root.ok_or(AssembleError::NoRoot { disks: candidates.len() })?;
    let candidates: Vec<Candidate> =
        candidates.into_iter().filter(|candidate| is_member(candidate, &root)).collect();
    roots.retain(|found| candidates.iter().any(|c| c.label.index == found.disk));
    spoilt.retain(|(disk, _)| candidates.iter().any(|c| c.label.index == *disk));
    let rolled_back = rolled_back(&candidates, &label, &root);
    let (members, missing) = table_of(&root, &candidates, &label, reports);
    let kept: Vec<DiskIndex> = members.all().iter().map(|member| member.index).collect();
    let participants: Vec<DiskIndex> = (kept.iter().copied())
        .filter(|disk| !label.member_states.is_out(*disk) && !rolled_back.contains(disk))
        .collect();
    let blind: Vec<DiskIndex> = (members.all().iter().map(|member| member.index))
        .filter(|disk| {
            missing.contains(disk) || rolled_back.contains(disk) || unread.contains(disk)
        })
        .collect();
    let mode =
        mode(&label, members.parity(), &missing, &blind, &participants, members.len(), options);
    let mut back: Vec<DiskIndex> = (candidates.iter().map(|candidate| candidate.label.index))
        .filter(|disk| !participants.contains(disk))
        .collect();
    let of_disks = candidates.into_iter().map(|candidate| {
        let Candidate { label, copies, .. } = candidate;
        (label.index, FoundLabel { label, copies })
    });
    let (access, members_too) = (access.clone(), members.clone());
    let mut label = label;
    let indices = root.members.iter().map(|entry| entry.index.0 + 1).max();
    label.member_count = label.member_count.max(indices.unwrap_or(0));
    // Removed, or never added though their number was given out.
    let removed: Vec<DiskIndex> =
        (0..label.member_count).map(DiskIndex).filter(|disk| !kept.contains(disk)).collect();
    let labels = PoolLabels::new(access, members_too, of_disks.collect(), &label, &back, &removed);
    back.retain(|disk| !rolled_back.contains(disk));
    let unclean = label.open;
    Ok(Assembled {
        members,
        labels: Arc::new(labels),
        label,
        roots,
        spoilt,
        root,
        mode,
        missing,
        returned: back,
        participants,
        rolled_back,
        unclean,
    })
}

/// The members that the root names, and those of them that are not here.
fn table_of(
    root: &Root,
    candidates: &[Candidate],
    label: &Label,
    reports: Arc<Reports>,
) -> (Arc<Members>, Vec<DiskIndex>) {
    let members = Arc::new(Members::new(label.pool, root.config.redundancy, reports));
    let mut missing = Vec::new();
    for entry in &root.members {
        if entry.state == crate::format::MemberState::Removed {
            continue;
        }
        members.set_leaving(entry.index, entry.leaving);
        match candidates.iter().find(|candidate| candidate.label.index == entry.index) {
            Some(candidate) => {
                members.set(Member { enclosure: entry.enclosure, ..present(candidate) });
            }
            None => {
                missing.push(entry.index);
                members.set(absent(entry, label));
            }
        }
    }
    (members, missing)
}

/// One drive by two paths counts once; copies of one disk are refused [R24].
fn distinct(candidates: Vec<Candidate>) -> Result<Vec<Candidate>, AssembleError> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        match kept.iter().find(|other| other.label.disk == candidate.label.disk) {
            None => kept.push(candidate),
            Some(other) if other.drives == candidate.drives => {
                log::info!("{} is {} by another path", path(&candidate), path(other));
            }
            Some(other) => {
                let (first, second) = (path(other), path(&candidate));
                return Err(AssembleError::Clone { first, second });
            }
        }
    }
    Ok(kept)
}

/// The candidate whose label counts.
fn newest(candidates: &[Candidate]) -> Option<&Candidate> {
    let holders =
        |label: &Label| candidates.iter().filter(|other| other.label.claim == label.claim).count();
    candidates.iter().max_by_key(|candidate| {
        let label = &candidate.label;
        // Of two claims with one number the one that more disks here have.
        (label.claim.epoch, holders(label), label.claim.id, label.member_states.sequence)
    })
}

/// Refuses, or with `force` leaves out, disks of another history than `label`'s [R2].
fn one_history(
    candidates: Vec<Candidate>,
    label: &Label,
    force: bool,
) -> Result<Vec<Candidate>, AssembleError> {
    let here: Vec<_> =
        candidates.iter().map(|candidate| (candidate.label.index, candidate.label.claim)).collect();
    let first = candidates.iter().find(|other| other.label.claim == label.claim).map(path);
    let mut kept = Vec::new();
    for candidate in candidates {
        if is_of_one_history(&candidate.label, label, &here) {
            kept.push(candidate);
            continue;
        }
        if !force {
            let (first, second) = (first.unwrap_or_default(), path(&candidate));
            return Err(AssembleError::SplitBrain { first, second });
        }
        log::warn!("{} has another history and is left out", path(&candidate));
    }
    Ok(kept)
}

/// Whether `other` did not go on without `label`; `here`: the disks at hand and what they claim.
fn is_of_one_history(other: &Label, label: &Label, here: &[(DiskIndex, EpochClaim)]) -> bool {
    // A claim is complete on N - m members; before that its mount wrote nothing but labels. N is what it
    // was for that mount: others may have added disks since.
    let could_be_complete = || {
        let holders = here.iter().filter(|(_, claim)| *claim == other.claim).count();
        let missing = (0..other.member_count)
            .filter(|&index| here.iter().all(|(disk, _)| disk.0 != index))
            .count();
        let parity = label.redundancy.tolerates();
        holders + missing >= usize::from(other.member_count).saturating_sub(parity)
    };
    let diverged = claims_against(other, label) && could_be_complete();
    !diverged && !went_on_without(other, label)
}

/// Whether a disk with the label `back` may be taken into the open pool, of which one of the `active` disks
/// says `ours`: nobody has claimed the pool with it since [R2].
pub(super) fn may_come_back(back: &Label, ours: &Label, active: &[DiskIndex]) -> bool {
    let active = active.iter().map(|&disk| (disk, ours.claim));
    let here: Vec<_> = active.chain([(back.index, back.claim)]).collect();
    back.claim.epoch <= ours.claim.epoch && is_of_one_history(back, ours, &here)
}

/// Whether `other`'s claim cannot be an ancestor of `label`'s: same number and another id, or the
/// number before and not the parent.
fn claims_against(other: &Label, label: &Label) -> bool {
    let (older, newer) = (&other.claim, &label.claim);
    (older.epoch == newer.epoch && older.id != newer.id)
        || (older.epoch.0.checked_add(1) == Some(newer.epoch.0) && older.id != newer.parent_id)
}

/// Whether `other`, of an older epoch, had gone on without every member that takes part in `label`'s.
fn went_on_without(other: &Label, label: &Label) -> bool {
    // Disks that were added since cannot have been missed.
    let mut taking_part = (0..label.member_count.min(other.member_count))
        .map(DiskIndex)
        .filter(|&disk| !label.member_states.is_out(disk))
        .peekable();
    other.claim.epoch < label.claim.epoch
        && taking_part.peek().is_some()
        && taking_part.all(|disk| other.member_states.is_out(disk))
}

/// Whether a mount of ours can have written this root: its epoch was claimed in the labels first, and no
/// number in it grew by more than one at a time.
fn is_possible(root: &Root, candidates: &[Candidate]) -> bool {
    let claimed = candidates.iter().any(|candidate| candidate.label.claim.epoch >= root.epoch);
    let numbers = [root.sequence, root.replay_lsn.0, root.ino_lease.0];
    let heads = root.heads.iter().map(|head| head.position);
    let possible = claimed && numbers.into_iter().chain(heads).all(|number| number < NUMBER_END);
    if !possible {
        log::error!("a checkpoint root that no mount can have written is left out");
    }
    possible
}

/// Whether the root knows this disk under this index: another one may have taken its place.
fn is_member(candidate: &Candidate, root: &Root) -> bool {
    let known = root.members.iter().any(|entry| {
        entry.index == candidate.label.index
            && entry.uuid == candidate.label.disk
            && entry.state != crate::format::MemberState::Removed
    });
    if !known {
        log::warn!("{} is not a member of the pool any more", path(candidate));
    }
    known
}

fn is_out_of_date(other: &Label, label: &Label) -> bool {
    other.claim != label.claim
}

/// Members whose labels lack a claim that was complete (there is a root of it) and that they took part
/// in: they hold an older state than they once had.
fn rolled_back(candidates: &[Candidate], label: &Label, root: &Root) -> Vec<DiskIndex> {
    let complete = root.epoch == label.claim.epoch && root.epoch_id == label.claim.id;
    candidates
        .iter()
        .map(|candidate| &candidate.label)
        .filter(|other| complete && is_out_of_date(other, label))
        .filter(|other| !label.member_states.is_out(other.index))
        .map(|other| other.index)
        .collect()
}

fn mode(
    label: &Label,
    parity: usize,
    missing: &[DiskIndex],
    blind: &[DiskIndex],
    participants: &[DiskIndex],
    all: usize,
    options: &AssembleOptions,
) -> Mode {
    // Members that are all recorded as out cannot have gone on by themselves without being told to;
    // together with one that is not, they can.
    let could_go_on = missing.len() >= all.saturating_sub(parity)
        && missing.iter().any(|&disk| !label.member_states.is_out(disk));
    if blind.len() > parity || participants.iter().all(|disk| blind.contains(disk)) {
        Mode::TooManyMissing
    } else if options.read_only {
        Mode::Asked
    } else if could_go_on && !options.degraded {
        Mode::CouldBeElsewhere
    } else {
        Mode::ReadWrite
    }
}

fn present(candidate: &Candidate) -> Member {
    Member {
        index: candidate.label.index,
        uuid: candidate.label.disk,
        layout: candidate.label.layout,
        state: MemberState::Active,
        handle: Some(candidate.disk.clone()),
        enclosure: None,
        failing: false,
    }
}

fn absent(entry: &MemberEntry, label: &Label) -> Member {
    // The layout follows from the size; a size that has none is of no use but for counting.
    let layout = DiskLayout::for_disk(entry.bytes).unwrap_or(label.layout);
    Member {
        index: entry.index,
        uuid: entry.uuid,
        layout,
        state: MemberState::Missing,
        handle: None,
        enclosure: entry.enclosure,
        failing: false,
    }
}

fn path(candidate: &Candidate) -> String {
    candidate.disk.identity().path.clone()
}
