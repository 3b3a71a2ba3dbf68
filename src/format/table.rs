//! Sorted tables of the index. A table is one object: parts one after the other, each with a header of
//! its own, so that any part can be read and judged alone.
//!
//! ```text
//! table:  data block · data block · ... · filter · index block · footer (the last 1024 bytes)
//!
//! header of each part, 32 bytes
//!   0  u64 CRC-64/NVME of bytes 8..length
//!   8  u64 tag of the table: random, the same in all its parts
//!  16  u32 offset of this part in the table     20  u32 length of this part, header included
//!  24  u32 count: entries of a block, 64-byte lines of a filter, 0 in a footer
//!  28  u8 kind: 1 data, 2 index, 3 filter, 4 footer      29  u8 version = 1
//!  30  u16 shared: bytes of the prefix that all keys of a block share, else 0
//!
//! footer, after the header
//!  32  8 bytes magic "ISOTABLE"   40  meta (below)   then zeros to 1024
//!
//! meta (also in the manifest)
//!   0  u64 tag                    8  u32 filter offset · u32 filter length
//!  16  u32 index offset · u32 index length
//!  24  u64 entries               32  u64 deletes among them     40  u64 highest LSN
//!  48  u16 length of first key · u16 length of last key · first key · last key
//! ```
//!
//! Blocks are in `block.rs`, filters in `filter.rs`. Keys ascend strictly through the whole table: one
//! entry a key. Values of the index block are (u32 offset, u32 length) of the data block whose last
//! key is the entry's key.
//!
//! [I4] Tag and offset in the header bind a part to its place: a stale or misdirected read fails as
//! surely as a rotten one. The tag stands in the manifest; it is drawn before the object has an id.

use super::FormatError;
use super::bytes::{Reader, Writer, as_u16, as_u32};
use super::checksum::crc64;
use super::keys::KEY_BYTES_MAX;
use crate::base::Lsn;

mod block;
mod filter;

pub use block::{Block, Entry, Op};
pub use filter::{Filter, hash_key};

use block::BlockBuilder;
use filter::FilterBuilder;

/// Bytes of a part's header.
const HEADER_BYTES: usize = 32;
/// Bytes of the footer: two of the longest keys and the rest of the meta fit.
pub const FOOTER_BYTES: u32 = 1024;
/// No part is longer: a block of one largest value, or the filter of `TABLE_ENTRIES_MAX` keys.
pub const PART_BYTES_MAX: u32 = 2 << 20;
/// Entries of one table: bounds its filter to 320 KiB, so that small caches can hold some.
pub const TABLE_ENTRIES_MAX: u64 = 1 << 18;
/// No table is longer: 16 MiB, and what its last block, filter and index add.
pub const TABLE_BYTES_MAX: u32 = 24 << 20;

/// The deepest level. With ratio 10 and 64 MiB at level 1, level 6 holds 6.4 TB of index.
pub const LEVEL_MAX: u8 = 7;

const MAGIC: &[u8; 8] = b"ISOTABLE";
const VERSION: u8 = 1;
const WHAT: &str = "index table";

const _: () = assert!(HEADER_BYTES + 8 + 52 + 2 * KEY_BYTES_MAX <= FOOTER_BYTES as usize);

/// Where a part of a table is, in bytes from the start of the object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Extent {
    /// First byte.
    pub offset: u32,
    /// Bytes, header included.
    pub length: u32,
}

/// What a part of a table is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum PartKind {
    /// A block of entries.
    Data = 1,
    /// The block that lists the data blocks.
    Index = 2,
    /// The Bloom filter.
    Filter = 3,
    /// The footer.
    Footer = 4,
}

