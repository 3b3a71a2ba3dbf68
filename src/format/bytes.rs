//! Reading and writing little-endian fields with bounds. A [`Reader`] never panics and never believes
//! a count that its remaining bytes cannot hold, so that nothing allocates more than the input's own
//! length justifies.

use super::FormatError;
use crate::base::WallTime;

/// Takes fields off the front of some bytes.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    /// Offset of `bytes[0]`, for errors.
    at: u64,
}

macro_rules! number {
    ($name:ident, $type:ty) => {
        pub(super) fn $name(&mut self) -> Result<$type, FormatError> {
            Ok(<$type>::from_le_bytes(self.array()?))
        }
    };
}

impl<'a> Reader<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8], at: u64) -> Reader<'a> {
        Reader { what, bytes, at }
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], FormatError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(FormatError::Truncated {
                what: self.what,
                at: self.at,
                need: count as u64,
                have: self.bytes.len() as u64,
            });
        };
        self.bytes = rest;
        self.at += count as u64;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("exactly N bytes were taken"))
    }

    number!(u8, u8);
    number!(u16, u16);
    number!(u32, u32);
    number!(u64, u64);
    number!(i64, i64);

    /// A bool is 0 or 1, nothing else.
    pub(super) fn bool(&mut self, field: &'static str) -> Result<bool, FormatError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.wrong(field)),
        }
    }

    /// LEB128, at most 64 bits, in its shortest form only: one value has one encoding.
    pub(super) fn varint(&mut self, field: &'static str) -> Result<u64, FormatError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (shift > 0 && byte == 0) {
                return Err(self.wrong(field));
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.wrong(field))
    }

    /// A time, with its nanoseconds in range.
    pub(super) fn time(&mut self, field: &'static str) -> Result<WallTime, FormatError> {
        let time = WallTime { seconds: self.i64()?, nanos: self.u32()? };
        if time.nanos < 1_000_000_000 { Ok(time) } else { Err(self.wrong(field)) }
    }

    /// A text of `count` bytes.
    pub(super) fn text(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a str, FormatError> {
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| self.wrong(field))
    }

    /// Reserved bytes: must be zero, so that they can get a meaning later.
    pub(super) fn zeros(&mut self, count: usize) -> Result<(), FormatError> {
        if self.take(count)?.iter().all(|&byte| byte == 0) {
            Ok(())
        } else {
            Err(self.wrong("reserved bytes"))
        }
    }

    /// Checks a count of items, each at least `item_bytes` long, against what is left.
    pub(super) fn count(
        &self,
        count: u64,
        item_bytes: usize,
        field: &'static str,
    ) -> Result<usize, FormatError> {
        let fits = (self.bytes.len() / item_bytes) as u64;
        if count <= fits { Ok(count as usize) } else { Err(self.wrong(field)) }
    }

    /// Bytes not taken yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.at += self.bytes.len() as u64;
        std::mem::take(&mut self.bytes)
    }

    /// All bytes must have been taken.
    pub(super) fn finish(&self) -> Result<(), FormatError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.wrong("length")) }
    }

    /// The error for a value that `field` cannot have.
    pub(super) fn wrong(&self, field: &'static str) -> FormatError {
        FormatError::Field { what: self.what, at: self.at, field }
    }

    /// Refuses all versions but `known`.
    pub(super) fn version(&mut self, known: u16) -> Result<(), FormatError> {
        let at = self.at;
        let found = self.u16()?;
        self.same_version(at, found, known)
    }

    /// As `version`, for small values that spend one byte on it.
    pub(super) fn small_version(&mut self, known: u8) -> Result<(), FormatError> {
        let at = self.at;
        let found = self.u8()?;
        self.same_version(at, found.into(), known.into())
    }

    fn same_version(&self, at: u64, found: u16, known: u16) -> Result<(), FormatError> {
        if found == known {
            Ok(())
        } else {
            Err(FormatError::Version { what: self.what, at, found, known })
        }
    }
}

/// Appends fields to bytes.
#[derive(Clone, Default, Debug)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Writer {
        Writer(Vec::with_capacity(bytes))
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Writer {
        self.0.push(value);
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Writer {
        self.u8(u8::from(value))
    }

    pub(super) fn u16(&mut self, value: u16) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn varint(&mut self, mut value: u64) -> &mut Writer {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8)
    }

    pub(super) fn time(&mut self, time: WallTime) -> &mut Writer {
        self.i64(time.seconds).u32(time.nanos)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn zeros(&mut self, count: usize) -> &mut Writer {
        self.pad_to(self.0.len() + count)
    }

    /// Zeros up to `length` bytes in all.
    pub(super) fn pad_to(&mut self, length: usize) -> &mut Writer {
        assert!(self.0.len() <= length, "a structure outgrew its place");
        self.0.resize(length, 0);
        self
    }
}

/// A length that its field must hold; ours, so anything else is a bug.
pub(super) fn as_u16(length: usize) -> u16 {
    u16::try_from(length).expect("lengths are checked against their limits before encoding")
}

/// A length that its field must hold; ours, so anything else is a bug.
pub(super) fn as_u32(length: usize) -> u32 {
    u32::try_from(length).expect("lengths are checked against their limits before encoding")
}
