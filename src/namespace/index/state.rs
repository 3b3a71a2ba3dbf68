//! The part of the index that changes: active memtable, tree, and the manifest's history.
//!
//! Every change of the set of tables is appended to a history of manifest entries. A capture names a
//! position in it; once a root with that capture is effective, what lies before is forgotten, and the
//! tables removed before it may be freed [R9]. A capture whose root failed is simply not confirmed:
//! the next one names its changes again.

use std::collections::VecDeque;

use super::Capture;
use super::memtable::Memtable;
use super::tree::{Frozen, Placed, Table, Tree};
use crate::base::sync::Arc;
use crate::base::{Lsn, ObjectId};
use crate::format::ObjectRecord;
use crate::format::manifest::{ManifestEntry, TableEntry};

/// See the module's text.
pub(super) struct State {
    pub(super) active: Arc<Memtable>,
    pub(super) tree: Arc<Tree>,
    /// The last LSN at which a memtable was frozen.
    pub(super) frozen_through: Lsn,
    /// Tables hold exactly the batches up to this one.
    pub(super) flushed_through: Lsn,
    /// Number of the next run of level 0.
    next_run: u64,
    /// Changes of the manifest since the last confirmed capture; the first has number `confirmed`.
    history: VecDeque<ManifestEntry>,
    confirmed: u64,
    /// Tables taken out, with the position in the history right after that.
    obsolete: Vec<(u64, Arc<Table>)>,
}

impl State {
    /// None if the tables contradict each other.
    pub(super) fn open(tables: Vec<TableEntry>, flushed_through: Lsn) -> Option<State> {
        let placed = tables.into_iter().map(|entry| {
            let TableEntry { level, run, record, meta } = entry;
            Placed { level, run, table: Arc::new(Table { record, meta }) }
        });
        let tree = Tree::new(Vec::new(), placed.collect())?;
        let newest = tree.runs.iter().map(|run| run.number).max().unwrap_or(0);
        if tree.placed().any(|placed| placed.table.meta.max_lsn > flushed_through) {
            return None;
        }
        Some(State {
            active: Arc::default(),
            tree: Arc::new(tree),
            frozen_through: flushed_through,
            flushed_through,
            next_run: newest.checked_add(1)?,
            history: VecDeque::new(),
            confirmed: 0,
            obsolete: Vec::new(),
        })
    }

    /// See `Index::freeze`.
    pub(super) fn freeze(&mut self, through: Lsn, frozen_max: usize) -> bool {
        assert!(through >= self.frozen_through, "memtables are frozen in order");
        assert!(self.active.max_lsn() <= through, "freeze comes at the end of a batch");
        let mut frozen = self.tree.frozen.clone();
        if self.active.is_empty() {
            // The batches since then changed nothing here: what is frozen already covers them.
            match frozen.first_mut() {
                Some(newest) => newest.through = through,
                None => self.flushed_through = through,
            }
        } else if frozen.len() >= frozen_max {
            return false;
        } else {
            frozen.insert(0, Frozen { memtable: std::mem::take(&mut self.active), through });
        }
        self.frozen_through = through;
        self.tree = Arc::new(Tree { frozen, runs: self.tree.runs.clone() });
        true
    }

    /// The oldest frozen memtable is in these tables now.
    pub(super) fn install_flush(&mut self, memtable: &Arc<Memtable>, tables: &[Arc<Table>]) {
        let mut frozen = self.tree.frozen.clone();
        let flushed = frozen.pop().expect("a flush ends while its memtable is frozen");
        assert!(Arc::ptr_eq(&flushed.memtable, memtable), "memtables are flushed in order");
        self.flushed_through = flushed.through;
        let run = self.next_run;
        let place = |table: &Arc<Table>| Placed { level: 0, run, table: table.clone() };
        let placed: Vec<Placed> = tables.iter().map(place).collect();
        self.next_run += 1;
        self.tree = Arc::new(Tree { frozen, runs: self.tree.runs.clone() });
        self.install(&[], &placed);
    }

    /// Takes tables out and puts others in. A table in both only changes its place.
    pub(super) fn install(&mut self, remove: &[Arc<Table>], add: &[Placed]) {
        let ids: Vec<ObjectId> = remove.iter().map(|table| table.record.id).collect();
        let moved = |id| add.iter().any(|placed| placed.table.record.id == id);
        self.history.extend(ids.iter().map(|&id| ManifestEntry::Remove(id)));
        self.history.extend(add.iter().map(|placed| ManifestEntry::Add(placed.entry().into())));
        let position = self.position();
        let gone = remove.iter().filter(|table| !moved(table.record.id));
        self.obsolete.extend(gone.map(|table| (position, table.clone())));
        self.tree = Arc::new(self.tree.with(&ids, add));
    }

    fn position(&self) -> u64 {
        self.confirmed + self.history.len() as u64
    }

    /// See `Index::capture`.
    pub(super) fn capture(&self, full: bool) -> Capture {
        let whole = || self.tree.placed().map(|placed| ManifestEntry::Add(placed.entry().into()));
        Capture {
            flushed_through: self.flushed_through,
            entries: if full { whole().collect() } else { self.history.iter().cloned().collect() },
            tables: self.tree.placed().map(|placed| placed.table.record.clone()).collect(),
            position: self.position(),
        }
    }

    /// See `Index::confirm`.
    pub(super) fn confirm(&mut self, position: u64) -> Vec<ObjectRecord> {
        let forget = position.saturating_sub(self.confirmed);
        self.history.drain(..forget as usize);
        self.confirmed += forget;
        let mut free = Vec::new();
        self.obsolete.retain(|(removed, table)| {
            // Only this list holds it, and nobody can get at it any more: so it stays that way.
            let unused = *removed <= position && Arc::strong_count(table) == 1;
            if unused {
                free.push(table.record.clone());
            }
            !unused
        });
        free
    }
}
