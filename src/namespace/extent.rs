//! Extents of files in the index, and the live bytes of the objects they point at [R17].
//!
//! Invariant: the extents of a file are disjoint, and the live counter of an object is the sum of the
//! lengths of all extents that point at it. When the counter reaches exactly 0 the object's keys are
//! deleted in the same batch, and its space is free once that batch is durable [I3].

use std::ops::Range;

use super::core::Core;
use super::error::NamespaceError;
use super::tx::{Attempt, Effect, Tx, decode};
use super::written::Written;
use crate::base::sync::Arc;
use crate::base::{Ino, ObjectId, ShardIndex};
use crate::format::{ExtentValue, Key, ObjectRecord, Redundancy};

/// What a change of extents did to the file's allocated bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Replaced {
    /// Bytes that no longer belong to the file.
    pub(super) removed_bytes: u64,
    /// Extents that were touched.
    pub(super) extents: usize,
    /// There are more extents in the range, from here on: go on in another transaction [R19].
    pub(super) rest: Option<u64>,
}

/// How many checksum lists an object has: replicas share one [R16].
pub(super) fn checksum_lists(record: &ObjectRecord) -> usize {
    match record.redundancy {
        Redundancy::Erasure { .. } => record.redundancy.shards(),
        Redundancy::Replica { .. } => 1,
    }
}

impl Core {
    /// Frees the objects of flushes that nobody holds any more and that have no live byte: what was
    /// overwritten before it was cut.
    pub(super) fn free_spent(&self) -> Result<(), NamespaceError> {
        let spent = self.spent.take();
        // All of them first: what an error leaves is found by the next survey, and by recovery.
        let mut state = self.state.lock();
        spent.iter().for_each(|(object, _)| {
            state.in_flush.remove(object);
        });
        drop(state);
        for (object, _) in spent.into_iter().filter(|&(_, named)| named) {
            self.change_inside(|tx| tx.settle_spent(object))?;
        }
        Ok(())
    }
}

impl Tx<'_> {
    /// Takes `range` out of the file's extents, about `limit` of them at most. `from`: where the call
    /// before for this range stopped, if it did; nothing is left of the range before that.
    pub(super) fn remove_extents(
        &mut self,
        ino: Ino,
        range: Range<u64>,
        from: Option<u64>,
        limit: usize,
    ) -> Attempt<Replaced> {
        let (extents, rest) = match from {
            None => self.extents(ino, range.clone(), limit)?,
            // Not what begins before: looking for that passes everything that was deleted already.
            Some(from) => self.extents_from(ino, from..range.end, limit)?,
        };
        let mut replaced = Replaced { removed_bytes: 0, extents: extents.len(), rest };
        let mut touched: Vec<ObjectId> = Vec::new();
        for (offset, extent) in extents {
            let end = offset + extent.length;
            if offset < range.start {
                let length = range.start - offset;
                self.put_extent(ino, offset, ExtentValue { length, ..extent });
            } else {
                self.delete(Key::extent(ino, offset));
            }
            if end > range.end {
                // What was never written lies nowhere, and may be longer than any object.
                let skip = if extent.unwritten { 0 } else { range.end - offset };
                let tail = ExtentValue {
                    length: end - range.end,
                    object_offset: extent.object_offset + skip as u32,
                    ..extent
                };
                self.put_extent(ino, range.end, tail);
            }
            let removed = end.min(range.end) - offset.max(range.start);
            replaced.removed_bytes += removed;
            if !extent.unwritten {
                self.add(Key::live(extent.object), -(removed as i64));
                touched.push(extent.object);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for object in touched {
            self.free_if_dead(object)?;
        }
        Ok(replaced)
    }

    /// The file's bytes of `offset ..` are now `length` bytes of `object`; nothing else may claim
    /// that range in the index any more.
    pub(super) fn place_extent(
        &mut self,
        ino: Ino,
        offset: u64,
        length: u64,
        object: &Arc<Written>,
        object_offset: u32,
    ) {
        self.name_object(object);
        self.place_in(ino, offset, length, object.record().id, object_offset);
    }

    /// The same in an object that is named.
    pub(super) fn place_in(
        &mut self,
        ino: Ino,
        offset: u64,
        length: u64,
        object: ObjectId,
        object_offset: u32,
    ) {
        self.add(Key::live(object), length as i64);
        self.put_extent(
            ino,
            offset,
            ExtentValue { length, object, object_offset, unwritten: false },
        );
    }

    fn put_extent(&mut self, ino: Ino, offset: u64, extent: ExtentValue) {
        self.put(Key::extent(ino, offset), extent.encode());
    }

    /// The record and checksums of an object enter the batch, once.
    pub(super) fn name_object(&mut self, object: &Arc<Written>) {
        let record = object.record();
        let key = Key::object(record.id);
        if object.is_named() || self.is_staged(&key) {
            return;
        }
        self.put(key, record.encode());
        for (list, checksums) in object.checksums().iter().enumerate() {
            let list = ShardIndex(list as u8);
            self.put(Key::checksums(record.id, list), checksums.encode());
        }
        self.effect(Effect::Name(object.clone()));
    }

    /// The object's keys leave with the last live byte, unless somebody still counts on it.
    pub(super) fn free_if_dead(&mut self, object: ObjectId) -> Attempt<()> {
        if self.counter(&Key::live(object))? != 0 {
            return Ok(());
        }
        let Some(value) = self.get(&Key::object(object))? else { return Ok(()) };
        if self.state.in_flush.contains(&object) {
            self.note_spent(object);
            return Ok(());
        }
        let record = decode(ObjectRecord::decode(&value))?;
        self.delete(Key::object(object));
        for list in 0..checksum_lists(&record) {
            self.delete(Key::checksums(object, ShardIndex(list as u8)));
        }
        self.delete(Key::live(object));
        self.effect(Effect::Free(record));
        Ok(())
    }
}
