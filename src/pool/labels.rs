//! The labels of an open pool: reading them, claiming an epoch, recording who dropped out.
//!
//! A label's three copies never are all in doubt at once [R6]: each is rewritten durably before the
//! next is begun, and no copy is begun while fewer than two of the three are at rest (a write of an
//! earlier round may still be on its way [R7]). What counts is the copy with the highest sequence.
//!
//! *Claim* [R2], the first write of a read-write mount:
//!
//! 1. The number is the highest seen plus one, the id random, the parent the claim seen. Nothing on
//!    disk.
//! 2. Every member at hand gets it. A crash leaves it on some: the next mount sees the higher number
//!    on one of them, or (if those are missing) claims the same number with another id. Two quorums of
//!    N - m overlap where N > 2m, so at most one of two such claims was ever complete; the other
//!    wrote nothing but labels.
//! 3. N - m members or more have it, and every other member is recorded as out. Only now may anything
//!    else be written.
//!
//! *Rot*: a copy that cannot be used is rewritten from what the label says, and in every round before the
//! good ones are touched: until it is durable, those are all there is [R6].
//!
//! A member that was out and is back takes the claim like the others, but stays recorded as out until a
//! root is durable on it which covers everything that was acknowledged without it: until then the others' word
//! counts, and not all of them may be lost.
//!
//! *Record* [R2]: when a member is failed, the survivors' labels say so before anything is acknowledged
//! that does without it. Journal and checkpoint may both ask at the same time: each writes for itself,
//! and every label is made from the newest state at the moment it is submitted.

use std::collections::BTreeMap;

use crate::base::canary::{self, Bug};
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Lsn};
use crate::fleet::access::{Access, Miss, ReadAt, WriteAt};
use crate::fleet::disk::{Buffer, Class, DiskError, DiskHandle, Slice};
use crate::fleet::{FailReason, FleetError, MemberState, Members, RecordMembers};
use crate::format::{
    DiskLayout, EpochClaim, FormatError, LABEL_BYTES, LABEL_COPIES, Label, MemberStates, RawLabel,
};

/// Largest epoch: object ids have 24 bits for it.
const EPOCH_MAX: u32 = (1 << 24) - 1;

/// Why a disk has no label for us.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LabelError {
    /// It is not a member of any pool.
    #[error("no label")]
    None,
    /// It did not answer, or only with errors.
    #[error("the label cannot be read")]
    Unreadable,
    /// There is a label, but not one that may be used.
    #[error(transparent)]
    Unusable(FormatError),
}

impl LabelError {
    /// Whether the disk has a label, and it is damaged: not another version's, nor of another place.
    pub fn is_damage(&self) -> bool {
        let LabelError::Unusable(error) = self else { return false };
        matches!(error, FormatError::Checksum { .. } | FormatError::Field { .. })
    }
}

/// The sequence of each copy of a disk's label; None: it cannot be used.
pub type LabelCopies = [Option<u64>; LABEL_COPIES];

/// A disk's label.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundLabel {
    /// The newest copy that verifies.
    pub label: Label,
    /// What the copies are like.
    pub copies: LabelCopies,
}

/// Why a copy of a label does not count.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadCopy {
    /// The disk cannot read it.
    #[error("cannot be read")]
    Unreadable,
    /// It does not make sense.
    #[error("cannot be used: {0}")]
    Unusable(FormatError),
    /// It is whole, and another disk's.
    #[error("is another disk's")]
    Foreign,
    /// It is whole, and older than what was written there.
    #[error("is older than what was written there")]
    Old,
}

/// A copy of a label that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadLabel {
    /// On which disk.
    pub disk: DiskIndex,
    /// Which copy.
    pub copy: usize,
    /// What is wrong with it.
    pub why: BadCopy,
}

