//! Blocks of a table: sorted entries that can be searched from both ends without decoding them first.
//!
//! ```text
//! block, after the part's header (32 bytes)
//!  32  u64 base LSN: the lowest in the block
//!  40  the prefix that all keys share (`shared` bytes)
//!  ..  entries
//!  ..  u32 per entry: its offset in the block
//!
//! entry
//!   0  u16 length of the rest of the key · that rest
//!      u8 kind: 0 delete, 1 put, 2 add
//!      varint LSN - base LSN
//!      put: varint length · value        add: i64
//! ```
//!
//! A block is read once and searched many times. So `Block::open` looks at every entry (bounds, order),
//! and what comes after needs no error path.

use super::{Extent, HEADER_BYTES, PART_BYTES_MAX, PartKind, TableMeta, open_part, seal_part};
use crate::base::Lsn;
use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer, as_u16, as_u32};

const WHAT: &str = "index block";
const PREFIX_AT: usize = HEADER_BYTES + 8;
const ENTRY_BYTES_MIN: usize = 2 + 1 + 1 + 4;

/// What an entry does to its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op<'a> {
    /// The key has this value from now on.
    Put(&'a [u8]),
    /// The key has no value from now on.
    Delete,
    /// The counter under the key grows by this (wrapping). A key without value counts as 0. Counters
    /// are i64, 8 little-endian bytes; a value of another length counts as 0.
    Add(i64),
}

/// An entry without its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The batch of its newest change [R26].
    pub lsn: Lsn,
    /// What it does.
    pub op: Op<'a>,
}

/// A verified block.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    count: usize,
    shared: usize,
    base: u64,
    offsets_at: usize,
}

impl Block {
    /// Verifies bytes that were read as the data block at `offset` of the table with this tag.
    pub fn open_data(bytes: Vec<u8>, tag: u64, offset: u32) -> Result<Block, FormatError> {
        Block::open(bytes, PartKind::Data, tag, offset)
    }

    /// Verifies bytes that were read as the index block of a table: it names data blocks side by side
    /// from the start of the table to the filter, and ends with the table's last key.
    pub fn open_index(bytes: Vec<u8>, meta: &TableMeta) -> Result<Block, FormatError> {
        let block = Block::open(bytes, PartKind::Index, meta.tag, meta.index.offset)?;
        let mut end = 0u32;
        let side_by_side = (0..block.count).all(|index| {
            block.place_at(index).is_some_and(|place| {
                let follows = place.offset == end && place.length <= PART_BYTES_MAX;
                end = end.saturating_add(place.length);
                follows
            })
        });
        if !side_by_side
            || end != meta.data_bytes()
            || !block.is_key(block.count - 1, &meta.last_key)
        {
            let at = meta.index.offset.into();
            return Err(FormatError::Field { what: WHAT, at, field: "places of data blocks" });
        }
        Ok(block)
    }

    fn open(bytes: Vec<u8>, kind: PartKind, tag: u64, offset: u32) -> Result<Block, FormatError> {
        let (count, shared) = open_part(&bytes, kind, tag, offset)?;
        let mut reader = Reader::new(WHAT, &bytes, offset.into());
        reader.take(HEADER_BYTES)?;
        let count = reader.count(count.into(), ENTRY_BYTES_MIN, "number of entries")?;
        let base = reader.u64()?;
        let shared = usize::from(shared);
        reader.take(shared)?;
        if count == 0 || reader.left() < 4 * count {
            return Err(reader.wrong("number of entries"));
        }
        let offsets_at = bytes.len() - 4 * count;
        let block = Block { bytes: bytes.into(), count, shared, base, offsets_at };
        block.check_entries(offset)?;
        Ok(block)
    }

    /// Every entry lies inside the block, in order, and makes sense.
    fn check_entries(&self, offset: u32) -> Result<(), FormatError> {
        let wrong = |field| FormatError::Field { what: WHAT, at: offset.into(), field };
        let mut before: Option<&[u8]> = None;
        let mut end = PREFIX_AT + self.shared;
        for index in 0..self.count {
            let at = self.offset(index);
            if at != end {
                return Err(wrong("offset of an entry"));
            }
            let (rest, _, length) = self.parse(at).ok_or_else(|| wrong("entry"))?;
            if before.is_some_and(|before| before >= rest) {
                return Err(wrong("order of keys"));
            }
            before = Some(rest);
            end = at + length;
        }
        if end == self.offsets_at { Ok(()) } else { Err(wrong("length")) }
    }

    /// Rest of the key, entry and length of what lies at `at`. None if it does not make sense.
    fn parse(&self, at: usize) -> Option<(&[u8], Entry<'_>, usize)> {
        let area = self.bytes.get(at..self.offsets_at)?;
        let mut reader = Reader::new(WHAT, area, 0);
        let rest_bytes = reader.u16().ok()?.into();
        let rest = reader.take(rest_bytes).ok()?;
        let kind = reader.u8().ok()?;
        let lsn = Lsn(self.base.checked_add(reader.varint("LSN").ok()?)?);
        let op = match kind {
            0 => Op::Delete,
            1 => {
                let value_bytes = usize::try_from(reader.varint("value length").ok()?).ok()?;
                Op::Put(reader.take(value_bytes).ok()?)
            }
            2 => Op::Add(reader.i64().ok()?),
            _ => return None,
        };
        Some((rest, Entry { lsn, op }, area.len() - reader.left()))
    }

