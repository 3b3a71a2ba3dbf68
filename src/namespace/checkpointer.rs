//! Checkpoints: so that mounting reads little, and the ring can be used again [R9, R10].
//!
//! 1. The memtable is frozen at a batch boundary F; the space map at that boundary is kept [R18].
//! 2. The index flusher writes it out as tables. Data that is only in the log up to F is flushed into
//!    objects, and the cuts of that are committed: batches after F.
//! 3. Manifest and space snapshot are written as objects of min(N, m+2) copies: whole, or what changed
//!    since the effective root (`chain`).
//! 4. The root is written; it takes effect at m+1 flushed copies.
//! 5. Only now: the ring is trimmed, tables dropped from the manifest are freed, and so are the objects
//!    of chains before that this root does not name.
//!
//! A crash before 4 leaves the root before, the ring behind it, and everything it names. A crash between
//! 4 and 5: recovery finds the new root, and knows nothing of what 5 would have freed: it is free.
//!
//! A step never waits for another task: it looks, asks, and comes again.

use std::time::Duration;

use super::chain::Chain;
use super::core::{Core, FrozenSpace};
use super::error::NamespaceError;
use super::index::Capture;
use crate::base::limits::{
    CELL_BYTES_LARGE, CHECKPOINT_LOG_BYTES, CHECKPOINT_SECONDS, JOURNAL_FLUSH_PERCENT,
};
use crate::base::sync::Arc;
use crate::base::{Event, Ino, Lsn, ObjectId, Pace, Task, Ticks};
use crate::fleet::disk::Class;
use crate::fleet::space::ReserveLevel;
use crate::fleet::{FleetError, WriteObject};
use crate::format::manifest::Manifest;
use crate::format::{ChainLink, ObjectKind, ObjectRecord, Redundancy, SpaceSnapshot, crc64};

/// What the namespace puts into a root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RootPart {
    /// Replay begins after this batch.
    pub replay_lsn: Lsn,
    /// Inode numbers below may have been handed out.
    pub ino_lease: Ino,
    /// Inodes in use.
    pub inodes: u64,
    /// The manifest's chain.
    pub manifest: Vec<ChainLink>,
    /// The space snapshot's chain.
    pub space: Vec<ChainLink>,
}

/// Whoever knows the rest of a root (members, epochs, rings): `pool`.
pub trait RootWriter: Send + Sync {
    /// The sequence number that the next root will have.
    fn next_sequence(&self) -> u64;
    /// Writes a root with this part, and returns when it is effective; then trims the ring [R9].
    fn write_root(&self, part: &RootPart) -> Result<(), FleetError>;
}

/// What a checkpoint is made of, besides the namespace: kept by the checkpointer.
pub struct CheckpointParts {
    /// Writes roots.
    pub writer: Arc<dyn RootWriter>,
    /// Objects of the chains that the effective root names.
    pub named: Vec<ObjectId>,
}

/// How often a waiting checkpoint looks again.
const LOOK: Duration = Duration::from_millis(10);
/// Pause after a checkpoint that failed.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    /// Step 2, for the freeze at or after this batch.
    Flushing,
    /// Waiting for the cuts of step 2: this batch.
    Committing(Lsn),
}

/// The background task.
pub(super) struct Checkpointer {
    core: Arc<Core>,
    parts: CheckpointParts,
    /// What the effective root names, if it is of this mount.
    manifest: Chain,
    space: Chain,
    /// Objects that attempted roots named since the last effective one: they stay [R9].
    attempted: Vec<ObjectId>,
    phase: Phase,
    last: Ticks,
    last_lsn: Lsn,
    serving: u64,
}

impl Checkpointer {
    pub(super) fn new(core: Arc<Core>, parts: CheckpointParts) -> Checkpointer {
        let last = core.now();
        let last_lsn = core.state.lock().durable;
        Checkpointer {
            core,
            parts,
            manifest: Chain::default(),
            space: Chain::default(),
            attempted: Vec::new(),
            phase: Phase::Idle,
            last,
            last_lsn,
            serving: 0,
        }
    }

    fn is_due(&mut self) -> bool {
        let (wanted, durable) = {
            let state = self.core.state.lock();
            if state.failed.is_some() || state.read_only {
                return false;
            }
            (state.checkpoint_wanted, state.durable)
        };
        let asked = wanted > self.core.state.lock().checkpoint_done;
        let log = self.core.journal().is_some_and(|journal| {
            journal.logged_bytes() >= CHECKPOINT_LOG_BYTES
                || journal.fill_percent() >= JOURNAL_FLUSH_PERCENT
        });
        let old = self.core.now() >= self.last + Duration::from_secs(CHECKPOINT_SECONDS)
            && durable > self.last_lsn;
        self.serving = wanted;
        asked || log || old
    }

