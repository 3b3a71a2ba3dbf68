//! Roots, completed: what the namespace says of itself, and what only the pool knows: members, epoch,
//! where replay begins in the rings.

use crate::base::DiskIndex;
use crate::base::sync::{Arc, Mutex};
use crate::fleet::{Checkpoint, FleetError, Journal, Mark, MemberState, Members};
use crate::format::{EpochClaim, MemberEntry, RingHead, Root};
use crate::namespace::{RootPart, RootWriter};

struct State {
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
        let state = State { sequence: highest, journal: None, mark: end };
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

    fn members_now(&self) -> Vec<MemberEntry> {
        let now = self.members.all();
        let state_of = |index: DiskIndex| now.iter().find(|member| member.index == index);
        let mut entries = self.base.members.clone();
        for entry in &mut entries {
            if let Some(member) = state_of(entry.index) {
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
        let (sequence, journal, mark) = {
            let mut state = self.state.lock();
            state.sequence += 1;
            let mark = match &state.journal {
                Some(journal) => journal.mark(part.replay_lsn),
                // Recovery: its changes were never logged, the log is empty behind this root.
                None => Mark { lsn: part.replay_lsn, ..state.mark.clone() },
            };
            (state.sequence, state.journal.clone(), mark)
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
            members: self.members_now(),
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
