//! Roots, completed: what the namespace says of itself, and what only the pool knows: members, epoch,
//! where replay begins in the rings.

use crate::base::DiskIndex;
use crate::base::sync::{Arc, Mutex};
use crate::fleet::{Checkpoint, FleetError, Journal, Mark, MemberState, Members};
use crate::format::{EpochClaim, MemberEntry, RingHead, Root};
use crate::namespace::{RootPart, RootWriter};

struct State {
    /// All members ever, as the next root says it.
    entries: Vec<MemberEntry>,
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
        let state = State { entries, sequence: highest, journal: None, mark: end };
        RootKeeper { checkpoint, members, base, claim, state: Mutex::new(state) }
    }

    /// From now on batches are appended.
    pub fn attach(&self, journal: Arc<Journal>) {
        self.state.lock().journal = Some(journal);
    }

    /// What the last root says about the log.
    pub fn last_mark(&self) -> Mark {
        self.state.lock().mark.clone()
    }

    /// All members ever, as the next root will say it.
    pub fn entries(&self) -> Vec<MemberEntry> {
        self.members_now(&self.state.lock().entries)
    }

    /// The next root names one more member.
    pub fn add(&self, entry: MemberEntry) {
        self.state.lock().entries.push(entry);
    }

    /// The next root says that it is none any more.
    pub fn remove(&self, disk: DiskIndex) {
        let mut state = self.state.lock();
        for entry in state.entries.iter_mut().filter(|entry| entry.index == disk) {
            entry.state = crate::format::MemberState::Removed;
            entry.leaving = false;
        }
    }

    fn members_now(&self, entries: &[MemberEntry]) -> Vec<MemberEntry> {
        let (now, leaving) = (self.members.all(), self.members.leaving());
        let mut entries = entries.to_vec();
        let removed = crate::format::MemberState::Removed;
        for entry in entries.iter_mut().filter(|entry| entry.state != removed) {
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
        let (sequence, journal, mark, entries) = {
            let mut state = self.state.lock();
            state.sequence += 1;
            let mark = match &state.journal {
                Some(journal) => journal.mark(part.replay_lsn),
                // Recovery: its changes were never logged, the log is empty behind this root.
                None => Mark { lsn: part.replay_lsn, ..state.mark.clone() },
            };
            (state.sequence, state.journal.clone(), mark, state.entries.clone())
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
            members: self.members_now(&entries),
            heads: heads.map(|&(disk, position)| RingHead { disk, position }).collect(),
            manifest: part.manifest.clone(),
            space: part.space.clone(),
            ..self.base.clone()
        };
        self.checkpoint.write_root(&root)?;
        if let Some(journal) = journal {
            journal.trim(&mark);
        }
        self.state.lock().mark = mark;
        Ok(())
    }
}
