//! Merges tables down the levels.
//!
//! A job is worked off in steps, each of which writes at most one table. Inputs are read front to back
//! in pieces of 2 MiB, outputs are whole tables: both are what an HDD likes (design-review 27). A table
//! that no other input touches is moved as it is, unread: new object ids and inode numbers ascend, so
//! most of their key ranges move instead of being merged.
//!
//! Deletes end where no deeper level holds their key, and counters become plain values there.
//! Snapshots need no thought: they hold the inputs themselves.
//!
//! Nothing is visible before the last step installs all outputs at once. Inputs become obsolete then,
//! and are freed after the next effective checkpoint [R9, I3].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::cursor::{Fetch, RunCursor};
use super::fold::OwnedOp;
use super::plan::{Plan, Turns, plan, plan_refresh};
use super::tree::{Placed, Run, Table, Tree};
use super::{BlockRef, Index, Op, Part, Pressure, RETRY};
use crate::base::canary::{self, Bug};
use crate::base::sync::Arc;
use crate::base::{Clock, Event, ObjectId, Pace, Task, Ticks};
use crate::fleet::FleetError;
use crate::fleet::disk::Class;
use crate::format::table::{Block, PartKind, TABLE_ENTRIES_MAX, TableBuilder, is_part};

/// A table that could not be written again is not tried for so long.
const SKIPPED: Duration = Duration::from_secs(60);

/// Merges tables down the levels. One per index.
pub struct Compactor {
    index: Arc<Index>,
    clock: Arc<dyn Clock>,
    turns: Turns,
    job: Option<Job>,
    /// Tables that could not be written again: not tried before then.
    skipped: BTreeMap<ObjectId, Ticks>,
}

impl Compactor {
    /// A compactor for this index. `clock` paces retries after an error.
    pub fn new(index: Arc<Index>, clock: Arc<dyn Clock>) -> Compactor {
        Compactor { index, clock, turns: Turns::default(), job: None, skipped: BTreeMap::new() }
    }

    /// Moves a table, or reads and writes one table's worth of a merge. `Again` if there is more to
    /// do now. After an error the merge is given up; a later step begins it anew.
    pub fn run_step(&mut self) -> Result<Pace, FleetError> {
        if self.job.is_none() {
            let tree = self.index.tree();
            let Some(plan) = self.plan(&tree) else {
                let next = self.skipped.values().min().copied();
                return Ok(Pace::Idle(next));
            };
            // Of level 0 only what is older, and no input.
            let older = |run: &&Arc<Run>| {
                let is_input = plan.inputs.iter().any(|input| input.number == run.number);
                run.level > plan.level
                    || (run.level == 0 && plan.level == 0 && run.number < plan.run && !is_input)
            };
            let deeper = tree.runs.iter().filter(older).cloned().collect();
            self.job = Some(Job::new(&self.index, plan, deeper));
        }
        let job = self.job.as_mut().expect("it was just made");
        match job.step(&self.index) {
            Ok(false) => Ok(Pace::Again),
            Ok(true) => {
                let job = self.job.take().expect("it was there above");
                self.index.state.write().install(&job.remove, &job.add);
                let moved = |id| job.add.iter().any(|placed| placed.table.record.id == id);
                let gone = job.remove.iter().map(|table| table.record.id);
                gone.filter(|&id| !moved(id)).for_each(|id| {
                    self.index.stale.lock().remove(&id);
                });
                self.index.notify_installed();
                Ok(Pace::Again)
            }
            Err(error) => {
                let until = self.clock.now() + SKIPPED;
                let inputs = self.job.iter().flat_map(|job| &job.refreshed);
                self.skipped.extend(inputs.map(|&table| (table, until)));
                self.give_up();
                Err(error)
            }
        }
    }

    /// What to do next. Writers who wait go before tables that lack a copy.
    fn plan(&mut self, tree: &Tree) -> Option<Plan> {
        let now = self.clock.now();
        self.skipped.retain(|_, until| *until > now);
        let (index, skipped) = (&self.index, &self.skipped);
        let stale =
            |table: &Table| index.is_stale(table) && !skipped.contains_key(&table.record.id);
        if index.pressure() == Pressure::None
            && let Some(refresh) = plan_refresh(tree, &stale)
        {
            return Some(refresh);
        }
        plan(tree, &index.options, &mut self.turns).or_else(|| plan_refresh(tree, &stale))
    }

    fn give_up(&mut self) {
        for table in self.job.take().into_iter().flat_map(|job| job.written) {
            self.index.store.free_table(&table.record);
        }
    }
}

