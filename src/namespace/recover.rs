//! From a root and a log to an open namespace.
//!
//! 1. The space map is loaded from the snapshot; the places of the manifest, the snapshot and all tables
//!    are claimed.
//! 2. The batches after the root's replay LSN are applied in order: changes of the index, puts and deletes
//!    to the space map, logged bytes into overlays. Nothing is written.
//! 3. What replay freed is quarantined: allocation takes only what is free before and after [R4].
//! 4. Long cuts that were decided are carried out (`long_cut`). Read-write only: logged bytes are flushed
//!    into objects and cut; these changes need no log, because
//! 5. a checkpoint ends the recovery, in the new epoch. With it, what had reached just one disk is fully
//!    redundant, and the log is empty [I8].
//!
//! A pool that is only to be read goes around what is lost: a batch that cannot be found or the place of
//! an object that makes no sense; nobody allocates there. What it cannot read then is an error to
//! whoever asks [I6].
//!
//! A crash before 5 is effective leaves the old root and the old log: the next recovery does the same
//! from the same. After it, the new root is all there is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Namespace;
use super::cache::ReadCache;
use super::checkpointer::{CheckpointParts, Checkpointer, RootWriter, read_link};
use super::core::{Core, Fleet, Options, Origin, State};
use super::error::NamespaceError;
use super::handles::Handles;
use super::index::{Flusher, Index, IndexOptions, Op};
use super::open_batch::OpenBatch;
use super::overlay::After;
use super::stream::Streams;
use super::sync::lease_of;
use super::tx::decode;
use crate::base::canary::{self, Bug};
use crate::base::limits::ENTRY_BYTES_MAX;
use crate::base::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::base::sync::{Arc, Mutex};
use crate::base::{Event, Ino, Lsn, ObjectId, Pace, Task, UNIT_BYTES};
use crate::fleet::disk::buffer::BufferPool;
use crate::fleet::{FleetError, Journal, ObjectStore, Reservation};
use crate::format::manifest::{Manifest, TableEntry, live_tables};
use crate::format::{
    BatchReader, ChangeRef, FileKind, InodeRecord, Key, KeyView, MemberEntry, MemberState,
    ObjectRecord, Place, Root, SpaceSnapshot,
};

/// A namespace that is being recovered: nothing runs in the background yet.
pub struct Recovery {
    pub(super) core: Arc<Core>,
    quarantined: Vec<Reservation>,
    freed: Vec<ObjectRecord>,
    /// Places of objects that a checkpoint's own objects have by now: their end is in a later batch.
    written_over: HashSet<(ObjectId, Place)>,
    chain: Vec<ObjectId>,
}

/// The first inode number that is handed out: 1 is the root directory.
const INO_FIRST: u64 = Ino::ROOT.0 + 1;
/// Key of the number of inodes in use.
pub(super) const INODES_KEY: &[u8] = b"inodes";

/// Step 1: what a root names is read and claimed. Returns the index. `read_only`: goes on without the
/// space map if that is lost.
pub fn load_root(
    objects: &Arc<ObjectStore>,
    options: IndexOptions,
    root: &Root,
    read_only: bool,
) -> Result<Arc<Index>, FleetError> {
    let tables = read_manifest(objects, root)?;
    match load_space(objects, root, &tables) {
        Err(error) if read_only && error.is_loss() => {
            log::warn!("how much room there is cannot be told: {error}");
        }
        loaded => loaded?,
    }
    Index::open(options, objects.clone(), tables, root.replay_lsn)
}

fn read_manifest(objects: &ObjectStore, root: &Root) -> Result<Vec<TableEntry>, FleetError> {
    let damaged = || FleetError::Damaged { what: "manifest", lsn: root.replay_lsn };
    let mut manifests = Vec::new();
    for link in &root.manifest {
        let bytes = read_link(objects, link)?;
        manifests.push(Manifest::decode(&bytes, link.record.id).map_err(|_| damaged())?);
    }
    if manifests.is_empty() {
        return Ok(Vec::new());
    }
    live_tables(&manifests).ok_or_else(damaged)
}

