//! Reading a file.
//!
//! Under the lock: where does each part come from? Memory, an object, or nothing (a hole). Objects are
//! pinned [I3], and the lock is dropped. Then the parts are fetched: what was found is immutable, so the
//! answer is the file as it was at that one moment, whatever is written meanwhile.
//!
//! A small random read fetches just the cells it needs, from one disk. A stream (reads in order) fetches
//! whole objects, ahead of its reader: see `stream`.

use std::ops::Range;

use super::cache::Shard;
use super::core::Core;
use super::error::NamespaceError;
use super::overlay::{Bytes, Source};
use super::read_buffer::ReadBuffer;
use super::tx::{Attempt, Tx, decode};
use super::types::FileKind;
use super::written::Written;
use crate::base::sync::Arc;
use crate::base::{Ino, ObjectId, ShardIndex, WallTime};
use crate::fleet::disk::{Buffer, Class};
use crate::fleet::{ChecksumSource, FleetError, Pin};
use crate::format::{Checksums, InodeRecord, Key, ObjectRecord};

/// Extents of one read; a read of the largest request over 4 KiB extents has 256.
const EXTENTS_PER_READ: usize = 512;

/// How often a read is planned again when an object vanished under it.
const ATTEMPTS: u32 = 4;

/// Where a part of a read comes from.
pub(super) enum Part {
    Memory(Bytes),
    Zeros,
    Object { object: Arc<Located>, object_offset: u32, extent_bytes: u64 },
}

/// An object that a read needs, pinned.
pub(super) struct Located {
    pub(super) record: ObjectRecord,
    /// Checksums at hand, of an object the index does not name yet.
    written: Option<Arc<Written>>,
    _pin: Pin,
}

/// A read that was planned: its parts in order, without gaps.
#[derive(Default)]
struct Plan {
    parts: Vec<(Range<u64>, Part)>,
    stream: bool,
    /// Objects that the stream will come to.
    ahead: Vec<Arc<Located>>,
    /// The access time is to be moved.
    stale: bool,
}

