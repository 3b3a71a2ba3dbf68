//! The frame around every structure that stands on its own on disk. Its 24 bytes never change, in
//! any version, so that an old program can tell rot from a newer format.
//!
//! ```text
//!   0  8 bytes magic
//!   8  u64 CRC-64/NVME of bytes 16..length
//!  16  u16 version of the structure    18  u16 features, all of which a reader must know (none yet)
//!  20  u32 length, bytes, this frame included
//!  24  the structure
//! ```
//!
//! Where a structure belongs (pool, disk, offset, object) is inside, under the checksum. A frame that
//! opens is whole and was written by us; whether it belongs *here* is the structure's `verify` [R5].

use super::FormatError;
use super::bytes::{Reader, Writer, as_u32};
use super::checksum::crc64;

/// Bytes of the frame.
pub(super) const FRAME_BYTES: usize = 24;

/// One kind of framed structure.
pub(super) struct Kind {
    /// Its name, for errors.
    pub(super) what: &'static str,
    /// How it begins.
    pub(super) magic: [u8; 8],
    /// The version that this program writes, and the oldest that it reads.
    pub(super) version: u16,
    pub(super) oldest: u16,
    /// Bytes it never exceeds.
    pub(super) bytes_max: u64,
}

impl Kind {
    /// A writer with room for the frame, to be closed with `seal`.
    pub(super) fn begin(&self, capacity: usize) -> Writer {
        let mut writer = Writer::with_capacity(capacity.max(FRAME_BYTES));
        writer.zeros(FRAME_BYTES);
        writer
    }

    /// Fills the frame in over all that was written.
    pub(super) fn seal(&self, writer: Writer) -> Result<Vec<u8>, FormatError> {
        let mut bytes = writer.0;
        if bytes.len() as u64 > self.bytes_max {
            return Err(FormatError::TooLarge {
                what: self.what,
                bytes: bytes.len() as u64,
                bytes_max: self.bytes_max,
            });
        }
        let length = as_u32(bytes.len());
        bytes[0..8].copy_from_slice(&self.magic);
        bytes[16..18].copy_from_slice(&self.version.to_le_bytes());
        bytes[18..20].fill(0);
        bytes[20..24].copy_from_slice(&length.to_le_bytes());
        let crc = crc64(&bytes[16..]);
        bytes[8..16].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Checks the frame at the start of `bytes`, read at offset `at`, and returns a reader of what is
    /// inside. Bytes after the frame's length are not looked at.
    pub(super) fn open<'a>(&self, bytes: &'a [u8], at: u64) -> Result<Reader<'a>, FormatError> {
        let what = self.what;
        let mut reader = Reader::new(what, bytes, at);
        if reader.array::<8>()? != self.magic {
            return Err(FormatError::Magic { what, at });
        }
        let crc = reader.u64()?;
        let version = reader.u16()?;
        let features = reader.u16()?;
        let length = u64::from(reader.u32()?);
        if length < FRAME_BYTES as u64 || length > self.bytes_max {
            return Err(FormatError::Field { what, at, field: "length" });
        }
        let Some(covered) = bytes.get(16..length as usize) else {
            return Err(FormatError::Truncated {
                what,
                at,
                need: length,
                have: bytes.len() as u64,
            });
        };
        if crc64(covered) != crc {
            return Err(FormatError::Checksum { what, at });
        }
        if !(self.oldest..=self.version).contains(&version) {
            return Err(FormatError::Version { what, at, found: version, known: self.version });
        }
        if features != 0 {
            return Err(FormatError::Features { what, at, bits: features });
        }
        Ok(Reader::new(what, &bytes[FRAME_BYTES..length as usize], at + FRAME_BYTES as u64))
    }

    /// The error for something whole that belongs elsewhere.
    pub(super) fn misplaced(&self, at: u64, field: &'static str) -> FormatError {
        FormatError::Misplaced { what: self.what, at, field }
    }
}
