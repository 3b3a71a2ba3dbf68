//! What all parts of the namespace share: the lock with the state in memory, and the rooms below.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::cache::ReadCache;
use super::chain::ChainLimits;
use super::error::NamespaceError;
use super::handles::Handles;
use super::index::{Index, Pressure};
use super::inode_state::{InodeState, Known};
use super::open_batch::OpenBatch;
use super::repair::BadShards;
use super::stream::Streams;
use super::types::Caller;
use super::written::Spent;
use crate::base::limits::{COMMIT_SECONDS, INLINE_BYTES_EMPTY_LOG, INLINE_BYTES_HALF_LOG};
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Clock, Event, Ino, Lsn, MIB, ObjectId, Ticks, Wait};
use crate::fleet::disk::buffer::BufferPool;
use crate::fleet::journal::{Journal, Level};
use crate::fleet::{FleetError, Members, ObjectStore, Snapshot, Space};
use crate::format::{InodeRecord, ObjectRecord, Redundancy};

/// The open batch is committed early at this size, so that it never delays an fsync much.
const BATCH_COMMIT_BYTES: u64 = MIB;

/// How often a waiting operation looks whether there is room again.
const ROOM_LOOK: Duration = Duration::from_millis(20);

/// Numbers that `-o` may change.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of the read cache.
    pub cache_bytes: u64,
    /// Dirty bytes at which writers wait.
    pub dirty_bytes_max: u64,
    /// How old what nobody has synced may become before it is durable: half of that passes until dirty
    /// data is written, half until the batch that names it is committed.
    pub commit_interval: Duration,
    /// Access times: relatime if true, never if false.
    pub atime: bool,
    /// Nothing may be changed.
    pub read_only: bool,
    /// How long the chains of manifest and space map may grow.
    pub chains: ChainLimits,
    /// Whose the root directory of a new pool is.
    pub owner: Caller,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: crate::base::limits::READ_CACHE_BYTES,
            dirty_bytes_max: crate::base::limits::DIRTY_BYTES_MAX,
            commit_interval: Duration::from_secs(COMMIT_SECONDS),
            atime: true,
            read_only: false,
            chains: ChainLimits::default(),
            owner: Caller::default(),
        }
    }
}

/// The rooms below, as `pool` hands them in.
pub struct Fleet {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How it waits.
    pub wait: Arc<dyn Wait>,
    /// The disks.
    pub members: Arc<Members>,
    /// Free space.
    pub space: Arc<Space>,
    /// Objects.
    pub objects: Arc<ObjectStore>,
    /// The index.
    pub index: Arc<Index>,
    /// The pool's default redundancy.
    pub redundancy: Redundancy,
}

/// What a root says of the namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Key of the directory hash.
    pub name_key: [u64; 2],
    /// Inode numbers below were handed out, perhaps.
    pub ino_lease: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// The last batch that is applied.
    pub lsn: Lsn,
}

/// Free space as it was at a freeze of the memtable: what a root with that replay LSN must say [R18].
pub(super) struct FrozenSpace {
    pub(super) lsn: Lsn,
    /// Of all groups, or of those that changed since the root that was effective then.
    pub(super) usage: Snapshot,
    pub(super) whole: bool,
    pub(super) inodes: u64,
}