    /// Entries, at least one.
    #[allow(clippy::len_without_is_empty, reason = "a block is never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + size_of::<Block>()
    }

    /// The entry at `index`, below `len()`.
    pub fn entry(&self, index: usize) -> Entry<'_> {
        let (_, entry, _) = self
            .parse(self.offset(index))
            .expect("open parsed every entry, and bytes do not change");
        entry
    }

    /// Puts the key at `index`, below `len()`, into `key`.
    pub fn key_into(&self, index: usize, key: &mut Vec<u8>) {
        key.clear();
        key.extend_from_slice(self.prefix());
        key.extend_from_slice(self.rest(index));
    }

    /// The first index whose key is at least `key`; `len()` if none is.
    pub fn search(&self, key: &[u8]) -> usize {
        let prefix = self.prefix();
        let rest = match key.strip_prefix(prefix) {
            Some(rest) => rest,
            None if key < prefix => return 0,
            None => return self.count,
        };
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.rest(middle) < rest {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The entry of exactly this key.
    pub fn find(&self, key: &[u8]) -> Option<Entry<'_>> {
        let index = self.search(key);
        (index < self.count && self.is_key(index, key)).then(|| self.entry(index))
    }

    /// Whether the key at `index`, below `len()`, is this one.
    pub fn is_key(&self, index: usize, key: &[u8]) -> bool {
        key.strip_prefix(self.prefix()).is_some_and(|rest| rest == self.rest(index))
    }

    /// The data block that entry `index`, below `len()`, of an index block names.
    pub fn place(&self, index: usize) -> Extent {
        self.place_at(index).expect("open_index checked every place, and bytes do not change")
    }

    fn place_at(&self, index: usize) -> Option<Extent> {
        let Op::Put(value) = self.entry(index).op else {
            return None;
        };
        let (offset, length) = value.split_first_chunk::<4>()?;
        let length: [u8; 4] = length.try_into().ok()?;
        let (offset, length) = (u32::from_le_bytes(*offset), u32::from_le_bytes(length));
        Some(Extent { offset, length })
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[PREFIX_AT..PREFIX_AT + self.shared]
    }

    fn offset(&self, index: usize) -> usize {
        let at = self.offsets_at + 4 * index;
        let bytes = self.bytes[at..at + 4].try_into().expect("a range of 4 bytes");
        u32::from_le_bytes(bytes) as usize
    }

    /// The key at `index` without the shared prefix.
    fn rest(&self, index: usize) -> &[u8] {
        let at = self.offset(index);
        let length = usize::from(u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]));
        &self.bytes[at + 2..at + 2 + length]
    }
}

#[derive(Debug)]
struct Pending {
    key_end: usize,
    value_end: usize,
    lsn: Lsn,
    kind: u8,
}

/// Collects entries and lays a block out.
#[derive(Default, Debug)]
pub(super) struct BlockBuilder {
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: Vec<Pending>,
}

impl BlockBuilder {
    pub(super) fn add(&mut self, key: &[u8], lsn: Lsn, op: Op<'_>) {
        assert!(self.is_empty() || self.last_key() < key, "keys of a table ascend");
        self.keys.extend_from_slice(key);
        let kind = match op {
            Op::Delete => 0,
            Op::Put(value) => {
                self.values.extend_from_slice(value);
                1
            }
            Op::Add(delta) => {
                self.values.extend_from_slice(&delta.to_le_bytes());
                2
            }
        };
        let (key_end, value_end) = (self.keys.len(), self.values.len());
        self.entries.push(Pending { key_end, value_end, lsn, kind });
    }

    /// Bytes so far, nearly; the shared prefix is not taken off yet.
    pub(super) fn bytes(&self) -> usize {
        PREFIX_AT + self.keys.len() + self.values.len() + 12 * self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The last key added; empty if none was.
    pub(super) fn last_key(&self) -> &[u8] {
        let before =
            self.entries.len().checked_sub(2).map_or(0, |index| self.entries[index].key_end);
        &self.keys[before..]
    }

    /// The part's bytes; the builder is empty afterwards.
    pub(super) fn finish(&mut self, kind: PartKind, tag: u64, offset: u32) -> Vec<u8> {
        let me = std::mem::take(self);
        let base = me.entries.iter().map(|entry| entry.lsn).min().unwrap_or_default();
        let first = &me.keys[..me.entries.first().map_or(0, |entry| entry.key_end)];
        let shared =
            first.iter().zip(me.last_key()).take_while(|(first, last)| first == last).count();
        let mut writer = Writer::with_capacity(me.bytes());
        writer.zeros(HEADER_BYTES).u64(base.0).bytes(&first[..shared]);
        let mut offsets = Vec::with_capacity(me.entries.len());
        let (mut key_start, mut value_start) = (0, 0);
        for entry in &me.entries {
            offsets.push(as_u32(writer.0.len()));
            let rest = &me.keys[key_start + shared..entry.key_end];
            let value = &me.values[value_start..entry.value_end];
            writer.u16(as_u16(rest.len())).bytes(rest).u8(entry.kind);
            writer.varint(entry.lsn.0 - base.0);
            if entry.kind == 1 {
                writer.varint(value.len() as u64);
            }
            writer.bytes(value);
            (key_start, value_start) = (entry.key_end, entry.value_end);
        }
        for &offset in &offsets {
            writer.u32(offset);
        }
        let mut part = writer.0;
        seal_part(&mut part, kind, tag, offset, as_u32(offsets.len()), as_u16(shared));
        part
    }
}