/// Reads the labels of many disks at once: of each the newest copy that verifies.
pub fn read_labels(access: &Access, disks: &[DiskHandle]) -> Vec<Result<FoundLabel, LabelError>> {
    let mut reads = Vec::new();
    for disk in disks {
        for offset in DiskLayout::label_offsets_for(disk.identity().bytes) {
            reads.push(ReadAt { disk: disk.clone(), offset, bytes: LABEL_BYTES as usize });
        }
    }
    let results = access.read(Class::Foreground, &reads, disks.len());
    let mut labels = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let range = index * LABEL_COPIES..(index + 1) * LABEL_COPIES;
        let mut copies = Vec::new();
        for (read, result) in reads[range.clone()].iter().zip(&results[range]) {
            copies.push(match result {
                Ok(bytes) => RawLabel::decode(bytes, read.offset)
                    .and_then(|raw| raw.verify(disk.identity().bytes))
                    .map_err(LabelError::Unusable),
                Err(_) => Err(LabelError::Unreadable),
            });
        }
        let best = copies.iter().cloned().fold(Err(LabelError::None), better);
        labels.push(best.map(|label| {
            let of_it = |copy: &Label| (copy.pool, copy.disk) == (label.pool, label.disk);
            let sequence = |copy: &Result<Label, LabelError>| {
                copy.as_ref().ok().filter(|copy| of_it(copy)).map(|copy| copy.sequence)
            };
            FoundLabel { copies: std::array::from_fn(|copy| sequence(&copies[copy])), label }
        }));
    }
    labels
}

/// The newer label; without any, the reason that says most.
fn better(a: Result<Label, LabelError>, b: Result<Label, LabelError>) -> Result<Label, LabelError> {
    let rank = |error: &LabelError| match error {
        LabelError::Unusable(FormatError::Version { .. } | FormatError::Features { .. }) => 3,
        LabelError::Unusable(FormatError::Magic { .. }) | LabelError::None => 0,
        LabelError::Unreadable => 2,
        LabelError::Unusable(_) => 1,
    };
    match (a, b) {
        (Ok(a), Ok(b)) => Ok(if b.sequence > a.sequence { b } else { a }),
        (Ok(a), Err(_)) => Ok(a),
        (Err(_), Ok(b)) => Ok(b),
        (Err(a), Err(b)) if rank(&b) > rank(&a) => Err(b),
        (Err(a), Err(_)) => Err(a),
    }
}

/// What is known of one copy.
#[derive(Clone, Copy, Default)]
struct CopyState {
    /// The sequence that was last written there; None: a write of it was not answered, or failed.
    sequence: Option<u64>,
    /// It cannot be used.
    bad: bool,
}

/// In which order the copies are rewritten: bad ones before the good ones are touched [R6].
fn order(copies: &[CopyState; LABEL_COPIES]) -> [usize; LABEL_COPIES] {
    let mut order = std::array::from_fn(|copy| copy);
    order.sort_by_key(|&copy| !copies[copy].bad);
    order
}

/// One disk's label and the state of its copies.
struct Held {
    label: Label,
    copies: [CopyState; LABEL_COPIES],
    /// Per copy; more than one reference: its write was not reaped [R7].
    holds: [Arc<()>; LABEL_COPIES],
    /// A copy has this mount's claim.
    claimed: bool,
}

impl Held {
    fn new(label: Label, copies: [CopyState; LABEL_COPIES]) -> Held {
        Held { label, copies, holds: std::array::from_fn(|_| Arc::new(())), claimed: false }
    }

    fn is_busy(&self, copy: usize) -> bool {
        Arc::strong_count(&self.holds[copy]) > 1
    }

    /// Whether this copy may be rewritten now: it is at rest, and so is another one [R6, R7].
    fn may_write(&self, copy: usize) -> bool {
        let others = (0..LABEL_COPIES).filter(|&other| other != copy);
        !self.is_busy(copy) && others.filter(|&other| !self.is_busy(other)).count() >= 1
    }
}

/// As it was read.
fn held(found: FoundLabel) -> Held {
    let state = |sequence: Option<u64>| CopyState { sequence, bad: sequence.is_none() };
    Held::new(found.label, found.copies.map(state))
}

/// What all labels of the pool say alike.
#[derive(Clone, Copy)]
struct Common {
    claim: EpochClaim,
    machine_id: [u8; 16],
    open: bool,
    states: MemberStates,
}

struct State {
    held: BTreeMap<DiskIndex, Held>,
    common: Common,
    /// Members that are back without everything that was acknowledged: they stay recorded as out until a
    /// root is durable on them that covers this batch; None: it is not known yet which one.
    returned: BTreeMap<DiskIndex, Option<Lsn>>,
    /// Members that something may have been acknowledged without: a complete record has said that they are
    /// out [R2]. Those that are out in no such record lack nothing when they are back.
    done_without: u64,
    /// Members that were removed for good: recorded as out for ever.
    removed: u64,
    /// Indices ever given out.
    indices: u16,
}

