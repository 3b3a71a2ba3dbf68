//! Roots in the two slots of every disk [R9].
//!
//! Steps of writing a root, and what a crash after each leaves:
//!
//! 1. A slot is chosen on every active disk: never the one with the disk's copy of the last *effective*
//!    root, never one with an unreaped write [R7]. Nothing on disk.
//! 2. The root is written durably to all of them at once. A crash leaves it on any subset, each copy
//!    whole or torn. A mount may find it on one disk and choose it, so what an *attempted* root names
//!    must stay until a later one is effective; and every disk still has its copy of the root before.
//! 3. min(active, m+1) copies are durable, and the survivors' labels know who failed [R1, R2]: it is
//!    effective. Only now may the caller trim the ring, free what only older roots name, and only now
//!    may its predecessor's copies be overwritten.
//!
//! A copy that is no longer what was written is not rewritten where it lies: its disk may have just one more,
//! an older one, and the next root goes over that. Of two more roots one goes to the bad slot, by the rules
//! above; nothing is written that a mount could take for older or newer than it is.
//!
//! Choosing: the highest (epoch, sequence) among the roots that verify, in place, on any member.
//! Whatever was effective is on m+1 members, so a mount with all but m of them sees it or a later one.

use std::collections::BTreeMap;

use crate::base::canary::{self, Bug};
use crate::base::limits::ROOT_BYTES_MAX;
use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Epoch, Lsn, UNIT_BYTES};
use crate::format::layout::SLOTS;
use crate::format::root::{RawRoot, Root};

use super::access::{Access, Miss, ReadAt, WriteAt};
use super::disk::{Class, DiskError, Slice};
use super::error::FleetError;
use super::members::Members;
use super::quorum::Quorum;
use super::reports::FailReason;

/// A root that was found, where it belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRoot {
    /// On which member.
    pub disk: DiskIndex,
    /// In which slot.
    pub slot: usize,
    /// What it says.
    pub root: Root,
}

/// Order of roots: a later epoch first of all.
type Key = (Epoch, u64);

fn key(root: &Root) -> Key {
    (root.epoch, root.sequence)
}

/// What is in the slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlotsRead {
    /// All roots that verify.
    pub found: Vec<FoundRoot>,
    /// Members of whom a slot could not be read: they may have newer ones.
    pub unread: Vec<DiskIndex>,
    /// Slots with something in them that does not verify.
    pub spoilt: Vec<(DiskIndex, usize)>,
}

/// Reads both slots of every active member. What does not verify (rotten, torn, of another pool, disk
/// or slot) is not there.
pub fn read_roots(access: &Access, members: &Members) -> SlotsRead {
    let mut places = Vec::new();
    let mut reads = Vec::new();
    for member in members.all() {
        let Some(disk) = members.handle(member.index) else { continue };
        for slot in 0..SLOTS {
            let offset = member.layout.slot_offset(slot);
            reads.push(ReadAt { disk: disk.clone(), offset, bytes: ROOT_BYTES_MAX as usize });
            places.push((member.index, member.uuid, slot, offset));
        }
    }
    let mut slots = SlotsRead::default();
    let answers = access.read(Class::Foreground, &reads, members.parity());
    for ((disk, uuid, slot, offset), read) in places.into_iter().zip(answers) {
        let Ok(bytes) = read else {
            slots.unread.push(disk);
            continue;
        };
        let root =
            RawRoot::decode(&bytes, offset).and_then(|r| r.verify(members.pool(), uuid, slot));
        match root {
            Ok(root) => slots.found.push(FoundRoot { disk, slot, root }),
            Err(error) => {
                log::debug!("disk {disk}, slot {slot}: {error}");
                if bytes[..UNIT_BYTES as usize].iter().any(|&byte| byte != 0) {
                    slots.spoilt.push((disk, slot));
                }
            }
        }
    }
    slots.unread.dedup();
    slots
}