fn load_space(objects: &ObjectStore, root: &Root, tables: &[TableEntry]) -> Result<(), FleetError> {
    let damaged = || FleetError::Damaged { what: "space snapshot", lsn: root.replay_lsn };
    for (index, link) in root.space.iter().enumerate() {
        let bytes = read_link(objects, link)?;
        let snapshot = SpaceSnapshot::decode(&bytes, link.record.id).map_err(|_| damaged())?;
        if snapshot.whole != (index == 0) {
            return Err(damaged());
        }
        // What a chain says of disks that were removed since it was begun is of no interest.
        let removed = |disk| {
            let is_it = |entry: &&MemberEntry| entry.index == disk;
            let entry = root.members.iter().find(is_it);
            entry.is_some_and(|entry| entry.state == MemberState::Removed)
        };
        let mut groups = snapshot.groups;
        groups.retain(|group| !removed(group.disk));
        objects.space().load(&groups)?;
    }
    let links = root.manifest.iter().chain(&root.space).map(|link| &link.record);
    for record in links.chain(tables.iter().map(|table| &table.record)) {
        objects.space().claim(record)?;
    }
    Ok(())
}

/// What is known before anything is replayed.
fn fresh_state(options: &Options, origin: &Origin, chains: Vec<ObjectRecord>) -> State {
    State {
        open: OpenBatch::new(origin.lsn.next()),
        open_since: None,
        wanted: Lsn(0),
        durable: origin.lsn,
        freeze_wanted: false,
        frozen: None,
        chains,
        space_whole: true,
        flush_logged: Lsn(0),
        flush_all: 0,
        flusher_sleeps: false,
        flush_error: None,
        checkpoint_wanted: 0,
        checkpoint_done: 0,
        inodes: HashMap::new(),
        known: BTreeMap::new(),
        dirty: BTreeSet::new(),
        in_flush: HashSet::new(),
        dirty_bytes: 0,
        loose_bytes: 0,
        moved_bytes: 0,
        ragged: BTreeSet::new(),
        reclaims: false,
        room_wanted: 0,
        room_answered: 0,
        next_ino: origin.ino_lease.max(INO_FIRST),
        ino_lease: origin.ino_lease.max(INO_FIRST),
        ino_lease_told: origin.ino_lease.max(INO_FIRST),
        inode_count: origin.inodes,
        orphans: HashSet::new(),
        reap: BTreeSet::new(),
        handles: Handles::default(),
        read_only: options.read_only,
        stopping: false,
        failed: None,
    }
}

impl Recovery {
    /// A namespace as of a root. `chains`: the objects of the root's manifest and snapshot.
    pub fn new(
        fleet: Fleet,
        options: Options,
        origin: Origin,
        chains: Vec<ObjectRecord>,
    ) -> Recovery {
        let chain = chains.iter().map(|record| record.id).collect();
        let state = fresh_state(&options, &origin, chains);
        let cache = ReadCache::new(options.cache_bytes, fleet.wait.clone());
        let chunks = BufferPool::new(options.dirty_bytes_max.max(UNIT_BYTES), fleet.wait.clone());
        let core = Core {
            clock: fleet.clock,
            wait: fleet.wait,
            members: fleet.members,
            space: fleet.space,
            objects: fleet.objects,
            index: fleet.index,
            journal: Mutex::new(None),
            redundancy: fleet.redundancy,
            name_key: origin.name_key,
            state: Mutex::new(state),
            cache,
            chunks,
            streams: Streams::default(),
            options,
            spent: Arc::default(),
            commit_event: Arc::new(Event::new()),
            committed: Event::new(),
            flush_event: Arc::new(Event::new()),
            flushed: Event::new(),
            checkpoint_event: Arc::new(Event::new()),
            reap_event: Arc::new(Event::new()),
            rejoin_event: Arc::new(Event::new()),
            reclaim_event: Arc::new(Event::new()),
            bad: Mutex::default(),
            repair_event: Arc::new(Event::new()),
            admitted: AtomicU64::new(0),
            dirty_bytes_share: AtomicU64::new(u64::MAX),
            batch_bytes_max: AtomicU64::new(ENTRY_BYTES_MAX),
            recovering: AtomicBool::new(true),
            #[cfg(test)]
            rounds_max: AtomicU64::new(0),
        };
        let (quarantined, freed, written_over) = Default::default();
        Recovery { core: Arc::new(core), quarantined, freed, written_over, chain }
    }