/// What happened so far, and what is wanted.
pub(super) struct State {
    pub(super) open: OpenBatch,
    pub(super) open_since: Option<Ticks>,
    /// Somebody waits for the batches up to this one.
    pub(super) wanted: Lsn,
    /// Everything up to this batch is durable.
    pub(super) durable: Lsn,
    /// A checkpoint wants the memtable frozen at the next batch boundary.
    pub(super) freeze_wanted: bool,
    pub(super) frozen: Option<FrozenSpace>,
    /// Objects of the chains that the effective root names: manifest and space snapshot.
    pub(super) chains: Vec<ObjectRecord>,
    /// The next snapshot of the space map is to be whole.
    pub(super) space_whole: bool,
    /// Logged data up to this batch is to be in objects, because a checkpoint waits for it.
    pub(super) flush_logged: Lsn,
    /// Callers of sync that wait for all dirty data.
    pub(super) flush_all: u32,
    /// A flusher found nothing that will ever be due, and set itself no time: whoever makes something
    /// dirty wakes it.
    pub(super) flusher_sleeps: bool,
    /// Why the last background flush failed; None after one that did not.
    pub(super) flush_error: Option<FleetError>,
    /// Checkpoints asked for, and served.
    pub(super) checkpoint_wanted: u64,
    pub(super) checkpoint_done: u64,
    pub(super) inodes: HashMap<Ino, InodeState>,
    /// Inodes that the kernel knows and that are not in `inodes`. Grows in small steps: a hash table of millions
    /// is in memory twice and a half when it doubles.
    pub(super) known: BTreeMap<Ino, Known>,
    /// Inodes with an overlay, by the moment the oldest change came in.
    pub(super) dirty: BTreeSet<(Ticks, Ino)>,
    /// Objects that flushes have written and that somebody still holds (`written`): not to be freed as
    /// dead, a cut to come may count on them.
    pub(super) in_flush: HashSet<ObjectId>,
    pub(super) dirty_bytes: u64,
    /// Bytes of extents that were taken out since the pool was opened, and what flushes have written
    /// beyond what full objects take [R13].
    pub(super) loose_bytes: u64,
    /// Bytes of extents that reclaim has moved since then.
    pub(super) moved_bytes: u64,
    /// Stretches of files that lie in pieces and were read in order: to be joined (`rejoin`).
    pub(super) ragged: BTreeSet<(Ino, u64)>,
    /// Somebody reclaims; whoever wants room has a number, and numbers up to one were answered.
    pub(super) reclaims: bool,
    pub(super) room_wanted: u64,
    pub(super) room_answered: u64,
    pub(super) next_ino: u64,
    pub(super) ino_lease: u64,
    /// The highest lease that any batch says, durable or not: what a root says, because the log behind
    /// the root does not say it again.
    pub(super) ino_lease_told: u64,
    pub(super) inode_count: u64,
    /// Inodes without a name that somebody still uses.
    pub(super) orphans: HashSet<Ino>,
    /// Inodes without a name whose last user has gone: work for the reaper.
    pub(super) reap: BTreeSet<Ino>,
    pub(super) handles: Handles,
    pub(super) read_only: bool,
    pub(super) stopping: bool,
    /// The log could not be written: nothing is accepted any more [I10].
    pub(super) failed: Option<FleetError>,
}

/// Shared by the operations and the background tasks.
pub(super) struct Core {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) wait: Arc<dyn Wait>,
    pub(super) members: Arc<Members>,
    pub(super) space: Arc<Space>,
    pub(super) objects: Arc<ObjectStore>,
    pub(super) index: Arc<Index>,
    /// None while recovering, and read-only.
    pub(super) journal: Mutex<Option<Arc<Journal>>>,
    pub(super) options: Options,
    pub(super) redundancy: Redundancy,
    pub(super) name_key: [u64; 2],
    pub(super) state: Mutex<State>,
    pub(super) cache: ReadCache,
    /// Memory for what is written.
    pub(super) chunks: BufferPool,
    /// Objects being read ahead.
    pub(super) streams: Streams,
    /// Objects of flushes that nobody holds any more.
    pub(super) spent: Arc<Spent>,
    /// Work for the committer.
    pub(super) commit_event: Arc<Event>,
    /// A batch became durable, or will never be.
    pub(super) committed: Event,
    /// Work for the flusher.
    pub(super) flush_event: Arc<Event>,
    /// A flush ended: memory is free, an inode is no longer being flushed.
    pub(super) flushed: Event,
    /// Work for the checkpointer.
    pub(super) checkpoint_event: Arc<Event>,
    /// Work for the reaper.
    pub(super) reap_event: Arc<Event>,
    /// Work for whoever joins what lies in pieces.
    pub(super) rejoin_event: Arc<Event>,
    /// Work for whoever reclaims space.
    pub(super) reclaim_event: Arc<Event>,
    /// Shards that were found bad and could not be mended in place.
    pub(super) bad: Mutex<BadShards>,
    pub(super) repair_event: Arc<Event>,
    /// Dirty bytes of writers that are waiting or copying, so that they do not all pass at once.
    pub(super) admitted: AtomicU64,
    /// What a small pool bears of dirty data [R22].
    pub(super) dirty_bytes_share: AtomicU64,
    /// Largest batch that the journal takes.
    pub(super) batch_bytes_max: AtomicU64,
    /// The committer appends as fast as it can, without waiting for the interval.
    pub(super) recovering: AtomicBool,
    /// The most rounds that an operation took, for tests.
    #[cfg(test)]
    pub(super) rounds_max: AtomicU64,
}