fn bit(disk: DiskIndex) -> u64 {
    1 << disk.0
}

/// The labels of one pool, for writing.
pub struct PoolLabels {
    access: Access,
    members: Arc<Members>,
    state: Mutex<State>,
}

impl PoolLabels {
    /// The labels as they were read, of the members at hand; `newest` is the one whose claim and
    /// member states count; `returned` are back from outside.
    pub fn new(
        access: Access,
        members: Arc<Members>,
        labels: Vec<(DiskIndex, FoundLabel)>,
        newest: &Label,
        returned: &[DiskIndex],
        removed: &[DiskIndex],
    ) -> PoolLabels {
        let held = labels.into_iter().map(|(disk, found)| (disk, held(found)));
        let common = Common {
            claim: newest.claim,
            machine_id: newest.machine_id,
            open: newest.open,
            states: newest.member_states,
        };
        let bits = |disks: &[DiskIndex]| disks.iter().fold(0, |bits, &disk| bits | bit(disk));
        // The first root of a mount covers all there is.
        let believed = canary::planted(Bug::ReturnedBelieved);
        let returned = returned.iter().filter(|_| !believed);
        let returned = returned.map(|&disk| (disk, Some(Lsn(0)))).collect();
        let (removed, indices) = (bits(removed), newest.member_count);
        // Nobody knows what was acknowledged before this mount.
        let done_without = u64::MAX;
        let state =
            State { held: held.collect(), common, returned, done_without, removed, indices };
        PoolLabels { access, members, state: Mutex::new(state) }
    }

    /// The claim that the labels state.
    pub fn current(&self) -> EpochClaim {
        self.state.lock().common.claim
    }

    /// What a label of this pool says now; of no disk in particular.
    pub fn sample(&self) -> Option<Label> {
        let state = self.state.lock();
        let mut label = state.held.values().next()?.label.clone();
        label.claim = state.common.claim;
        label.machine_id = state.common.machine_id;
        label.open = state.common.open;
        label.member_states = state.common.states;
        label.redundancy = self.members.redundancy();
        Some(label)
    }

    /// A disk is to take part: from the next record on all labels say that it is out, until a root is
    /// durable on it that covers what [`PoolLabels::lacks`] says.
    pub fn expect(&self, disk: DiskIndex) {
        let mut state = self.state.lock();
        state.returned.insert(disk, None);
        state.indices = state.indices.max(disk.0 + 1);
    }

    /// It takes part now; batches up to this one may have been acknowledged without it.
    pub fn lacks(&self, disk: DiskIndex, up_to: Lsn) {
        if let Some(lacks) = self.state.lock().returned.get_mut(&disk) {
            *lacks = Some(up_to);
        }
    }

    /// A disk that was expected takes part now. True, and it does not count as out any more, if nothing was
    /// acknowledged while it did not: with all disks gone there would be nobody left to bring them anything.
    /// A record that is under way sees that the member table has changed, and begins anew.
    pub fn lacks_nothing(&self, disk: DiskIndex) -> bool {
        let mut state = self.state.lock();
        if state.done_without & bit(disk) != 0 {
            return false;
        }
        state.returned.remove(&disk);
        drop(state);
        self.members.touch();
        true
    }

    /// The newest label that is known to be on this disk, by its sequence.
    pub fn known_sequence(&self, disk: DiskIndex) -> Option<u64> {
        self.state.lock().held.get(&disk)?.copies.iter().filter_map(|copy| copy.sequence).max()
    }

    /// The lowest number that was never given out.
    pub fn next_index(&self) -> DiskIndex {
        DiskIndex(self.state.lock().indices)
    }

    /// It is one, and this is its label.
    pub fn adopt(&self, found: FoundLabel) {
        let mut held = held(found);
        let mut state = self.state.lock();
        held.claimed = held.label.claim == state.common.claim;
        state.held.insert(held.label.index, held);
    }

    /// It is none any more, or has never become one.
    pub fn drop_out(&self, disk: DiskIndex) {
        let mut state = self.state.lock();
        state.removed |= bit(disk);
        state.returned.remove(&disk);
        state.held.remove(&disk);
    }