/// The root to go on from: the highest (epoch, sequence). None if there is none. `Damaged` if two
/// roots of the same rank differ: that is a split brain, never merged [R2].
pub fn choose_root(found: &[FoundRoot]) -> Result<Option<&Root>, FleetError> {
    let Some(best) = found.iter().map(|found| &found.root).max_by_key(|root| key(root)) else {
        return Ok(None);
    };
    let twin = |found: &&FoundRoot| key(&found.root) == key(best) && found.root != *best;
    match found.iter().find(twin) {
        Some(_) => Err(FleetError::Damaged { what: "checkpoint root", lsn: best.replay_lsn }),
        None => Ok(Some(best)),
    }
}

#[derive(Clone, Default)]
struct Slot {
    /// What was last written there, whole or not.
    key: Option<Key>,
    /// What is known to have been durable there.
    durable: Option<Key>,
    /// More than one reference: a write was not reaped [R7].
    hold: Arc<()>,
}

impl Slot {
    fn is_busy(&self) -> bool {
        Arc::strong_count(&self.hold) > 1
    }
}

struct State {
    slots: BTreeMap<DiskIndex, [Slot; SLOTS]>,
    effective: Option<Key>,
    /// The highest ever tried, effective or not.
    attempted: Option<Key>,
    busy: bool,
}

/// Writes roots.
pub struct Checkpoint {
    access: Access,
    quorum: Arc<Quorum>,
    state: Mutex<State>,
}

impl Checkpoint {
    /// A writer that knows what is in the slots. `chosen`: the root the mount went on from, whose
    /// copies count as effective: each disk keeps its copy until a later root is.
    pub fn open(
        access: Access,
        quorum: Arc<Quorum>,
        found: &[FoundRoot],
        chosen: Option<&Root>,
    ) -> Checkpoint {
        let mut slots: BTreeMap<DiskIndex, [Slot; SLOTS]> = BTreeMap::new();
        for found in found {
            let of_disk = slots.entry(found.disk).or_default();
            let found_key = Some(key(&found.root));
            of_disk[found.slot].key = found_key;
            of_disk[found.slot].durable = found_key;
        }
        let attempted = found.iter().map(|found| key(&found.root)).max();
        let state = State { slots, effective: chosen.map(key), attempted, busy: false };
        Checkpoint { access, quorum, state: Mutex::new(state) }
    }

    /// Writes a root to every active member; Ok when it is effective. One caller at a time; waits;
    /// hold no lock. The root ranks above every root attempted before (epoch, then sequence).
    ///
    /// An error means that it is not effective, but a mount may still find and choose it: what it
    /// names stays until a later root is effective, and the next attempt has a higher sequence.
    /// `TooFewDisks`: too few took it in time. `Damaged`: it is larger than 64 KiB; merge its chains.
    pub fn write_root(&self, root: &Root) -> Result<(), FleetError> {
        let need = self.quorum.need()?;
        let (disks, places) = self.plan(root)?;
        let results = self.access.write_durably(Class::Flush, &places, need);
        let (mut written, mut late) = (Vec::new(), Vec::new());
        for (disk, result) in disks.into_iter().zip(results) {
            match result {
                Ok(()) => written.push(disk),
                Err(Miss::Late) => {
                    self.quorum.members().late(disk);
                    late.push(disk);
                }
                Err(Miss::Failed(DiskError::HostFull)) => {}
                Err(Miss::Failed(error)) => {
                    self.quorum.members().fail(disk, FailReason::of_write(error));
                }
            }
        }
        self.note_durable(&written, key(root));
        let result = self.settle(&written, &late, root.replay_lsn);
        let mut state = self.state.lock();
        state.busy = false;
        if result.is_ok() {
            state.effective = Some(key(root));
        }
        result
    }