impl Core {
    /// Appends the file's bytes of `offset ..` to `into`: `size` of them, fewer only at its end.
    pub(super) fn read(
        &self,
        ino: Ino,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> Result<(), NamespaceError> {
        let base = into.bytes().len();
        let mut attempt = 0;
        let stale = loop {
            attempt += 1;
            into.truncate(base);
            match self.try_read(ino, offset, size, into) {
                // An object that was deleted after the plan keeps its bytes while it is pinned, but its
                // checksums have left the index: the next plan finds what took its place. Each time
                // somebody else got further, so this ends.
                Err(NamespaceError::Io(FleetError::Deleted { .. })) => {}
                Err(NamespaceError::Io(FleetError::Unreadable { .. })) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(stale) => break stale,
            }
        };
        if stale && self.options.atime && !self.options.read_only {
            self.touch(ino);
        }
        Ok(())
    }

    /// True if the access time is to be moved.
    fn try_read(
        &self,
        ino: Ino,
        offset: u64,
        size: u32,
        into: &mut ReadBuffer,
    ) -> Result<bool, NamespaceError> {
        let plan = self.look(|tx| tx.plan_read(ino, offset, u64::from(size)))?;
        self.prefetch(plan.ahead);
        for (range, part) in &plan.parts {
            let length = (range.end - range.start) as usize;
            match part {
                Part::Memory(bytes) => into.append(bytes.slice(length as u64)),
                Part::Zeros => _ = into.append_zeros(length),
                Part::Object { object, object_offset, extent_bytes } => {
                    let whole = plan.stream && self.is_worth_whole(object, *extent_bytes);
                    self.read_object(object, *object_offset, length, whole, into)?;
                }
            }
        }
        Ok(plan.stale)
    }

    /// relatime: the access time moves if it is not after the last change, or a day old. Reading neither
    /// waits for room nor fails for this: without room the new time stays in memory like a write's
    /// [R27], and where nothing can be changed any more it stays as it is [I6].
    fn touch(&self, ino: Ino) {
        let room = self.has_room();
        let touched = self.change_inside(|tx| {
            let mut record = tx.inode(ino)?;
            if is_stale(&record, tx.now()) {
                record.atime = tx.now();
                if room {
                    tx.put_attributes(ino, record);
                } else {
                    tx.change_content(ino, record, |overlay, _| overlay.touch());
                }
            }
            Ok(())
        });
        if let Err(error) = touched {
            log::debug!("the access time of inode {ino} stays as it is: {error}");
        }
    }

    fn read_object(
        &self,
        object: &Located,
        offset: u32,
        length: usize,
        whole: bool,
        into: &mut ReadBuffer,
    ) -> Result<(), NamespaceError> {
        let record = &object.record;
        if self.copy_cached(record, offset, length, into) {
            return Ok(());
        }
        if whole
            && let Some(shards) = self.whole_object(object)
            && copy_shards(record, offset, length, into, |shard| shards.get(shard).cloned())
        {
            return Ok(());
        }
        let range = offset..offset + length as u32;
        let target = into.append_zeros(length);
        let result = match &object.written {
            Some(written) => {
                let lists: &[Checksums] = written.checksums();
                self.objects.read_into(record, lists, range, Class::Foreground, target)
            }
            None => {
                let lists = IndexLists { core: self };
                self.objects.read_into(record, &lists, range, Class::Foreground, target)
            }
        };
        Ok(result?)
    }

    /// Reads all data shards of an object into memory of the cache. None if that has none to spare, or
    /// the object cannot be read: then parts of it perhaps can [I6].
    pub(super) fn fetch_shards(&self, object: &Located) -> Option<Vec<Buffer>> {
        let record = &object.record;
        let count = record.redundancy.data_shards();
        let memory = self.cache.memory(count, record.shard_bytes as usize)?;
        let memory = |shard: Option<usize>, bytes| memory.take(shard, bytes);
        let result = match &object.written {
            Some(written) => {
                let lists: &[Checksums] = written.checksums();
                self.objects.read_shards(record, lists, Class::Foreground, &memory)
            }
            None => {
                let lists = IndexLists { core: self };
                self.objects.read_shards(record, &lists, Class::Foreground, &memory)
            }
        };
        result.ok()
    }

    /// True if all of it was in the cache; else nothing was appended.
    fn copy_cached(
        &self,
        record: &ObjectRecord,
        offset: u32,
        length: usize,
        into: &mut ReadBuffer,
    ) -> bool {
        copy_shards(record, offset, length, into, |shard| self.cache.get(record.id, shard as u8))
    }
}

/// Appends `length` bytes of an object from `offset` on, if `shard_of` has the shards; else nothing.
fn copy_shards(
    record: &ObjectRecord,
    offset: u32,
    length: usize,
    into: &mut ReadBuffer,
    shard_of: impl Fn(usize) -> Option<Shard>,
) -> bool {
    let shard_bytes = record.shard_bytes as usize;
    let base = into.bytes().len();
    let mut done = 0;
    while done < length {
        let at = offset as usize + done;
        let from = at % shard_bytes;
        let Some(shard) = shard_of(at / shard_bytes).filter(|shard| shard.len() > from) else {
            into.truncate(base);
            return false;
        };
        let count = (shard.len() - from).min(length - done);
        into.append_shard(shard, from..from + count);
        done += count;
    }
    true
}

fn is_stale(record: &InodeRecord, now: WallTime) -> bool {
    const DAY: i64 = 24 * 60 * 60;
    record.atime <= record.mtime.max(record.ctime) || record.atime.seconds + DAY <= now.seconds
}

/// Checksums from the index; loads blocks of it as needed, with no lock held.
pub(super) struct IndexLists<'a> {
    pub(super) core: &'a Core,
}

impl Located {
    /// A record that is current, pinned: the lock that guards it is held.
    pub(super) fn pinned(core: &Core, record: ObjectRecord) -> Located {
        let pin = core.space.pin(record.id);
        Located { record, written: None, _pin: pin }
    }
}