    /// Claims the next epoch with the random `id`, opens the pool for `machine_id`, and records who is
    /// out. Members that do not take it are failed, at most m in all with those already out; else
    /// `TooFewDisks`, and the pool must not be written to [R2, R11].
    pub fn claim(&self, id: u64, machine_id: [u8; 16]) -> Result<EpochClaim, FleetError> {
        let claim = {
            let mut state = self.state.lock();
            let before = state.common.claim;
            if before.epoch.0 >= EPOCH_MAX {
                // 16 million mounts are never reached.
                return Err(FleetError::Damaged { what: "epoch of a label", lsn: Lsn(0) });
            }
            let epoch = crate::base::Epoch(before.epoch.0 + 1);
            state.common.claim = EpochClaim { epoch, id, parent_id: before.id };
            state.common.machine_id = machine_id;
            state.common.open = true;
            state.common.claim
        };
        let least = self.members.least();
        loop {
            let sequence = self.members.sequence();
            let out = self.take_over_states()?;
            let written = self.write_round(usize::MAX);
            let active = self.members.active();
            let have = active.iter().filter(|disk| written.contains(disk)).count();
            if have < least {
                return Err(FleetError::TooFewDisks { have, need: least });
            }
            if !active.iter().any(|&disk| written.contains(&disk) && !self.is_returned(disk)) {
                return Err(FleetError::TooFewDisks { have: 0, need: 1 });
            }
            // Late for its very first write: it is out, so that it cannot come back unnoticed.
            for &disk in active.iter().filter(|disk| !written.contains(disk)) {
                self.members.fail(disk, FailReason::Late);
            }
            if self.members.sequence() == sequence {
                self.state.lock().done_without = out;
                self.members.set_recorded(sequence);
                return Ok(claim);
            }
        }
    }

    /// Says in the labels that the pool is closed: the last write of an unmount. Best effort: a label
    /// left open only makes the next mount look for a crash.
    pub fn close(&self) {
        self.state.lock().common.open = false;
        self.write_round(usize::MAX);
    }

    /// Puts who is out into what the labels will say, and returns it. `TooFewDisks` if that is everybody who has all
    /// that was acknowledged: then it must not be said, because it would be all that tells who has it.
    fn take_over_states(&self) -> Result<u64, FleetError> {
        let members = self.members.all();
        let out = |state| {
            let members = members.iter().filter(move |member| member.state == state);
            members.fold(0, |bits, member| bits | bit(member.index))
        };
        let everybody = members.iter().fold(0, |bits, member| bits | bit(member.index));
        let mut state = self.state.lock();
        let failed = out(MemberState::Failed);
        let returned = state.returned.keys().fold(0, |bits, &disk| bits | bit(disk));
        let dropped = (out(MemberState::Missing) | returned | state.removed) & !failed;
        if everybody & !(failed | dropped) == 0 {
            return Err(FleetError::TooFewDisks { have: 0, need: 1 });
        }
        let states = &mut state.common.states;
        if (states.failed, states.dropped) != (failed, dropped) {
            *states = MemberStates { sequence: states.sequence.saturating_add(1), failed, dropped };
        }
        Ok(failed | dropped)
    }

    /// Members that are back without everything that was acknowledged.
    pub(super) fn returned(&self) -> Vec<DiskIndex> {
        self.state.lock().returned.keys().copied().collect()
    }

    /// Whether it is back without everything that was acknowledged.
    pub(super) fn is_returned(&self, disk: DiskIndex) -> bool {
        self.state.lock().returned.contains_key(&disk)
    }

    /// Rewrites the labels of all active members, copy after copy; does not wait long for the slow
    /// once `enough` have a copy. Returns who has at least one durable copy of it.
    fn write_round(&self, enough: usize) -> Vec<DiskIndex> {
        let mut open: Vec<DiskIndex> = self.members.active();
        let orders: BTreeMap<DiskIndex, [usize; LABEL_COPIES]> = {
            let state = self.state.lock();
            state.held.iter().map(|(&disk, held)| (disk, order(&held.copies))).collect()
        };
        let mut written: Vec<DiskIndex> = Vec::new();
        for turn in 0..LABEL_COPIES {
            let copies = open.iter().filter_map(|disk| Some((*disk, orders.get(disk)?[turn])));
            for (disk, done) in self.write_copies(&copies.collect::<Vec<_>>(), enough) {
                if !done {
                    open.retain(|&other| other != disk);
                } else if !written.contains(&disk) {
                    written.push(disk);
                }
            }
        }
        written
    }