impl State {
    pub(super) fn check_writable(&self) -> Result<(), NamespaceError> {
        if let Some(error) = &self.failed {
            return Err(NamespaceError::Io(error.clone()));
        }
        if self.read_only {
            return Err(NamespaceError::ReadOnly);
        }
        Ok(())
    }

    /// The entry of an inode, made if there is none.
    pub(super) fn inode_mut(&mut self, ino: Ino) -> &mut InodeState {
        self.inodes.entry(ino).or_insert_with(|| {
            let known = self.known.remove(&ino).unwrap_or_default();
            InodeState { known, ..InodeState::default() }
        })
    }

    /// How the kernel knows an inode, to be changed.
    pub(super) fn known_mut(&mut self, ino: Ino) -> &mut Known {
        match self.inodes.get_mut(&ino) {
            Some(inode) => &mut inode.known,
            None => self.known.entry(ino).or_default(),
        }
    }

    /// Neither the kernel nor a handle refers to it.
    pub(super) fn is_unused(&self, ino: Ino) -> bool {
        match self.inodes.get(&ino) {
            Some(inode) => inode.known.references == 0 && inode.opens == 0,
            None => self.known.get(&ino).is_none_or(|known| known.references == 0),
        }
    }

    /// An inode record entered the batch: what users see in memory is that now.
    pub(super) fn inode_was_put(&mut self, ino: Ino, value: Option<&[u8]>) {
        let Some(value) = value else {
            self.forget_content(ino);
            return;
        };
        if let Some(inode) = self.inodes.get_mut(&ino)
            && inode.record.is_some()
        {
            let record = InodeRecord::decode(value).expect("we have just encoded it");
            inode.record = Some(Box::new(record));
        }
    }

    /// The inode is gone: so is its content in memory.
    pub(super) fn forget_content(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            self.dirty_bytes -= inode.overlay.data_bytes();
            inode.overlay.clear();
            inode.record = None;
            inode.unlogged = false;
            inode.long_work = None;
            if let Some(since) = inode.dirty_since.take() {
                self.dirty.remove(&(since, ino));
            }
            self.drop_if_idle(ino);
        }
    }

    /// An inline cut of this inode is in batch `lsn`: bytes in memory are in the log now.
    pub(super) fn inline_cut_applied(&mut self, ino: Ino, lsn: Lsn) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        inode.overlay.logged(lsn);
        inode.cut_seq = inode.overlay.seq();
        inode.settled = inode.cut_seq;
        inode.unlogged = false;
        if inode.overlay.is_empty() {
            inode.record = None;
        }
        self.settle_dirty(ino);
    }

    /// Brings the list of dirty inodes in step with this one.
    pub(super) fn settle_dirty(&mut self, ino: Ino) {
        let Some(inode) = self.inodes.get_mut(&ino) else { return };
        if inode.is_clean()
            && let Some(since) = inode.dirty_since.take()
        {
            self.dirty.remove(&(since, ino));
        }
        self.drop_if_idle(ino);
    }

    /// The inode has unwritten changes since `now` at the latest.
    pub(super) fn mark_dirty(&mut self, ino: Ino, now: Ticks) {
        let inode = self.inode_mut(ino);
        if inode.dirty_since.is_none() {
            inode.dirty_since = Some(now);
            self.dirty.insert((now, ino));
        }
    }

    pub(super) fn drop_if_idle(&mut self, ino: Ino) {
        if self.inodes.get(&ino).is_some_and(InodeState::is_idle)
            && let Some(inode) = self.inodes.remove(&ino)
        {
            self.known.insert(ino, inode.known);
        }
        if self.known.get(&ino).is_some_and(|known| known.references == 0) {
            self.known.remove(&ino);
        }
    }

    /// Panics if the state contradicts itself.
    pub(super) fn check_invariants(&self) {
        let mut bytes = 0;
        for (ino, inode) in &self.inodes {
            inode.overlay.check_invariants();
            bytes += inode.overlay.data_bytes();
            assert_eq!(
                inode.dirty_since.is_some(),
                !inode.is_clean(),
                "inode {ino}: dirty exactly if the index is behind"
            );
        }
        let twice = |ino: &&Ino| self.inodes.contains_key(ino);
        assert!(!self.known.keys().any(|ino| twice(&ino)), "how it is known is said once");
        assert_eq!(bytes, self.dirty_bytes, "dirty memory is counted exactly [R27]");
        assert!(self.durable < self.open.lsn, "the open batch is not durable");
        assert!(self.next_ino <= self.ino_lease, "R5: inode numbers come from a lease");
    }
}

