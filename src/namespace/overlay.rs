//! The write buffer of one file: what was done to its content since the index last heard of it.
//!
//! An overlay lies above the extents of the index. It is a map of disjoint pieces, each the result of
//! the last operation on its range: bytes still in memory, bytes already in an object that the index
//! does not name yet, or a hole (truncate, punch). Reading means: overlay first, index below.
//!
//! Every piece carries a sequence number `seq`, and what the file's record was like after the
//! operation that made it, so that "the file as of `seq`" is a point of the file's own history. A
//! *cut* [R15] commits such a point: it puts into the index what all pieces up to `seq` say, and only
//! then removes them from here (`remove_through`). What was changed later stays above, untouched.
//!
//! Pure: no locks, no I/O, no clock.

use std::collections::BTreeMap;
use std::ops::Range;

use super::chunk::Chunk;
use super::written::Written;
use crate::base::sync::Arc;
use crate::base::{Lsn, WallTime};
use crate::format::InodeRecord;

/// The bytes of a piece that is still in memory: a window into a shared chunk.
#[derive(Clone, Debug)]
pub(super) struct Bytes {
    pub(super) chunk: Arc<Chunk>,
    pub(super) start: usize,
}

/// What a piece says about its range.
#[derive(Clone, Debug)]
pub(super) enum Content {
    /// Bytes in memory. `logged`: also in the journal, in the batch of that number.
    Data { bytes: Bytes, logged: Option<Lsn> },
    /// Bytes in an object, durable, not yet named by the index. `logged` as above.
    Stored { object: Arc<Written>, object_offset: u32, logged: Option<Lsn> },
    /// Zeros: whatever the index has in this range is void.
    Hole,
}

/// One disjoint range of the overlay.
#[derive(Clone, Debug)]
pub(super) struct OverlayPiece {
    pub(super) length: u64,
    pub(super) content: Content,
    pub(super) seq: u64,
    pub(super) after: After,
}

/// What a file is like after an operation on its content: all that users can change of it. Attributes that
/// change later wait, like its data, for the next cut.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct After {
    pub(super) size: u64,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) atime: WallTime,
    pub(super) mtime: WallTime,
    pub(super) ctime: WallTime,
}

impl After {
    /// As the record says.
    pub(super) fn of(record: &InodeRecord) -> After {
        let &InodeRecord { size, mode, uid, gid, atime, mtime, ctime, .. } = record;
        After { size, mode, uid, gid, atime, mtime, ctime }
    }

    /// Makes a later record what it was then.
    pub(super) fn put_back(self, record: &mut InodeRecord) {
        let After { size, mode, uid, gid, atime, mtime, ctime } = self;
        (record.size, record.mode, record.uid, record.gid) = (size, mode, uid, gid);
        (record.atime, record.mtime, record.ctime) = (atime, mtime, ctime);
    }
}

/// A part of a read: where the bytes of a range come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// From memory.
    Data(Bytes),
    /// From an object the overlay knows.
    Stored(Arc<Written>, u32),
    /// Zeros.
    Hole,
    /// The overlay says nothing: ask the index.
    Below,
}

/// The overlay of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    pieces: BTreeMap<u64, OverlayPiece>,
    seq: u64,
    data_bytes: u64,
    /// Bytes that only the log has were overwritten or cut off here, and that is not in a cut yet: the
    /// oldest batch they are in, and the last operation that did so.
    superseded: Option<(Lsn, u64)>,
}

/// An append grows the chunk of the piece before it up to this, so that small sequential writes do
/// not make a piece each.
const APPEND_BYTES_MAX: usize = 1 << 20;

impl Overlay {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes held in memory.
    pub(super) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// The sequence number of the latest operation.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// True if bytes of the file as it is durable are in the journal in a batch up to `through`, and only
    /// there: a piece here, or what was here before operations that no cut has committed yet.
    pub(super) fn has_logged(&self, through: Lsn) -> bool {
        self.superseded.is_some_and(|(lsn, _)| lsn <= through)
            || self
                .pieces
                .values()
                .any(|piece| piece.content.logged().is_some_and(|lsn| lsn <= through))
    }

