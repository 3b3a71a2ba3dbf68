//! Objects: immutable runs of bytes, spread as shards over distinct disks.
//!
//! Records go down, they are not looked up from here: a read is told the record and where to get
//! checksums, a write returns both.

use super::error::FleetError;
use crate::base::{Lsn, ObjectId, ShardIndex};
use crate::fleet::disk::Class;
use crate::format::{Checksums, ObjectKind, ObjectRecord, Piece, Redundancy};

use super::space::ReserveLevel;

mod encode;
mod in_place;
mod read_plan;
mod reader;
mod rebuild;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod verify;
mod write_plan;
mod writer;

pub use reader::ShardMemory;
pub use rebuild::{REBUILD_BYTES, Rebuild, Rebuilt};
pub use store::{ObjectContext, ObjectStore};
pub use verify::{Judge, ShardHealth};

/// An object to be written.
#[derive(Clone, Copy, Debug)]
pub struct WriteObject<'a> {
    /// Its id, from [`ObjectStore::new_id`], for objects whose bytes name it; else None.
    pub id: Option<ObjectId>,
    /// What it holds.
    pub kind: ObjectKind,
    /// The redundancy wished for; fewer disks at hand make it narrower at full margin [R12]. For
    /// data: from [`ObjectStore::geometry_for`].
    pub redundancy: Redundancy,
    /// Its bytes, in pieces that are joined: 1 byte to `OBJECT_BYTES_MAX` in all.
    pub data: &'a [&'a [u8]],
    /// Its owners' list [R17]; written after the bytes, inside the object. Empty for tables.
    pub pieces: &'a [Piece],
    /// Bytes of a cell: `CELL_BYTES` or `CELL_BYTES_LARGE`.
    pub cell_bytes: u32,
    /// Queue class of its I/O.
    pub class: Class,
    /// How deep it may go into the reserves [R22].
    pub level: ReserveLevel,
    /// The highest LSN assigned so far [R26].
    pub lsn: Lsn,
}

/// A written and flushed object that nothing names yet. Its places stay held until `Space::put` is
/// told of the batch that names it, or [`ObjectStore::release`] gives it up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredObject {
    /// Its record.
    pub record: ObjectRecord,
    /// Its lists of checksums, by `ObjectRecord::checksum_list`: one per shard, one in all for
    /// replicas [R16].
    pub checksums: Vec<Checksums>,
}

/// Where a read gets the checksums of a shard from; asked only for the lists it needs: one for a
/// direct read. May wait (for a block of the index), so no lock is held around it [R23].
pub trait ChecksumSource {
    /// The list; None if it is not known: shards under it cannot be verified and are not used [I4].
    fn list(&self, object: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError>;
}

/// Lists at hand, by number.
impl ChecksumSource for [Checksums] {
    fn list(&self, _: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError> {
        Ok(self.get(list.as_usize()).cloned())
    }
}

/// Lists at hand, by number, some missing.
impl ChecksumSource for [Option<Checksums>] {
    fn list(&self, _: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError> {
        Ok(self.get(list.as_usize()).cloned().flatten())
    }
}

/// Lists fetched when they are needed.
impl<F> ChecksumSource for F
where
    F: Fn(ObjectId, ShardIndex) -> Result<Option<Checksums>, FleetError>,
{
    fn list(&self, object: ObjectId, list: ShardIndex) -> Result<Option<Checksums>, FleetError> {
        self(object, list)
    }
}
