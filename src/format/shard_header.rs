//! The 4 KiB unit before each shard's payload. It says all that a scan of the disks needs to rebuild
//! the index [R26], and what in-place repair must see before it writes [R21]. Normal reads never look.
//!
//! ```text
//!   0  frame "ISOSHARD", version 1, length 4096
//!  24  16 B pool · 16 B disk uuid
//!  56  u64 object · u64 own offset, units · u64 LSN
//!  80  u32 epoch · u8 shard · u8 kind · u8 codec · u8 log2(cell bytes)
//!  88  3 B redundancy · u8 flags: 1 provisional · u32 object length
//!  96  u32 shard bytes · u32 pieces offset · u32 record version · u16 cells · u16 reserved
//! 112  cell checksums, u32 each, at most 512; 0 of them where they do not fit; then zeros
//! ```

use std::fmt::Write as _;

use super::FormatError;
use super::bytes::{Reader, as_u16};
use super::frame::Kind;
use super::object_record::{Checksums, ObjectKind, ObjectRecord, Place, Redundancy};
use crate::base::{
    DiskIndex, DiskUuid, Epoch, Lsn, ObjectId, PoolUuid, ShardIndex, UNIT_BYTES, Units,
};

/// Bytes of a header.
pub const SHARD_HEADER_BYTES: usize = UNIT_BYTES as usize;
/// Checksums that a header holds; shards with more cells have them in the index only.
pub const HEADER_CELLS_MAX: usize = 512;

const KIND: Kind = Kind {
    what: "shard header",
    magic: *b"ISOSHARD",
    version: 1,
    oldest: 1,
    bytes_max: SHARD_HEADER_BYTES as u64,
};
const FIXED_BYTES: usize = 112;

const _: () = assert!(FIXED_BYTES + 4 * HEADER_CELLS_MAX <= SHARD_HEADER_BYTES);

/// What a shard says about itself and its object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardHeader {
    /// Which pool.
    pub pool: PoolUuid,
    /// Which disk.
    pub disk: DiskUuid,
    /// Where on the disk this header is, in units of the data area.
    pub offset: Units,
    /// Which shard.
    pub shard: ShardIndex,
    /// The epoch that wrote this shard (a repaired shard is younger than its object).
    pub epoch: Epoch,
    /// The object's geometry, but for its places.
    pub object: ObjectHead,
    /// This shard's checksums [I4]; empty if it has more than `HEADER_CELLS_MAX` cells.
    pub checksums: Checksums,
}

/// The part of an object record that each of its shards carries: [`ObjectRecord`] without places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectHead {
    /// Which object.
    pub id: ObjectId,
    /// What it holds.
    pub kind: ObjectKind,
    /// How it is protected.
    pub redundancy: Redundancy,
    /// Which matrix made the parity.
    pub codec: u8,
    /// Bytes of a cell.
    pub cell_bytes: u32,
    /// Bytes of the object.
    pub length: u32,
    /// Bytes of a shard's payload.
    pub shard_bytes: u32,
    /// Where the owners' list begins inside the object.
    pub pieces_offset: u32,
    /// Version of the record when the shard was written.
    pub version: u32,
    /// Narrower than it should be.
    pub provisional: bool,
    /// The highest LSN assigned when the object was written.
    pub lsn: Lsn,
}

impl ObjectHead {
    /// Of this record.
    pub fn of(record: &ObjectRecord) -> ObjectHead {
        ObjectHead {
            id: record.id,
            kind: record.kind,
            redundancy: record.redundancy,
            codec: record.codec,
            cell_bytes: record.cell_bytes,
            length: record.length,
            shard_bytes: record.shard_bytes,
            pieces_offset: record.pieces_offset,
            version: record.version,
            provisional: record.provisional,
            lsn: record.lsn,
        }
    }

    /// The record with these places: one per shard.
    pub fn with_places(self, places: Vec<Option<Place>>) -> ObjectRecord {
        ObjectRecord {
            id: self.id,
            kind: self.kind,
            redundancy: self.redundancy,
            codec: self.codec,
            cell_bytes: self.cell_bytes,
            length: self.length,
            shard_bytes: self.shard_bytes,
            pieces_offset: self.pieces_offset,
            version: self.version,
            provisional: self.provisional,
            lsn: self.lsn,
            places,
        }
    }

    fn is_sound(self) -> bool {
        if !self.redundancy.is_valid() {
            return false;
        }
        let nowhere = Place { disk: DiskIndex(0), offset: Units(0) };
        self.with_places(vec![Some(nowhere); self.redundancy.shards()]).is_sound()
    }
}

/// A header whose checksum is good, but which may have been written for another place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawShardHeader {
    header: ShardHeader,
    at: u64,
}

