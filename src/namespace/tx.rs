//! Transactions: how every operation on names and attributes is carried out.
//!
//! 1. Room in the open batch and in the log is waited for, with no lock held [R23].
//! 2. The namespace lock is taken. The operation reads through the index and its own staged changes,
//!    and stages puts and deletes. Nothing is changed yet.
//! 3. A table block that is not in memory ends the attempt: locks and staged changes are dropped, the
//!    block is loaded and pinned, and the operation starts again from 2. Each round pins one more block
//!    of a bounded set, so it ends.
//! 4. When the operation succeeds, its changes enter the memtable and the open batch together, still
//!    under the lock: lock order is the order of history [I2].
//!
//! An operation that fails leaves nothing. It must not touch the state in memory before its last `?`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::core::{Core, State};
use super::error::NamespaceError;
use super::index::{Need, Op, Pins, Value};
use super::long_cut::LongWork;
use super::types::FileKind;
use super::written::Written;
use crate::base::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX, OPERATION_BYTES_MAX};
use crate::base::sync::Arc;
#[cfg(test)]
use crate::base::sync::atomic::Ordering;
use crate::base::{Ino, Lsn, WallTime};
use crate::format::{
    Change, DirentValue, ExtentValue, InodeRecord, Key, KeyView, ObjectRecord, name_hash,
};

/// Why an attempt ended without a result.
pub(super) enum Stop {
    /// A block must be loaded first.
    Need(Need),
    /// This inode's data must be flushed first: a namespace operation on it would otherwise survive
    /// without the data written before [I2].
    Flush(Ino),
    /// The operation is refused.
    Error(NamespaceError),
}

impl From<Need> for Stop {
    fn from(need: Need) -> Stop {
        Stop::Need(need)
    }
}

impl From<NamespaceError> for Stop {
    fn from(error: NamespaceError) -> Stop {
        Stop::Error(error)
    }
}

/// What an operation returns inside a transaction.
pub(super) type Attempt<T> = Result<T, Stop>;

/// Keys and values, in order.
type Entries = Vec<(Vec<u8>, Value)>;
/// Extents by their offset in the file, in order.
type Extents = Vec<(u64, ExtentValue)>;

/// What happens to the state in memory when the transaction's changes are applied.
pub(super) enum Effect {
    /// An inline cut of this inode was staged: see `cut`.
    InlineCut(Ino),
    /// A flush's cut of this inode was staged; the record as its users see it from now on.
    FlushCut { ino: Ino, point: u64, record: Box<InodeRecord> },
    /// These ranges of the inode, as of `point`, are in the index: an inline cut had overtaken.
    Handover { ino: Ino, point: u64, ranges: Vec<Range<u64>>, allocated: u64 },
    /// A long cut of this inode goes on from here.
    LongWork { ino: Ino, work: LongWork },
    /// The batch has an older record of this inode than its users see, which is this one.
    Newer { ino: Ino, record: Box<InodeRecord> },
    /// The object becomes named by this batch.
    Name(Arc<Written>),
    /// The object's space is free once this batch is durable.
    Free(ObjectRecord),
    /// The object's shards moved: the old places are free, and the new ones used, once this batch is
    /// durable.
    Rehome(Box<(ObjectRecord, ObjectRecord)>),
    /// The inode has no name left.
    Orphan(Ino),
    /// Live bytes went from one object to another: nothing died.
    Moved(u64),
}

/// One attempt of an operation, under the namespace lock.
pub(super) struct Tx<'a> {
    pub(super) core: &'a Core,
    pub(super) state: &'a mut State,
    pins: &'a Pins,
    staged: BTreeMap<Key, Option<Vec<u8>>>,
    adds: BTreeMap<Key, i64>,
    data: Vec<Change>,
    effects: Vec<Effect>,
    now: WallTime,
}

/// Who runs a transaction, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Look,
    Change,
    Background,
}