/// What must be known of a table to use it; stands in the manifest and in the table's footer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableMeta {
    /// Random number in the header of each part: a stale or misdirected part is recognised [I4].
    pub tag: u64,
    /// The Bloom filter over all keys.
    pub filter: Extent,
    /// The index block: last key of each data block.
    pub index: Extent,
    /// Entries of all kinds.
    pub entries: u64,
    /// Of these, deletes.
    pub tombstones: u64,
    /// The highest LSN of an entry.
    pub max_lsn: Lsn,
    /// The first key.
    pub first_key: Box<[u8]>,
    /// The last key.
    pub last_key: Box<[u8]>,
}

impl TableMeta {
    /// Bytes of all data blocks together; they lie in front of the filter.
    pub fn data_bytes(&self) -> u32 {
        self.filter.offset
    }

    /// Whether a table of this length can have this meta.
    pub(super) fn fits(&self, table_bytes: u32) -> bool {
        u64::from(self.index.offset) + u64::from(self.index.length) + u64::from(FOOTER_BYTES)
            == u64::from(table_bytes)
    }

    /// Appends the meta's bytes.
    pub(super) fn encode(&self, writer: &mut Writer) {
        writer.u64(self.tag);
        for extent in [self.filter, self.index] {
            writer.u32(extent.offset).u32(extent.length);
        }
        writer.u64(self.entries).u64(self.tombstones).u64(self.max_lsn.0);
        writer.u16(as_u16(self.first_key.len())).u16(as_u16(self.last_key.len()));
        writer.bytes(&self.first_key).bytes(&self.last_key);
    }

    /// Takes a meta off the reader and checks what can be checked without the table.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<TableMeta, FormatError> {
        let tag = reader.u64()?;
        let filter = Extent { offset: reader.u32()?, length: reader.u32()? };
        let index = Extent { offset: reader.u32()?, length: reader.u32()? };
        let (entries, tombstones) = (reader.u64()?, reader.u64()?);
        let max_lsn = Lsn(reader.u64()?);
        let (first_bytes, last_bytes) = (reader.u16()?.into(), reader.u16()?.into());
        if first_bytes > KEY_BYTES_MAX || last_bytes > KEY_BYTES_MAX {
            return Err(reader.wrong("key length"));
        }
        let first_key: Box<[u8]> = reader.take(first_bytes)?.into();
        let last_key: Box<[u8]> = reader.take(last_bytes)?.into();
        let in_order = filter.offset.checked_add(filter.length) == Some(index.offset)
            && index.offset.checked_add(index.length).is_some_and(|end| end <= TABLE_BYTES_MAX)
            && [filter.length, index.length]
                .iter()
                .all(|&length| (HEADER_BYTES as u32..=PART_BYTES_MAX).contains(&length));
        if !in_order {
            return Err(reader.wrong("place of filter or index"));
        }
        if first_key > last_key || entries == 0 || tombstones > entries {
            return Err(reader.wrong("keys or counts"));
        }
        Ok(TableMeta { tag, filter, index, entries, tombstones, max_lsn, first_key, last_key })
    }
}

/// Fills in the header of a part whose body is complete.
fn seal_part(part: &mut [u8], kind: PartKind, tag: u64, offset: u32, count: u32, shared: u16) {
    part[8..16].copy_from_slice(&tag.to_le_bytes());
    part[16..20].copy_from_slice(&offset.to_le_bytes());
    let length = as_u32(part.len());
    part[20..24].copy_from_slice(&length.to_le_bytes());
    part[24..28].copy_from_slice(&count.to_le_bytes());
    part[28] = kind as u8;
    part[29] = VERSION;
    part[30..32].copy_from_slice(&shared.to_le_bytes());
    let crc = crc64(&part[8..]);
    part[0..8].copy_from_slice(&crc.to_le_bytes());
}

