//! Lookups: one key, the last key at or before one, a range. None does I/O: `Need` says what to load.
//!
//! All look at the sources from new to old: the active memtable, frozen ones, runs of level 0, deeper
//! levels. A key's entries meet in a `Fold`, which stops at the first that decides.

use std::ops::Bound;

use super::cache::{BlockCache, Need, Part, Pins};
use super::cursor::{Fetch, RunCursor};
use super::fold::Fold;
use super::memtable::{Memtable, NEWEST, Reading};
use super::tree::{Run, Table, Tree};
use super::{Op, Scan, Value};
use crate::base::sync::Arc;
use crate::format::table::{Block, Entry, Filter, PartKind, hash_key};

/// Keys that one scan looks at, deleted ones included, before it returns what it has.
const SCAN_STEPS_MAX: usize = 1 << 16;

/// What a lookup reads: the active memtable up to a sequence number, and a tree.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) active: &'a Memtable,
    pub(super) sequence: u64,
    pub(super) tree: &'a Tree,
    pub(super) cache: &'a BlockCache,
    pub(super) pins: &'a Pins,
}

impl BlockCache {
    fn block(
        &self,
        table: &Arc<Table>,
        kind: PartKind,
        extent: crate::format::table::Extent,
        pins: &Pins,
    ) -> Result<Arc<Block>, Need> {
        match self.part(table, kind, extent, pins)? {
            Part::Block(block) => Ok(block),
            Part::Filter(_) => unreachable!("a block and a filter never share a place"),
        }
    }

    fn index_block(&self, table: &Arc<Table>, pins: &Pins) -> Result<Arc<Block>, Need> {
        self.block(table, PartKind::Index, table.meta.index, pins)
    }

    fn data_block(
        &self,
        table: &Arc<Table>,
        index: &Block,
        position: usize,
        pins: &Pins,
    ) -> Result<Arc<Block>, Need> {
        self.block(table, PartKind::Data, index.place(position), pins)
    }

    fn filter(&self, table: &Arc<Table>, pins: &Pins) -> Result<Arc<Filter>, Need> {
        match self.part(table, PartKind::Filter, table.meta.filter, pins)? {
            Part::Filter(filter) => Ok(filter),
            Part::Block(_) => unreachable!("a block and a filter never share a place"),
        }
    }
}

/// Looks a key up in the tree below the active memtable; `fold` has been fed what that holds.
pub(super) fn get_below(
    tree: &Tree,
    cache: &BlockCache,
    key: &[u8],
    mut fold: Fold,
    pins: &Pins,
) -> Result<Option<Value>, Need> {
    for frozen in &tree.frozen {
        let answer = frozen.memtable.look(key, NEWEST, |op| op.and_then(|op| fold.feed(op)));
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    let mut hash = None;
    for run in &tree.runs {
        let Some(table) = run.find(key) else { continue };
        let hash = *hash.get_or_insert_with(|| hash_key(key));
        if !cache.filter(table, pins)?.may_hold(hash) {
            continue;
        }
        let index = cache.index_block(table, pins)?;
        let position = index.search(key);
        if position == index.len() {
            continue;
        }
        let data = cache.data_block(table, &index, position, pins)?;
        if let Some(entry) = data.find(key)
            && let Some(answer) = fold.feed(entry.op)
        {
            return Ok(answer);
        }
    }
    Ok(fold.finish())
}

/// Blocks from memory only.
#[derive(Clone, Copy)]
struct FromMemory<'a> {
    cache: &'a BlockCache,
    pins: &'a Pins,
}

impl Fetch for FromMemory<'_> {
    type Error = Need;

    fn index(&mut self, table: &Arc<Table>) -> Result<Arc<Block>, Need> {
        self.cache.index_block(table, self.pins)
    }

    fn data(
        &mut self,
        table: &Arc<Table>,
        index: &Arc<Block>,
        position: usize,
    ) -> Result<Arc<Block>, Need> {
        self.cache.data_block(table, index, position, self.pins)
    }
}

/// All memtables of a view, newest first, with the sequence number to read each at.
fn memtables<'a>(view: &View<'a>) -> Vec<(Reading<'a>, u64)> {
    let frozen = view.tree.frozen.iter().map(|frozen| (frozen.memtable.read(), NEWEST));
    std::iter::once((view.active.read(), view.sequence)).chain(frozen).collect()
}

/// One source of a scan.
enum Source<'a, I: Iterator> {
    Memtable(std::iter::Peekable<I>),
    Run(RunCursor<FromMemory<'a>>),
}

