//! A batch as it lies in a disk's journal ring: a header of 128 bytes, the payload right behind it,
//! zeros up to a whole number of 4 KiB units. Nothing durable shares a unit with it [R6].
//!
//! [R5] The header says where it belongs (pool, disk, ring position) and what came before it: the
//! predecessor's checksum and the highest acknowledged batch. So an entry from an older incarnation, of
//! another disk, or inside a stored disk image is never taken for one of ours.
//!
//! ```text
//!   0  frame "ISOENTRY", version 1, length 128
//!  24  16 B pool · 16 B disk uuid · u64 ring position, bytes
//!  64  u32 epoch · u32 payload length · u64 epoch id
//!  80  u64 LSN · u64 highest acknowledged LSN
//!  96  u64 predecessor's batch crc · u64 batch crc
//! 112  16 B reserved, zero
//! 128  payload (`batch`)
//! ```
//!
//! The *batch crc* covers what is the same on all disks: epoch, LSN, predecessor's batch crc, payload.

use std::fmt::Write as _;

use super::FormatError;
use super::checksum::crc64_parts;
use super::frame::Kind;
use crate::base::limits::ENTRY_BYTES_MAX;
use crate::base::{DiskUuid, Epoch, Lsn, PoolUuid, UNIT_BYTES};

/// Bytes before the payload.
pub const ENTRY_HEADER_BYTES: usize = 128;
/// The longest payload.
pub const PAYLOAD_BYTES_MAX: usize = ENTRY_BYTES_MAX as usize - ENTRY_HEADER_BYTES;

const KIND: Kind = Kind {
    what: "journal entry",
    magic: *b"ISOENTRY",
    version: 1,
    oldest: 1,
    bytes_max: ENTRY_HEADER_BYTES as u64,
};

const _: () = assert!(ENTRY_BYTES_MAX.is_multiple_of(UNIT_BYTES));

/// The checksum that chains batches together; independent of the disk.
pub fn batch_crc(epoch: Epoch, lsn: Lsn, prev_batch_crc: u64, payload: &[u8]) -> u64 {
    let mut prefix = [0u8; 20];
    prefix[0..4].copy_from_slice(&epoch.0.to_le_bytes());
    prefix[4..12].copy_from_slice(&lsn.0.to_le_bytes());
    prefix[12..20].copy_from_slice(&prev_batch_crc.to_le_bytes());
    crc64_parts(&[&prefix, payload])
}

/// Bytes an entry with such a payload takes in the ring.
pub const fn entry_bytes(payload_bytes: usize) -> u64 {
    ((ENTRY_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(UNIT_BYTES)
}

/// What an entry says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// Which pool.
    pub pool: PoolUuid,
    /// Which disk.
    pub disk: DiskUuid,
    /// Where in its ring it begins, in bytes; a multiple of 4096.
    pub ring_position: u64,
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// That epoch's random id.
    pub epoch_id: u64,
    /// Which batch.
    pub lsn: Lsn,
    /// The highest batch that was acknowledged when this was written: a hole at or below it is loss.
    pub acked_lsn: Lsn,
    /// `batch_crc` of batch `lsn - 1`.
    pub prev_batch_crc: u64,
    /// `batch_crc` of this one.
    pub batch_crc: u64,
    /// Bytes of the payload.
    pub payload_len: u32,
}

/// A header whose checksum is good, but which may have been written for another place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawEntryHeader {
    header: EntryHeader,
    at: u64,
}

impl EntryHeader {
    /// Bytes of the whole entry in the ring.
    pub fn entry_bytes(&self) -> u64 {
        entry_bytes(self.payload_len as usize)
    }

