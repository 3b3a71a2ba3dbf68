//! Roots, completed: what the namespace says of itself, and what only the pool knows: members, epoch,
//! where replay begins in the rings.

use crate::base::sync::{Arc, Mutex};
use crate::base::{DiskIndex, Epoch, Lsn};
use crate::fleet::{Checkpoint, FleetError, Journal, Mark, MemberState, Members};
use crate::format::{EpochClaim, MemberEntry, RingHead, Root};
use crate::namespace::{RootPart, RootWriter};

struct State {
    /// All members ever, as the next root says it.
    entries: Vec<MemberEntry>,
    /// Who is to be removed, and the batch that a root that says so must cover.
    removals: Vec<(DiskIndex, Lsn)>,
    sequence: u64,
    journal: Option<Arc<Journal>>,
    /// Where replay begins after the last effective root of ours, or recovery's end.
    mark: Mark,
}

/// Writes the roots of one mount.
pub struct RootKeeper {
    checkpoint: Checkpoint,
    members: Arc<Members>,
    base: Root,
    claim: EpochClaim,
    state: Mutex<State>,
}

impl RootKeeper {
    /// Roots that continue `base`, in the epoch of `claim`, with sequences above `highest`. `end`:
    /// where the replayed log ended; nothing is appended before the first root [R4].
    pub fn new(
        checkpoint: Checkpoint,
        members: Arc<Members>,
        base: Root,
        claim: EpochClaim,
        highest: u64,
        end: Mark,
    ) -> RootKeeper {
        let entries = base.members.clone();
        let state =
            State { entries, removals: Vec::new(), sequence: highest, journal: None, mark: end };
        RootKeeper { checkpoint, members, base, claim, state: Mutex::new(state) }
    }

    /// From now on batches are appended.
    pub fn attach(&self, journal: Arc<Journal>) {
        self.state.lock().journal = Some(journal);
    }

    /// Slots that do not hold the root that was last written there, and how many were looked at.
    pub fn look(&self) -> (usize, Vec<(DiskIndex, usize)>) {
        self.checkpoint.look()
    }

    /// The newest root that was durable on this disk, as (epoch, sequence).
    pub fn known_on(&self, disk: DiskIndex) -> Option<(Epoch, u64)> {
        self.checkpoint.known_on(disk)
    }

    /// What the last root says about the log.
    pub fn last_mark(&self) -> Mark {
        self.state.lock().mark.clone()
    }

    /// All members ever, as the next root will say it.
    pub fn entries(&self) -> Vec<MemberEntry> {
        let state = self.state.lock();
        self.members_now(&state.entries, &state.removals, None)
    }

    /// The next root names one more member.
    pub fn add(&self, entry: MemberEntry) {
        self.state.lock().entries.push(entry);
    }

    /// Roots that cover this batch say that it is none any more: those before may need its log.
    pub fn remove(&self, disk: DiskIndex, after: Lsn) {
        let mut state = self.state.lock();
        if !state.removals.iter().any(|(removed, _)| *removed == disk) {
            state.removals.push((disk, after));
        }
    }

    /// Whether an effective root says so.
    pub fn is_removed(&self, disk: DiskIndex) -> bool {
        let state = self.state.lock();
        let removed = crate::format::MemberState::Removed;
        state.entries.iter().any(|entry| entry.index == disk && entry.state == removed)
    }

    /// As a root with this replay LSN says it; None: as of now.
    fn members_now(
        &self,
        entries: &[MemberEntry],
        removals: &[(DiskIndex, Lsn)],
        covers: Option<Lsn>,
    ) -> Vec<MemberEntry> {
        let (now, leaving) = (self.members.all(), self.members.leaving());
        let mut entries = entries.to_vec();
        let removed = crate::format::MemberState::Removed;
        for entry in entries.iter_mut().filter(|entry| entry.state != removed) {
            let removal = removals.iter().find(|(disk, _)| *disk == entry.index);
            if removal.is_some_and(|(_, after)| covers.is_some_and(|lsn| lsn >= *after)) {
                entry.state = removed;
                entry.leaving = false;
                continue;
            }
            entry.leaving = leaving.contains(&entry.index);
            if let Some(member) = now.iter().find(|member| member.index == entry.index) {
                entry.state = match member.state {
                    MemberState::Active => crate::format::MemberState::Active,
                    MemberState::Failed => crate::format::MemberState::Failed,
                    MemberState::Missing => crate::format::MemberState::Missing,
                };
            }
        }
        entries
    }
}

impl RootWriter for RootKeeper {
    fn next_sequence(&self) -> u64 {
        self.state.lock().sequence + 1
    }

    fn write_root(&self, part: &RootPart) -> Result<(), FleetError> {
        let (sequence, journal, mark, members) = {
            let mut state = self.state.lock();
            state.sequence += 1;
            let mark = match &state.journal {
                Some(journal) => journal.mark(part.replay_lsn),
                // Recovery: its changes were never logged, the log is empty behind this root.
                None => Mark { lsn: part.replay_lsn, ..state.mark.clone() },
            };
            let covers = Some(part.replay_lsn);
            let members = self.members_now(&state.entries, &state.removals, covers);
            (state.sequence, state.journal.clone(), mark, members)
        };
        let heads = mark.heads.iter();
        let root = Root {
            epoch: self.claim.epoch,
            epoch_id: self.claim.id,
            sequence,
            replay_lsn: part.replay_lsn,
            replay_crc: mark.batch_crc,
            ino_lease: part.ino_lease,
            inodes: part.inodes,
            members: members.clone(),
            heads: heads.map(|&(disk, position)| RingHead { disk, position }).collect(),
            manifest: part.manifest.clone(),
            space: part.space.clone(),
            ..self.base.clone()
        };
        self.checkpoint.write_root(&root)?;
        if let Some(journal) = journal {
            journal.trim(&mark);
        }
        let mut state = self.state.lock();
        state.mark = mark;
        let removed =
            members.iter().filter(|entry| entry.state == crate::format::MemberState::Removed);
        for removed in removed {
            for entry in state.entries.iter_mut().filter(|entry| entry.index == removed.index) {
                entry.clone_from(removed);
            }
        }
        Ok(())
    }
}