impl<'a, I: Iterator<Item = (&'a [u8], Entry<'a>)>> Source<'a, I> {
    fn key(&mut self) -> Option<&[u8]> {
        match self {
            Source::Memtable(entries) => entries.peek().map(|(key, _)| *key),
            Source::Run(cursor) => cursor.key(),
        }
    }

    fn prepare(&mut self) -> Result<(), Need> {
        match self {
            Source::Memtable(_) => Ok(()),
            Source::Run(cursor) => cursor.prepare(),
        }
    }

    fn open(&mut self) -> Result<(), Need> {
        match self {
            Source::Memtable(_) => Ok(()),
            Source::Run(cursor) => cursor.open(),
        }
    }

    fn op(&mut self) -> Option<Op<'_>> {
        match self {
            Source::Memtable(entries) => entries.peek().map(|(_, entry)| entry.op),
            Source::Run(cursor) => Some(cursor.op()),
        }
    }

    fn advance(&mut self) {
        match self {
            Source::Memtable(entries) => {
                entries.next();
            }
            Source::Run(cursor) => cursor.advance(),
        }
    }
}

/// See `Index::scan`.
pub(super) fn scan(view: View<'_>, start: &[u8], end: &[u8], limit: usize) -> Result<Scan, Need> {
    let mut found = Scan::default();
    if start >= end {
        return Ok(found);
    }
    let memtables = memtables(&view);
    let bounds = (Bound::Included(start), Bound::Excluded(end));
    let in_memory = memtables.iter().map(|(reading, sequence)| {
        Source::Memtable(reading.range(bounds.0, bounds.1, *sequence).peekable())
    });
    let fetch = FromMemory { cache: view.cache, pins: view.pins };
    let on_disk =
        view.tree.runs.iter().map(|run| Source::Run(RunCursor::new(run.clone(), start, fetch)));
    let mut sources: Vec<_> = in_memory.chain(on_disk).collect();

    // The last key that was looked at, and whether there was one.
    let (mut key, mut steps) = (Vec::new(), 0);
    loop {
        let full = found.entries.len() >= limit || steps >= SCAN_STEPS_MAX;
        let next = if full { Ok(true) } else { next_key(&mut sources, end, steps, &mut key) };
        match next {
            Ok(true) if full => break,
            Ok(true) => {}
            Ok(false) => return Ok(found),
            Err(need) if steps == 0 => return Err(need),
            Err(_) => break,
        }
        steps += 1;
        let mut fold = Some(Fold::default());
        for source in &mut sources {
            if source.key() != Some(&key) {
                continue;
            }
            if let Some(folding) = &mut fold
                && let Some(op) = source.op()
                && let Some(answer) = folding.feed(op)
            {
                found.entries.extend(answer.map(|value| (key.clone(), value)));
                fold = None;
            }
            source.advance();
        }
        let sum = fold.and_then(Fold::finish);
        found.entries.extend(sum.map(|value| (key.clone(), value)));
    }
    if steps == 0 {
        key.extend_from_slice(start);
    } else {
        key.push(0);
    }
    found.next = Some(key);
    Ok(found)
}

/// Finds the smallest key of all sources and opens those that have it. False if there is none below
/// `end`. On an error `key` is what it was.
fn next_key<'a, I: Iterator<Item = (&'a [u8], Entry<'a>)>>(
    sources: &mut [Source<'a, I>],
    end: &[u8],
    steps: usize,
    key: &mut Vec<u8>,
) -> Result<bool, Need> {
    let mut smallest: Option<(usize, &[u8])> = None;
    for (position, source) in sources.iter_mut().enumerate() {
        source.prepare()?;
        if let Some(own) = source.key()
            && own < end
            && smallest.is_none_or(|(_, smallest)| own < smallest)
        {
            smallest = Some((position, own));
        }
    }
    let Some((_, smallest)) = smallest else { return Ok(false) };
    assert!(steps == 0 || smallest > &key[..], "scans ascend");
    let smallest = smallest.to_vec();
    for source in sources.iter_mut() {
        if source.key() == Some(&smallest) {
            source.open()?;
        }
    }
    *key = smallest;
    Ok(true)
}

/// The last entry of one source at or before a bound.
enum Last {
    /// Must be looked for again.
    Unknown,
    /// Nothing there.
    None,
    /// In a memtable.
    Memory(Vec<u8>),
    /// In a data block.
    Block(Vec<u8>, Arc<Block>, usize),
}