/// Checks that `part` is whole, of this kind, and belongs at this place of this table [I4].
/// Returns `count` and `shared` of its header.
fn open_part(
    part: &[u8],
    kind: PartKind,
    tag: u64,
    offset: u32,
) -> Result<(u32, u16), FormatError> {
    let at = u64::from(offset);
    let mut reader = Reader::new(WHAT, part, at);
    let crc = reader.u64()?;
    let (found_tag, found_offset, length) = (reader.u64()?, reader.u32()?, reader.u32()?);
    let count = reader.u32()?;
    let (found_kind, version, shared) = (reader.u8()?, reader.u8()?, reader.u16()?);
    if crc64(&part[8..]) != crc {
        return Err(FormatError::Checksum { what: WHAT, at });
    }
    if version != VERSION {
        let (found, known) = (version.into(), VERSION.into());
        return Err(FormatError::Version { what: WHAT, at, found, known });
    }
    if found_tag != tag {
        return Err(FormatError::Misplaced { what: WHAT, at, field: "tag" });
    }
    if (found_offset, length as usize, found_kind) != (offset, part.len(), kind as u8) {
        return Err(FormatError::Misplaced { what: WHAT, at, field: "offset, length or kind" });
    }
    Ok((count, shared))
}

/// True if these bytes are the part of this kind at this place: the judge for reading replicas.
pub fn is_part(bytes: &[u8], kind: PartKind, tag: u64, offset: u32) -> bool {
    open_part(bytes, kind, tag, offset).is_ok()
}

/// Decodes the last `FOOTER_BYTES` of a table of `table_bytes`, whose tag need not be known (salvage).
pub fn decode_footer(footer: &[u8], table_bytes: u32) -> Result<TableMeta, FormatError> {
    let offset = table_bytes.saturating_sub(FOOTER_BYTES);
    let mut reader = Reader::new(WHAT, footer, offset.into());
    reader.take(8)?;
    let tag = reader.u64()?;
    open_part(footer, PartKind::Footer, tag, offset)?;
    reader.take(HEADER_BYTES - 16)?;
    if reader.take(8)? != MAGIC {
        return Err(FormatError::Magic { what: WHAT, at: offset.into() });
    }
    let meta = TableMeta::decode(&mut reader)?;
    let left = reader.left();
    reader.zeros(left)?;
    if meta.tag != tag || !meta.fits(table_bytes) {
        return Err(reader.wrong("tag or index of the footer"));
    }
    Ok(meta)
}

/// How many parts of a table are not what its meta says: data blocks, index, filter, footer. Without its
/// index the data blocks cannot be told apart: they count as one.
pub fn bad_parts(bytes: &[u8], meta: &TableMeta) -> u32 {
    let part = |extent: Extent| {
        let (start, length) = (extent.offset as usize, extent.length as usize);
        start.checked_add(length).and_then(|end| bytes.get(start..end)).unwrap_or_default().to_vec()
    };
    let table_bytes = as_u32(bytes.len());
    let footer = Extent { offset: table_bytes.saturating_sub(FOOTER_BYTES), length: FOOTER_BYTES };
    let footer = decode_footer(&part(footer), table_bytes).is_ok_and(|found| found == *meta);
    let filter = Filter::open(part(meta.filter), meta).is_ok();
    let mut bad = u32::from(!footer) + u32::from(!filter);
    match Block::open_index(part(meta.index), meta) {
        Ok(index) => {
            let blocks = (0..index.len()).map(|at| index.place(at));
            let wrong =
                |place: &Extent| Block::open_data(part(*place), meta.tag, place.offset).is_err();
            bad += blocks.filter(wrong).count() as u32;
        }
        Err(_) => bad += 1,
    }
    bad
}

/// A finished table.
#[derive(Clone, Debug)]
pub struct BuiltTable {
    /// The object's bytes.
    pub bytes: Vec<u8>,
    /// What goes into the manifest.
    pub meta: TableMeta,
}

/// Builds a table from entries in key order.
#[derive(Debug)]
pub struct TableBuilder {
    tag: u64,
    block_bytes: usize,
    bytes: Vec<u8>,
    data: BlockBuilder,
    index: BlockBuilder,
    filter: FilterBuilder,
    first_key: Vec<u8>,
    entries: u64,
    tombstones: u64,
    max_lsn: Lsn,
}