impl IndexLists<'_> {
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, FleetError> {
        self.core.index.read(key.as_bytes(), None)
    }
}

impl ChecksumSource for IndexLists<'_> {
    fn list(&self, object: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError> {
        match self.get(&Key::checksums(object, list))? {
            Some(value) => Ok(Checksums::decode(&value).ok()),
            // That is no fault of a disk, and nothing is lost.
            None if self.get(&Key::object(object))?.is_none() => {
                Err(FleetError::Deleted { object })
            }
            None => Ok(None),
        }
    }
}

impl Tx<'_> {
    fn plan_read(&mut self, ino: Ino, offset: u64, size: u64) -> Attempt<Plan> {
        let record = self.inode(ino)?;
        if record.kind == FileKind::Directory {
            return Err(NamespaceError::IsDirectory.into());
        }
        let end = offset.saturating_add(size).min(record.size);
        if offset >= end {
            return Ok(Plan { stale: is_stale(&record, self.now()), ..Plan::default() });
        }
        let sources = match self.state.inodes.get(&ino) {
            Some(inode) => inode.overlay.sources(offset..end),
            None => vec![(offset..end, Source::Below)],
        };
        let mut parts = Vec::with_capacity(sources.len());
        for (range, source) in sources {
            match source {
                Source::Data(bytes) => parts.push((range, Part::Memory(bytes))),
                Source::Hole => parts.push((range, Part::Zeros)),
                Source::Stored(written, object_offset) => {
                    let object = Arc::new(Located {
                        record: written.record().clone(),
                        _pin: self.core.space.pin(written.record().id),
                        written: Some(written),
                    });
                    let extent_bytes = range.end - range.start;
                    parts.push((range, Part::Object { object, object_offset, extent_bytes }));
                }
                Source::Below => self.plan_below(ino, range, &mut parts)?,
            }
        }
        let (stream, ahead) = self.note_read(ino, offset, end, record.size)?;
        if stream {
            self.note_ragged(ino, &parts);
        }
        Ok(Plan { parts, stream, ahead, stale: is_stale(&record, self.now()) })
    }

    fn plan_below(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        parts: &mut Vec<(Range<u64>, Part)>,
    ) -> Attempt<()> {
        let mut at = range.start;
        while at < range.end {
            let (extents, rest) = self.extents(ino, at..range.end, EXTENTS_PER_READ)?;
            for (offset, extent) in extents {
                let begin = offset.max(at);
                let end = (offset + extent.length).min(range.end);
                if begin > at {
                    parts.push((at..begin, Part::Zeros));
                }
                if extent.unwritten {
                    parts.push((begin..end, Part::Zeros));
                } else {
                    let object = self.locate(extent.object, parts)?;
                    let object_offset = extent.object_offset + (begin - offset) as u32;
                    let extent_bytes = extent.length;
                    let part = Part::Object { object, object_offset, extent_bytes };
                    parts.push((begin..end, part));
                }
                at = end;
            }
            if rest.is_none() {
                break;
            }
        }
        if at < range.end {
            parts.push((at..range.end, Part::Zeros));
        }
        Ok(())
    }

    /// The object's record, pinned; shared with the part before if that is in the same object.
    pub(super) fn locate(
        &self,
        object: ObjectId,
        parts: &[(Range<u64>, Part)],
    ) -> Attempt<Arc<Located>> {
        let last = parts.iter().rev().find_map(|(_, part)| match part {
            Part::Object { object, .. } => Some(object),
            Part::Memory(_) | Part::Zeros => None,
        });
        if let Some(last) = last
            && last.record.id == object
        {
            return Ok(last.clone());
        }
        let Some(value) = self.get(&Key::object(object))? else {
            log::error!("an extent names object {object}, which the index does not know");
            return Err(
                NamespaceError::Io(FleetError::Unreadable { object, have: 0, need: 1 }).into()
            );
        };
        let record = decode(ObjectRecord::decode(&value))?;
        Ok(Arc::new(Located::pinned(self.core, record)))
    }
}
