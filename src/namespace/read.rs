//! Reading a file.
//!
//! Under the lock: where does each part come from? Memory, an object, or nothing (a hole). Objects are
//! pinned [I3], and the lock is dropped. Then the parts are fetched: what was found is immutable, so the
//! answer is the file as it was at that one moment, whatever is written meanwhile.
//!
//! A small random read fetches just the cells it needs, from one disk. A stream (reads in order) fetches
//! whole objects, so that the planner may choose any k of k+m shards; they wait in the read cache.

use std::ops::Range;

use super::core::Core;
use super::error::NamespaceError;
use super::index::Pins;
use super::overlay::{Bytes, Source};
use super::tx::{Attempt, Tx, decode};
use super::types::FileKind;
use super::written::Written;
use crate::base::sync::Arc;
use crate::base::{Ino, KIB, ObjectId, ShardIndex, WallTime};
use crate::fleet::disk::Class;
use crate::fleet::{ChecksumSource, FleetError, Pin};
use crate::format::{Checksums, InodeRecord, Key, ObjectRecord};

/// A read goes ahead once this many bytes were read in order.
const STREAM_BYTES: u64 = 256 * KIB;
/// Extents of one read; a read of the largest request over 4 KiB extents has 256.
const EXTENTS_PER_READ: usize = 512;

/// How often a read is planned again when an object vanished under it.
const ATTEMPTS: u32 = 4;

/// Where a part of a read comes from.
enum Part {
    Memory(Bytes),
    Zeros,
    Object { object: Arc<Located>, object_offset: u32 },
}

/// An object that a read needs, pinned.
struct Located {
    record: ObjectRecord,
    /// Checksums at hand, of an object the index does not name yet.
    written: Option<Arc<Written>>,
    _pin: Pin,
}

/// A read that was planned: its parts in order, without gaps.
struct Plan {
    parts: Vec<(Range<u64>, Part)>,
    stream: bool,
}