    /// All is replayed. Whoever has the place of an object got it after that one's end was durable.
    fn check_written_over(&self) -> Result<(), NamespaceError> {
        let overtaken = self.core.space.overtaken().0;
        let object = self.written_over.iter().next().map(|(object, _)| *object);
        if object.is_none() && overtaken == 0 {
            return Ok(());
        }
        match object {
            Some(object) => {
                log::error!("object {object} is in use, and its place is another one's")
            }
            None => log::error!("{overtaken} units are in use, and are the index's too"),
        }
        let lsn = self.core.state.lock().durable;
        Err(NamespaceError::Io(FleetError::Damaged { what: "space", lsn }))
    }

    /// What is lost beyond redundancy ends a recovery, unless the pool is only to be read.
    fn unless_lost<T>(
        &self,
        result: Result<T, NamespaceError>,
    ) -> Result<Option<T>, NamespaceError> {
        match result {
            Err(NamespaceError::Io(error)) if self.core.options.read_only && error.is_loss() => {
                log::warn!("the log is replayed without what is lost: {error}");
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Step 2, for one batch. An error means that what was verified makes no sense.
    pub fn replay(&mut self, lsn: Lsn, payload: &[u8]) -> Result<(), NamespaceError> {
        let changes: Vec<ChangeRef<'_>> =
            decode(BatchReader::new(payload).and_then(Iterator::collect))?;
        let mut freed: Vec<ObjectRecord> = Vec::new();
        // Objects that this very batch names: one of them may die in it again.
        let mut named: HashMap<ObjectId, ObjectRecord> = HashMap::new();
        for change in &changes {
            match *change {
                ChangeRef::Put { key, value } => {
                    if let Some(record) = self.replay_put(key, value, &named, &mut freed)? {
                        named.insert(record.id, record);
                    }
                }
                ChangeRef::Delete { key } => {
                    if let Some(record) = self.replay_delete(key, &mut named)? {
                        freed.push(record);
                    }
                }
                ChangeRef::Add { .. } => {}
                ChangeRef::Inline { ino, offset, data } => {
                    self.replay_inline(lsn, ino, offset, data)
                }
                ChangeRef::Settled { ino, offset, length } => {
                    let mut state = self.core.state.lock();
                    let state = &mut *state;
                    if let Some(inode) = state.inodes.get_mut(&ino) {
                        let before = inode.overlay.data_bytes();
                        inode.overlay.forget(offset..offset + length);
                        state.dirty_bytes -= before - inode.overlay.data_bytes();
                        state.settle_dirty(ino);
                    }
                }
            }
        }
        let ops = changes.iter().filter_map(|change| match *change {
            ChangeRef::Put { key, value } => Some((key, Op::Put(value))),
            ChangeRef::Delete { key } => Some((key, Op::Delete)),
            ChangeRef::Add { key, delta } => Some((key, Op::Add(delta))),
            ChangeRef::Inline { .. } | ChangeRef::Settled { .. } => None,
        });
        self.core.index.apply(lsn, ops);
        for mut record in freed {
            // Some places were free before it came, and are not its own any more.
            let id = record.id;
            record.places.iter_mut().for_each(|place| {
                place.take_if(|place| self.written_over.remove(&(id, *place)));
            });
            self.unless_lost(self.core.space.delete(&record).map_err(Into::into))?;
            // Quarantined when all is replayed: a later batch may have taken the place again.
            self.freed.push(record);
        }
        let mut state = self.core.state.lock();
        state.durable = lsn;
        state.open = OpenBatch::new(lsn.next());
        drop(state);
        Ok(())
    }

    fn replay_put(
        &mut self,
        key: &[u8],
        value: &[u8],
        named: &HashMap<ObjectId, ObjectRecord>,
        freed: &mut Vec<ObjectRecord>,
    ) -> Result<Option<ObjectRecord>, NamespaceError> {
        if let Ok(KeyView::Object(id)) = KeyView::decode(key) {
            let record = decode(ObjectRecord::decode(value))?;
            let mut came = record.clone();
            // A record that was repaired: what both have stays as it is.
            if record.version > 0
                && let Some(old) = match named.get(&id) {
                    Some(old) => Some(old.clone()),
                    None => self.object_before(key)?,
                }
            {
                came.places.iter_mut().for_each(|place| {
                    place.take_if(|place| old.places.contains(&Some(*place)));
                });
                let mut gone = old;
                gone.places.iter_mut().for_each(|place| {
                    place.take_if(|place| record.places.contains(&Some(*place)));
                });
                freed.push(gone);
            }
            self.take_places(came)?;
            return Ok(Some(record));
        }
        if let Some(lease) = lease_of(key, value) {
            let mut state = self.core.state.lock();
            state.ino_lease = state.ino_lease.max(lease);
            state.ino_lease_told = state.ino_lease;
            state.next_ino = state.ino_lease;
        }
        Ok(None)
    }

    /// These places are used, but for those that somebody has who came after this object's end.
    fn take_places(&mut self, mut record: ObjectRecord) -> Result<(), NamespaceError> {
        if self.core.space.is_written_over(&record) {
            for at in 0..record.places.len() {
                let mut only = record.clone();
                only.places.iter_mut().enumerate().for_each(|(other, place)| {
                    place.take_if(|_| other != at);
                });
                if self.core.space.is_written_over(&only) {
                    let place = record.places[at].take().expect("else it were nobody's");
                    self.written_over.insert((record.id, place));
                }
            }
        }
        self.unless_lost(self.core.space.put(&record).map_err(Into::into)).map(|_| ())
    }

    /// The record of an object before this batch.
    fn object_before(&self, key: &[u8]) -> Result<Option<ObjectRecord>, NamespaceError> {
        let old = self.unless_lost(self.lookup(key))?.flatten();
        old.map(|value| decode(ObjectRecord::decode(&value))).transpose()
    }

    /// The record of an object that is deleted, whose space becomes free.
    fn replay_delete(
        &mut self,
        key: &[u8],
        named: &mut HashMap<ObjectId, ObjectRecord>,
    ) -> Result<Option<ObjectRecord>, NamespaceError> {
        match decode(KeyView::decode(key))? {
            KeyView::Object(id) => {
                if let Some(record) = named.remove(&id) {
                    return Ok(Some(record));
                }
                self.object_before(key)
            }
            KeyView::Inode(ino) => {
                self.core.state.lock().forget_content(ino);
                Ok(None)
            }
            KeyView::Dirent { .. }
            | KeyView::Extent { .. }
            | KeyView::Xattr { .. }
            | KeyView::Checksums { .. }
            | KeyView::Live(_)
            | KeyView::Orphan(_)
            | KeyView::Meta(_) => Ok(None),
        }
    }

    fn replay_inline(&mut self, lsn: Lsn, ino: Ino, offset: u64, data: &[u8]) {
        let now = self.core.now();
        let mut state = self.core.state.lock();
        state.mark_dirty(ino, now);
        let state = &mut *state;
        let inode = state.inodes.get_mut(&ino).expect("it was just made");
        let before = inode.overlay.data_bytes();
        // No cut goes by it: what is in the log is handed over.
        let after = After { size: offset + data.len() as u64, ..After::default() };
        inode.overlay.write_logged(offset, data.to_vec(), lsn, after);
        inode.cut_seq = inode.overlay.seq();
        state.dirty_bytes = state.dirty_bytes + inode.overlay.data_bytes() - before;
    }

    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, NamespaceError> {
        Ok(self.core.index.read(key, None)?)
    }

    /// A namespace that only reads: what was replayed stays in memory.
    pub fn finish_read_only(self) -> Result<Namespace, NamespaceError> {
        assert!(self.core.options.read_only, "who may write ends the recovery with a checkpoint");
        self.unless_lost(self.check_written_over())?;
        self.unless_lost(self.count_inodes())?;
        // In memory only, for now and for here.
        self.core.state.lock().read_only = false;
        let finished = self.finish_long_cuts();
        self.core.state.lock().read_only = true;
        self.unless_lost(finished)?;
        self.core.recovering.store(false, Ordering::SeqCst);
        Ok(Namespace { core: self.core })
    }

    fn count_inodes(&self) -> Result<(), NamespaceError> {
        if let Some(value) = self.lookup(Key::meta(INODES_KEY).as_bytes())?
            && let Ok(count) = value.try_into().map(i64::from_le_bytes)
        {
            self.core.state.lock().inode_count = count.max(0) as u64;
        }
        Ok(())
    }

    /// Logged bytes of files that do not exist: no log of ours has such, and no flush would end them.
    fn forget_nobodys(&self) -> Result<(), NamespaceError> {
        let inos: Vec<Ino> = self.core.state.lock().inodes.keys().copied().collect();
        for ino in inos {
            if self.lookup(Key::inode(ino).as_bytes())?.is_none() {
                log::error!("the journal has bytes of inode {ino}, which does not exist: left out");
                self.core.state.lock().forget_content(ino);
            }
        }
        Ok(())
    }

    /// Steps 3 to 5. Returns the namespace, ready for its journal and tasks, and its checkpointer.
    pub fn finish(
        mut self,
        writer: Arc<dyn RootWriter>,
    ) -> Result<(Namespace, Box<dyn Task>), NamespaceError> {
        self.check_written_over()?;
        for record in std::mem::take(&mut self.freed) {
            let reservations = self.core.space.quarantine(&record);
            if !canary::planted(Bug::FreedSinceReplay) {
                self.quarantined.extend(reservations);
            }
        }
        self.count_inodes()?;
        self.forget_nobodys()?;
        let core = self.core.clone();
        core.make_root()?;
        self.finish_long_cuts()?;
        core.state.lock().stopping = true;
        while core.flush_some()? {
            core.commit_without_journal()?;
        }
        core.commit_without_journal()?;
        let parts = CheckpointParts { writer, named: std::mem::take(&mut self.chain) };
        let mut checkpointer = Checkpointer::new(core.clone(), parts);
        core.state.lock().checkpoint_wanted = 1;
        let mut flusher = Flusher::new(core.index.clone(), core.clock.clone());
        while core.state.lock().checkpoint_done < 1 {
            core.commit_without_journal()?;
            while flusher.run_step()? == Pace::Again {}
            checkpointer.run_step()?;
        }
        {
            let mut state = core.state.lock();
            state.stopping = false;
            state.checkpoint_wanted = 0;
            state.checkpoint_done = 0;
        }
        self.quarantined.clear();
        core.recovering.store(false, Ordering::SeqCst);
        Ok((Namespace { core }, Box::new(checkpointer)))
    }
}

impl Core {
    /// The root directory, if there is none yet: the pool is new.
    fn make_root(&self) -> Result<(), NamespaceError> {
        self.change_inside(|tx| {
            let key = Key::inode(Ino::ROOT);
            if tx.get(&key)?.is_some() {
                return Ok(());
            }
            let now = tx.now();
            let record = InodeRecord {
                kind: FileKind::Directory,
                mode: 0o755,
                links: 2,
                uid: self.options.owner.uid,
                gid: self.options.owner.gid,
                rdev: 0,
                flags: 0,
                size: 0,
                allocated: 0,
                generation: 0,
                parent: Ino::ROOT,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
                target: Vec::new(),
            };
            tx.put(key, record.encode());
            tx.count_inodes(1);
            Ok(())
        })
    }
}

impl Namespace {
    /// The journal takes the batches from now on: recovery's checkpoint is effective.
    pub fn start(&self, journal: Arc<Journal>) -> Result<(), NamespaceError> {
        let bytes = journal.payload_bytes_max() as u64;
        self.core.batch_bytes_max.store(bytes, Ordering::SeqCst);
        self.core.note_capacity();
        *self.core.journal.lock() = Some(journal);
        self.core.find_orphans()
    }

    /// Everything becomes durable and is put into a checkpoint: the next mount has nothing to replay.
    /// The tasks must be running; nobody may call operations any more.
    pub fn close(&self) -> Result<(), NamespaceError> {
        self.core.state.lock().stopping = true;
        self.core.flush_event.notify();
        self.core.sync()?;
        self.core.checkpoint()
    }

    /// A checkpoint now.
    pub fn checkpoint(&self) -> Result<(), NamespaceError> {
        self.core.checkpoint()
    }
}
