//! Walks a run forward, table by table and block by block, for scans (blocks from memory, or `Need`)
//! and for compaction (blocks from disk, in large pieces).
//!
//! At the start of a table the cursor knows its first key from the manifest and reads nothing until
//! the entry itself is wanted. So a scan does not load tables beyond its end, and a compaction can pass
//! a whole table on unread.

use super::Op;
use super::tree::{Run, Table};
use crate::base::sync::Arc;
use crate::format::table::{Block, Entry};

/// Where blocks come from.
pub(super) trait Fetch {
    /// Why there is none now.
    type Error;
    /// The index block of a table.
    fn index(&mut self, table: &Arc<Table>) -> Result<Arc<Block>, Self::Error>;
    /// The data block that entry `position` of the index block names.
    fn data(
        &mut self,
        table: &Arc<Table>,
        index: &Arc<Block>,
        position: usize,
    ) -> Result<Arc<Block>, Self::Error>;
}

#[derive(Debug)]
enum State {
    /// The key is known, nothing is read: the first key of the table.
    AtTable,
    /// The data block `position` of the table is the next to be read; search it for `seek`, if any.
    Between { index: Arc<Block>, position: usize, seek: bool },
    /// At an entry.
    In { index: Arc<Block>, position: usize, data: Arc<Block>, entry: usize },
    /// A place in the table to search for: the first key >= `self.key`.
    Seek,
    /// Behind the last table.
    End,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct RunCursor<F> {
    fetch: F,
    run: Arc<Run>,
    /// Index of the table the cursor is in.
    table: usize,
    state: State,
    /// The current key; the wanted one in `Seek` and in `Between` with `seek`.
    key: Vec<u8>,
}

impl<F: Fetch> RunCursor<F> {
    /// A cursor in front of the first entry whose key is at least `start`.
    pub(super) fn new(run: Arc<Run>, start: &[u8], fetch: F) -> RunCursor<F> {
        let table = run.first_ending_at(start);
        let mut cursor = RunCursor { fetch, run, table, state: State::End, key: Vec::new() };
        cursor.enter_table();
        if matches!(cursor.state, State::AtTable) && cursor.key[..] < *start {
            cursor.key.clear();
            cursor.key.extend_from_slice(start);
            cursor.state = State::Seek;
        }
        cursor
    }

    /// Makes the key known. An error leaves the cursor as it is: try again later.
    pub(super) fn prepare(&mut self) -> Result<(), F::Error> {
        loop {
            match &self.state {
                State::AtTable | State::In { .. } | State::End => return Ok(()),
                State::Seek => {
                    let index = self.fetch.index(&self.run.tables[self.table])?;
                    let position = index.search(&self.key);
                    self.state = State::Between { index, position, seek: true };
                }
                State::Between { index, position, .. } if *position == index.len() => {
                    self.table += 1;
                    self.enter_table();
                }
                State::Between { index, position, seek } => {
                    let (index, position, seek) = (index.clone(), *position, *seek);
                    let data = self.fetch.data(&self.run.tables[self.table], &index, position)?;
                    let entry = if seek { data.search(&self.key) } else { 0 };
                    if entry == data.len() {
                        self.state = State::Between { index, position: position + 1, seek };
                    } else {
                        data.key_into(entry, &mut self.key);
                        self.state = State::In { index, position, data, entry };
                    }
                }
            }
        }
    }

    /// The key, once prepared; None at the end.
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self.state {
            State::AtTable | State::In { .. } => Some(&self.key),
            State::End => None,
            State::Seek | State::Between { .. } => unreachable!("asked for a key before `prepare`"),
        }
    }

    /// Makes the entry known. An error leaves the cursor as it is.
    pub(super) fn open(&mut self) -> Result<(), F::Error> {
        if let State::AtTable = self.state {
            let index = self.fetch.index(&self.run.tables[self.table])?;
            let data = self.fetch.data(&self.run.tables[self.table], &index, 0)?;
            self.state = State::In { index, position: 0, data, entry: 0 };
        }
        Ok(())
    }

    /// The entry, once opened.
    pub(super) fn entry(&self) -> Entry<'_> {
        match &self.state {
            State::In { data, entry, .. } => data.entry(*entry),
            _ => unreachable!("asked for an entry before `open`"),
        }
    }

    /// What the entry does, once opened.
    pub(super) fn op(&self) -> Op<'_> {
        self.entry().op
    }

    /// Goes to the next entry; its key may need `prepare`.
    pub(super) fn advance(&mut self) {
        let State::In { index, position, data, entry } = &mut self.state else {
            unreachable!("advanced before `open`");
        };
        if *entry + 1 < data.len() {
            *entry += 1;
            data.key_into(*entry, &mut self.key);
        } else {
            let (index, position) = (index.clone(), *position + 1);
            self.state = State::Between { index, position, seek: false };
        }
    }

    /// The table in front of which the cursor stands, if nothing of it was read yet.
    pub(super) fn unread_table(&self) -> Option<&Arc<Table>> {
        matches!(self.state, State::AtTable).then(|| &self.run.tables[self.table])
    }

    /// Goes on behind the unread table.
    pub(super) fn skip_table(&mut self) {
        assert!(matches!(self.state, State::AtTable), "only unread tables are skipped");
        self.table += 1;
        self.enter_table();
    }

    fn enter_table(&mut self) {
        match self.run.tables.get(self.table) {
            Some(table) => {
                self.key.clear();
                self.key.extend_from_slice(&table.meta.first_key);
                self.state = State::AtTable;
            }
            None => self.state = State::End,
        }
    }
}
