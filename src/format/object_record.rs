//! The object record: where the shards of an object are, and beside it, under keys of their own, one
//! CRC32C a cell per shard [R16].
//!
//! ```text
//! record: 64 bytes + 12 a shard
//!   0  u16 version = 1          2  u8 kind           3  u8 layout: 0 replica, 1 erasure
//!   4  u8 data shards k         5  u8 parity m       6  u8 codec id    7  u8 log2(cell bytes)
//!   8  u64 object id           16  u64 LSN at writing (epoch's last known; for salvage [R26])
//!  24  u32 length, bytes       28  u32 shard length L, bytes (multiple of 4096)
//!  32  u32 pieces offset       36  u32 pieces length (the owners' list inside the object [R17])
//!  40  u32 record version (raised by every rewrite; put is conditional on it [R20])
//!  44  u8 flags: 1 provisional [R13]   45..64 reserved, zero
//!  64  per shard: u16 disk (0xffff: missing) · u16 reserved · u64 offset in units
//! ```

use crate::base::{DiskIndex, Lsn, ObjectId, ShardIndex, Units};

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

impl Redundancy {
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

/// One CRC32C a cell of one shard. Identity is a prefix of the checksummed bytes: see
/// `format::checksum::cell_crc` [R16, I4].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checksums(pub Vec<u32>);

/// One entry of an object's owners' list: a byte range of a file that this object holds [R17].
/// Packed objects have many. Verified against the index before use: a piece may be dead by now.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Piece {
    /// The file.
    pub ino: crate::base::Ino,
    /// Offset in the file.
    pub file_offset: u64,
    /// Offset in the object.
    pub object_offset: u32,
    /// Bytes.
    pub length: u32,
}
