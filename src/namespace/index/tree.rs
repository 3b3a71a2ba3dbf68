//! The shape of the index at one moment: frozen memtables and runs of tables, newest first. Immutable;
//! a flush or a compaction makes a new one, and whoever reads goes on with the one it has.
//!
//! A run is a list of disjoint tables in key order. Each flush makes a run of level 0; every other
//! level is one run. [I3] A table is alive while any tree, snapshot or `BlockRef` holds it.

use super::memtable::Memtable;
use crate::base::Lsn;
use crate::base::ObjectId;
use crate::base::sync::Arc;
use crate::format::ObjectRecord;
use crate::format::manifest::TableEntry;
use crate::format::table::{LEVEL_MAX, TableMeta};

/// A live table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) record: ObjectRecord,
    pub(super) meta: TableMeta,
}

impl Table {
    pub(super) fn bytes(&self) -> u64 {
        self.record.length.into()
    }
}

/// A memtable on its way to a table.
#[derive(Clone, Debug)]
pub(super) struct Frozen {
    pub(super) memtable: Arc<Memtable>,
    /// It and all before it hold exactly the batches up to this one.
    pub(super) through: Lsn,
}

/// Disjoint tables in key order.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) level: u8,
    /// On level 0, higher is newer; else 0.
    pub(super) number: u64,
    pub(super) tables: Vec<Arc<Table>>,
}

impl Run {
    /// The table that holds the key, if one does.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Arc<Table>> {
        self.tables.get(self.first_ending_at(key)).filter(|table| *table.meta.first_key <= *key)
    }

    /// The first table whose last key is at least `key`; `tables.len()` if none is.
    pub(super) fn first_ending_at(&self, key: &[u8]) -> usize {
        self.tables.partition_point(|table| *table.meta.last_key < *key)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.bytes()).sum()
    }
}

/// A table and where it belongs.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) level: u8,
    pub(super) run: u64,
    pub(super) table: Arc<Table>,
}

impl Placed {
    pub(super) fn entry(&self) -> TableEntry {
        let (record, meta) = (self.table.record.clone(), self.table.meta.clone());
        TableEntry { level: self.level, run: self.run, record, meta }
    }
}

/// See the module's text.
#[derive(Default, Debug)]
pub(super) struct Tree {
    /// Newest first.
    pub(super) frozen: Vec<Frozen>,
    /// Level 0 from new to old, then level 1, 2, ...; none is empty.
    pub(super) runs: Vec<Arc<Run>>,
}

impl Tree {
    /// A tree of these tables. None if tables of one run overlap or a level is impossible.
    pub(super) fn new(frozen: Vec<Frozen>, mut tables: Vec<Placed>) -> Option<Tree> {
        tables.sort_by(|a, b| {
            let newer_first = (a.level, b.run).cmp(&(b.level, a.run));
            newer_first.then_with(|| a.table.meta.first_key.cmp(&b.table.meta.first_key))
        });
        let mut runs: Vec<Arc<Run>> = Vec::new();
        for group in tables.chunk_by(|a, b| (a.level, a.run) == (b.level, b.run)) {
            let (level, number) = (group[0].level, group[0].run);
            let disjoint = group
                .windows(2)
                .all(|pair| pair[0].table.meta.last_key < pair[1].table.meta.first_key);
            if !disjoint || level > LEVEL_MAX || (level > 0 && number != 0) {
                return None;
            }
            let tables = group.iter().map(|placed| placed.table.clone()).collect();
            runs.push(Arc::new(Run { level, number, tables }));
        }
        Some(Tree { frozen, runs })
    }

    /// All tables with their places, in the order of `runs`.
    pub(super) fn placed(&self) -> impl Iterator<Item = Placed> {
        self.runs.iter().flat_map(|run| {
            run.tables.iter().map(|table| Placed {
                level: run.level,
                run: run.number,
                table: table.clone(),
            })
        })
    }

    /// This tree with some tables taken out and others put in.
    pub(super) fn with(&self, remove: &[ObjectId], add: &[Placed]) -> Tree {
        let stays = |placed: &Placed| !remove.contains(&placed.table.record.id);
        let tables = self.placed().filter(stays).chain(add.iter().cloned()).collect();
        Tree::new(self.frozen.clone(), tables).expect("flush and compaction keep runs disjoint")
    }

    /// Runs of level 0.
    pub(super) fn level_0_runs(&self) -> usize {
        self.runs.iter().take_while(|run| run.level == 0).count()
    }

    /// The run of a level below 0.
    pub(super) fn level(&self, level: u8) -> Option<&Arc<Run>> {
        self.runs.iter().find(|run| run.level == level && level > 0)
    }
}