    /// Bytes in memory that are not in the journal.
    pub(super) fn unlogged_bytes(&self) -> u64 {
        self.pieces
            .values()
            .filter(|piece| matches!(piece.content, Content::Data { logged: None, .. }))
            .map(|piece| piece.length)
            .sum()
    }

    /// The file changed without its bytes: it became longer, say. A point of its history all the same.
    pub(super) fn touch(&mut self) {
        self.seq += 1;
    }

    /// New bytes at `offset`.
    pub(super) fn write(&mut self, offset: u64, chunk: Arc<Chunk>, after: After) {
        let length = chunk.len() as u64;
        if length == 0 {
            return;
        }
        self.seq += 1;
        self.supersede(offset..offset + length);
        if self.try_append(offset, &chunk, after) {
            return;
        }
        let content = Content::Data { bytes: Bytes { chunk, start: 0 }, logged: None };
        self.insert(offset, length, content, after);
    }

    /// Replayed bytes, which are in the journal already.
    pub(super) fn write_logged(&mut self, offset: u64, bytes: Vec<u8>, lsn: Lsn, after: After) {
        let length = bytes.len() as u64;
        if length == 0 {
            return;
        }
        self.seq += 1;
        self.carve(offset..offset + length);
        let bytes = Bytes { chunk: Arc::new(Chunk::from(bytes)), start: 0 };
        self.insert(offset, length, Content::Data { bytes, logged: Some(lsn) }, after);
    }

    /// A hole over `range`; its end may be `u64::MAX` (truncate).
    pub(super) fn punch(&mut self, range: Range<u64>, after: After) {
        if range.start >= range.end {
            return;
        }
        self.seq += 1;
        self.supersede(range.clone());
        self.insert(range.start, range.end - range.start, Content::Hole, after);
    }

    /// Forgets what the overlay says about `range`: the index knows better (replay).
    pub(super) fn forget(&mut self, range: Range<u64>) {
        self.carve(range);
    }

