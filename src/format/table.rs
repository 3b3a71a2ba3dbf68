//! Sorted tables of the index: data blocks, filter, index block, footer.

use crate::base::Lsn;

/// Where a part of a table is, in bytes from the start of the object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Extent {
    /// First byte.
    pub offset: u32,
    /// Bytes, header included.
    pub length: u32,
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