impl Last {
    fn key(&self) -> Option<&[u8]> {
        match self {
            Last::Unknown | Last::None => None,
            Last::Memory(key) | Last::Block(key, ..) => Some(key),
        }
    }
}

/// See `Index::get_at_or_before`.
pub(super) fn get_at_or_before(
    view: View<'_>,
    key: &[u8],
    prefix: &[u8],
) -> Result<Option<(Vec<u8>, Value)>, Need> {
    assert!(key.starts_with(prefix), "the key starts with its prefix");
    let memtables = memtables(&view);
    let mut lasts: Vec<Last> = Vec::new();
    lasts.resize_with(memtables.len() + view.tree.runs.len(), || Last::Unknown);
    let mut bound = Bound::Included(key.to_vec());
    loop {
        for (position, last) in lasts.iter_mut().enumerate() {
            if let Last::Unknown = last {
                *last = match memtables.get(position) {
                    Some((reading, sequence)) => {
                        last_in_memtable(reading, *sequence, &bound, prefix)
                    }
                    None => {
                        let run = &view.tree.runs[position - memtables.len()];
                        last_in_run(&view, run, &bound, prefix)?
                    }
                };
            }
        }
        let Some(key) = lasts.iter().filter_map(Last::key).max().map(<[u8]>::to_vec) else {
            return Ok(None);
        };
        let mut fold = Some(Fold::default());
        let mut answer = None;
        for (position, last) in lasts.iter_mut().enumerate() {
            if last.key() != Some(&key) {
                continue;
            }
            if let Some(folding) = &mut fold {
                let decided = match last {
                    Last::Block(_, block, entry) => folding.feed(block.entry(*entry).op),
                    _ => {
                        let (reading, sequence) = &memtables[position];
                        let here = Bound::Included(&key[..]);
                        let entry = reading.range(here, here, *sequence).next();
                        entry.and_then(|(_, entry)| folding.feed(entry.op))
                    }
                };
                if let Some(decided) = decided {
                    answer = decided;
                    fold = None;
                }
            }
            *last = Last::Unknown;
        }
        if let Some(value) = answer.or_else(|| fold.and_then(Fold::finish)) {
            return Ok(Some((key, value)));
        }
        bound = Bound::Excluded(key);
    }
}

fn within(key: &[u8], bound: &Bound<Vec<u8>>) -> bool {
    match bound {
        Bound::Included(bound) => key <= &bound[..],
        Bound::Excluded(bound) => key < &bound[..],
        Bound::Unbounded => true,
    }
}

fn last_in_memtable(
    reading: &Reading<'_>,
    sequence: u64,
    bound: &Bound<Vec<u8>>,
    prefix: &[u8],
) -> Last {
    let end = bound.as_ref().map(|bound| &bound[..]);
    match reading.range(Bound::Included(prefix), end, sequence).next_back() {
        Some((key, _)) => Last::Memory(key.to_vec()),
        None => Last::None,
    }
}

fn last_in_run(
    view: &View<'_>,
    run: &Run,
    bound: &Bound<Vec<u8>>,
    prefix: &[u8],
) -> Result<Last, Need> {
    let tables = run.tables.partition_point(|table| within(&table.meta.first_key, bound));
    let Some(table) = tables.checked_sub(1).map(|last| &run.tables[last]) else {
        return Ok(Last::None);
    };
    if *table.meta.last_key < *prefix {
        return Ok(Last::None);
    }
    let index = view.cache.index_block(table, view.pins)?;
    let wanted = match bound {
        Bound::Included(key) | Bound::Excluded(key) => &key[..],
        Bound::Unbounded => unreachable!("bounds come from keys"),
    };
    // The block that may hold `wanted` itself; else the last key of the block before is the one.
    let mut position = index.search(wanted).min(index.len() - 1);
    loop {
        let data = view.cache.data_block(table, &index, position, view.pins)?;
        let at = data.search(wanted);
        let here =
            at < data.len() && matches!(bound, Bound::Included(_)) && data.is_key(at, wanted);
        let count = if here { at + 1 } else { at };
        if count > 0 {
            let mut key = Vec::new();
            data.key_into(count - 1, &mut key);
            let in_prefix = key.starts_with(prefix);
            return Ok(if in_prefix { Last::Block(key, data, count - 1) } else { Last::None });
        }
        let Some(before) = position.checked_sub(1) else { return Ok(Last::None) };
        position = before;
    }
}