/// A round of an operation needs one more block at most; more rounds than this are a bug.
const ROUNDS_MAX: u32 = 100_000;

impl Core {
    /// Runs a changing operation; see the module's text. For the kernel's calls: waits for room.
    pub(super) fn change<T>(
        &self,
        mut operation: impl FnMut(&mut Tx<'_>) -> Attempt<T>,
    ) -> Result<T, NamespaceError> {
        self.wait_for_room();
        self.attempt(Kind::Change, &mut operation)
    }

    /// The same for background work, which must not wait for other background work: it looks for room
    /// before it begins, and each piece of it is small.
    pub(super) fn change_inside<T>(
        &self,
        mut operation: impl FnMut(&mut Tx<'_>) -> Attempt<T>,
    ) -> Result<T, NamespaceError> {
        self.attempt(Kind::Background, &mut operation)
    }

    /// Runs an operation that only looks. Staging a change in it is a bug.
    pub(super) fn look<T>(
        &self,
        mut operation: impl FnMut(&mut Tx<'_>) -> Attempt<T>,
    ) -> Result<T, NamespaceError> {
        self.attempt(Kind::Look, &mut operation)
    }

    fn attempt<T>(
        &self,
        kind: Kind,
        operation: &mut dyn FnMut(&mut Tx<'_>) -> Attempt<T>,
    ) -> Result<T, NamespaceError> {
        let mut pins = Pins::new();
        for _round in 0..ROUNDS_MAX {
            #[cfg(test)]
            self.rounds_max.fetch_max(u64::from(_round), Ordering::Relaxed);
            let stop = {
                let mut state = self.state.lock();
                if kind != Kind::Look {
                    state.check_writable()?;
                }
                if kind == Kind::Change && state.open.bytes() > self.batch_wait_bytes() {
                    drop(state);
                    self.wait_for_room();
                    continue;
                }
                let mut tx = Tx {
                    core: self,
                    state: &mut state,
                    pins: &pins,
                    staged: BTreeMap::new(),
                    adds: BTreeMap::new(),
                    data: Vec::new(),
                    effects: Vec::new(),
                    now: self.clock.wall(),
                };
                match operation(&mut tx) {
                    Ok(result) => {
                        assert!(kind != Kind::Look || tx.is_empty(), "a look changed something");
                        tx.apply();
                        return Ok(result);
                    }
                    Err(stop) => stop,
                }
            };
            match stop {
                Stop::Need(need) => self.index.load(&need.0, &mut pins)?,
                Stop::Flush(ino) => self.flush_inode(ino)?,
                Stop::Error(error) => return Err(error),
            }
        }
        panic!("an operation needed more than {ROUNDS_MAX} rounds");
    }
}

#[cfg(test)]
impl super::Namespace {
    /// The most rounds that any operation took: so many blocks it pinned.
    pub(crate) fn rounds_max(&self) -> u64 {
        self.core.rounds_max.load(Ordering::Relaxed)
    }
}

impl Tx<'_> {
    /// The time of day at which the operation happens.
    pub(super) fn now(&self) -> WallTime {
        self.now
    }

    /// The batch that the changes will be in.
    pub(super) fn lsn(&self) -> Lsn {
        self.state.open.lsn
    }

    fn is_empty(&self) -> bool {
        self.staged.is_empty() && self.adds.is_empty() && self.data.is_empty()
    }

    /// The value of a key, own changes included.
    pub(super) fn get(&self, key: &Key) -> Attempt<Option<Vec<u8>>> {
        match self.staged.get(key) {
            Some(value) => Ok(value.clone()),
            None => Ok(self.core.index.get(key.as_bytes(), self.pins)?),
        }
    }

    /// A counter, own additions included.
    pub(super) fn counter(&self, key: &Key) -> Attempt<i64> {
        let below = match self.get(key)? {
            Some(value) => value.try_into().map(i64::from_le_bytes).unwrap_or(0),
            None => 0,
        };
        Ok(below.wrapping_add(self.adds.get(key).copied().unwrap_or(0)))
    }

    /// Entries of a range, without own changes.
    pub(super) fn scan(&self, start: &Key, end: &Key, limit: usize) -> Attempt<super::index::Scan> {
        Ok(self.core.index.scan(start.as_bytes(), end.as_bytes(), limit, None, self.pins)?)
    }

    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.staged.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.adds.remove(&key);
        self.staged.insert(key, None);
    }

    pub(super) fn add(&mut self, key: Key, delta: i64) {
        *self.adds.entry(key).or_insert(0) += delta;
    }

    /// True if the key is put in this transaction.
    pub(super) fn is_staged(&self, key: &Key) -> bool {
        self.staged.get(key).is_some_and(Option::is_some)
    }

    /// Bytes of a file or ranges of it, for the log.
    pub(super) fn log(&mut self, change: Change) {
        self.data.push(change);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The inode as its users see it.
    pub(super) fn inode(&self, ino: Ino) -> Attempt<InodeRecord> {
        let key = Key::inode(ino);
        if let Some(value) = self.staged.get(&key) {
            let value = value.as_ref().ok_or(NamespaceError::NotFound)?;
            return Ok(decode(InodeRecord::decode(value))?);
        }
        if let Some(record) = self.state.inodes.get(&ino).and_then(|inode| inode.record.as_ref()) {
            return Ok(InodeRecord::clone(record));
        }
        let value = self.get(&key)?.ok_or(NamespaceError::NotFound)?;
        Ok(decode(InodeRecord::decode(&value))?)
    }

    /// The same, which must be a directory that still has a name.
    pub(super) fn directory(&self, ino: Ino) -> Attempt<InodeRecord> {
        let record = self.inode(ino)?;
        if record.kind != FileKind::Directory {
            return Err(NamespaceError::NotDirectory.into());
        }
        if record.links == 0 {
            return Err(NamespaceError::NotFound.into());
        }
        Ok(record)
    }

    /// The record enters the batch. If the inode has unwritten data, that must be in an inline cut
    /// of the same transaction [I2]; see `settle`.
    pub(super) fn put_inode(&mut self, ino: Ino, record: &InodeRecord) {
        self.put(Key::inode(ino), record.encode());
    }

    /// The inode as the index has it, whatever is newer in memory.
    pub(super) fn indexed_inode(&self, ino: Ino) -> Attempt<InodeRecord> {
        let value = self.get(&Key::inode(ino))?.ok_or(NamespaceError::NotFound)?;
        Ok(decode(InodeRecord::decode(&value))?)
    }

    /// A record enters the batch that is older than what its users see, which stays `seen`.
    pub(super) fn put_older_inode(&mut self, ino: Ino, record: &InodeRecord, seen: InodeRecord) {
        self.put_inode(ino, record);
        self.effect(Effect::Newer { ino, record: Box::new(seen) });
    }

    /// An attribute changes that follows the inode's own order: with unwritten data it waits for the
    /// next cut, else it enters the batch.
    pub(super) fn put_attributes(&mut self, ino: Ino, record: InodeRecord) {
        match self.state.inodes.get_mut(&ino) {
            Some(inode) if inode.unlogged => inode.record = Some(Box::new(record)),
            _ => self.put_inode(ino, &record),
        }
    }

    /// Where a name is kept.
    pub(super) fn dirent_key(&self, parent: Ino, name: &[u8]) -> Key {
        Key::dirent(parent, name_hash(self.core.name_key, name), name)
    }

    /// What a name stands for.
    pub(super) fn dirent(&self, parent: Ino, name: &[u8]) -> Attempt<Option<DirentValue>> {
        // Linux passes names of up to 1024 bytes on to FUSE.
        if name.len() > NAME_BYTES_MAX {
            return Err(NamespaceError::NameTooLong.into());
        }
        if name.is_empty() {
            return Ok(None);
        }
        match self.get(&self.dirent_key(parent, name))? {
            Some(value) => Ok(Some(decode(DirentValue::decode(&value))?)),
            None => Ok(None),
        }
    }

    /// Entries of a range, without own changes: `limit` of them, fewer only if there are no more; else
    /// true. A scan also ends early, at a block that it needs and after many deleted entries. It is gone
    /// on with from there: who asks again from the start never gets any further.
    pub(super) fn scan_on(&self, start: &Key, end: &Key, limit: usize) -> Attempt<(Entries, bool)> {
        let mut entries = Vec::new();
        let mut from = start.clone();
        loop {
            let scan = self.scan(&from, end, limit - entries.len())?;
            entries.extend(scan.entries);
            match scan.next {
                None => return Ok((entries, false)),
                Some(_) if entries.len() >= limit => return Ok((entries, true)),
                Some(next) => from = Key::from_bytes(&next),
            }
        }
    }

    /// Extents of the file that overlap `range`, in order, own changes included; about `limit` of
    /// them, at least one. If there may be more: where to go on.
    pub(super) fn extents(
        &self,
        ino: Ino,
        range: Range<u64>,
        limit: usize,
    ) -> Attempt<(Extents, Option<u64>)> {
        let start = Key::extent(ino, range.start);
        let prefix = &start.as_bytes()[..9];
        let before = self.core.index.get_at_or_before(start.as_bytes(), prefix, None, self.pins)?;
        let staged = self.staged.range(Key::extent(ino, 0)..start).next_back();
        let (mut found, rest) = self.extents_from(ino, range.clone(), limit)?;
        let staged = staged.and_then(|(key, value)| Some((key.as_bytes(), value.as_deref()?)));
        let before = before.as_ref().map(|(key, value)| (key.as_slice(), value.as_slice()));
        let before = before.filter(|(key, _)| !self.staged.contains_key(*key));
        for (key, value) in before.into_iter().chain(staged) {
            let (offset, extent) = (offset_of(key)?, decode(ExtentValue::decode(value))?);
            if offset < range.start && offset.saturating_add(extent.length) > range.start {
                found.insert(0, (offset, extent));
            }
        }
        check_order(&found)?;
        Ok((found, rest))
    }

    /// As `extents`, but only those that begin in `range`.
    pub(super) fn extents_from(
        &self,
        ino: Ino,
        range: Range<u64>,
        limit: usize,
    ) -> Attempt<(Extents, Option<u64>)> {
        let (start, end) = (Key::extent(ino, range.start), Key::extent(ino, range.end));
        let (entries, more) = self.scan_on(&start, &end, limit)?;
        // Beyond where the scan stopped nothing is known: what is staged there does not show either.
        let last = entries.last().filter(|_| more);
        let rest = last.map(|(key, _)| Ok::<u64, Stop>(offset_of(key)? + 1)).transpose()?;
        let mut found = BTreeMap::new();
        for (key, value) in &entries {
            if !self.staged.contains_key(key.as_slice()) {
                found.insert(offset_of(key)?, decode(ExtentValue::decode(value))?);
            }
        }
        for (key, value) in self.staged.range(start..Key::extent(ino, rest.unwrap_or(range.end))) {
            if let Some(value) = value {
                found.insert(offset_of(key.as_bytes())?, decode(ExtentValue::decode(value))?);
            }
        }
        let found: Extents = found.into_iter().collect();
        check_order(&found)?;
        Ok((found, rest))
    }

    /// Everything staged takes effect, in memory.
    fn apply(self) {
        let Tx { core, state, staged, adds, data, effects, .. } = self;
        let lsn = state.open.lsn;
        if !staged.is_empty() || !adds.is_empty() {
            let puts = staged.iter().map(|(key, value)| match value {
                Some(value) => (key.as_bytes(), Op::Put(value)),
                None => (key.as_bytes(), Op::Delete),
            });
            let adds = adds.iter().map(|(key, &delta)| (key.as_bytes(), Op::Add(delta)));
            core.index.apply(lsn, puts.chain(adds));
        }
        let before = state.open.bytes();
        for (key, value) in staged {
            if let Ok(KeyView::Inode(ino)) = key.view() {
                state.inode_was_put(ino, value.as_deref());
            }
            state.open.push(match value {
                Some(value) => Change::Put { key, value },
                None => Change::Delete { key },
            });
        }
        let died = !effects.iter().any(|effect| matches!(effect, Effect::Moved(_)));
        for (key, delta) in adds {
            if died && matches!(key.view(), Ok(KeyView::Live(_))) {
                state.loose_bytes += delta.min(0).unsigned_abs();
            }
            state.open.push(Change::Add { key, delta });
        }
        let index_bytes = state.open.bytes().saturating_sub(before);
        assert!(index_bytes <= OPERATION_BYTES_MAX, "R19: an operation is bounded");
        for change in data {
            state.open.push(change);
        }
        for effect in effects {
            match effect {
                Effect::InlineCut(ino) => state.inline_cut_applied(ino, lsn),
                Effect::FlushCut { ino, point, record } => {
                    state.flush_cut_applied(ino, point, record);
                }
                Effect::Handover { ino, point, ranges, allocated } => {
                    state.handover_applied(ino, point, ranges, allocated);
                }
                Effect::LongWork { ino, work } => state.inode_mut(ino).long_work = Some(work),
                Effect::Newer { ino, record } => {
                    if let Some(inode) = state.inodes.get_mut(&ino).filter(|i| i.record.is_some()) {
                        inode.record = Some(record);
                    }
                }
                Effect::Name(object) => {
                    object.set_named();
                    state.open.placed.push(object.record().clone());
                }
                Effect::Rehome(records) => state.open.rehomed.push(*records),
                Effect::Free(record) => state.open.freed.push(record),
                Effect::Orphan(ino) => {
                    state.orphans.insert(ino);
                }
                Effect::Moved(bytes) => state.moved_bytes += bytes,
            }
        }
        if !state.open.is_empty() {
            core.batch_grew(state);
        }
    }
}

fn offset_of(key: &[u8]) -> Attempt<u64> {
    match decode(KeyView::decode(key))? {
        KeyView::Extent { offset, .. } => Ok(offset),
        KeyView::Inode(_)
        | KeyView::Dirent { .. }
        | KeyView::Xattr { .. }
        | KeyView::Object(_)
        | KeyView::Checksums { .. }
        | KeyView::Live(_)
        | KeyView::Orphan(_)
        | KeyView::Meta(_) => Err(damaged().into()),
    }
}

/// A value of the index that does not decode: verified bytes with impossible content.
pub(super) fn decode<T>(
    result: Result<T, crate::format::FormatError>,
) -> Result<T, NamespaceError> {
    result.map_err(|error| {
        log::error!("an entry of the index makes no sense: {error}");
        damaged()
    })
}

/// Extents of a file lie side by side, within the largest file and the largest object. They come from disks:
/// whoever is told of some may count on it.
fn check_order(extents: &Extents) -> Result<(), NamespaceError> {
    let mut end = 0;
    for (offset, extent) in extents {
        let next = offset.checked_add(extent.length).filter(|&next| next <= FILE_BYTES_MAX);
        let in_object = u64::from(extent.object_offset).saturating_add(extent.length);
        let next = next.filter(|_| extent.unwritten || in_object <= u64::from(u32::MAX));
        match next {
            Some(next) if *offset >= end => end = next,
            _ => return Err(damaged()),
        }
    }
    Ok(())
}

pub(super) fn damaged() -> NamespaceError {
    NamespaceError::Io(crate::fleet::FleetError::Damaged { what: "index entry", lsn: Lsn(0) })
}
