//! The object record: where the shards of an object are, and beside it, under keys of their own, one
//! CRC32C a cell per shard [R16].
//!
//! ```text
//! record: 64 bytes + 12 a shard
//!   0  u16 version = 1          2  u8 kind           3  u8 layout: 0 replica, 1 erasure
//!   4  u8 data shards k or r    5  u8 parity m, or 0 6  u8 codec id    7  u8 log2(cell bytes)
//!   8  u64 object id           16  u64 LSN at writing (epoch's last known; for salvage [R26])
//!  24  u32 length, bytes       28  u32 shard length L, bytes (multiple of 4096)
//!  32  u32 pieces offset       36  u32 pieces length (the owners' list inside the object [R17])
//!  40  u32 record version (raised by every rewrite; put is conditional on it [R20])
//!  44  u8 flags: 1 provisional [R13]   45..64 reserved, zero
//!  64  per shard: u16 disk (0xffff: missing) · u16 reserved · u64 offset in units
//! ```

use std::fmt;

use super::FormatError;
use super::bytes::{Reader, Writer, as_u16};
use super::layout::DISK_BYTES_MAX;
use crate::base::limits::{DISKS_MAX, PARITY_MAX, SHARDS_MAX};
use crate::base::{DiskIndex, Ino, KIB, Lsn, MIB, ObjectId, ShardIndex, UNIT_BYTES, Units};

const VERSION: u16 = 1;
/// Bytes of a record before its shards.
const RECORD_BYTES: usize = 64;
/// Bytes of a record for each shard.
const PLACE_BYTES: usize = 12;
const MISSING: u16 = 0xffff;
const PROVISIONAL: u8 = 1;
/// The only codec so far: `reed-solomon-erasure`'s Vandermonde matrix over GF(2^8)/0x11D.
pub const CODEC_VANDERMONDE: u8 = 1;
/// The smallest and the largest cell.
const CELL_BYTES_MIN: u32 = 4 * KIB as u32;
const CELL_BYTES_MAX: u32 = 2 * MIB as u32;
/// Bytes of one entry of an owners' list.
pub const PIECE_BYTES: usize = 24;

const _: () = assert!(DISKS_MAX < MISSING as usize);

/// What an object holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum ObjectKind {
    /// Bytes of files.
    Data = 1,
    /// A sorted table of the index.
    Table = 2,
    /// Part of the manifest.
    Manifest = 3,
    /// Part of the space snapshot.
    SpaceSnapshot = 4,
}

/// Redundancy of one object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Redundancy {
    /// `data` + `parity` shards; any `data` of them suffice.
    Erasure {
        /// k, 1..=31.
        data: u8,
        /// m, 1..=8.
        parity: u8,
    },
    /// `copies` equal shards; any one suffices. 1..=32.
    Replica {
        /// r.
        copies: u8,
    },
}

impl ObjectKind {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<ObjectKind, FormatError> {
        Ok(match reader.u8()? {
            1 => ObjectKind::Data,
            2 => ObjectKind::Table,
            3 => ObjectKind::Manifest,
            4 => ObjectKind::SpaceSnapshot,
            _ => return Err(reader.wrong("kind of object")),
        })
    }
}

impl Redundancy {
    /// Whether the limits allow it: 1..=31 data, 1..=8 parity, at most 32 shards.
    pub fn is_valid(self) -> bool {
        match self {
            Redundancy::Erasure { data, parity } => {
                data >= 1
                    && (1..=PARITY_MAX).contains(&usize::from(parity))
                    && self.shards() <= SHARDS_MAX
            }
            Redundancy::Replica { copies } => (1..=SHARDS_MAX).contains(&usize::from(copies)),
        }
    }

    /// Three bytes: layout, data shards or copies, parity shards.
    pub(super) fn encode(self, out: &mut Writer) {
        assert!(self.is_valid(), "{self:?} is not a possible redundancy");
        match self {
            Redundancy::Replica { copies } => out.u8(0).u8(copies).u8(0),
            Redundancy::Erasure { data, parity } => out.u8(1).u8(data).u8(parity),
        };
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Redundancy, FormatError> {
        let redundancy = match (reader.u8()?, reader.u8()?, reader.u8()?) {
            (0, copies, 0) => Redundancy::Replica { copies },
            (1, data, parity) => Redundancy::Erasure { data, parity },
            _ => return Err(reader.wrong("redundancy")),
        };
        if redundancy.is_valid() { Ok(redundancy) } else { Err(reader.wrong("redundancy")) }
    }

    /// Shards in all.
    pub fn shards(self) -> usize {
        match self {
            Redundancy::Erasure { data, parity } => usize::from(data) + usize::from(parity),
            Redundancy::Replica { copies } => usize::from(copies),
        }
    }

    /// Shards that hold different parts of the data.
    pub fn data_shards(self) -> usize {
        match self {
            Redundancy::Erasure { data, .. } => usize::from(data),
            Redundancy::Replica { .. } => 1,
        }
    }

    /// Shards that may be lost: m.
    pub fn tolerates(self) -> usize {
        self.shards() - self.data_shards()
    }
}

/// As options name it: `ec:6+2`, `replica:3`.
impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Redundancy::Erasure { data, parity } => write!(f, "ec:{data}+{parity}"),
            Redundancy::Replica { copies } => write!(f, "replica:{copies}"),
        }
    }
}