    fn begin(&mut self) -> Pace {
        {
            let mut state = self.core.state.lock();
            state.freeze_wanted = true;
            self.phase = Phase::Flushing;
        }
        self.core.commit_event.notify();
        self.look_again()
    }

    fn look_again(&self) -> Pace {
        Pace::Idle(Some(self.core.now() + LOOK))
    }

    /// Step 2. The batch whose durability completes it, when the rest is done.
    fn flushed(&self) -> Option<Lsn> {
        if !self.core.index.is_flushed() {
            return None;
        }
        let mut state = self.core.state.lock();
        if state.freeze_wanted {
            drop(state);
            self.core.commit_event.notify();
            return None;
        }
        let through = state.frozen.as_ref()?.lsn;
        if state.inodes.values().any(|inode| inode.flushing || inode.overlay.has_logged(through)) {
            state.flush_logged = through;
            drop(state);
            self.core.flush_event.notify();
            return None;
        }
        state.flush_logged = Lsn(0);
        Some(self.core.want_commit(&mut state))
    }

    /// Steps 3 to 5.
    fn write(&mut self) -> Result<bool, NamespaceError> {
        let whole = self.is_spent(&self.manifest);
        let capture = self.core.index.capture(whole);
        let frozen = {
            let mut state = self.core.state.lock();
            let matches = state.frozen.as_ref().is_some_and(|frozen| {
                frozen.lsn == capture.flushed_through && frozen.lsn <= state.durable
            });
            // Another freeze came between: flush that one too.
            let Some(frozen) = state.frozen.take_if(|_| matches) else { return Ok(false) };
            let through = frozen.lsn;
            if state.inodes.values().any(|inode| inode.overlay.has_logged(through)) {
                state.frozen = Some(frozen);
                return Ok(false);
            }
            frozen
        };
        match self.write_objects_and_root(&capture, whole, &frozen) {
            Ok((manifest, space)) => {
                self.core.space.snapshot_kept(frozen.usage.number);
                (self.manifest, self.space) = (manifest, space);
                let named: Vec<ObjectId> = self.manifest.ids().chain(self.space.ids()).collect();
                self.core.bad.lock().chains.retain(|id| named.contains(id));
                let spent = self.is_spent(&self.space);
                self.core.state.lock().space_whole = spent;
                self.free_old(&capture);
                self.last_lsn = frozen.lsn;
                Ok(true)
            }
            Err(error) => {
                self.core.state.lock().frozen.get_or_insert(frozen);
                Err(error.into())
            }
        }
    }

    fn write_objects_and_root(
        &mut self,
        capture: &Capture,
        whole: bool,
        frozen: &FrozenSpace,
    ) -> Result<(Chain, Chain), FleetError> {
        let sequence = self.parts.writer.next_sequence();
        let objects = self.core.objects.clone();
        let manifest_id = objects.new_id();
        let manifest =
            Manifest { object: manifest_id, sequence, whole, entries: capture.entries.clone() };
        let too_large = |_| FleetError::Damaged { what: "checkpoint", lsn: frozen.lsn };
        let bytes = manifest.encode().map_err(too_large)?;
        let manifest = self.write_object(ObjectKind::Manifest, manifest_id, &bytes)?;
        let space_id = objects.new_id();
        let (whole_space, groups) = (frozen.whole, frozen.usage.groups.clone());
        let snapshot = SpaceSnapshot { object: space_id, sequence, whole: whole_space, groups };
        let bytes = snapshot.encode().map_err(too_large)?;
        let space = self.write_object(ObjectKind::SpaceSnapshot, space_id, &bytes)?;
        let chains = (self.manifest.with(manifest, whole), self.space.with(space, whole_space));
        let (ino_lease, inodes) = (Ino(self.core.state.lock().ino_lease_told), frozen.inodes);
        self.parts.writer.write_root(&RootPart {
            replay_lsn: frozen.lsn,
            ino_lease,
            inodes,
            manifest: chains.0.links().to_vec(),
            space: chains.1.links().to_vec(),
        })?;
        Ok(chains)
    }

    /// Whether the chain begins anew: it is long, or a disk that has part of it was given up.
    fn is_spent(&self, chain: &Chain) -> bool {
        let lacks = |link: &ChainLink| self.core.members.lacks(&link.record);
        let bad = chain.ids().any(|id| self.core.bad.lock().chains.contains(&id));
        bad || chain.is_spent(&self.core.options.chains) || chain.links().iter().any(lacks)
    }