impl Core {
    /// Appends the file's bytes of `offset ..` to `into`: `size` of them, fewer only at its end.
    pub(super) fn read(
        &self,
        ino: Ino,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), NamespaceError> {
        let base = into.len();
        let mut attempt = 0;
        loop {
            attempt += 1;
            into.truncate(base);
            match self.try_read(ino, offset, size, into) {
                // An object that was deleted after the plan keeps its bytes while it is pinned, but its
                // checksums have left the index: the next plan finds what took its place.
                Err(NamespaceError::Io(FleetError::Unreadable { .. })) if attempt < ATTEMPTS => {}
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if self.options.atime && !self.options.read_only {
            self.touch(ino)?;
        }
        Ok(())
    }

    fn try_read(
        &self,
        ino: Ino,
        offset: u64,
        size: u32,
        into: &mut Vec<u8>,
    ) -> Result<(), NamespaceError> {
        let plan = self.look(|tx| tx.plan_read(ino, offset, u64::from(size)))?;
        let base = into.len();
        let total: u64 = plan.parts.iter().map(|(range, _)| range.end - range.start).sum();
        into.resize(base + total as usize, 0);
        for (range, part) in &plan.parts {
            let length = range.end - range.start;
            let at = base + (range.start - offset) as usize;
            let target = &mut into[at..at + length as usize];
            match part {
                Part::Memory(bytes) => target.copy_from_slice(bytes.slice(length)),
                Part::Zeros => {}
                Part::Object { object, object_offset } => {
                    self.read_object(object, *object_offset, plan.stream, target)?;
                }
            }
        }
        Ok(())
    }

    /// relatime: the access time moves if it is not after the last change, or a day old.
    fn touch(&self, ino: Ino) -> Result<(), NamespaceError> {
        let now = self.clock.wall();
        let stale = self.look(|tx| {
            let record = tx.inode(ino)?;
            Ok(is_stale(&record, now))
        })?;
        if !stale {
            return Ok(());
        }
        self.change(|tx| {
            let mut record = tx.inode(ino)?;
            if is_stale(&record, tx.now()) {
                record.atime = tx.now();
                tx.put_attributes(ino, record);
            }
            Ok(())
        })
    }

    fn read_object(
        &self,
        object: &Located,
        offset: u32,
        stream: bool,
        target: &mut [u8],
    ) -> Result<(), NamespaceError> {
        let record = &object.record;
        let shard_bytes = record.shard_bytes as usize;
        if self.copy_cached(record, offset, target) {
            return Ok(());
        }
        let whole = stream && u64::from(record.length) <= self.cache.bytes_max() / 4;
        if whole {
            let bytes = self.fetch(object, 0..record.length)?;
            for (shard, part) in bytes.chunks(shard_bytes.max(1)).enumerate() {
                self.cache.put(record.id, shard as u8, Arc::new(part.to_vec()));
            }
            target.copy_from_slice(&bytes[offset as usize..offset as usize + target.len()]);
            return Ok(());
        }
        let range = offset..offset + target.len() as u32;
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

    fn fetch(&self, object: &Located, range: Range<u32>) -> Result<Vec<u8>, NamespaceError> {
        let record = &object.record;
        let result = match &object.written {
            Some(written) => {
                let lists: &[Checksums] = written.checksums();
                self.objects.read(record, lists, range, Class::Foreground)
            }
            None => self.objects.read(record, &IndexLists { core: self }, range, Class::Foreground),
        };
        Ok(result?)
    }

    /// True if all of it was in the cache.
    fn copy_cached(&self, record: &ObjectRecord, offset: u32, target: &mut [u8]) -> bool {
        let shard_bytes = record.shard_bytes as usize;
        let mut done = 0;
        while done < target.len() {
            let at = offset as usize + done;
            let Some(shard) = self.cache.get(record.id, (at / shard_bytes) as u8) else {
                return false;
            };
            let inside = at % shard_bytes;
            let Some(rest) = shard.get(inside..) else { return false };
            let length = rest.len().min(target.len() - done);
            if length == 0 {
                return false;
            }
            target[done..done + length].copy_from_slice(&rest[..length]);
            done += length;
        }
        true
    }
}

fn is_stale(record: &InodeRecord, now: WallTime) -> bool {
    const DAY: i64 = 24 * 60 * 60;
    record.atime <= record.mtime.max(record.ctime) || record.atime.seconds + DAY <= now.seconds
}

/// Checksums from the index; loads blocks of it as needed, with no lock held.
struct IndexLists<'a> {
    core: &'a Core,
}

impl ChecksumSource for IndexLists<'_> {
    fn list(&self, object: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError> {
        let key = Key::checksums(object, list);
        let mut pins = Pins::new();
        loop {
            match self.core.index.get(key.as_bytes(), &pins) {
                Ok(None) => return Ok(None),
                Ok(Some(value)) => return Ok(Checksums::decode(&value).ok()),
                Err(need) => self.core.index.load(&need.0, &mut pins)?,
            }
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
            return Ok(Plan { parts: Vec::new(), stream: false });
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
                    parts.push((range, Part::Object { object, object_offset }));
                }
                Source::Below => self.plan_below(ino, range, &mut parts)?,
            }
        }
        let stream = self.note_read(ino, offset, end);
        Ok(Plan { parts, stream })
    }

    fn plan_below(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        parts: &mut Vec<(Range<u64>, Part)>,
    ) -> Attempt<()> {
        let mut at = range.start;
        while at < range.end {
            let (extents, more) = self.extents(ino, at..range.end, EXTENTS_PER_READ)?;
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
                    parts.push((begin..end, Part::Object { object, object_offset }));
                }
                at = end;
            }
            if !more {
                break;
            }
        }
        if at < range.end {
            parts.push((at..range.end, Part::Zeros));
        }
        Ok(())
    }

    /// The object's record, pinned; shared with the part before if that is in the same object.
    fn locate(&mut self, object: ObjectId, parts: &[(Range<u64>, Part)]) -> Attempt<Arc<Located>> {
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
        Ok(Arc::new(Located { record, written: None, _pin: self.core.space.pin(object) }))
    }

    /// Remembers where a stream is; true if this read belongs to one.
    fn note_read(&mut self, ino: Ino, offset: u64, end: u64) -> bool {
        let Some(inode) = self.state.inodes.get_mut(&ino) else { return false };
        // The kernel's read-ahead may ask a little out of order.
        let near = offset <= inode.read_next.saturating_add(2 * STREAM_BYTES)
            && inode.read_next <= offset.saturating_add(2 * STREAM_BYTES);
        if near && (inode.read_run > 0 || offset == 0) {
            inode.read_run += end - offset;
            inode.read_next = inode.read_next.max(end);
        } else {
            inode.read_run = 0;
            inode.read_next = end;
            if offset > 0 {
                // A stream may begin anywhere: the next read in order counts.
                inode.read_run = 1;
            }
        }
        inode.read_run >= STREAM_BYTES
    }
}