impl Core {
    pub(super) fn now(&self) -> Ticks {
        self.clock.now()
    }

    pub(super) fn journal(&self) -> Option<Arc<Journal>> {
        self.journal.lock().clone()
    }

    /// Something was added to the open batch.
    pub(super) fn batch_grew(&self, state: &mut State) {
        if state.open_since.is_none() {
            state.open_since = Some(self.now());
            self.commit_event.notify();
        }
        if state.open.bytes() >= BATCH_COMMIT_BYTES.min(self.batch_wait_bytes() / 2)
            && state.wanted < state.open.lsn
        {
            state.wanted = state.open.lsn;
            self.commit_event.notify();
        }
    }

    /// Waits until an operation may add to the history: room in the open batch, in the log [R10], in
    /// the index. No lock is held [R23].
    pub(super) fn wait_for_room(&self) {
        if self.has_room() {
            return;
        }
        self.checkpoint_event.notify();
        // If disks are gone, it is the committer who waits for them.
        self.commit_event.notify();
        // Room in the index comes without a commit, so the condition is also looked at now and then.
        loop {
            let look = self.now() + ROOM_LOOK;
            if self.wait.until(&self.committed, Some(look), &mut || self.has_room()) {
                return;
            }
        }
    }

    pub(super) fn has_room(&self) -> bool {
        {
            let state = self.state.lock();
            if state.failed.is_some() || state.read_only {
                return true;
            }
            if state.open.bytes() > self.batch_wait_bytes() {
                return false;
            }
        }
        if self.index.pressure() == Pressure::Stop {
            return false;
        }
        match self.journal() {
            Some(journal) => journal.room(Level::User, self.batch_wait_bytes() as usize),
            None => true,
        }
    }

    /// Asks for everything so far to be committed; returns the batch to wait for.
    pub(super) fn want_commit(&self, state: &mut State) -> Lsn {
        let lsn = if state.open.is_empty() { Lsn(state.open.lsn.0 - 1) } else { state.open.lsn };
        if state.wanted < lsn {
            state.wanted = lsn;
        }
        self.commit_event.notify();
        lsn
    }

    /// Waits until batch `lsn` is durable [I1].
    pub(super) fn wait_durable(&self, lsn: Lsn) -> Result<(), NamespaceError> {
        let mut result = Ok(());
        self.wait.until(&self.committed, None, &mut || {
            let state = self.state.lock();
            if state.durable >= lsn {
                return true;
            }
            if let Some(error) = &state.failed {
                result = Err(NamespaceError::Io(error.clone()));
                return true;
            }
            false
        });
        result
    }

    /// Operations wait for the committer while the open batch is larger than this. What one operation
    /// and the background tasks may add on top (`share_bytes` each) still fits a journal entry [R19].
    pub(super) fn batch_wait_bytes(&self) -> u64 {
        self.batch_bytes_max.load(Ordering::SeqCst) / 4
    }

    /// What one operation or background step may add to the open batch.
    pub(super) fn share_bytes(&self) -> u64 {
        self.batch_bytes_max.load(Ordering::SeqCst) / 8
    }

    /// Data that may go into the journal with one operation now [R13].
    pub(super) fn inline_bytes_max(&self) -> u64 {
        let fill = self.journal().map_or(0, |journal| journal.fill_percent());
        let wish = match fill {
            0..25 => INLINE_BYTES_EMPTY_LOG,
            25..50 => INLINE_BYTES_HALF_LOG,
            _ => 0,
        };
        wish.min(self.share_bytes())
    }

    /// The open batch has room for a background step.
    pub(super) fn has_background_room(&self) -> bool {
        let state = self.state.lock();
        state.open.bytes() <= self.batch_wait_bytes()
    }

    pub(super) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::SeqCst)
    }
}