impl Task for Compactor {
    fn name(&self) -> &'static str {
        "index compactor"
    }

    fn event(&self) -> Arc<Event> {
        self.index.work_event()
    }

    fn step(&mut self) -> Pace {
        self.run_step().unwrap_or_else(|error| {
            log::warn!("index: a compaction was given up ({error}), trying again");
            Pace::Idle(Some(self.clock.now() + RETRY))
        })
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.give_up();
    }
}

struct Job {
    level: u8,
    run: u64,
    rewrite: bool,
    /// The table that is only written again, if it is that.
    refreshed: Option<ObjectId>,
    /// From new to old, with each cursor's level and run.
    sources: Vec<(RunCursor<FromDisk>, u8, u64)>,
    /// Levels below the outcome: what they hold decides whether a delete may end.
    deeper: Vec<Arc<Run>>,
    builder: TableBuilder,
    /// Inputs that go, or change their place.
    remove: Vec<Arc<Table>>,
    add: Vec<Placed>,
    /// Those of `add` that are new.
    written: Vec<Arc<Table>>,
}

/// What to do next.
enum Next {
    /// This source stands before a table that nobody else touches.
    Pass(usize),
    /// Merge the entries of this key.
    Merge(Vec<u8>),
    /// All is done.
    End,
}

impl Job {
    fn new(index: &Arc<Index>, plan: Plan, deeper: Vec<Arc<Run>>) -> Job {
        let Plan { inputs, level, run, rewrite, refreshed } = plan;
        let remove = inputs.iter().flat_map(|run| run.tables.iter().cloned()).collect();
        let sources = inputs.into_iter().map(|run| {
            let fetch = FromDisk { index: index.clone(), piece: VecDeque::new() };
            (RunCursor::new(run.clone(), &[], fetch), run.level, run.number)
        });
        Job {
            level,
            run,
            rewrite,
            refreshed,
            sources: sources.collect(),
            deeper,
            builder: new_builder(index),
            remove,
            add: Vec::new(),
            written: Vec::new(),
        }
    }

    /// Writes or moves one table. True when all is merged.
    fn step(&mut self, index: &Index) -> Result<bool, FleetError> {
        loop {
            match self.next(index.table_bytes())? {
                Next::Pass(source) => {
                    if self.builder.entries() > 0 {
                        // Keys must ascend from table to table: end the one in the making first.
                        self.end_table(index)?;
                    }
                    self.pass(source);
                    return Ok(false);
                }
                Next::Merge(key) => self.merge(&key)?,
                Next::End => {
                    self.end_table(index)?;
                    return Ok(true);
                }
            }
            if self.builder.data_bytes() >= u64::from(index.table_bytes())
                || self.builder.entries() == TABLE_ENTRIES_MAX
            {
                self.end_table(index)?;
                return Ok(false);
            }
        }
    }

    fn next(&mut self, table_bytes: u32) -> Result<Next, FleetError> {
        for (cursor, ..) in &mut self.sources {
            cursor.prepare()?;
        }
        let mut smallest: Option<(usize, &[u8])> = None;
        let mut second: Option<&[u8]> = None;
        for (position, (cursor, ..)) in self.sources.iter().enumerate() {
            let Some(key) = cursor.key() else { continue };
            match smallest {
                Some((_, least)) if least <= key => {
                    second = Some(second.map_or(key, |second| second.min(key)));
                }
                _ => {
                    second = smallest.map(|(_, least)| least);
                    smallest = Some((position, key));
                }
            }
        }
        let Some((position, key)) = smallest else { return Ok(Next::End) };
        if !self.rewrite
            && let Some(table) = self.sources[position].0.unread_table()
            && second.is_none_or(|second| *table.meta.last_key < *second)
            && self.may_pass(table, table_bytes)
        {
            return Ok(Next::Pass(position));
        }
        Ok(Next::Merge(key.to_vec()))
    }

    /// Whether moving this table as it is leaves the level in good shape: no small tables, and no
    /// deletes that could end.
    fn may_pass(&self, table: &Table, table_bytes: u32) -> bool {
        let worthwhile = u64::from(table_bytes) / 4;
        table.bytes() >= worthwhile
            && table.meta.tombstones * 4 <= table.meta.entries
            && (self.builder.entries() == 0 || self.builder.data_bytes() >= worthwhile)
    }

    fn pass(&mut self, source: usize) {
        let (cursor, level, run) = &mut self.sources[source];
        let table = cursor.unread_table().expect("only unread tables are passed").clone();
        cursor.skip_table();
        if (*level, *run) == (self.level, self.run) {
            self.remove.retain(|removed| !Arc::ptr_eq(removed, &table));
        } else {
            self.add.push(Placed { level: self.level, run: self.run, table });
        }
    }