impl TableBuilder {
    /// A table whose parts carry `tag` and whose data blocks end once they reach `block_bytes`.
    pub fn new(tag: u64, block_bytes: u32) -> TableBuilder {
        TableBuilder {
            tag,
            block_bytes: block_bytes as usize,
            bytes: Vec::new(),
            data: BlockBuilder::default(),
            index: BlockBuilder::default(),
            filter: FilterBuilder::default(),
            first_key: Vec::new(),
            entries: 0,
            tombstones: 0,
            max_lsn: Lsn(0),
        }
    }

    /// Appends an entry. Panics unless its key is above all before, and within the limits.
    pub fn add(&mut self, key: &[u8], lsn: Lsn, op: Op<'_>) {
        assert!(
            key.len() <= KEY_BYTES_MAX && !key.is_empty(),
            "a key has 1..={KEY_BYTES_MAX} bytes"
        );
        assert!(self.entries < TABLE_ENTRIES_MAX, "the caller ends tables in time");
        if self.entries == 0 {
            self.first_key.extend_from_slice(key);
        }
        self.data.add(key, lsn, op);
        self.filter.add(key);
        self.entries += 1;
        self.tombstones += u64::from(matches!(op, Op::Delete));
        self.max_lsn = self.max_lsn.max(lsn);
        if self.data.bytes() >= self.block_bytes {
            self.end_block();
        }
    }

    /// Bytes of data so far, nearly.
    pub fn data_bytes(&self) -> u64 {
        (self.bytes.len() + self.data.bytes()) as u64
    }

    /// Entries so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The table. None if nothing was added.
    pub fn finish(mut self) -> Option<BuiltTable> {
        if self.entries == 0 {
            return None;
        }
        self.end_block();
        let last_key: Box<[u8]> = self.index.last_key().into();
        let filter = self.push_part(|offset, tag, me| me.filter.finish(tag, offset));
        let index = self.push_part(|offset, tag, me| me.index.finish(PartKind::Index, tag, offset));
        let meta = TableMeta {
            tag: self.tag,
            filter,
            index,
            entries: self.entries,
            tombstones: self.tombstones,
            max_lsn: self.max_lsn,
            first_key: std::mem::take(&mut self.first_key).into(),
            last_key,
        };
        let mut writer = Writer::with_capacity(FOOTER_BYTES as usize);
        writer.zeros(HEADER_BYTES).bytes(MAGIC);
        meta.encode(&mut writer);
        writer.pad_to(FOOTER_BYTES as usize);
        let mut footer = writer.0;
        seal_part(&mut footer, PartKind::Footer, self.tag, as_u32(self.bytes.len()), 0, 0);
        self.bytes.extend_from_slice(&footer);
        assert!(self.bytes.len() <= TABLE_BYTES_MAX as usize, "the caller ends tables in time");
        Some(BuiltTable { bytes: self.bytes, meta })
    }

    fn end_block(&mut self) {
        if self.data.is_empty() {
            return;
        }
        let key = self.data.last_key().to_vec();
        let extent = self.push_part(|offset, tag, me| me.data.finish(PartKind::Data, tag, offset));
        let mut place = [0u8; 8];
        place[..4].copy_from_slice(&extent.offset.to_le_bytes());
        place[4..].copy_from_slice(&extent.length.to_le_bytes());
        self.index.add(&key, Lsn(0), Op::Put(&place));
    }

    fn push_part(&mut self, finish: impl FnOnce(u32, u64, &mut Self) -> Vec<u8>) -> Extent {
        let offset = as_u32(self.bytes.len());
        let part = finish(offset, self.tag, self);
        assert!(part.len() <= PART_BYTES_MAX as usize, "a part within its limit");
        self.bytes.extend_from_slice(&part);
        Extent { offset, length: as_u32(part.len()) }
    }
}

#[cfg(test)]
mod tests;
