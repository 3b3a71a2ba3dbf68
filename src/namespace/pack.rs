//! Packing: bytes of files, joined to objects. The flusher packs what is dirty, compaction what is still
//! alive of sparse objects, each into objects of their own: survivors and fresh data die at different times.
//!
//! Fresh data come in the order (directory, file, offset), so that a file lies together, and small files of
//! one directory: they die together. They are not told apart by how soon what they replace had died. In a
//! model of scattered overwrites, where it helps most, that saved less than a tenth of what reclaim moves;
//! it would cost a look into the index for each piece of a flush, and files that lie in order.

use super::core::Core;
use super::error::NamespaceError;
use super::flush::no_space;
use super::overlay::Bytes;
use super::written::Written;
use crate::base::limits::{CELL_BYTES, SHARD_BYTES};
use crate::base::sync::Arc;
use crate::base::units::round_up;
use crate::base::{Ino, MIB, UNIT_BYTES};
use crate::fleet::WriteObject;
use crate::fleet::disk::Class;
use crate::fleet::space::{RUN_UNITS_LEAST, ReserveLevel};
use crate::format::{ObjectKind, PIECE_BYTES, Piece};

/// Objects written together: their shards are in flight at once, and one flush a disk covers all.
pub(super) const OBJECTS_AT_ONCE: usize = 4;
/// The smallest shards that full objects are split into for want of longer runs. A header unit each: a
/// fifth of what they take.
const SHARD_BYTES_LEAST: u64 = 16 << 10;

const _: () = assert!(
    SHARD_BYTES_LEAST + UNIT_BYTES == RUN_UNITS_LEAST.bytes(),
    "R22: what is promised can be placed"
);

/// A part of an object: bytes of one file that lie together.
pub(super) struct Part {
    /// Which of the caller's things it belongs to.
    pub(super) owner: usize,
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) length: u64,
}

/// Parts of one object and where they begin in it.
#[derive(Default)]
pub(super) struct Packed {
    pub(super) parts: Vec<(u64, Part)>,
    end: u64,
}

/// Parts, in the order in which they are packed.
pub(super) struct Packer<I: Iterator<Item = Part>> {
    rest: I,
    leftover: Option<Part>,
    capacity: u64,
}

impl<I: Iterator<Item = Part>> Packer<I> {
    /// `capacity`: [`Core::object_capacity`].
    pub(super) fn new(parts: I, capacity: u64) -> Packer<I> {
        Packer { rest: parts, leftover: None, capacity }
    }

    /// Objects to be written at once; none if all is packed.
    pub(super) fn next_group(&mut self) -> Vec<Packed> {
        let mut group = Vec::new();
        while group.len() < OBJECTS_AT_ONCE {
            let packed = self.next();
            if packed.is_empty() {
                break;
            }
            group.push(packed);
        }
        group
    }

    /// Fills one object with parts, in their order.
    fn next(&mut self) -> Packed {
        let mut packed = Packed::default();
        while let Some(mut part) = self.leftover.take().or_else(|| self.rest.next()) {
            // The owners' list may be longer than the unit that is kept for it.
            let list = ((packed.parts.len() + 1) * PIECE_BYTES) as u64;
            let room = (self.capacity + UNIT_BYTES)
                .saturating_sub(packed.start_of(&part) + list.max(UNIT_BYTES));
            if part.length > room {
                // A stream goes on in the next object; anything else that is small stays in one piece.
                let splits = part.length > MIB || packed.is_empty() || packed.ends_before(&part);
                if room < UNIT_BYTES || !splits {
                    self.leftover = Some(part);
                    break;
                }
                self.leftover = Some(part.split_off(room));
                packed.push(part);
                break;
            }
            packed.push(part);
        }
        packed
    }
}

impl Core {
    /// How deep bytes of files may go into the reserves [R22]. What recovery writes was acknowledged: it
    /// is not refused.
    fn data_level(&self) -> ReserveLevel {
        if self.is_recovering() { ReserveLevel::Repair } else { ReserveLevel::Reclaim }
    }