    /// Joins the entries of one key and appends the outcome.
    fn merge(&mut self, key: &[u8]) -> Result<(), FleetError> {
        let mut joined: Option<(crate::base::Lsn, OwnedOp)> = None;
        for (cursor, ..) in &mut self.sources {
            if cursor.key() != Some(key) {
                continue;
            }
            cursor.open()?;
            let entry = cursor.entry();
            joined = Some(match joined {
                None => (entry.lsn, OwnedOp::new(entry.op)),
                Some((lsn, newer)) => (lsn, OwnedOp::new(entry.op).then(newer.view())),
            });
            cursor.advance();
        }
        let (lsn, op) = joined.expect("some source has the smallest key");
        let at_bottom = || self.deeper.iter().all(|run| run.find(key).is_none());
        match op.view() {
            Op::Delete if at_bottom() || canary::planted(Bug::DeleteForgotten) => {}
            Op::Add(sum) if at_bottom() => {
                self.builder.add(key, lsn, Op::Put(&sum.to_le_bytes()));
            }
            op => self.builder.add(key, lsn, op),
        }
        Ok(())
    }

    fn end_table(&mut self, index: &Index) -> Result<(), FleetError> {
        let builder = std::mem::replace(&mut self.builder, new_builder(index));
        if let Some(built) = builder.finish() {
            let table = index.write_table(built, Class::Background)?;
            self.written.push(table.clone());
            self.add.push(Placed { level: self.level, run: self.run, table });
        }
        Ok(())
    }
}

fn new_builder(index: &Index) -> TableBuilder {
    TableBuilder::new(index.next_tag(), index.options.block_bytes)
}

/// Blocks from disk, in large pieces, past the cache.
struct FromDisk {
    index: Arc<Index>,
    /// Blocks read and not yet asked for, with the position of each.
    piece: VecDeque<(usize, Arc<Block>)>,
}

impl Fetch for FromDisk {
    type Error = FleetError;

    fn index(&mut self, table: &Arc<Table>) -> Result<Arc<Block>, FleetError> {
        self.piece.clear();
        let extent = table.meta.index;
        let part = BlockRef { table: table.clone(), kind: PartKind::Index, extent };
        let part = match self.index.cache.get(part.key()) {
            Some(part) => part,
            None => self.index.read_part(&part, Class::Background)?,
        };
        match part {
            Part::Block(block) => Ok(block),
            Part::Filter(_) => unreachable!("an index block was asked for"),
        }
    }

    fn data(
        &mut self,
        table: &Arc<Table>,
        index: &Arc<Block>,
        position: usize,
    ) -> Result<Arc<Block>, FleetError> {
        while let Some((at, block)) = self.piece.pop_front() {
            if at == position {
                return Ok(block);
            }
        }
        self.read_piece(table, index, position)?;
        let (_, block) = self.piece.pop_front().expect("a piece has at least one block");
        Ok(block)
    }
}

impl FromDisk {
    /// Reads as many blocks from `position` on as fit a piece, in one read; if no replica has all of
    /// them good, one by one [I4].
    fn read_piece(
        &mut self,
        table: &Arc<Table>,
        index: &Arc<Block>,
        position: usize,
    ) -> Result<(), FleetError> {
        let tag = table.meta.tag;
        let start = index.place(position).offset;
        let (mut places, mut length) = (Vec::new(), 0);
        for at in position..index.len() {
            let place = index.place(at);
            if length > 0 && length + place.length > self.index.options.piece_bytes {
                break;
            }
            length += place.length;
            places.push((at, place));
        }
        let judge = |bytes: &[u8]| {
            bytes.len() == length as usize
                && places.iter().all(|(_, place)| {
                    let from = (place.offset - start) as usize;
                    let block = &bytes[from..from + place.length as usize];
                    is_part(block, PartKind::Data, tag, place.offset)
                })
        };
        let store = &self.index.store;
        let whole = store.read_block(&table.record, start, length, Class::Background, &judge);
        for (at, place) in places {
            let part = match &whole {
                Ok(bytes) => {
                    let from = (place.offset - start) as usize;
                    let block = bytes[from..from + place.length as usize].to_vec();
                    super::open_part(table, PartKind::Data, place.offset, block)?
                }
                Err(_) => {
                    let table = table.clone();
                    let part = BlockRef { table, kind: PartKind::Data, extent: place };
                    self.index.read_part(&part, Class::Background)?
                }
            };
            if let Part::Block(block) = part {
                self.piece.push_back((at, block));
            }
        }
        Ok(())
    }
}