    /// Rewrites these copies, one a disk, where it may be done now; says of each that was tried whether it
    /// is durable.
    fn write_copies(&self, copies: &[(DiskIndex, usize)], enough: usize) -> Vec<(DiskIndex, bool)> {
        let (planned, places) = self.plan_copies(copies);
        let results = self.access.write_durably(Class::Journal, &places, enough.min(places.len()));
        let mut done = Vec::new();
        for ((disk, copy, sequence), result) in planned.into_iter().zip(results) {
            done.push((disk, result.is_ok()));
            match result {
                Ok(()) => self.note_written(disk, copy, sequence),
                Err(Miss::Late) => self.members.late(disk),
                // A full host file system is not the disk's failure [R24].
                Err(Miss::Failed(DiskError::HostFull)) => {}
                Err(Miss::Failed(error)) => self.members.fail(disk, FailReason::of_write(error)),
            }
        }
        done
    }

    fn note_written(&self, disk: DiskIndex, copy: usize, sequence: u64) {
        if let Some(held) = self.state.lock().held.get_mut(&disk) {
            held.copies[copy] = CopyState { sequence: Some(sequence), bad: false };
            held.claimed = true;
        }
    }

    /// The writes of these copies where they may be written, each made from the newest state: disk, copy
    /// and sequence.
    fn plan_copies(
        &self,
        copies: &[(DiskIndex, usize)],
    ) -> (Vec<(DiskIndex, usize, u64)>, Vec<WriteAt>) {
        let mut state = self.state.lock();
        let (common, indices) = (state.common, state.indices);
        let (mut planned, mut places) = (Vec::new(), Vec::new());
        for &(disk, copy) in copies {
            let Some(handle) = self.members.handle(disk) else { continue };
            let Some(held) = state.held.get_mut(&disk).filter(|held| held.may_write(copy)) else {
                continue;
            };
            held.copies[copy].sequence = None;
            let label = &mut held.label;
            label.sequence = label.sequence.saturating_add(1);
            label.claim = common.claim;
            label.machine_id = common.machine_id;
            label.open = common.open;
            label.member_states = common.states;
            label.member_count = indices;
            label.redundancy = self.members.redundancy();
            places.push(WriteAt {
                disk: handle,
                offset: label.layout.label_offsets[copy],
                data: Slice::copy_of(&label.encode()),
                hold: held.holds[copy].clone(),
            });
            planned.push((disk, copy, label.sequence));
        }
        (planned, places)
    }

    /// Copies on disks that take part which are not what was written there, and how many were looked at.
    /// Nothing is changed. What is being written meanwhile is not judged.
    pub fn look(&self) -> (usize, Vec<BadLabel>) {
        let (mut asked, mut reads) = (Vec::new(), Vec::new());
        {
            let state = self.state.lock();
            for (&disk, held) in &state.held {
                let Some(handle) = self.members.handle(disk) else { continue };
                for copy in (0..LABEL_COPIES).filter(|&copy| !held.is_busy(copy)) {
                    let offset = held.label.layout.label_offsets[copy];
                    let bytes = LABEL_BYTES as usize;
                    reads.push(ReadAt { disk: handle.clone(), offset, bytes });
                    asked.push((disk, copy, held.copies[copy].sequence));
                }
            }
        }
        let results = self.access.read(Class::Background, &reads, self.members.parity());
        let mut bad = Vec::new();
        let state = self.state.lock();
        for (((disk, copy, expected), read), result) in asked.iter().zip(&reads).zip(&results) {
            let Some(held) = state.held.get(disk) else { continue };
            if held.is_busy(*copy) || held.copies[*copy].sequence != *expected {
                continue;
            }
            if let Some(why) = judge(held, *expected, read, result) {
                bad.push(BadLabel { disk: *disk, copy: *copy, why });
            }
        }
        (asked.len(), bad)
    }