/// Where a shard is: its header's unit. The payload follows, one unit later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// Which disk.
    pub disk: DiskIndex,
    /// Units from the start of the disk's data area.
    pub offset: Units,
}

/// Geometry of one object; everything a reader needs besides the checksums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectRecord {
    /// Which object.
    pub id: ObjectId,
    /// What it holds.
    pub kind: ObjectKind,
    /// How it is protected.
    pub redundancy: Redundancy,
    /// Which matrix made the parity; 1 = `reed-solomon-erasure`'s Vandermonde over GF(2^8)/0x11D.
    pub codec: u8,
    /// Bytes of a cell: a power of two, 4 KiB..=2 MiB.
    pub cell_bytes: u32,
    /// Bytes of the object, owners' list included.
    pub length: u32,
    /// Bytes of a shard, `L`: data shard `i` holds the object's bytes `i·L .. (i+1)·L`, zero-padded.
    /// A multiple of 4096. For replicas the whole object, rounded up.
    pub shard_bytes: u32,
    /// Where the owners' list begins inside the object; equals `length` if it has none.
    pub pieces_offset: u32,
    /// Raised by one at every rewrite of this record [R20].
    pub version: u32,
    /// Narrower than it should be, because it was small when it was written [R13].
    pub provisional: bool,
    /// The highest LSN assigned when it was written.
    pub lsn: Lsn,
    /// Per shard; None where a shard is missing and waits for repair.
    pub places: Vec<Option<Place>>,
}

impl ObjectRecord {
    /// Units that one shard occupies on its disk: header unit and payload.
    pub fn shard_units(&self) -> Units {
        Units(1) + Units::covering(u64::from(self.shard_bytes))
    }

    /// Cells of each shard.
    pub fn cells(&self) -> usize {
        (self.shard_bytes as usize).div_ceil(self.cell_bytes as usize)
    }

    /// The list of checksums that covers this shard: replicas share list 0 [R16].
    pub fn checksum_list(&self, shard: ShardIndex) -> ShardIndex {
        match self.redundancy {
            Redundancy::Erasure { .. } => shard,
            Redundancy::Replica { .. } => ShardIndex(0),
        }
    }
}

impl ObjectRecord {
    /// As the value under `Key::object`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(RECORD_BYTES + PLACE_BYTES * self.places.len());
        self.encode_into(&mut out);
        out.0
    }

    pub(super) fn encode_into(&self, out: &mut Writer) {
        assert!(self.is_sound(), "a record that makes no sense: {self:?}");
        let start = out.0.len();
        out.u16(VERSION).u8(self.kind as u8);
        self.redundancy.encode(out);
        out.u8(self.codec).u8(self.cell_bytes.trailing_zeros() as u8);
        out.u64(self.id.0).u64(self.lsn.0).u32(self.length).u32(self.shard_bytes);
        out.u32(self.pieces_offset).u32(self.length - self.pieces_offset).u32(self.version);
        out.u8(if self.provisional { PROVISIONAL } else { 0 }).pad_to(start + RECORD_BYTES);
        for place in &self.places {
            match place {
                Some(place) => out.u16(place.disk.0).u16(0).u64(place.offset.0),
                None => out.u16(MISSING).u16(0).u64(0),
            };
        }
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<ObjectRecord, FormatError> {
        let mut reader = Reader::new("object record", bytes, 0);
        let record = ObjectRecord::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(record)
    }

    pub(super) fn decode_from(reader: &mut Reader<'_>) -> Result<ObjectRecord, FormatError> {
        reader.version(VERSION)?;
        let kind = ObjectKind::decode(reader)?;
        let redundancy = Redundancy::decode(reader)?;
        let (codec, cell_shift) = (reader.u8()?, reader.u8()?);
        let cell_bytes = 1u32.checked_shl(cell_shift.into()).unwrap_or(0);
        let (id, lsn) = (ObjectId(reader.u64()?), Lsn(reader.u64()?));
        let (length, shard_bytes) = (reader.u32()?, reader.u32()?);
        let (pieces_offset, pieces_bytes) = (reader.u32()?, reader.u32()?);
        let version = reader.u32()?;
        let provisional = reader.bool("flags")?;
        reader.zeros(RECORD_BYTES - 45)?;
        let mut places = Vec::with_capacity(reader.count(
            redundancy.shards() as u64,
            PLACE_BYTES,
            "number of shards",
        )?);
        for _ in 0..redundancy.shards() {
            let disk = reader.u16()?;
            reader.zeros(2)?;
            let offset = Units(reader.u64()?);
            places.push(match disk {
                MISSING if offset == Units(0) => None,
                _ => Some(Place { disk: DiskIndex(disk), offset }),
            });
        }
        let record = ObjectRecord {
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
            places,
        };
        let same_length = pieces_offset.checked_add(pieces_bytes) == Some(length);
        if same_length && record.is_sound() { Ok(record) } else { Err(reader.wrong("geometry")) }
    }

    /// Whether its numbers fit together; nothing else ever reaches or leaves a disk.
    pub fn is_sound(&self) -> bool {
        let unit = UNIT_BYTES as u32;
        let capacity = u64::from(self.shard_bytes) * self.redundancy.data_shards() as u64;
        self.redundancy.is_valid()
            && self.codec == CODEC_VANDERMONDE
            && self.cell_bytes.is_power_of_two()
            && (CELL_BYTES_MIN..=CELL_BYTES_MAX).contains(&self.cell_bytes)
            && self.shard_bytes > 0
            && self.shard_bytes.is_multiple_of(unit)
            && self.cells() <= CELLS_MAX
            && u64::from(self.length) <= capacity
            && self.pieces_offset <= self.length
            && self.places.len() == self.redundancy.shards()
            && self.places.iter().flatten().all(|place| {
                usize::from(place.disk.0) < DISKS_MAX
                    && place.offset.0 < DISK_BYTES_MAX / UNIT_BYTES
            })
    }
}