    fn write_object(
        &mut self,
        kind: ObjectKind,
        id: ObjectId,
        bytes: &[u8],
    ) -> Result<ChainLink, FleetError> {
        let copies = self.core.members.metadata_copies();
        let stored = self.core.objects.write(&WriteObject {
            id: Some(id),
            kind,
            redundancy: Redundancy::Replica { copies: copies as u8 },
            data: &[bytes],
            pieces: &[],
            cell_bytes: CELL_BYTES_LARGE as u32,
            class: Class::Flush,
            // Without it nothing could be committed any more, not even a delete [I7].
            level: ReserveLevel::Repair,
            lsn: Lsn(0),
        })?;
        self.attempted.push(id);
        Ok(ChainLink { record: stored.record, crc: crc64(bytes) })
    }

    /// Step 5. No choosable root names these any more.
    fn free_old(&mut self, capture: &Capture) {
        for table in self.core.index.confirm(capture) {
            self.core.objects.release(&table);
        }
        let links = self.manifest.links().iter().chain(self.space.links());
        self.core.state.lock().chains = links.map(|link| link.record.clone()).collect();
        let named: Vec<ObjectId> = self.manifest.ids().chain(self.space.ids()).collect();
        let before = std::mem::replace(&mut self.parts.named, named.clone());
        let attempted = std::mem::take(&mut self.attempted);
        for id in before.into_iter().chain(attempted) {
            if !named.contains(&id) {
                self.core.space.abandon(id);
            }
        }
    }

    /// One look; what is to be done is done.
    pub(super) fn run_step(&mut self) -> Result<Pace, NamespaceError> {
        match self.phase {
            Phase::Idle => {
                if self.is_due() {
                    return Ok(self.begin());
                }
                let next = self.last + Duration::from_secs(CHECKPOINT_SECONDS);
                Ok(Pace::Idle(Some(next.max(self.core.now() + RETRY))))
            }
            Phase::Flushing => match self.flushed() {
                Some(lsn) => {
                    self.phase = Phase::Committing(lsn);
                    Ok(Pace::Again)
                }
                None => Ok(self.look_again()),
            },
            Phase::Committing(lsn) => {
                {
                    let state = self.core.state.lock();
                    if state.failed.is_some() {
                        return Ok(Pace::Idle(None));
                    }
                    if state.durable < lsn {
                        drop(state);
                        return Ok(self.look_again());
                    }
                }
                self.phase = Phase::Flushing;
                if !self.write()? {
                    return Ok(self.look_again());
                }
                self.phase = Phase::Idle;
                self.last = self.core.now();
                let mut state = self.core.state.lock();
                state.checkpoint_done = state.checkpoint_done.max(self.serving);
                drop(state);
                self.core.committed.notify();
                Ok(Pace::Again)
            }
        }
    }
}

impl Task for Checkpointer {
    fn name(&self) -> &'static str {
        "checkpointer"
    }

    fn event(&self) -> Arc<Event> {
        self.core.checkpoint_event.clone()
    }

    fn step(&mut self) -> Pace {
        match self.run_step() {
            Ok(pace) => pace,
            Err(error) => {
                log::warn!(
                    "a checkpoint failed, the one before stands; it is tried again: {error}"
                );
                self.phase = Phase::Idle;
                Pace::Idle(Some(self.core.now() + RETRY))
            }
        }
    }
}

impl Core {
    /// Asks for a checkpoint, and waits no longer than that for it. False if it did not take effect.
    pub(super) fn checkpoint_within(&self, patience: Duration) -> bool {
        let wanted = self.want_checkpoint();
        let is_done = || self.state.lock().checkpoint_done >= wanted;
        let until = Some(self.now() + patience);
        self.wait
            .until(&self.committed, until, &mut || is_done() || self.state.lock().failed.is_some());
        is_done()
    }

    /// Asks for a checkpoint, without waiting for it; its number.
    pub(super) fn want_checkpoint(&self) -> u64 {
        self.index.look_again();
        self.number_checkpoint()
    }

    fn number_checkpoint(&self) -> u64 {
        let wanted = {
            let mut state = self.state.lock();
            state.checkpoint_wanted += 1;
            state.checkpoint_wanted
        };
        self.checkpoint_event.notify();
        wanted
    }

    /// Asks for a checkpoint and waits for it: a clean close, or a user's command.
    pub(super) fn checkpoint(&self) -> Result<(), NamespaceError> {
        let wanted = self.number_checkpoint();
        let mut result = Ok(());
        self.wait.until(&self.committed, None, &mut || {
            let state = self.state.lock();
            if let Some(error) = &state.failed {
                result = Err(NamespaceError::Io(error.clone()));
                return true;
            }
            state.checkpoint_done >= wanted
        });
        result
    }
}

/// Bytes of one object of a chain that a root names: any copy with the right checksum.
pub(super) fn read_link(
    objects: &crate::fleet::ObjectStore,
    link: &ChainLink,
) -> Result<Vec<u8>, FleetError> {
    let record: &ObjectRecord = &link.record;
    let good = |bytes: &[u8]| crc64(bytes) == link.crc;
    objects.read_table_block(record, 0, record.length, Class::Foreground, &good)
}