impl ShardHeader {
    /// The 4 KiB before the payload. Panics if the header makes no sense.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.is_sound(), "a shard header that makes no sense: {self:?}");
        let object = &self.object;
        let mut out = KIND.begin(SHARD_HEADER_BYTES);
        out.bytes(&self.pool.0).bytes(&self.disk.0);
        out.u64(object.id.0).u64(self.offset.0).u64(object.lsn.0);
        out.u32(self.epoch.0).u8(self.shard.0).u8(object.kind as u8);
        out.u8(object.codec).u8(object.cell_bytes.trailing_zeros() as u8);
        object.redundancy.encode(&mut out);
        out.bool(object.provisional).u32(object.length);
        out.u32(object.shard_bytes).u32(object.pieces_offset).u32(object.version);
        out.u16(as_u16(self.checksums.0.len())).u16(0);
        for &crc in &self.checksums.0 {
            out.u32(crc);
        }
        out.pad_to(SHARD_HEADER_BYTES);
        KIND.seal(out).expect("a header is padded to exactly its size")
    }

    fn is_sound(&self) -> bool {
        let cells = self.checksums.0.len();
        let object = &self.object;
        object.is_sound()
            && self.shard.as_usize() < object.redundancy.shards()
            && cells <= HEADER_CELLS_MAX
            && (cells == 0 || cells == object.shard_bytes.div_ceil(object.cell_bytes) as usize)
    }

    /// Whether this shard is the one that `record` names as `shard` [R21].
    pub fn is_shard_of(&self, record: &ObjectRecord, shard: ShardIndex) -> bool {
        let (ours, theirs) = (&self.object, ObjectHead::of(record));
        self.shard == shard
            && ObjectHead { version: 0, provisional: false, ..*ours }
                == ObjectHead { version: 0, provisional: false, ..theirs }
    }

    /// All of it as readable text, for `isotherm inspect`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let object = &self.object;
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        line("pool", self.pool.to_string());
        line("disk", format!("{} at unit {}", self.disk, self.offset.0));
        line("object", format!("{} {:?} version {}", object.id, object.kind, object.version));
        line("shard", format!("{} of {}", self.shard, object.redundancy));
        line("written", format!("epoch {} after batch {}", self.epoch, object.lsn));
        line(
            "lengths",
            format!(
                "object {} shard {} cell {} pieces at {}",
                object.length, object.shard_bytes, object.cell_bytes, object.pieces_offset
            ),
        );
        line("provisional", object.provisional.to_string());
        line("checksums", format!("{:08x?}", self.checksums.0));
        text
    }
}

impl RawShardHeader {
    /// Decodes what was read at byte `at` of a disk: at least 4 KiB.
    pub fn decode(bytes: &[u8], at: u64) -> Result<RawShardHeader, FormatError> {
        let mut reader = KIND.open(bytes, at)?;
        let header = decode_body(&mut reader)?;
        if header.is_sound() {
            Ok(RawShardHeader { header, at })
        } else {
            Err(reader.wrong("geometry"))
        }
    }

    /// The header, if it was written for this place [R26].
    pub fn verify(
        self,
        pool: PoolUuid,
        disk: DiskUuid,
        offset: Units,
    ) -> Result<ShardHeader, FormatError> {
        let field = if self.header.pool != pool {
            "pool"
        } else if self.header.disk != disk {
            "disk"
        } else if self.header.offset != offset {
            "offset"
        } else {
            return Ok(self.header);
        };
        Err(KIND.misplaced(self.at, field))
    }

    /// As [`ShardHeader::describe`]: looking is allowed before verifying.
    pub fn describe(&self) -> String {
        self.header.describe()
    }
}

fn decode_body(reader: &mut Reader<'_>) -> Result<ShardHeader, FormatError> {
    let (pool, disk) = (PoolUuid(reader.array()?), DiskUuid(reader.array()?));
    let (id, offset, lsn) = (ObjectId(reader.u64()?), Units(reader.u64()?), Lsn(reader.u64()?));
    let (epoch, shard) = (Epoch(reader.u32()?), ShardIndex(reader.u8()?));
    let kind = ObjectKind::decode(reader)?;
    let (codec, cell_shift) = (reader.u8()?, reader.u8()?);
    let cell_bytes = 1u32.checked_shl(cell_shift.into()).unwrap_or(0);
    let redundancy = Redundancy::decode(reader)?;
    let (provisional, length) = (reader.bool("flags")?, reader.u32()?);
    let (shard_bytes, pieces_offset) = (reader.u32()?, reader.u32()?);
    let (version, cells) = (reader.u32()?, reader.u16()?);
    reader.zeros(2)?;
    let cells = reader.count(cells.into(), 4, "number of cells")?;
    let checksums = Checksums((0..cells).map(|_| reader.u32()).collect::<Result<_, _>>()?);
    reader.zeros(reader.left())?;
    let object = ObjectHead {
        id,
        kind,
        redundancy,
        codec,
        cell_bytes,
        length,
        shard_bytes,
        pieces_offset,
        version,
        provisional,
        lsn,
    };
    Ok(ShardHeader { pool, disk, offset, shard, epoch, object, checksums })
}
