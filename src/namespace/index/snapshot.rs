//! Snapshots: the index as it was at one moment.

use super::memtable::Memtable;
use super::tree::Tree;
use crate::base::sync::Arc;
use crate::format::ObjectRecord;
use crate::format::table::TableMeta;

/// The index as it was at one moment. While it lives it keeps that moment's memtables in memory and
/// its tables on disk [I3]: keep it short, and walk long ranges by key instead.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) active: Arc<Memtable>,
    pub(super) sequence: u64,
    pub(super) tree: Arc<Tree>,
}

impl Snapshot {
    pub(super) fn new(active: Arc<Memtable>, tree: Arc<Tree>) -> Snapshot {
        let sequence = active.hold();
        Snapshot { active, sequence, tree }
    }

    /// Its tables.
    pub fn tables(&self) -> Vec<(ObjectRecord, TableMeta)> {
        let tables = self.tree.placed().map(|placed| placed.table);
        tables.map(|table| (table.record.clone(), table.meta.clone())).collect()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.active.release(self.sequence);
    }
}