/// On one line: `object 1.2 Data ec:2+1 length 9 shard 4096 cell 4096 v0 on 0@5 1@7 -`.
impl fmt::Display for ObjectRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ObjectRecord { id, kind, redundancy, length, shard_bytes, cell_bytes, .. } = self;
        write!(f, "object {id} {kind:?} {redundancy} length {length} shard {shard_bytes} ")?;
        write!(f, "cell {cell_bytes} v{} on", self.version)?;
        for place in &self.places {
            match place {
                Some(place) => write!(f, " {}@{}", place.disk, place.offset.0)?,
                None => f.write_str(" -")?,
            }
        }
        Ok(())
    }
}

/// Most cells of one shard: what `Checksums` can count.
pub const CELLS_MAX: usize = 1 << 14;

/// One CRC32C a cell of one shard. Identity is a prefix of the checksummed bytes: see
/// `format::checksum::cell_crc` [R16, I4].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checksums(pub Vec<u32>);

impl Checksums {
    /// As the value under `Key::checksums`: u16 version, u16 count, then the checksums.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.0.len() <= CELLS_MAX, "a shard has at most {CELLS_MAX} cells");
        let mut out = Writer::with_capacity(4 + 4 * self.0.len());
        out.u16(VERSION).u16(as_u16(self.0.len()));
        for &crc in &self.0 {
            out.u32(crc);
        }
        out.0
    }

    /// The reverse.
    pub fn decode(bytes: &[u8]) -> Result<Checksums, FormatError> {
        let mut reader = Reader::new("checksums", bytes, 0);
        reader.version(VERSION)?;
        let count = u64::from(reader.u16()?);
        let count = reader.count(count, 4, "number of cells")?;
        if count > CELLS_MAX {
            return Err(reader.wrong("number of cells"));
        }
        let list = (0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Checksums(list))
    }
}

/// One entry of an object's owners' list: a byte range of a file that this object holds [R17].
/// Packed objects have many. Verified against the index before use: a piece may be dead by now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Piece {
    /// The file.
    pub ino: Ino,
    /// Offset in the file.
    pub file_offset: u64,
    /// Offset in the object.
    pub object_offset: u32,
    /// Bytes.
    pub length: u32,
}

/// The owners' list of an object, in the order given [R17]. It is part of the object's bytes, covered by
/// its cells' checksums: `count · 24` bytes, each u64 inode · u64 file offset · u32 object offset · u32
/// length.
pub fn encode_pieces(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Writer::with_capacity(PIECE_BYTES * pieces.len());
    for piece in pieces {
        out.u64(piece.ino.0).u64(piece.file_offset).u32(piece.object_offset).u32(piece.length);
    }
    out.0
}

/// The reverse: what lies between `pieces_offset` and `length` of an object whose record is `record`.
pub fn decode_pieces(record: &ObjectRecord, bytes: &[u8]) -> Result<Vec<Piece>, FormatError> {
    let at = u64::from(record.pieces_offset);
    let mut reader = Reader::new("owners' list", bytes, at);
    let mut pieces = Vec::with_capacity(bytes.len() / PIECE_BYTES);
    while reader.left() > 0 {
        let (ino, file_offset) = (Ino(reader.u64()?), reader.u64()?);
        let (object_offset, length) = (reader.u32()?, reader.u32()?);
        let end = object_offset.checked_add(length);
        if length == 0 || end.is_none_or(|end| end > record.pieces_offset) {
            return Err(reader.wrong("piece"));
        }
        pieces.push(Piece { ino, file_offset, object_offset, length });
    }
    Ok(pieces)
}
