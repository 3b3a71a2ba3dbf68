//! Writes frozen memtables out as runs of level 0.
//!
//! 1. Tables are built from the oldest frozen memtable, one a step, and written.
//! 2. When all are durable, one change of the tree takes the memtable out and puts the run in, and
//!    `flushed_through` rises. A crash before the next checkpoint takes effect forgets the tables (the
//!    space map never heard of them) and replays the journal [R9].

use std::ops::Bound;

use super::memtable::{Memtable, NEWEST};
use super::tree::Table;
use super::{Index, RETRY};
use crate::base::sync::Arc;
use crate::base::{Clock, Event, Pace, Task};
use crate::fleet::FleetError;
use crate::fleet::disk::Class;
use crate::format::table::{BuiltTable, TABLE_ENTRIES_MAX, TableBuilder};

/// Writes frozen memtables out as level-0 tables, oldest first. One per index.
pub struct Flusher {
    index: Arc<Index>,
    clock: Arc<dyn Clock>,
    job: Option<Job>,
}

struct Job {
    memtable: Arc<Memtable>,
    /// All up to this key is in `tables`.
    done_through: Option<Vec<u8>>,
    tables: Vec<Arc<Table>>,
}

impl Flusher {
    /// A flusher for this index. `clock` paces retries after an error.
    pub fn new(index: Arc<Index>, clock: Arc<dyn Clock>) -> Flusher {
        Flusher { index, clock, job: None }
    }

    /// Writes at most one table, or installs a finished flush. `Again` if there is more to do now.
    /// After an error nothing is lost: the next step tries again.
    pub fn run_step(&mut self) -> Result<Pace, FleetError> {
        if self.job.is_none() {
            let tree = self.index.tree();
            let Some(oldest) = tree.frozen.last() else { return Ok(Pace::Idle(None)) };
            let memtable = oldest.memtable.clone();
            self.job = Some(Job { memtable, done_through: None, tables: Vec::new() });
        }
        let job = self.job.as_mut().expect("it was just made");
        if let Some(built) = build_next(&self.index, job) {
            let last_key = built.meta.last_key.to_vec();
            let wished = self.index.table_bytes();
            let table = match self.index.write_table(built, Class::Flush) {
                // A smaller one may fit.
                Err(FleetError::NoRoom { .. }) if self.index.table_bytes() < wished => {
                    return Ok(Pace::Again);
                }
                table => table?,
            };
            job.tables.push(table);
            job.done_through = Some(last_key);
        } else {
            let job = self.job.take().expect("it was there above");
            self.index.state.write().install_flush(&job.memtable, &job.tables);
            self.index.notify_installed();
        }
        Ok(Pace::Again)
    }
}

/// The next table of the memtable; None if all of it is written.
fn build_next(index: &Index, job: &Job) -> Option<BuiltTable> {
    let options = &index.options;
    let mut builder = TableBuilder::new(index.next_tag(), options.block_bytes);
    let reading = job.memtable.read();
    let start = job.done_through.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    for (key, entry) in reading.range(start, Bound::Unbounded, NEWEST) {
        builder.add(key, entry.lsn, entry.op);
        if builder.data_bytes() >= u64::from(index.table_bytes())
            || builder.entries() == TABLE_ENTRIES_MAX
        {
            break;
        }
    }
    drop(reading);
    builder.finish()
}

impl Task for Flusher {
    fn name(&self) -> &'static str {
        "index flusher"
    }

    fn event(&self) -> Arc<Event> {
        self.index.work_event()
    }

    fn step(&mut self) -> Pace {
        self.run_step().unwrap_or_else(|error| {
            log::warn!("index: a table could not be written ({error}), trying again");
            Pace::Idle(Some(self.clock.now() + RETRY))
        })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        for table in self.job.take().into_iter().flat_map(|job| job.tables) {
            self.index.store.free_table(&table.record);
        }
    }
}
