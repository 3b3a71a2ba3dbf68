//! Entries of the manifest: which tables the index consists of, and changes of that set.

use super::ObjectRecord;
use super::table::TableMeta;
use crate::base::ObjectId;

/// One live table of the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableEntry {
    /// Level, 0..=7. Tables of level 0 may overlap; of one other level never.
    pub level: u8,
    /// On level 0: which flush wrote it; higher is newer, tables of one run are disjoint. Else 0.
    pub run: u64,
    /// Where it is.
    pub record: ObjectRecord,
    /// What is in it.
    pub meta: TableMeta,
}

/// A change of the set of live tables. A table that changes its level is removed and added.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestEntry {
    /// This table is live.
    Add(Box<TableEntry>),
    /// This table is no longer.
    Remove(ObjectId),
}