    /// Slots of active members that do not hold the root which was last written there, and how many were
    /// looked at. Nothing is changed; what is being written meanwhile is not judged.
    pub fn look(&self) -> (usize, Vec<(DiskIndex, usize)>) {
        let members = self.quorum.members();
        let (mut asked, mut reads) = (Vec::new(), Vec::new());
        {
            let state = self.state.lock();
            for member in members.all() {
                let (Some(disk), Some(slots)) =
                    (members.handle(member.index), state.slots.get(&member.index))
                else {
                    continue;
                };
                for (slot, one) in slots.iter().enumerate().filter(|(_, one)| !one.is_busy()) {
                    let Some(key) = one.key else { continue };
                    let offset = member.layout.slot_offset(slot);
                    let bytes = ROOT_BYTES_MAX as usize;
                    reads.push(ReadAt { disk: disk.clone(), offset, bytes });
                    asked.push((member.index, member.uuid, slot, key));
                }
            }
        }
        let answers = self.access.read(Class::Background, &reads, members.parity());
        let mut bad = Vec::new();
        let state = self.state.lock();
        for (((disk, uuid, slot, written), read), answer) in asked.iter().zip(&reads).zip(answers) {
            let is_there = match answer {
                Ok(bytes) => RawRoot::decode(&bytes, read.offset)
                    .and_then(|raw| raw.verify(members.pool(), *uuid, *slot))
                    .is_ok_and(|root| key(&root) == *written),
                Err(Miss::Failed(DiskError::Medium { .. })) => false,
                Err(_) => continue,
            };
            let now = state.slots.get(disk).map(|slots| &slots[*slot]);
            let as_asked = now.is_some_and(|now| now.key == Some(*written) && !now.is_busy());
            if as_asked && !is_there {
                bad.push((*disk, *slot));
            }
        }
        (asked.len(), bad)
    }

    fn note_durable(&self, written: &[DiskIndex], root: Key) {
        let mut state = self.state.lock();
        for (_, slots) in state.slots.iter_mut().filter(|(disk, _)| written.contains(disk)) {
            for slot in slots.iter_mut().filter(|slot| slot.key == Some(root)) {
                slot.durable = Some(root);
            }
        }
    }

    /// The newest root that was durable on this disk, as (epoch, sequence). None if nothing is known of it.
    pub fn known_on(&self, disk: DiskIndex) -> Option<(Epoch, u64)> {
        self.state.lock().slots.get(&disk)?.iter().filter_map(|slot| slot.durable).max()
    }

    /// The last root that took effect, as (epoch, sequence).
    pub fn effective(&self) -> Option<(Epoch, u64)> {
        self.state.lock().effective
    }

    /// Step 3: enough copies on disks that are still active, and the labels know of the others.
    fn settle(
        &self,
        written: &[DiskIndex],
        late: &[DiskIndex],
        covers: Lsn,
    ) -> Result<(), FleetError> {
        loop {
            let one = canary::planted(Bug::RootOnOneDisk);
            let need = if one { 1 } else { self.quorum.need()? };
            let active = self.quorum.members().active();
            let have = written.iter().filter(|disk| active.contains(disk)).count();
            if have < need && self.quorum.give_up(written, late) {
                continue;
            }
            if have < need {
                return Err(FleetError::TooFewDisks { have, need });
            }
            self.quorum.whole(written, covers);
            if self.quorum.is_recorded() {
                return Ok(());
            }
            self.quorum.record()?;
        }
    }

    /// Step 1: which slot of which disk, with its bytes.
    fn plan(&self, root: &Root) -> Result<(Vec<DiskIndex>, Vec<WriteAt>), FleetError> {
        let members = self.quorum.members();
        let mut state = self.state.lock();
        assert!(!state.busy, "one root is written at a time");
        assert!(state.attempted < Some(key(root)), "roots are written in ascending order");
        let effective = state.effective;
        let (mut disks, mut places) = (Vec::new(), Vec::new());
        for member in members.all() {
            let Some(disk) = members.handle(member.index) else { continue };
            let slots = state.slots.entry(member.index).or_default();
            let free = (0..SLOTS).filter(|&slot| {
                !slots[slot].is_busy()
                    && (slots[slot].key.is_none() || slots[slot].key != effective)
            });
            let Some(slot) = free.min_by_key(|&slot| slots[slot].key) else { continue };
            let Ok(bytes) = root.encode(member.uuid, slot) else {
                return Err(FleetError::Damaged { what: "checkpoint root", lsn: root.replay_lsn });
            };
            slots[slot].key = Some(key(root));
            // What was there is written over.
            slots[slot].durable = None;
            disks.push(member.index);
            places.push(WriteAt {
                disk,
                offset: member.layout.slot_offset(slot),
                data: Slice::copy_of(&bytes),
                hold: slots[slot].hold.clone(),
            });
        }
        state.busy = true;
        state.attempted = Some(key(root));
        Ok((disks, places))
    }
}