    /// Rewrites these copies, of each disk one at a time [R6]; says of each whether it is durable.
    pub fn mend(&self, bad: &[BadLabel]) -> Vec<bool> {
        {
            let mut state = self.state.lock();
            for BadLabel { disk, copy, .. } in bad {
                if let Some(held) = state.held.get_mut(disk) {
                    held.copies[*copy].bad = true;
                }
            }
        }
        for copy in 0..LABEL_COPIES {
            let of_copy = bad.iter().filter(|bad| bad.copy == copy);
            let copies: Vec<_> = of_copy.map(|bad| (bad.disk, copy)).collect();
            if !copies.is_empty() {
                self.write_copies(&copies, copies.len());
            }
        }
        let state = self.state.lock();
        let is_good = |BadLabel { disk, copy, .. }: &BadLabel| {
            state.held.get(disk).is_some_and(|held| !held.copies[*copy].bad)
        };
        bad.iter().map(is_good).collect()
    }
}

/// What is wrong with a copy that was read; None: nothing, or its disk did not answer.
fn judge(
    held: &Held,
    expected: Option<u64>,
    read: &ReadAt,
    result: &Result<Buffer, Miss>,
) -> Option<BadCopy> {
    let bytes = match result {
        Ok(bytes) => bytes,
        Err(Miss::Failed(DiskError::Medium { .. })) => return Some(BadCopy::Unreadable),
        Err(_) => return None,
    };
    let disk_bytes = read.disk.identity().bytes;
    let label = RawLabel::decode(bytes, read.offset).and_then(|raw| raw.verify(disk_bytes));
    match label {
        Err(error) => Some(BadCopy::Unusable(error)),
        Ok(copy) if (copy.pool, copy.disk) != (held.label.pool, held.label.disk) => {
            Some(BadCopy::Foreign)
        }
        Ok(copy) => expected.filter(|&expected| copy.sequence != expected).map(|_| BadCopy::Old),
    }
}

impl RecordMembers for PoolLabels {
    /// One try: with everything that failed meanwhile taken along. `TooFewDisks` if fewer than
    /// min(active, m+1) members have it in time, or fewer than N - m are left.
    fn record(&self) -> Result<(), FleetError> {
        let least = self.members.least();
        loop {
            let sequence = self.members.sequence();
            let out = self.take_over_states()?;
            let written = self.write_round(self.members.parity() + 1);
            if self.members.sequence() != sequence {
                continue;
            }
            let active = self.members.active();
            let need = active.len().min(self.members.parity() + 1);
            let have = active.iter().filter(|disk| written.contains(disk)).count();
            if active.len() < least {
                return Err(FleetError::TooFewDisks { have: active.len(), need: least });
            }
            if have < need {
                return Err(FleetError::TooFewDisks { have, need });
            }
            self.state.lock().done_without |= out;
            self.members.set_recorded(sequence);
            return Ok(());
        }
    }

    fn whole(&self, disks: &[DiskIndex], covers: Lsn) {
        let mut whole = Vec::new();
        let mut state = self.state.lock();
        let State { returned, held, done_without, .. } = &mut *state;
        returned.retain(|disk, lacks| {
            // Without this mount's claim on it the next one would take it for a disk that became older.
            let claimed = held.get(disk).is_some_and(|held| held.claimed);
            let covered = lacks.is_some_and(|lacks| lacks <= covers);
            let has_all = disks.contains(disk) && claimed && covered;
            if has_all {
                whole.push(*disk);
                *done_without &= !bit(*disk);
            }
            !has_all
        });
        drop(state);
        // A change of the member table, so that it is recorded before the next acknowledgement.
        if whole.iter().any(|&disk| self.members.state(disk) == Some(MemberState::Active)) {
            self.members.touch();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r6_copies_that_cannot_be_used_are_written_before_the_good_ones() {
        let table: [([bool; LABEL_COPIES], [usize; LABEL_COPIES]); 5] = [
            ([false, false, false], [0, 1, 2]),
            ([false, true, false], [1, 0, 2]),
            ([false, true, true], [1, 2, 0]),
            ([true, false, true], [0, 2, 1]),
            ([true, true, true], [0, 1, 2]),
        ];
        for (bad, want) in table {
            let copies = bad.map(|bad| CopyState { sequence: None, bad });
            assert_eq!(order(&copies), want, "{bad:?}");
        }
    }
}