    /// The 128 bytes before the payload. Panics if the header makes no sense.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        assert!(self.is_sound(), "an entry that makes no sense: {self:?}");
        let mut out = KIND.begin(ENTRY_HEADER_BYTES);
        out.bytes(&self.pool.0).bytes(&self.disk.0).u64(self.ring_position);
        out.u32(self.epoch.0).u32(self.payload_len).u64(self.epoch_id);
        out.u64(self.lsn.0).u64(self.acked_lsn.0);
        out.u64(self.prev_batch_crc).u64(self.batch_crc).pad_to(ENTRY_HEADER_BYTES);
        let bytes = KIND.seal(out).expect("a header is padded to exactly its size");
        bytes.try_into().expect("a header is padded to exactly its size")
    }

    /// The whole entry into `out`, which has exactly `entry_bytes()` bytes.
    pub fn encode_entry(&self, payload: &[u8], out: &mut [u8]) {
        assert_eq!(payload.len(), self.payload_len as usize, "the header is of another payload");
        assert_eq!(out.len() as u64, self.entry_bytes(), "an entry fills its units");
        let (head, body) = out.split_at_mut(ENTRY_HEADER_BYTES);
        let (body, padding) = body.split_at_mut(payload.len());
        head.copy_from_slice(&self.encode());
        body.copy_from_slice(payload);
        padding.fill(0);
    }

    /// Whether this is the payload that the header was written with [R5].
    pub fn verify_payload(&self, payload: &[u8]) -> Result<(), FormatError> {
        let crc = batch_crc(self.epoch, self.lsn, self.prev_batch_crc, payload);
        if payload.len() == self.payload_len as usize && crc == self.batch_crc {
            Ok(())
        } else {
            Err(FormatError::Checksum { what: "journal entry's payload", at: self.ring_position })
        }
    }

    fn is_sound(&self) -> bool {
        self.payload_len as usize <= PAYLOAD_BYTES_MAX
            && self.ring_position.is_multiple_of(UNIT_BYTES)
            && self.lsn > Lsn(0)
            && self.acked_lsn < self.lsn
    }

    /// All of it as readable text, for `isotherm inspect`.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(text, "{name:<16} {value}").expect("writing to a String cannot fail");
        };
        line("pool", self.pool.to_string());
        line("disk", format!("{} ring position {}", self.disk, self.ring_position));
        line("epoch", format!("{} id {:016x}", self.epoch, self.epoch_id));
        line("batch", format!("{} crc {:016x}", self.lsn, self.batch_crc));
        line("predecessor", format!("crc {:016x}", self.prev_batch_crc));
        line("acknowledged", self.acked_lsn.to_string());
        line("payload", format!("{} bytes", self.payload_len));
        text
    }
}

impl RawEntryHeader {
    /// Decodes what was read at position `at` of a ring: at least 128 bytes.
    pub fn decode(bytes: &[u8], at: u64) -> Result<RawEntryHeader, FormatError> {
        let mut reader = KIND.open(bytes, at)?;
        let (pool, disk) = (PoolUuid(reader.array()?), DiskUuid(reader.array()?));
        let ring_position = reader.u64()?;
        let (epoch, payload_len) = (Epoch(reader.u32()?), reader.u32()?);
        let epoch_id = reader.u64()?;
        let (lsn, acked_lsn) = (Lsn(reader.u64()?), Lsn(reader.u64()?));
        let (prev_batch_crc, batch_crc) = (reader.u64()?, reader.u64()?);
        reader.zeros(16)?;
        reader.finish()?;
        let header = EntryHeader {
            pool,
            disk,
            ring_position,
            epoch,
            epoch_id,
            lsn,
            acked_lsn,
            prev_batch_crc,
            batch_crc,
            payload_len,
        };
        if header.is_sound() {
            Ok(RawEntryHeader { header, at })
        } else {
            Err(reader.wrong("numbers"))
        }
    }

    /// The header, if it was written for this place [R5]. The payload is verified apart.
    pub fn verify(
        self,
        pool: PoolUuid,
        disk: DiskUuid,
        ring_position: u64,
    ) -> Result<EntryHeader, FormatError> {
        let field = if self.header.pool != pool {
            "pool"
        } else if self.header.disk != disk {
            "disk"
        } else if self.header.ring_position != ring_position {
            "ring position"
        } else {
            return Ok(self.header);
        };
        Err(KIND.misplaced(self.at, field))
    }

    /// The position in its ring that it says it was written for.
    pub fn ring_position(&self) -> u64 {
        self.header.ring_position
    }

    /// As [`EntryHeader::describe`]: looking is allowed before verifying.
    pub fn describe(&self) -> String {
        self.header.describe()
    }
}