    /// Bytes of file content in a full object.
    pub(super) fn object_capacity(&self) -> u64 {
        self.packed_bytes(SHARD_BYTES)
    }

    /// Bytes of file content in an object of such shards: the owners' list takes a unit at its end, so
    /// that full objects of a large file begin at unit boundaries.
    fn packed_bytes(&self, shard_bytes: u64) -> u64 {
        self.redundancy.data_shards() as u64 * shard_bytes - UNIT_BYTES
    }

    /// Packs the parts in their order and writes them; tells `stored` of every object as soon as it is
    /// durable. Free space may be in splinters: then in smaller shards, as small as they must be [R22].
    pub(super) fn write_parts(
        &self,
        parts: Vec<Part>,
        class: Class,
        stored: &mut dyn FnMut(&Packed, Arc<Written>),
    ) -> Result<(), NamespaceError> {
        self.write_shards(parts.into_iter(), SHARD_BYTES, class, stored)
    }

    fn write_shards(
        &self,
        parts: impl Iterator<Item = Part>,
        shard_bytes: u64,
        class: Class,
        stored: &mut dyn FnMut(&Packed, Arc<Written>),
    ) -> Result<(), NamespaceError> {
        let mut packer = Packer::new(parts, self.packed_bytes(shard_bytes));
        loop {
            let group = packer.next_group();
            if group.is_empty() {
                return Ok(());
            }
            match self.write_packed(&group, shard_bytes, class) {
                Ok(written) => {
                    for (packed, object) in group.iter().zip(written) {
                        self.state.lock().in_flush.insert(object.record().id);
                        stored(packed, object);
                    }
                }
                Err(NamespaceError::NoSpace) if shard_bytes > SHARD_BYTES_LEAST => {
                    let parts = group.into_iter().flat_map(|packed| packed.parts);
                    let mut parts = parts.map(|(_, part)| part);
                    let parts: &mut dyn Iterator<Item = Part> = &mut parts;
                    self.write_shards(parts, shard_bytes / 2, class, stored)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes some objects at once; every disk is flushed once for all of them.
    fn write_packed(
        &self,
        group: &[Packed],
        shard_bytes: u64,
        class: Class,
    ) -> Result<Vec<Arc<Written>>, NamespaceError> {
        // Not inside the call below: it would hold the lock across the whole write.
        let lsn = self.state.lock().durable;
        let contents: Vec<(Vec<&[u8]>, Vec<Piece>)> =
            group.iter().map(|packed| (packed.slices(), packed.pieces())).collect();
        let objects: Vec<WriteObject<'_>> = group
            .iter()
            .zip(&contents)
            .map(|(packed, (data, pieces))| {
                let list_bytes = (pieces.len() * PIECE_BYTES) as u64;
                let (redundancy, _) =
                    self.objects.geometry_for(packed.end + list_bytes, shard_bytes);
                WriteObject {
                    id: None,
                    kind: ObjectKind::Data,
                    redundancy,
                    data,
                    pieces,
                    cell_bytes: CELL_BYTES as u32,
                    class,
                    level: self.data_level(),
                    lsn,
                }
            })
            .collect();
        let stored = self.objects.write_all(&objects).map_err(no_space)?;
        let written = stored
            .into_iter()
            .map(|stored| Arc::new(Written::new(stored, self.space.clone(), self.spent.clone())));
        Ok(written.collect())
    }
}

impl Packed {
    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of files.
    pub(super) fn bytes(&self) -> u64 {
        self.parts.iter().map(|(_, part)| part.length).sum()
    }

    /// Bytes of the object, its owners' list included.
    pub(super) fn object_bytes(&self) -> u64 {
        self.end + (self.pieces().len() * PIECE_BYTES) as u64
    }

    /// Whether the part continues the last one.
    fn ends_before(&self, part: &Part) -> bool {
        let last = self.parts.last();
        last.is_some_and(|(start, last)| {
            last.ino == part.ino
                && last.offset + last.length == part.offset
                && start + last.length == self.end
        })
    }

    /// Where the part would begin: right behind what it continues, else aligned, so that a read of
    /// an aligned unit of a file is one of an aligned unit of a shard.
    fn start_of(&self, part: &Part) -> u64 {
        match part.length {
            _ if self.ends_before(part) => self.end,
            _ if part.length >= UNIT_BYTES => round_up(self.end, UNIT_BYTES),
            _ => round_up(self.end, 64),
        }
    }

    /// The object's bytes, gaps filled with zeros.
    fn slices(&self) -> Vec<&[u8]> {
        static ZEROS: [u8; UNIT_BYTES as usize] = [0; UNIT_BYTES as usize];
        let mut slices: Vec<&[u8]> = Vec::with_capacity(2 * self.parts.len());
        let mut end = 0;
        for (start, part) in &self.parts {
            if *start > end {
                slices.push(&ZEROS[..(*start - end) as usize]);
            }
            slices.push(part.bytes.slice(part.length));
            end = start + part.length;
        }
        slices
    }

    /// Whose bytes lie where [R17].
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (start, part) in &self.parts {
            match pieces.last_mut() {
                Some(last)
                    if last.ino == part.ino
                        && last.file_offset + u64::from(last.length) == part.offset
                        && u64::from(last.object_offset + last.length) == *start =>
                {
                    last.length += part.length as u32;
                }
                _ => pieces.push(Piece {
                    ino: part.ino,
                    file_offset: part.offset,
                    object_offset: *start as u32,
                    length: part.length as u32,
                }),
            }
        }
        pieces
    }

    fn push(&mut self, part: Part) {
        let start = self.start_of(&part);
        self.end = start + part.length;
        self.parts.push((start, part));
    }
}

impl Part {
    /// Cuts this part at `at` (whole units); returns the rest.
    fn split_off(&mut self, at: u64) -> Part {
        let at = at / UNIT_BYTES * UNIT_BYTES;
        let rest = Part {
            offset: self.offset + at,
            bytes: Bytes { chunk: self.bytes.chunk.clone(), start: self.bytes.start + at as usize },
            length: self.length - at,
            ..*self
        };
        self.length = at;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ino: u64, offset: u64, length: u64) -> Part {
        let chunk = Arc::new(vec![0; length as usize].into());
        Part { owner: 0, ino: Ino(ino), offset, bytes: Bytes { chunk, start: 0 }, length }
    }

    /// Bytes of files in each object.
    fn packed(parts: Vec<Part>, capacity: u64) -> Vec<u64> {
        let mut packer = Packer::new(parts.into_iter(), capacity);
        let mut sizes = Vec::new();
        loop {
            let group = packer.next_group();
            if group.is_empty() {
                return sizes;
            }
            sizes.extend(group.iter().map(Packed::bytes));
        }
    }

    #[test]
    fn a_stream_fills_its_objects_and_other_small_parts_stay_whole() {
        let capacity = 10 * MIB - UNIT_BYTES;
        let stream = (0..25).map(|at| part(1, at * MIB, MIB)).collect();
        assert_eq!(packed(stream, capacity), [capacity, capacity, 5 * MIB + 2 * UNIT_BYTES]);
        let holes = (0..25).map(|at| part(1, 2 * at * MIB, MIB)).collect();
        assert_eq!(packed(holes, capacity), [9 * MIB, 9 * MIB, 7 * MIB]);
        let files = (0..25).map(|ino| part(ino, 0, MIB)).collect();
        assert_eq!(packed(files, capacity), [9 * MIB, 9 * MIB, 7 * MIB]);
        let large = vec![part(1, 0, 3 * MIB), part(2, 0, 25 * MIB)];
        assert_eq!(packed(large, capacity), [capacity, capacity, 8 * MIB + 2 * UNIT_BYTES]);
    }
}