    /// Forgets everything: the file is gone.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.data_bytes = 0;
        self.superseded = None;
    }

    /// Splits `range` into parts and where each comes from, in order.
    pub(super) fn sources(&self, range: Range<u64>) -> Vec<(Range<u64>, Source)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        let first = self.pieces.range(..=at).next_back().map_or(at, |(&offset, _)| offset);
        for (&offset, piece) in self.pieces.range(first..range.end) {
            let end = offset + piece.length;
            if end <= at {
                continue;
            }
            if offset > at {
                parts.push((at..offset, Source::Below));
                at = offset;
            }
            let stop = end.min(range.end);
            let skip = at - offset;
            let source = match &piece.content {
                Content::Data { bytes, .. } => Source::Data(Bytes {
                    chunk: bytes.chunk.clone(),
                    start: bytes.start + skip as usize,
                }),
                Content::Stored { object, object_offset, .. } => {
                    Source::Stored(object.clone(), object_offset + skip as u32)
                }
                Content::Hole => Source::Hole,
            };
            parts.push((at..stop, source));
            at = stop;
        }
        if at < range.end {
            parts.push((at..range.end, Source::Below));
        }
        parts
    }

    /// The file's bytes of `range` are now in `object`, if a piece up to `seq` still says so: such
    /// pieces change from memory to object. Returns the bytes of memory this gave back.
    pub(super) fn store(
        &mut self,
        range: Range<u64>,
        seq: u64,
        object: &Arc<Written>,
        object_offset: u32,
    ) -> u64 {
        self.split(range.start);
        self.split(range.end);
        let mut freed = 0;
        for key in self.covering(&range) {
            let piece = self.pieces.get_mut(&key).expect("the key was just seen");
            if piece.seq > seq {
                continue;
            }
            if let Content::Data { logged, .. } = piece.content {
                let skip = (key - range.start) as u32;
                freed += piece.length;
                piece.content = Content::Stored {
                    object: object.clone(),
                    object_offset: object_offset + skip,
                    logged,
                };
            }
        }
        self.data_bytes -= freed;
        freed
    }

    /// After an inline cut at `lsn`: bytes in memory are in the journal now; holes and bytes in
    /// objects were taken over by the index and leave.
    pub(super) fn logged(&mut self, lsn: Lsn) {
        self.superseded = None;
        self.pieces.retain(|_, piece| matches!(piece.content, Content::Data { .. }));
        for piece in self.pieces.values_mut() {
            if let Content::Data { logged, .. } = &mut piece.content {
                logged.get_or_insert(lsn);
            }
        }
    }

    /// Removes all pieces up to `seq`: the index has them. Returns the bytes of memory given back.
    pub(super) fn remove_through(&mut self, seq: u64) -> u64 {
        self.superseded = self.superseded.filter(|&(_, last)| last > seq);
        let mut freed = 0;
        self.pieces.retain(|_, piece| {
            let stays = piece.seq > seq;
            if !stays && matches!(piece.content, Content::Data { .. }) {
                freed += piece.length;
            }
            stays
        });
        self.data_bytes -= freed;
        freed
    }

    /// Removes what pieces up to `seq` say about `range`. Returns the bytes of memory given back.
    pub(super) fn remove_range(&mut self, range: Range<u64>, seq: u64) -> u64 {
        let before = self.data_bytes;
        self.split(range.start);
        self.split(range.end);
        let keys: Vec<u64> =
            self.covering(&range).filter(|key| self.pieces[key].seq <= seq).collect();
        for key in keys {
            let piece = self.pieces.remove(&key).expect("the key was just seen");
            if matches!(piece.content, Content::Data { .. }) {
                self.data_bytes -= piece.length;
            }
        }
        before - self.data_bytes
    }

    /// The pieces up to `seq`, as a point of the file's history.
    pub(super) fn snapshot(&self, seq: u64) -> Vec<(u64, OverlayPiece)> {
        self.pieces
            .iter()
            .filter(|(_, piece)| piece.seq <= seq)
            .map(|(&offset, piece)| (offset, piece.clone()))
            .collect()
    }

    /// Up to which operation a flush should go so that its bytes fill whole objects of
    /// `object_bytes`: the whole overlay if it is smaller than that.
    pub(super) fn flush_point(&self, object_bytes: u64) -> u64 {
        if self.data_bytes < 2 * object_bytes {
            return self.seq;
        }
        let budget = self.data_bytes / object_bytes * object_bytes;
        let mut by_seq: Vec<(u64, u64)> = self
            .pieces
            .values()
            .filter(|piece| matches!(piece.content, Content::Data { .. }))
            .map(|piece| (piece.seq, piece.length))
            .collect();
        by_seq.sort_unstable();
        let mut total = 0;
        let mut point = self.seq;
        for (seq, length) in by_seq {
            if total + length > budget {
                break;
            }
            total += length;
            point = seq;
        }
        point
    }

    /// What the file was like after the last operation up to `seq`, if the overlay knows it.
    pub(super) fn after(&self, seq: u64) -> Option<After> {
        self.pieces
            .values()
            .filter(|piece| piece.seq <= seq)
            .max_by_key(|piece| piece.seq)
            .map(|piece| piece.after)
    }

    /// Panics if the overlay contradicts itself.
    pub(super) fn check_invariants(&self) {
        let mut end = 0;
        let mut data = 0;
        for (&offset, piece) in &self.pieces {
            assert!(piece.length > 0, "a piece is never empty");
            assert!(offset >= end, "pieces never overlap");
            assert!(piece.seq <= self.seq, "a piece is not from the future");
            end = offset.checked_add(piece.length).expect("a piece ends within 64 bits");
            if let Content::Data { bytes, .. } = &piece.content {
                data += piece.length;
                assert!(bytes.start + piece.length as usize <= bytes.chunk.len());
            }
        }
        assert_eq!(data, self.data_bytes, "memory is counted exactly");
    }

    /// Makes `at` a boundary between pieces, if it lies inside one.
    fn split(&mut self, at: u64) {
        let Some((&start, piece)) = self.pieces.range_mut(..at).next_back() else { return };
        let end = start + piece.length;
        if end > at {
            let tail = piece.part(at - start, end - at);
            piece.length = at - start;
            self.pieces.insert(at, tail);
        }
    }

    fn insert(&mut self, offset: u64, length: u64, content: Content, after: After) {
        if matches!(content, Content::Data { .. }) {
            self.data_bytes += length;
        }
        let piece = OverlayPiece { length, content, seq: self.seq, after };
        let old = self.pieces.insert(offset, piece);
        assert!(old.is_none(), "the range was carved out before");
    }

    fn try_append(&mut self, offset: u64, more: &[u8], after: After) -> bool {
        let seq = self.seq;
        let Some((&start, piece)) = self.pieces.range_mut(..offset).next_back() else {
            return false;
        };
        if start + piece.length != offset {
            return false;
        }
        let Content::Data { bytes, logged: None } = &mut piece.content else { return false };
        let used = bytes.start + piece.length as usize;
        if used != bytes.chunk.len() {
            return false;
        }
        // Unique: no reader and no flush holds it, so growing it in place is seen by nobody.
        let grown =
            Arc::get_mut(&mut bytes.chunk).map(|chunk| chunk.append(more, APPEND_BYTES_MAX));
        if grown != Some(true) {
            return false;
        }
        piece.length += more.len() as u64;
        piece.seq = seq;
        piece.after = after;
        self.data_bytes += more.len() as u64;
        true
    }

    fn covering(&self, range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
        let first = self
            .pieces
            .range(..=range.start)
            .next_back()
            .map_or(range.start, |(&offset, _)| offset);
        let keys: Vec<u64> = if first < range.end {
            self.pieces
                .range(first..range.end)
                .filter(|(offset, piece)| *offset + piece.length > range.start)
                .map(|(&offset, _)| offset)
                .collect()
        } else {
            Vec::new()
        };
        keys.into_iter()
    }

    /// Makes room for an operation: what the log has of `range` stays the durable content until a cut.
    fn supersede(&mut self, range: Range<u64>) {
        let logged = self.covering(&range).filter_map(|key| self.pieces[&key].content.logged());
        let before = self.superseded.map(|(lsn, _)| lsn);
        let touched = logged.min();
        if let Some(lsn) = touched {
            self.superseded = Some((before.map_or(lsn, |before| before.min(lsn)), self.seq));
        }
        self.carve(range);
    }

    /// Makes room: whatever pieces say about `range` is dropped, split at its ends.
    fn carve(&mut self, range: Range<u64>) {
        for key in self.covering(&range) {
            let piece = self.pieces.remove(&key).expect("the key was just seen");
            let end = key + piece.length;
            let is_data = matches!(piece.content, Content::Data { .. });
            if is_data {
                self.data_bytes -= piece.length;
            }
            if end > range.end {
                let tail = piece.part(range.end - key, end - range.end);
                if is_data {
                    self.data_bytes += tail.length;
                }
                self.pieces.insert(range.end, tail);
            }
            if key < range.start {
                let head = piece.part(0, range.start - key);
                if is_data {
                    self.data_bytes += head.length;
                }
                self.pieces.insert(key, head);
            }
        }
    }
}

impl Content {
    /// The batch that has these bytes in the log.
    fn logged(&self) -> Option<Lsn> {
        match self {
            Content::Data { logged, .. } | Content::Stored { logged, .. } => *logged,
            Content::Hole => None,
        }
    }
}

impl OverlayPiece {
    /// The part of this piece that begins `skip` bytes in.
    fn part(&self, skip: u64, length: u64) -> OverlayPiece {
        let content = match &self.content {
            Content::Data { bytes, logged } => Content::Data {
                bytes: Bytes { chunk: bytes.chunk.clone(), start: bytes.start + skip as usize },
                logged: *logged,
            },
            Content::Stored { object, object_offset, logged } => Content::Stored {
                object: object.clone(),
                object_offset: object_offset + skip as u32,
                logged: *logged,
            },
            Content::Hole => Content::Hole,
        };
        OverlayPiece { length, content, ..self.clone() }
    }
}

impl Bytes {
    /// The first `length` bytes.
    pub(super) fn slice(&self, length: u64) -> &[u8] {
        &self.chunk[self.start..self.start + length as usize]
    }
}

#[cfg(test)]
mod tests;
